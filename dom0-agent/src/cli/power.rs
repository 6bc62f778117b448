//! shutdown and reboot: a word in xenstore, and waiting for what the guest does about it.

use super::Call;
use super::domain::resolve;
use super::reach::Failure;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_host::seam::Store;
use xen_host::xenstore::store::StoreExt;

/// How often a wait looks again even if no watch fires; a lost event costs at most this.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// `shutdown`.
///
/// # Errors
/// No domain of that name, or a domain that cannot be asked.
pub fn shutdown(call: &mut Call<'_>) -> Result<u8, Failure> {
    stop(call, "poweroff", "Shutting down")
}

/// `reboot`.
///
/// # Errors
/// As [`shutdown`].
pub fn reboot(call: &mut Call<'_>) -> Result<u8, Failure> {
    stop(call, "reboot", "Rebooting")
}

fn stop(call: &mut Call<'_>, word: &str, saying: &str) -> Result<u8, Failure> {
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
        writeln!(call.err, "{saying} domain {domid}")?;
        ask(call, *domid, word)?;
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

/// Leaves the word where the guest looks for it.
fn ask(call: &Call<'_>, domid: DomId, word: &str) -> Result<(), Failure> {
    if domid == DomId::DOM0 {
        return Err(Failure::new(
            "Cannot shut down dom0 like this; use the host's own shutdown.",
        ));
    }
    let store: &dyn Store = call.reach.store()?;
    let root = format!("/local/domain/{domid}");
    let path = format!("{root}/control/shutdown");
    store
        .transaction("shutdown", |store, tx| {
            if store.read_text(tx, &format!("{root}/name"))?.is_none() {
                return Ok(false);
            }
            store.write_text(tx, &path, word).map(|()| true)
        })?
        .then_some(())
        .ok_or_else(|| {
            Failure::new(format!(
                "shutdown failed: domain {domid} does not exist (rc={})",
                -21
            ))
        })?;
    Ok(())
}
