//! Parapet on a lab host: its services, its commands, and guests made by them.
//!
//! The stock toolstack of the host goes on running beside it, as peer and judge.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::rig::cpio::Archive;
use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind};

/// Where the product's programs are in dom0.
pub const BIN: &str = "/lab/dist/bin";
/// Our `xl`, by its full name: the host has a stock one too.
pub const XL: &str = "/lab/dist/bin/xl";
/// Our own command.
pub const PARAPET: &str = "/lab/dist/bin/parapet";

/// The minimal guest's ramdisk with `parapet-guest`, which starts by itself.
const RAMDISK: &str = "/run/initrd-parapet";

/// Our processes, by the names the kernel shows.
pub const PROCESSES: [&str; 3] = ["dom0-agent", "split-driver", "ft-monitor"];

/// Starts agent and monitor and waits until both answer.
///
/// # Errors
/// When one does not; its log is in the error.
pub fn start(host: &Host) -> Result<()> {
    host.mount_product()?;
    make_ramdisk(host)?;
    start_agent(host)?;
    start_monitor(host)
}

/// Archives may follow each other in a ramdisk; ours goes behind the stock guest's.
fn make_ramdisk(host: &Host) -> Result<()> {
    let mut extra = Archive::default();
    extra.dir("start");
    extra.file(
        "start/parapet-guest",
        true,
        &host.read(&format!("{BIN}/parapet-guest"))?,
    );
    host.write("/run/extra.cpio", &extra.finish(), 0o644)?;
    host.sh(&format!(
        "cat /lab/guest/initrd /run/extra.cpio > {RAMDISK}; rm /run/extra.cpio"
    ))
    .map(drop)
}

/// Starts the agent in the background.
///
/// # Errors
/// When it does not answer.
pub fn start_agent(host: &Host) -> Result<()> {
    start_service(
        host,
        "dom0-agent",
        &format!(
            "{XL} list > /dev/null && test -S /run/parapet/agent.sock && {PARAPET} guests > /dev/null"
        ),
    )
}

/// Starts the monitor in the background.
///
/// # Errors
/// When it does not answer.
pub fn start_monitor(host: &Host) -> Result<()> {
    start_service(host, "ft-monitor", &format!("{PARAPET} status > /dev/null"))
}

fn start_service(host: &Host, name: &str, answers: &str) -> Result<()> {
    host.sh(&format!(
        "setsid {BIN}/{name} >> /var/log/{name}.log 2>&1 < /dev/null &"
    ))?;
    let started = host.wait_until(&format!("{answers} 2>/dev/null"), deadline::SETTLE);
    started.with_context(|| {
        host.sh(&format!("tail -n 20 /var/log/{name}.log"))
            .unwrap_or_default()
    })
}

/// Stops agent and monitor. Guests and drivers stay.
///
/// # Errors
/// When dom0 does not answer.
pub fn stop(host: &Host) -> Result<()> {
    host.sh("pkill -TERM ft-monitor; pkill -TERM dom0-agent; true")?;
    host.wait_until(
        "! pgrep -x dom0-agent && ! pgrep -x ft-monitor",
        deadline::SETTLE,
    )
}

/// Removes what the services keep between runs, so that a leak check sees only what guests left.
///
/// # Errors
/// When something of a guest is still there.
pub fn clean(host: &Host) -> Result<()> {
    let left = host.sh("ls /var/lib/parapet/guests /run/parapet/journals /run/parapet/drivers 2>/dev/null | grep -v ':$' | grep . ; true")?;
    ensure!(
        left.trim().is_empty(),
        "Parapet still keeps things of guests:\n{left}"
    );
    stop(host)?;
    host.sh("rm -rf /run/parapet /var/lib/parapet /var/log/parapet /var/cache/parapet /run/initrd-parapet; rm -f /var/log/dom0-agent.log /var/log/ft-monitor.log; umount /lab/dist 2>/dev/null; true").map(drop)
}

/// A guest of ours with more lines in its configuration.
#[must_use]
pub fn config(guest: &Guest, more: &str) -> String {
    guest.config().replace("/lab/guest/initrd", RAMDISK) + more
}

/// Creates a guest with our `xl`.
///
/// # Errors
/// When that fails; its words are in the error.
pub fn create(host: &Host, guest: &Guest, more: &str) -> Result<()> {
    guest.prepare(host)?;
    host.write(&guest.config_path(), config(guest, more).as_bytes(), 0o644)?;
    host.ok(&[XL, "create", &guest.config_path()]).map(drop)
}

/// Destroys a guest with our `xl` and waits until its domain is gone.
///
/// # Errors
/// When that fails.
pub fn destroy(host: &Host, guest: &Guest) -> Result<()> {
    host.ok(&[XL, "destroy", &guest.name])?;
    gone(host, &guest.name)?;
    host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))
        .map(drop)
}

/// Waits until no domain has this name any more.
///
/// # Errors
/// When one stays.
pub fn gone(host: &Host, name: &str) -> Result<()> {
    host.wait_until(
        &format!("! {XL} domid {name} 2>/dev/null"),
        deadline::SETTLE,
    )
}

/// Answer of one of our commands as JSON.
///
/// # Errors
/// When it fails or prints something else.
pub fn json(host: &Host, argv: &[&str]) -> Result<Value> {
    let text = host.ok(argv)?;
    serde_json::from_str(&text).with_context(|| format!("{argv:?} printed {text:?}"))
}

/// The two guests of the main job.
#[must_use]
pub fn pair() -> [Guest; 2] {
    [
        Guest::minimal("pv1", Kind::Pv, 11),
        Guest::minimal("pvh1", Kind::Pvh, 12),
    ]
}
