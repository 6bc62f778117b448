//! Harm done to guests and to our own processes while work goes on, and the proof that nobody noticed more than a pause.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::product::{self, PARAPET};
use crate::rig::{Host, deadline};
use crate::timeline::Timeline;

/// Time between two kills: long enough for work to be in flight again.
const BETWEEN_KILLS: Duration = Duration::from_secs(2);
/// Times each of our processes is killed.
pub const KILLS: usize = 3;

/// Kills each of our processes with `-9` while the guest writes checksummed blocks to its disk and reads them back.
///
/// # Errors
/// An error or a mismatch in the guest, or a guest that is gone.
pub fn kill_ours_under_load(host: &Host, guest: &str, timeline: &mut Timeline) -> Result<()> {
    let inside = host.guest(guest);
    let domid = inside.domid()?;
    inside.sh(
        "mke2fs -q /dev/xvda && mount -t ext4 /dev/xvda /mnt && mkdir -p /tmp && : > /tmp/verify",
    )?;
    inside.sh(
        "(while ! [ -e /tmp/enough ]; do dd if=/dev/urandom of=/mnt/data bs=4k count=256 conv=fsync 2>/dev/null || echo ERROR >> /tmp/verify; \
         sha256sum /mnt/data > /mnt/sum; sync; echo 3 > /proc/sys/vm/drop_caches; \
         sha256sum -c /mnt/sum >> /tmp/verify 2>&1 || echo MISMATCH >> /tmp/verify; done; : > /tmp/done) > /dev/null 2>&1 &",
    )?;
    for process in product::PROCESSES {
        timeline.step(
            &format!("{process} is killed {KILLS} times while {guest} verifies its disk"),
            || {
                for _ in 0..KILLS {
                    kill(host, process)?;
                    std::thread::sleep(BETWEEN_KILLS);
                }
                Ok(())
            },
        )?;
    }
    timeline
        .step(
            &format!("{guest} has seen no error and no mismatch"),
            || {
                inside.sh("touch /tmp/enough; while ! [ -e /tmp/done ]; do sleep 0.2; done")?;
                let seen = inside.sh("sort /tmp/verify | uniq -c; umount /mnt")?;
                ensure!(
                    seen.contains("OK") && !seen.contains("ERROR") && !seen.contains("MISMATCH"),
                    "{guest}: {seen}"
                );
                ensure!(inside.domid()? == domid, "{guest} was restarted");
                Ok(seen.trim().to_owned())
            },
        )
        .map(|seen| timeline.fact("rounds of verified writes", seen))
}

/// Kills one of our processes; the services are started again as systemd would, a driver by the agent itself.
fn kill(host: &Host, process: &str) -> Result<()> {
    let before = host.sh(&format!("pgrep -x {process} | sort | head -1"))?;
    ensure!(!before.trim().is_empty(), "{process} does not run");
    host.sh(&format!("kill -9 {}", before.trim()))?;
    match process {
        "dom0-agent" => product::start_agent(host),
        "ft-monitor" => product::start_monitor(host),
        _ => host.wait_until(
            &format!(
                "p=$(pgrep -x {process}) && [ -n \"$p\" ] && ! echo \"$p\" | grep -qx {}",
                before.trim()
            ),
            deadline::SETTLE,
        ),
    }
}

/// Lets a guest fail by `injury` and waits until the monitor has brought it back.
///
/// # Errors
/// When it does not come back.
pub fn injure(
    host: &Host,
    guest: &str,
    what: &str,
    injury: impl FnOnce() -> Result<()>,
    timeline: &mut Timeline,
) -> Result<()> {
    let before = host.guest(guest).domid()?;
    timeline.step(
        &format!("{guest}: {what}; the monitor brings it back"),
        || {
            injury()?;
            host.wait_until(
                &format!(
                    "n=$({} domid {guest} 2>/dev/null) && [ \"$n\" != {before} ]",
                    product::XL
                ),
                deadline::GUEST_BOOT,
            )?;
            host.guest(guest).wait_up()
        },
    )?;
    let outage = timeline.step(
        &format!("the monitor's record of the outage of {guest}"),
        || last_outage(host, guest),
    )?;
    for (key, name) in [
        ("detect_ms", "time to detect"),
        ("restore_ms", "time to restore"),
    ] {
        if let Some(ms) = outage.get(key).and_then(Value::as_u64) {
            timeline.fact(&format!("{guest} {what}: {name}"), format!("{ms} ms"));
        }
    }
    Ok(())
}

/// The newest outage of a guest, from `parapet availability --json`.
fn last_outage(host: &Host, guest: &str) -> Result<Value> {
    let all = product::json(host, &[PARAPET, "availability", "--json"])?;
    let entry = all
        .as_array()
        .and_then(|guests| {
            guests
                .iter()
                .find(|entry| entry.get("name").and_then(Value::as_str) == Some(guest))
        })
        .with_context(|| format!("{guest} is not in {all}"))?;
    let outages = entry
        .get("outages")
        .and_then(Value::as_array)
        .with_context(|| format!("no outages in {entry}"))?;
    outages
        .last()
        .cloned()
        .with_context(|| format!("no outage of {guest} in {entry}"))
}

/// Crashes a guest's kernel.
///
/// # Errors
/// When dom0 does not answer.
pub fn crash(host: &Host, guest: &str) -> Result<()> {
    host.ok(&[product::XL, "sysrq", guest, "c"]).map(drop)
}

/// Hangs a guest as it looks from outside: its vCPU stops between two instructions and never runs again, so only its silence tells.
///
/// # Errors
/// When dom0 does not answer.
pub fn hang(host: &Host, guest: &str) -> Result<()> {
    host.ok(&[product::XL, "pause", guest]).map(drop)
}
