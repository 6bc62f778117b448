//! shutdown and reboot: a word in xenstore, and waiting for what the guest does about it.
//!
//! A guest that has not told Xen how it wants its events has no driver that reads the word: a guest of another system, or one that has not booted so
//! far. As in stock, only `-F` does something about it then: it presses an ACPI button, which PVH guests do not have.

use super::Call;
use super::domain::resolve;
use super::reach::Failure;
use std::time::Duration;
use xen_abi::domain::Trigger;
use xen_abi::hvm::params::CALLBACK_IRQ;
use xen_abi::ids::{DomId, VcpuId};
use xen_host::seam::Store;
use xen_host::xenstore::store::StoreExt;

/// How often a wait looks again even if no watch fires; a lost event costs at most this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// libxl's number for a guest without PV drivers, as xl prints it.
const NO_PARAVIRT: i32 = -10;
/// libxl's number for any other failure.
const FAIL: i32 = -3;
/// libxl's number for a domain that is not there.
const NO_DOMAIN: i32 = -21;

/// One of the two commands.
struct Order {
    /// What is written into xenstore.
    word: &'static str,
    /// What is said before.
    saying: &'static str,
    /// Its name in messages about failures.
    name: &'static str,
    /// The button that `-F` presses.
    button: Trigger,
    /// That button's name.
    button_name: &'static str,
    /// What is not possible without PV drivers.
    wish: &'static str,
}

const SHUTDOWN: Order = Order {
    word: "poweroff",
    saying: "Shutting down",
    name: "shutdown",
    button: Trigger::Power,
    button_name: "power",
    wish: "external graceful shutdown",
};

const REBOOT: Order = Order {
    word: "reboot",
    saying: "Rebooting",
    name: "reboot",
    button: Trigger::Reset,
    button_name: "reset",
    wish: "external graceful reboot",
};

/// `shutdown`.
///
/// # Errors
/// No domain of that name, or a domain that cannot be asked.
pub fn shutdown(call: &mut Call<'_>) -> Result<u8, Failure> {
    stop(call, &SHUTDOWN)
}

/// `reboot`.
///
/// # Errors
/// As [`shutdown`].
pub fn reboot(call: &mut Call<'_>) -> Result<u8, Failure> {
    stop(call, &REBOOT)
}

fn stop(call: &mut Call<'_>, order: &Order) -> Result<u8, Failure> {
    let all = call.parsed.has('a');
    let named = call.parsed.operands.first().cloned();
    let domids = match (all, named) {
        (true, Some(_)) => {
            return Err(Failure::new(
                "You may specify either -a or a domain, not both.",
            ));
        }
        (false, None) => {
            return Err(Failure::with_code(
                super::USAGE,
                "'xl shutdown' and 'xl reboot' require -a or a domain.",
            ));
        }
        (true, None) => {
            let listed = call.reach.domains()?.domain_list(DomId(1))?;
            listed
                .into_iter()
                .filter(|info| !info.dying && info.shutdown.is_none())
                .map(|info| info.domid)
                .collect()
        }
        (false, Some(name)) => vec![resolve(call.reach, &name)?],
    };
    let waits = call.parsed.count('w');
    let store = if waits > 0 {
        Some(call.reach.watching_store()?)
    } else {
        None
    };
    let releases = store
        .as_ref()
        .map(|store| store.watch("@releaseDomain"))
        .transpose()?;
    for domid in &domids {
        writeln!(call.err, "{} domain {domid}", order.saying)?;
        ask(call, *domid, order)?;
    }
    let Some(releases) = releases else {
        return Ok(0);
    };
    writeln!(call.err, "Waiting for {} domains", domids.len())?;
    let mut left = domids;
    while !left.is_empty() {
        let mut still = Vec::new();
        for domid in left {
            match call.reach.domains()?.domain_info(domid)? {
                None => writeln!(call.err, "Domain {domid} has been destroyed")?,
                Some(info) if info.dying => {
                    writeln!(call.err, "Domain {domid} has been destroyed")?
                }
                Some(info) => match info.shutdown {
                    Some(reason) if waits == 1 => {
                        writeln!(
                            call.err,
                            "Domain {domid} has been shut down, reason code {}",
                            reason.code()
                        )?;
                    }
                    _ => still.push(domid),
                },
            }
        }
        left = still;
        if !left.is_empty() {
            let _ = releases.next_timeout(LOOK_AGAIN);
        }
    }
    Ok(0)
}

/// Leaves the word where the guest looks for it, or presses the button.
fn ask(call: &mut Call<'_>, domid: DomId, order: &Order) -> Result<(), Failure> {
    if domid == DomId::DOM0 {
        return Err(Failure::new(
            "Cannot shut down dom0 like this; use the host's own shutdown.",
        ));
    }
    let failed = |rc: i32| Failure::new(format!("{} failed (rc={rc})", order.name));
    if !hears(call, domid)? {
        if call.parsed.has('F') {
            writeln!(
                call.err,
                "PV control interface not available: sending ACPI {} button event.",
                order.button_name
            )?;
            let pressed = call
                .reach
                .domains()?
                .send_trigger(domid, order.button, VcpuId(0));
            return pressed.map_err(|error| Failure::new(format!("{}: {error}", failed(FAIL))));
        }
        writeln!(
            call.err,
            "PV control interface not available: {} not possible.\nUse \"-F\" to fallback to ACPI {} event.",
            order.wish, order.button_name
        )?;
        return Err(failed(NO_PARAVIRT));
    }
    let store: &dyn Store = call.reach.store()?;
    let root = format!("/local/domain/{domid}");
    let path = format!("{root}/control/shutdown");
    store
        .transaction("shutdown", |store, tx| {
            if store.read_text(tx, &format!("{root}/name"))?.is_none() {
                return Ok(false);
            }
            store.write_text(tx, &path, order.word).map(|()| true)
        })?
        .then_some(())
        .ok_or_else(|| {
            Failure::new(format!(
                "{} failed: domain {domid} does not exist (rc={NO_DOMAIN})",
                order.name
            ))
        })
}

/// Whether somebody in the guest reads what is written for it. True for a domain that is not there: that is found out elsewhere.
fn hears(call: &Call<'_>, domid: DomId) -> Result<bool, Failure> {
    let domains = call.reach.domains()?;
    match domains.domain_info(domid)? {
        Some(info) if info.hvm || info.pvh => Ok(domains.hvm_param(domid, CALLBACK_IRQ)? != 0),
        _ => Ok(true),
    }
}
