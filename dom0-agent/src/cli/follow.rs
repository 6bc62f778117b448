//! `-F`: stays with a guest through its restarts, until it is gone for good.
//!
//! What counts is the guest, not its domain, whose number changes with every restart. The agent knows which guests there are; while it does not
//! answer, the guest's domain is looked for by its uuid.

use super::Call;
use super::reach::Failure;
use crate::agent::reap::action_for;
use crate::config::domain::DomainConfig;
use crate::config::events::ShutdownAction;
use crate::config::protect::ProtectClass;
use parapet_wire::agent::{Guest, GuestState, Reply, Request};
use std::time::{Duration, Instant};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

/// How often it looks, besides being told that some domain ended.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The same while the guest has no domain: it is being started again, and nobody tells.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(1);
/// How long an agent may be away from a guest that has no domain: it may come back and start it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It runs, in this domain, or is about to.
    Goes(Option<DomId>),
    /// It stopped and is kept as it is.
    Kept(DomId, ShutdownReason),
    /// It is no more.
    Gone,
    /// It has no domain, and there is no agent to say whether it gets one.
    Unknown,
}

/// Returns when the guest is gone, or stopped and kept. `domid` is its present domain; with a configuration it is known which stops are for good.
///
/// # Errors
/// Xen or xenstored does not answer, or the agent stays away.
pub fn to_the_end(
    call: &mut Call<'_>,
    domid: DomId,
    uuid: Handle,
    config: Option<&DomainConfig>,
) -> Result<(), Failure> {
    let mut known = domid;
    let mut unknown_since: Option<Instant> = None;
    writeln!(
        call.err,
        "Waiting for domain {known} to die [pid {}]",
        std::process::id()
    )?;
    let releases = call.reach.watching_store()?.watch("@releaseDomain")?;
    loop {
        let fate = fate(call, uuid, config)?;
        match fate {
            Fate::Gone => return Ok(()),
            Fate::Kept(domid, reason) => {
                writeln!(
                    call.err,
                    "Domain {domid} has been shut down, reason code {}, and is preserved",
                    reason.code()
                )?;
                return Ok(());
            }
            Fate::Goes(Some(domid)) if domid != known => {
                writeln!(call.err, "Domain {known} was restarted as domain {domid}")?;
                known = domid;
            }
            Fate::Goes(_) | Fate::Unknown => {}
        }
        unknown_since = match fate {
            Fate::Unknown => Some(unknown_since.unwrap_or_else(Instant::now)),
            _ => None,
        };
        if unknown_since.is_some_and(|since| since.elapsed() > PATIENCE) {
            return Err(Failure::new(format!(
                "domain {known} ended, and no agent says whether it starts again; start it with `systemctl start dom0-agent`"
            )));
        }
        let pause = match fate {
            Fate::Goes(None) | Fate::Unknown => LOOK_AGAIN_SOON,
            _ => LOOK_AGAIN,
        };
        let _ = releases.next_timeout(pause);
    }
}

fn fate(call: &Call<'_>, uuid: Handle, config: Option<&DomainConfig>) -> Result<Fate, Failure> {
    let guests = call
        .reach
        .agent()
        .ok()
        .and_then(|mut agent| agent.ask(&Request::Guests).ok());
    if let Some(Reply::Guests(guests)) = guests {
        let ours = guests.iter().find(|guest| guest.uuid == uuid);
        return Ok(ours.map_or(Fate::Gone, |guest| seen(guest, config)));
    }
    let domains = call.reach.domains()?.domain_list(DomId(1))?;
    let alive = domains
        .iter()
        .find(|info| info.handle == uuid && !info.dying);
    Ok(alive.map_or(Fate::Unknown, |info| Fate::Goes(Some(info.domid))))
}

fn seen(guest: &Guest, config: Option<&DomainConfig>) -> Fate {
    let (Some(domid), GuestState::Down(reason)) = (guest.domid, guest.state) else {
        return Fate::Goes(guest.domid);
    };
    let failed = matches!(reason, ShutdownReason::Crash | ShutdownReason::Watchdog);
    let is_kept = config.is_some_and(|config| {
        // What becomes of a protected guest that failed is not in its configuration.
        let decided_elsewhere = failed && config.protect.class != ProtectClass::None;
        !decided_elsewhere && action_for(&config.events, reason) == ShutdownAction::Preserve
    });
    if is_kept {
        Fate::Kept(domid, reason)
    } else {
        Fate::Goes(Some(domid))
    }
}
