//! Harm done to guests and to our own processes while work goes on, and the proof that nobody noticed more than a pause.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::debian;
use crate::product::{self, PARAPET};
use crate::rig::{Host, deadline};
use crate::stock::{self, Guest};
use crate::timeline::Timeline;

/// Times each of our processes is killed.
pub const KILLS: usize = 3;
/// Requests that the disk has to do between two kills: work is in flight again.
const REQUESTS_BETWEEN_KILLS: u64 = 128;

/// Kills each of our processes with `-9` while `fio --verify` works in the Debian guest.
///
/// # Errors
/// An error or a mismatch in the guest, a disk that stands still, or a guest that was restarted.
pub fn kill_ours_under_load(host: &Host, timeline: &mut Timeline) -> Result<()> {
    let domid = host.guest(debian::NAME).domid()?;
    timeline.step("the Debian guest starts `fio --verify`", || {
        debian::start_verifying(host)?;
        debian::wait_for_requests(host, REQUESTS_BETWEEN_KILLS)
    })?;
    for process in product::PROCESSES {
        timeline.step(
            &format!("{process} is killed -9, {KILLS} times, and fio goes on"),
            || {
                for _ in 0..KILLS {
                    kill(host, process, domid)?;
                    debian::wait_for_requests(host, REQUESTS_BETWEEN_KILLS)?;
                }
                Ok(())
            },
        )?;
    }
    let verified = timeline.step("fio ends, with no error", || {
        let verified = debian::stop_verifying(host)?;
        ensure!(
            host.guest(debian::NAME).domid()? == domid,
            "the Debian guest was restarted"
        );
        Ok(verified)
    })?;
    timeline.fact(
        "fio in the Debian guest",
        format!(
            "{} KiB written, {} KiB read back and verified (crc32c), 0 errors",
            verified.written_kib, verified.verified_kib
        ),
    );
    Ok(())
}

/// Kills one of our processes; the services are started again as systemd would, the driver of `domid` by the agent itself.
fn kill(host: &Host, process: &str, domid: u32) -> Result<()> {
    // The pattern starts with a class, or the shell that holds it in its own command line would be found.
    let find = match process {
        "split-driver" => format!("pgrep -f '[s]plit-driver --domid {domid} '"),
        _ => format!("pgrep -x {process}"),
    };
    let before = host.sh(&format!("{find} | head -1"))?;
    let before = before.trim();
    ensure!(!before.is_empty(), "{process} does not run");
    host.sh(&format!("kill -9 {before}"))?;
    match process {
        "dom0-agent" => product::start_agent(host),
        "ft-monitor" => product::start_monitor(host),
        _ => host.wait_until(
            &format!("p=$({find} | head -1) && [ -n \"$p\" ] && [ \"$p\" != {before} ]"),
            deadline::SETTLE,
        ),
    }
}

/// Something that befalls a guest.
#[derive(Debug, Clone, Copy)]
pub struct Injury {
    /// As the timeline tells it.
    pub what: &'static str,
    /// What the monitor has to find as its cause.
    pub cause: &'static str,
    /// Does it.
    pub inflict: fn(&Host, &Guest) -> Result<()>,
}

/// The guest's kernel panics.
pub const CRASH: Injury = Injury {
    what: "its kernel crashes",
    cause: "crash",
    inflict: crash,
};
/// The guest's kernel spins with interrupts off.
pub const HANG: Injury = Injury {
    what: "it hangs, interrupts off",
    cause: "hang",
    inflict: hang,
};
/// The guest's programs no longer feed its watchdog.
pub const STARVE: Injury = Injury {
    what: "its watchdog expires",
    cause: "watchdog",
    inflict: starve_watchdog,
};

/// Inflicts an injury and waits until the monitor has found its cause and brought the guest back.
///
/// # Errors
/// When it does not come back, or another cause is on record.
pub fn injure(host: &Host, guest: &Guest, injury: Injury, timeline: &mut Timeline) -> Result<()> {
    let (name, what) = (&guest.name, injury.what);
    let before = host.guest(name).domid()?;
    let outage = timeline.step(
        &format!("{name}: {what}; the monitor brings it back"),
        || {
            (injury.inflict)(host, guest)?;
            host.wait_until(
                &format!(
                    "n=$({} domid {name} 2>/dev/null) && [ \"$n\" != {before} ]",
                    product::XL
                ),
                deadline::GUEST_BOOT,
            )?;
            host.guest(name).wait_up()?;
            restored_outage(host, name)
        },
    )?;
    let field = |key: &str| outage.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(
        field("cause") == injury.cause,
        "{name}: {what}, and the monitor found {outage}"
    );
    let seconds = |key: &str| {
        let ms = outage.get(key).and_then(Value::as_u64);
        ms.map_or_else(
            || "unknown".into(),
            |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        )
    };
    timeline.fact(
        &format!("{name}: {what}"),
        format!(
            "found ({}) after {}, restored {} later",
            injury.cause,
            seconds("detect_ms"),
            seconds("restore_ms")
        ),
    );
    Ok(())
}

/// The newest outage of a guest, once it is over, from `parapet availability --json`.
fn restored_outage(host: &Host, guest: &str) -> Result<Value> {
    let give_up = Instant::now() + deadline::scaled(deadline::SETTLE);
    loop {
        let outage = last_outage(host, guest)?;
        if outage.get("end").and_then(Value::as_str) == Some("restored") {
            return Ok(outage);
        }
        ensure!(
            Instant::now() < give_up,
            "the outage of {guest} does not end: {outage}"
        );
    }
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
fn crash(host: &Host, guest: &Guest) -> Result<()> {
    host.ok(&[product::XL, "sysrq", &guest.name, "c"]).map(drop)
}

/// Hangs a guest from inside (see [`crate::rig::hang`]), and sees that it is deaf while Xen goes on running it.
fn hang(host: &Host, guest: &Guest) -> Result<()> {
    let inside = host.guest(&guest.name);
    // The insmod is typed without waiting for an answer: there is none. All in one script, in dom0: the monitor leaves little time to look. The last two
    // columns of `xl list` are state and CPU seconds.
    let looked = host.sh(&format!(
        "look() {{ {xl} list {domid} | awk 'END {{ print $(NF - 1), $NF }}'; }}; \
         printf '\\ninsmod /modules/hang.ko\\n' > {console}; \
         while ping -c 1 -W 1 10.77.0.{address} > /dev/null; do :; done; \
         first=$(look); next=$first; while [ -n \"$next\" ] && [ \"$next\" = \"$first\" ]; do next=$(look); done; echo \"$first $next\"",
        xl = stock::XL,
        domid = inside.domid()?,
        console = inside.console()?,
        address = guest.address,
    ))?;
    let words: Vec<&str> = looked.split_whitespace().collect();
    let [_, before, state, after] = words[..] else {
        anyhow::bail!(
            "{} was gone before it could be seen to hang: {looked:?}",
            guest.name
        )
    };
    ensure!(
        before != after && !state.contains(['b', 'p', 's', 'c', 'd']),
        "{} does not spin: {looked}",
        guest.name
    );
    Ok(())
}

/// Opens the guest's watchdog, then kills the program that feeds it.
fn starve_watchdog(host: &Host, guest: &Guest) -> Result<()> {
    host.guest(&guest.name)
        .sh("watchdog -t 1 -T 5 /dev/watchdog && kill -9 $(pidof watchdog)")
        .map(drop)
}
