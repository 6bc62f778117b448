//! A Debian guest: systemd from a disk of ours, and `fio --verify` at work on it.
//!
//! The disk is a block device of dom0's, `/dev/vdc`, with the file system that `images/guest-debian` makes. What `fio` finds wrong counts, and
//! so does that it goes on at all. The guest is PV: a PVH one boots as well, in three times the time, because its page tables are emulated twice.

use anyhow::{Context, Result, ensure};

use crate::product::XL;
use crate::rig::{Host, deadline};

/// Its name.
pub const NAME: &str = "debian";
/// Its address on the bridge.
pub const ADDRESS: &str = "10.77.0.40";
/// Where its configuration lies in dom0.
const CONFIG: &str = "/tmp/debian.cfg";

/// 4 KiB blocks in random order, each with a checksum, written past every cache; after every 64 of them those are read back and checked. It
/// goes on until it is told to end: starting it takes half a minute under emulation.
const FIO: &str = "fio --name=verify --filename=/var/tmp/verify --size=2M --loops=1000000 --bs=4k --rw=randwrite --ioengine=libaio --iodepth=8 --direct=1 \
     --verify=crc32c --verify_backlog=64 --verify_state_save=0 --output-format=terse";
/// What may be written and not yet read back when it is told to end: one batch that is collected, one that is being checked, and what is in flight.
const MOST_UNVERIFIED_KIB: u64 = (64 + 64 + 8) * 4;
/// Exit code of `fio` when it ends because it was told to.
const TOLD_TO_END: u64 = 128;

/// Creates it with our `xl`.
///
/// # Errors
/// When that fails; its words are in the error.
pub fn create(host: &Host) -> Result<()> {
    let config = format!(
        "name=\"{NAME}\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd-debian\"\nmemory=256\ntype=\"pv\"\n\
         extra=\"console=hvc0 quiet ip={ADDRESS}/24\"\nvif=[\"bridge=xenbr0\"]\ndisk=[\"/dev/vdc,raw,xvda,rw\"]\n"
    );
    host.write(CONFIG, config.as_bytes(), 0o644)?;
    host.ok(&[XL, "create", CONFIG]).map(drop)
}

/// Waits until systemd has started everything and a shell answers.
///
/// # Errors
/// When it does not, or when a unit failed: it is named.
pub fn wait_up(host: &Host) -> Result<()> {
    let inside = host.guest(NAME);
    inside.wait_up_within(deadline::BOOT_SYSTEMD)?;
    let state = inside.run("systemctl is-system-running --wait; systemctl --failed --no-legend")?;
    ensure!(
        state.text().trim() == "running",
        "{NAME} is not well: {}",
        state.text()
    );
    Ok(())
}

/// Starts `fio` in the background.
///
/// # Errors
/// When the guest does not answer.
pub fn start_verifying(host: &Host) -> Result<()> {
    // The fields are: error, KiB read, KiB written.
    host.guest(NAME)
        .sh(&format!(
            "rm -f /run/done; ({FIO} > /run/fio 2>&1; echo \"$? $(grep ';verify;' /run/fio | cut -d';' -f5,6,47)\" > /run/sum; : > /run/done) > /dev/null 2>&1 &"
        ))
        .map(drop)
}

/// Waits until the disk has done `count` more requests than at the call.
///
/// # Errors
/// When the disk stands still.
pub fn wait_for_requests(host: &Host, count: u64) -> Result<()> {
    // Reads and writes that are done, as the guest counts them. The guest itself looks, and rarely, and waits without starting a program: asking it
    // over its console takes the one CPU from fio, and so does a `sleep`.
    let look = "read -r reads _ _ _ writes rest < /sys/block/xvda/stat; now=$((reads + writes))";
    host.guest(NAME)
        .sh(&format!(
            "bash -c 'exec 3<> <(:); {look}; goal=$((now + {count})); while {look}; [ $now -lt $goal ]; do read -t 0.5 -u 3; done; true'"
        ))
        .with_context(|| format!("the disk of {NAME} stands still"))
        .map(drop)
}

/// Tells `fio` to end.
///
/// # Errors
/// When it found anything wrong, or did nothing.
pub fn stop_verifying(host: &Host) -> Result<Verified> {
    let said = host
        .guest(NAME)
        .sh("pkill -TERM -o -x fio; while ! [ -e /run/done ]; do sleep 0.2; done; cat /run/sum")?;
    Verified::of(&said).with_context(|| host.guest(NAME).sh("cat /run/fio").unwrap_or_default())
}

/// What `fio` did.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Written, in KiB.
    pub written_kib: u64,
    /// Read back and found right.
    pub verified_kib: u64,
}

impl Verified {
    /// Reads `exit code`, a blank, and `error;KiB read;KiB written`.
    fn of(line: &str) -> Result<Self> {
        let numbers: Result<Vec<u64>, _> = line.trim().split([' ', ';']).map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("fio ended with {line:?}"))?;
        let [code, errors, verified_kib, written_kib] = numbers[..] else {
            anyhow::bail!("fio ended with {line:?}")
        };
        ensure!(
            (code, errors) == (TOLD_TO_END, 0),
            "fio's exit code is {code}, its error {errors}"
        );
        ensure!(
            verified_kib > 0 && verified_kib + MOST_UNVERIFIED_KIB >= written_kib,
            "fio has not verified what it wrote: {line:?}"
        );
        Ok(Self {
            written_kib,
            verified_kib,
        })
    }
}

/// Ends it and waits until it is gone; its disk stays as it is.
///
/// # Errors
/// When that fails.
pub fn destroy(host: &Host) -> Result<()> {
    host.ok(&[XL, "destroy", NAME])?;
    crate::product::gone(host, NAME)?;
    host.ok(&["rm", CONFIG]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_was_verified_and_ended_by_us_is_good() {
        let good = Verified::of("128 0;8000;8192\n").ok();
        assert_eq!(good.map(|sum| sum.verified_kib), Some(8000));
        for bad in [
            "1 84;8192;8192",
            "128 84;8192;8192",
            "0 0;8192;8192",
            "128 ",
            "128 0;4096;8192",
            "128 0;0;0",
            "128 0;x;8192",
            "",
        ] {
            assert!(Verified::of(bad).is_err(), "{bad:?}");
        }
    }
}
