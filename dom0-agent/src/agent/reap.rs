//! Domains that shut down or went away: what `@releaseDomain` means for each guest.
//!
//! | what happened | protected guest | other guest |
//! |---|---|---|
//! | powered off | destroyed and forgotten (`on_poweroff`) | the same |
//! | asked for a reboot | started again (`on_reboot`) | the same |
//! | stopped, and its action is a coredump | dumped first (`dump.rs`) | the same |
//! | stopped, is started again, and its action is `rename-restart` | the domain is kept under another name (`kept.rs`) | the same |
//! | crashed, watchdog expired | the monitor decides; without a monitor, started again | `on_crash`, `on_watchdog` |
//! | suspended for a save that is over | runs on | the same |
//! | domain gone | somebody destroyed it: forgotten | the same |
//!
//! What was begun and could not be finished (a removal, a restart, an adoption) is tried again here too.

use super::error::AgentError;
use super::guest::{Dump, Guest};
use super::record::Stage;
use super::{Agent, News, handle, lock};
use crate::config::events::{EventActions, ShutdownAction};
use parapet_wire::agent as wire;
use std::sync::{MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::domain::{DomainInfo, ShutdownReason};
use xen_abi::ids::DomId;

/// How long a failed protected guest waits for the monitor's decision before the agent starts it again by itself.
pub const MONITOR_GRACE: Duration = Duration::from_secs(10);
/// A guest that asks for a reboot sooner than this after its start is held back to this, so that a boot loop does not eat the host.
const SHORTEST_LIFE: Duration = Duration::from_secs(2);
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Pause before a guest that somebody works on is looked at again.
const BUSY: Duration = Duration::from_millis(500);

/// What one look at a guest decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Nothing,
    Forget,
    Destroy,
    Restart,
    Report(ShutdownReason),
    /// An adoption failed.
    Adopt,
    /// A disk was not there.
    Complete,
    /// It suspended for a save that is over.
    GoOn,
    /// It was given away and given back.
    TakeBack,
    /// It came from another host, and lacks some of its names.
    SettleIn,
    /// Before it is destroyed or started again.
    Dump,
}

impl Agent {
    /// Looks at every guest after `@releaseDomain`. Answers when to look again, if something waits for time to pass.
    ///
    /// # Errors
    /// Xen does not answer. Faults of single guests are logged.
    pub fn reap(&self) -> Result<Option<Instant>, AgentError> {
        self.reap_at(Instant::now())
    }

