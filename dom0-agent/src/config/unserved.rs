//! What a guest's configuration asks for, is kept and shown, and has no effect: for the one warning that names it.
//!
//! [`super::keys`] knows this of whole keys; here it is known of values, and of parts of disk and vif specifications. An
//! option that asks for what happens anyway is not named (`script=vif-bridge`, `backendtype` left to us).

use super::disk::{DiskBackend, DiskSpec, DiskSpecification};
use super::events::{EventActions, ShutdownAction};
use super::protect::ProtectConfig;
use super::vif::VifSpec;

/// The script whose work the agent does itself.
const SCRIPT_DONE_HERE: &str = "vif-bridge";
/// The `protect_*` keys that somebody reads, without `protect_`.
const PROTECT_READ: [&str; 3] = ["heartbeat_timeout", "max_restarts", "probe"];

/// Options of a disk without effect, as `disk OPTION`.
#[must_use]
pub fn of_disk(disk: &DiskSpec) -> Vec<String> {
    let cases = [
        ("backendtype", disk.backend != DiskBackend::Auto),
        (
            "specification=virtio",
            disk.specification == DiskSpecification::Virtio,
        ),
        ("grant_usage", disk.grant_usage.is_some()),
        ("colo", !disk.colo.is_empty()),
    ];
    named("disk", &cases)
}

/// Options of an interface without effect, as `vif OPTION`.
#[must_use]
pub fn of_vif(vif: &VifSpec) -> Vec<String> {
    let foreign = |script: &String| script.rsplit('/').next() != Some(SCRIPT_DONE_HERE);
    let cases = [
        ("script", vif.script.as_ref().is_some_and(foreign)),
        ("ip", vif.ip.is_some()),
        ("gatewaydev", vif.gatewaydev.is_some()),
        ("vlan", vif.vlan.is_some()),
        ("rate", vif.rate.is_some()),
        ("colo", !vif.colo.is_empty()),
    ];
    named("vif", &cases)
}

/// Event actions of which only a part is done, as `KEY=ACTION`. A soft reset counts only where it was asked for (`soft_reset_set`): nearly no guest
/// ever does one, and everybody has it by default.
#[must_use]
pub fn of_events(events: &EventActions, soft_reset_set: bool) -> Vec<String> {
    let all = [
        ("on_poweroff", events.on_poweroff),
        ("on_reboot", events.on_reboot),
        ("on_watchdog", events.on_watchdog),
        ("on_crash", events.on_crash),
        ("on_soft_reset", events.on_soft_reset),
    ];
    let asks_for_more = |action| match action {
        ShutdownAction::Destroy
        | ShutdownAction::Restart
        | ShutdownAction::Preserve
        | ShutdownAction::RenameRestart
        | ShutdownAction::CoredumpDestroy
        | ShutdownAction::CoredumpRestart => false,
        ShutdownAction::SoftReset => true,
    };
    all.into_iter()
        .filter(|(key, _)| *key != "on_soft_reset" || soft_reset_set)
        .filter(|(_, action)| asks_for_more(*action))
        .map(|(key, action)| format!("{key}={}", action.as_str()))
        .collect()
}

/// Keys that begin with `protect_` and that nobody reads.
#[must_use]
pub fn of_protection(protect: &ProtectConfig) -> Vec<String> {
    protect
        .settings
        .keys()
        .filter(|key| !PROTECT_READ.contains(&key.as_str()))
        .map(|key| format!("protect_{key}"))
        .collect()
}

fn named(device: &str, cases: &[(&str, bool)]) -> Vec<String> {
    cases
        .iter()
        .filter(|(_, asked)| *asked)
        .map(|(option, _)| format!("{device} {option}"))
        .collect()
}

/// The warning itself; nothing where there is nothing to name. Each name is said once.
#[must_use]
pub fn warning(source: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let mut said: Vec<String> = Vec::new();
    for name in names {
        if !said.contains(&name) {
            said.push(name);
        }
    }
    let names = said.join(", ");
    (!said.is_empty()).then(|| format!("{source}: warning: kept but not acted on yet: {names}"))
}
