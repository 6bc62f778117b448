//! What to do about a verdict. Pure: back-off, crash-loop limit, and one action at a time.
//!
//! ```text
//!   Failed ──▶ an action under way?  ──▶ Nothing
//!          ──▶ given up already?     ──▶ Nothing
//!          ──▶ limit of the hour     ──▶ GiveUp   (what still runs is left alone)
//!          ──▶ Restart after the back-off: 0, 1, 2, 4 ... 60 s
//! ```
//!
//! Anything that is not `Failed`, and any guest that is not protected, is left alone.

use crate::limits::RESTART_WINDOW;
use crate::policy::Policy;
use crate::time::Mono;
use crate::verdict::{Cause, Verdict};
use std::time::Duration;

/// What was done about a guest so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History<'a> {
    /// When new domains came after a failure, oldest first.
    pub restarts: &'a [Mono],
    /// Attempts without a stable life in between.
    pub in_a_row: u32,
    /// When the last attempt ended, well or not.
    pub last_attempt: Option<Mono>,
    /// An intent is open.
    pub busy: bool,
    /// The monitor gave up.
    pub given_up: bool,
}

/// What to do with what is left of a guest that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// It does not run any more: let the agent take it away.
    Destroy,
    /// It still runs and may be of use: leave it to the operator.
    Leave,
}

/// What to do about one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Nothing,
    /// Restart it in place, this long from now (zero: at once).
    Restart {
        /// The back-off that is left.
        after: Duration,
    },
    /// No more restarts.
    GiveUp {
        /// One line for people.
        why: String,
        /// What happens to the domain.
        remains: Remains,
    },
}

/// What to do about one guest, given everything that is known at `now`. Total and deterministic.
#[must_use]
pub fn plan(verdict: &Verdict, history: History<'_>, policy: &Policy, now: Mono) -> Plan {
    let Verdict::Failed { cause, since } = verdict else {
        return Plan::Nothing;
    };
    if !policy.protects() || history.busy || history.given_up {
        return Plan::Nothing;
    }
    let after = backoff(history, policy, *since, now);
    let recent = history
        .restarts
        .iter()
        .filter(|at| now.since(**at) < RESTART_WINDOW)
        .count();
    if recent >= policy.restarts_per_hour as usize {
        // Giving up waits like any other attempt: it may have been tried and refused a moment ago.
        return match after.is_zero() {
            true => give_up(*cause, recent),
            false => Plan::Nothing,
        };
    }
    Plan::Restart { after }
}

fn give_up(cause: Cause, recent: usize) -> Plan {
    let (remains, what) = match cause.leaves_a_running_domain() {
        true => (Remains::Leave, "it is left running as it is"),
        false => (Remains::Destroy, "what is left of it is destroyed"),
    };
    Plan::GiveUp {
        why: format!("{cause} again after {recent} restarts within an hour; {what}"),
        remains,
    }
}

/// Whether the guest lived long enough after the last attempt that this failure starts a new row.
#[must_use]
pub fn lived_long(history: History<'_>, policy: &Policy, failed: Mono) -> bool {
    history
        .last_attempt
        .is_none_or(|last| failed.since(last) >= policy.times.stable_after)
}

/// What is left of the delay before the next attempt.
fn backoff(history: History<'_>, policy: &Policy, failed: Mono, now: Mono) -> Duration {
    let Some(last) = history.last_attempt else {
        return Duration::ZERO;
    };
    let Some(doublings) = history.in_a_row.checked_sub(1) else {
        return Duration::ZERO;
    };
    if lived_long(history, policy, failed) {
        return Duration::ZERO;
    }
    let doublings = doublings.min(31);
    let delay = policy
        .times
        .backoff_first
        .saturating_mul(1 << doublings)
        .min(policy.times.backoff_cap);
    delay.saturating_sub(now.since(last))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