    /// As [`Agent::reap`], at a time that the caller names: simulations do not wait for it.
    ///
    /// # Errors
    /// As [`Agent::reap`].
    pub fn reap_at(&self, now: Instant) -> Result<Option<Instant>, AgentError> {
        let domains = self.seams.xen.domain_list(DomId(1))?;
        let all = self.every_guest();
        let mut again: Option<Instant> = None;
        for shared in all {
            let mut guest = match shared.try_lock() {
                Ok(guest) => guest,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Something is being done to it, and others must not wait for that.
                Err(TryLockError::WouldBlock) => {
                    let soon = now + BUSY;
                    again = Some(again.map_or(soon, |at| at.min(soon)));
                    continue;
                }
            };
            let name = guest.record.config.name.clone();
            let looked = self.look(&mut guest, &domains, now);
            let (done, later) = match looked {
                Ok((decision, later)) => (self.carry_out(guest, decision), later),
                Err(error) => (Err(error), None),
            };
            let later = match done {
                Ok(()) => later,
                Err(error) => {
                    tracing::error!(name, %error, "a guest that stopped could not be dealt with; tried again");
                    Some(now + RETRY)
                }
            };
            again = match (again, later) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.tend_shells(&domains, now);
        Ok(again)
    }

    fn look(
        &self,
        guest: &mut Guest,
        domains: &[DomainInfo],
        now: Instant,
    ) -> Result<(Decision, Option<Instant>), AgentError> {
        let listed = domains
            .iter()
            .find(|info| Some(info.domid) == guest.record.domid)
            .cloned();
        // The list is older than the lock: a domain that was built while we waited for it is not in there.
        let info = match (listed, guest.record.domid) {
            (None, Some(domid)) => self.seams.xen.domain_info(domid)?,
            (listed, _) => listed,
        };
        let gone = info
            .as_ref()
            .is_none_or(|info| info.dying || !guest.record.is_called(info.handle));
        let reason = info.and_then(|info| info.shutdown);
        let (decision, later) = decide(guest, gone, reason, self.is_heard(), now);
        let decision = dump_first(guest, decision);
        if decision == Decision::Restart && guest.wants_to_be_kept() {
            // Whoever has this lock may wait for the guest's.
            match self.naming.try_lock() {
                Ok(naming) => self.choose_aside(guest, &naming)?,
                Err(TryLockError::Poisoned(poisoned)) => {
                    self.choose_aside(guest, &poisoned.into_inner())?;
                }
                Err(TryLockError::WouldBlock) => return Ok((Decision::Nothing, Some(now + BUSY))),
            }
        }
        Ok((decision, later))
    }

    fn carry_out(
        &self,
        mut guest: MutexGuard<'_, Guest>,
        decision: Decision,
    ) -> Result<(), AgentError> {
        match decision {
            Decision::Nothing => Ok(()),
            Decision::Report(reason) => {
                self.tell(wire::Event::ShutDown {
                    uuid: handle(guest.uuid()),
                    domid: guest.record.domid.unwrap_or(DomId::INVALID),
                    reason,
                });
                Ok(())
            }
            Decision::Forget | Decision::Destroy => self.give_up(guest),
            Decision::Restart => {
                name_what_is_not_done(&guest);
                self.restart_guest(guest).map(drop)
            }
            Decision::Adopt => self.adopt(guest),
            Decision::Complete => self.complete(&mut guest),
            Decision::GoOn => self.go_on(&mut guest),
            Decision::TakeBack => self.take_back(guest),
            Decision::SettleIn => self.finish_arrival(&mut guest),
            Decision::Dump => {
                guest.dump = Dump::Underway;
                let uuid = guest.record.key;
                (self.outlets.news)(News::Dump { uuid });
                Ok(())
            }
        }
    }

    /// Takes a guest's domain down, if it has one, and starts it again from its configuration. `None`, with nothing done, when the guest's domain is not
    /// `decided` any more: somebody else dealt with it.
    ///
    /// # Errors
    /// The old domain does not go away, or the new one cannot be built.
    pub fn restart(
        &self,
        uuid: Uuid,
        decided: Option<DomId>,
        why: &str,
    ) -> Result<Option<DomId>, AgentError> {
        let unknown = || AgentError::NoGuest(uuid.to_string());
        let shared = self.by_uuid(uuid).ok_or_else(unknown)?;
        let (wants_dump, is_kept) = {
            let guest = lock(&shared);
            let meant = guest.record.domid == decided;
            (
                meant && guest.wants_dump(),
                meant && guest.wants_to_be_kept(),
            )
        };
        if wants_dump {
            self.make_dump(&shared);
        }
        // Before the guest's lock, as everywhere.
        let naming = is_kept.then(|| self.naming.lock().unwrap_or_else(PoisonError::into_inner));
        let mut guest = lock(&shared);
        if guest.gone || guest.record.stage == Stage::Dying {
            return Err(unknown());
        }
        // While it is saved or moved its silence means nothing, and while it is dumped its memory is needed.
        let away = matches!(
            guest.record.stage,
            Stage::Saving | Stage::Leaving | Stage::HandedOver
        );
        let busy = away || guest.dump == Dump::Underway;
        if guest.record.domid != decided || busy {
            return Ok(None);
        }
        if let Some(naming) = naming {
            self.choose_aside(&mut guest, &naming)?;
        }
        tracing::warn!(name = guest.record.config.name, why, "restart");
        self.restart_guest(guest).map(Some)
    }

    fn restart_guest(&self, mut guest: MutexGuard<'_, Guest>) -> Result<DomId, AgentError> {
        self.make_way(&mut guest)?;
        self.start(guest, false)
    }
}

/// An action that is more than a restart, and of which the restart is all that is done.
fn name_what_is_not_done(guest: &Guest) {
    let Some((reason, _)) = guest.down else {
        return;
    };
    let action = action_for(&guest.record.config.events, reason);
    if action == ShutdownAction::SoftReset {
        let (name, wanted) = (&guest.record.config.name, action.as_str());
        tracing::warn!(name, wanted, "not there yet: the guest is restarted");
    }
}

/// What ends a domain waits until the dump that its end asks for is there.
fn dump_first(guest: &Guest, decision: Decision) -> Decision {
    match decision {
        Decision::Destroy | Decision::Restart if guest.dump == Dump::Underway => Decision::Nothing,
        Decision::Destroy | Decision::Restart if guest.wants_dump() => Decision::Dump,
        decision => decision,
    }
}

fn decide(
    guest: &mut Guest,
    gone: bool,
    reason: Option<ShutdownReason>,
    heard: bool,
    now: Instant,
) -> (Decision, Option<Instant>) {
    let protected = guest.protection() != wire::Protection::None;
    let unfinished = match guest.record.stage {
        _ if guest.gone => Some(Decision::Nothing),
        Stage::Dying => Some(Decision::Destroy),
        // The monitor's to try again, or ours.
        Stage::Waiting if protected => return waiting(guest, heard, now),
        Stage::Waiting => Some(Decision::Restart),
        // Whoever saves it finds out what became of it.
        Stage::Building | Stage::Saving | Stage::Leaving | Stage::Shell => Some(Decision::Nothing),
        // It suspended, and does not go on here by itself.
        Stage::HandedOver if gone => Some(Decision::Forget),
        Stage::HandedOver if guest.comes_back => Some(Decision::TakeBack),
        Stage::HandedOver => Some(Decision::Nothing),
        Stage::Running if gone => Some(Decision::Forget),
        Stage::Running if guest.started.is_none() => Some(Decision::Adopt),
        Stage::Running if guest.record.arrival.is_some() => Some(Decision::SettleIn),
        Stage::Running if guest.lacks_medium && reason.is_none() => {
            return (Decision::Complete, Some(now + RETRY));
        }
        Stage::Running => None,
    };
    if let Some(decision) = unfinished {
        return (decision, None);
    }
    let Some(reason) = reason else {
        return (Decision::Nothing, None);
    };
    if reason == ShutdownReason::Suspend && guest.record.asked_to_suspend {
        return (Decision::GoOn, None);
    }
    if guest.record.unmanaged || reason == ShutdownReason::Suspend {
        return (Decision::Nothing, None);
    }
    let first = guest.down.is_none();
    let (_, since) = *guest.down.get_or_insert((reason, now));
    let failed = matches!(reason, ShutdownReason::Crash | ShutdownReason::Watchdog);
    if failed && protected {
        let due = since + MONITOR_GRACE;
        return match (first, now >= due) {
            (true, _) => (Decision::Report(reason), Some(due)),
            // Somebody listens, and takes the time that its back-off needs.
            (false, true) if heard => (Decision::Nothing, Some(now + MONITOR_GRACE)),
            (false, true) => (Decision::Restart, None),
            (false, false) => (Decision::Nothing, Some(due)),
        };
    }
    let action = action_for(&guest.record.config.events, reason);
    if restarts(action)
        && let Some(started) = guest.started
        && now < started + SHORTEST_LIFE
    {
        return (Decision::Nothing, Some(started + SHORTEST_LIFE));
    }
    match action {
        ShutdownAction::Preserve if first => (Decision::Report(reason), None),
        ShutdownAction::Preserve => (Decision::Nothing, None),
        action if restarts(action) => (Decision::Restart, None),
        _ => (Decision::Destroy, None),
    }
}

/// A protected guest whose restart failed: the monitor tries again, and without one for a while the agent does.
fn waiting(guest: &mut Guest, heard: bool, now: Instant) -> (Decision, Option<Instant>) {
    if heard {
        guest.unheard = None;
        return (Decision::Nothing, Some(now + MONITOR_GRACE));
    }
    let due = *guest.unheard.get_or_insert(now) + MONITOR_GRACE;
    if now >= due {
        (Decision::Restart, None)
    } else {
        (Decision::Nothing, Some(due))
    }
}

fn restarts(action: ShutdownAction) -> bool {
    matches!(
        action,
        ShutdownAction::Restart
            | ShutdownAction::RenameRestart
            | ShutdownAction::CoredumpRestart
            | ShutdownAction::SoftReset
    )
}

/// What a configuration says about a guest that stopped for this reason.
#[must_use]
pub fn action_for(events: &EventActions, reason: ShutdownReason) -> ShutdownAction {
    match reason {
        ShutdownReason::Poweroff | ShutdownReason::Suspend => events.on_poweroff,
        ShutdownReason::Reboot => events.on_reboot,
        ShutdownReason::Crash | ShutdownReason::Other(_) => events.on_crash,
        ShutdownReason::Watchdog => events.on_watchdog,
        ShutdownReason::SoftReset => events.on_soft_reset,
    }
}
