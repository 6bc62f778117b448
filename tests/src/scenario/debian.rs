//! A Debian guest: systemd from a disk of ours, and `fio --verify` at work on it.
//!
//! The disk is a block device of dom0's, `/dev/vdc`, with the file system that `images/guest-debian` makes. What `fio` finds wrong counts, and
//! so does that it goes on at all.

use anyhow::{Context, Result, ensure};

use crate::product::XL;
use crate::rig::{Host, deadline};

/// Its name.
pub const NAME: &str = "debian";
/// Its address on the bridge.
pub const ADDRESS: &str = "10.77.0.40";
/// Where its configuration lies in dom0.
const CONFIG: &str = "/tmp/debian.cfg";

/// One round: 4 KiB blocks in random order, each with a checksum, written past every cache, then all read back and checked.
const ROUND: &str = "fio --name=verify --filename=/var/tmp/verify --size=2M --bs=4k --rw=randwrite --ioengine=libaio --iodepth=8 --direct=1 \
     --verify=crc32c --verify_state_save=0 --output-format=terse";

/// Creates it with our `xl`.
///
/// # Errors
/// When that fails; its words are in the error.
pub fn create(host: &Host) -> Result<()> {
    let config = format!(
        "name=\"{NAME}\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd-debian\"\nmemory=256\ntype=\"pvh\"\ntsc_mode=\"native\"\n\
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

/// Starts `fio` round after round in the background.
///
/// # Errors
/// When the guest does not answer.
pub fn start_verifying(host: &Host) -> Result<()> {
    // The fields are: error, KiB read, KiB written.
    host.guest(NAME)
        .sh(&format!(
            "rm -f /run/enough /run/done; : > /run/rounds; \
             (while ! [ -e /run/enough ]; do {ROUND} > /run/fio 2>&1; echo \"$? $(grep ';verify;' /run/fio | cut -d';' -f5,6,47)\" >> /run/rounds; done; : > /run/done) \
             > /dev/null 2>&1 &"
        ))
        .map(drop)
}

/// Waits until `count` more blocks have reached the disk than at the call.
///
/// # Errors
/// When the disk stands still.
pub fn wait_for_writes(host: &Host, count: u64) -> Result<()> {
    let goal = writes(host)? + count;
    // The guest itself looks, and rarely: asking it over its console takes the one CPU from fio, whose start alone takes half a minute.
    host.guest(NAME)
        .sh(&format!(
            "while read -r _ _ _ _ done rest < /sys/block/xvda/stat; [ $done -lt {goal} ]; do sleep 1; done"
        ))
        .with_context(|| format!("the disk of {NAME} stands still"))
        .map(drop)
}

/// Writes that the disk has completed, by the guest's own count.
fn writes(host: &Host) -> Result<u64> {
    let text = host
        .guest(NAME)
        .sh("awk '{ print $5 }' /sys/block/xvda/stat")?;
    text.trim()
        .parse()
        .with_context(|| format!("{NAME} counts {text:?} writes"))
}

/// Lets the last round end.
///
/// # Errors
/// When `fio` found anything wrong, or did nothing.
pub fn stop_verifying(host: &Host) -> Result<Verified> {
    let said = host
        .guest(NAME)
        .sh("touch /run/enough; while ! [ -e /run/done ]; do sleep 0.2; done; cat /run/rounds")?;
    Verified::of(&said).with_context(|| host.guest(NAME).sh("cat /run/fio").unwrap_or_default())
}

/// What `fio` did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rounds of writing and reading back.
    pub rounds: u64,
    /// Written by all of them, in KiB.
    pub written_kib: u64,
    /// Read back and found right.
    pub verified_kib: u64,
}

impl Verified {
    /// Sums up lines of `exit code`, a blank, and `error;KiB read;KiB written`.
    fn of(lines: &str) -> Result<Self> {
        let mut sum = Self::default();
        for line in lines.lines() {
            let numbers: Result<Vec<u64>, _> = line.split([' ', ';']).map(str::parse).collect();
            let numbers = numbers.with_context(|| format!("fio ended with {line:?}"))?;
            let [code, errors, read, written] = numbers[..] else {
                anyhow::bail!("fio ended with {line:?}")
            };
            ensure!(
                (code, errors) == (0, 0),
                "fio's exit code is {code}, its errors are {errors}"
            );
            sum.rounds += 1;
            sum.verified_kib += read;
            sum.written_kib += written;
        }
        ensure!(
            sum.rounds > 0 && sum.verified_kib == sum.written_kib,
            "fio has not verified what it wrote: {sum:?}"
        );
        Ok(sum)
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
    fn one_bad_round_among_good_ones_is_an_error() {
        let good = "0 0;8192;8192\n0 0;8192;8192\n";
        assert_eq!(
            Verified::of(good).ok(),
            Some(Verified {
                rounds: 2,
                written_kib: 16384,
                verified_kib: 16384
            })
        );
        for bad in [
            "1 84;8192;8192\n",
            "0 84;8192;8192\n",
            "1 \n",
            "0 0;4096;8192\n",
            "0 0;x;8192\n",
        ] {
            assert!(Verified::of(&format!("{good}{bad}")).is_err(), "{bad:?}");
        }
        assert!(Verified::of("").is_err());
    }
}
