//! Which extents go next, and when it is time to suspend the guest. Pure: sets, bytes and durations in, one decision out.
//!
//! ```text
//!            ┌── left is too much ──┐        ┌─ not yet, more dirty ─┐
//!            ▼                      │        ▼                       │
//!   begin ─▶ Live ── round ── copied, left ─▶ Asked ── frozen, dirty ─▶ Last ── copied, left ─▶ ... ─▶ Over
//!            all that the image holds │         left takes no longer than the guest may stand still,
//!                                     └───────  or more rounds do not make it less
//! ```
//!
//! The first round is everything that the image holds; each later one what was noted meanwhile, and what arrived damaged. The speed is that of
//! the last round that moved enough to tell. Whoever moves the guest may suspend it earlier (its memory is ready first) or later (it is not):
//! every input has its meaning in every state.

use super::extents::ExtentSet;
use super::limits::{LAST_ROUNDS, RATE_SAMPLE_BYTES, ROUNDS_WITHOUT_GAIN};
use std::time::Duration;

/// What whoever moves the guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long the guest may stand still for this disk.
    pub max_downtime: Duration,
    /// Most rounds while the guest runs.
    pub max_rounds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_downtime: Duration::from_millis(300),
            max_rounds: 30,
        }
    }
}

/// Why the guest is to be suspended now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What is left fits into [`Policy::max_downtime`].
    Fits,
    /// There were as many rounds as allowed.
    Rounds,
    /// The guest changes its disk as fast as it is copied.
    NoGain,
}

/// What is to be expected of the suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes left now.
    pub left: u64,
    /// How long they take at the present speed, if one is known.
    pub expected: Option<Duration>,
    /// Why now.
    pub why: Why,
}

/// What was moved by a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of data that went to the other side.
    pub bytes: u64,
    /// How long that took, to the other side's report.
    pub took: Duration,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The round that was decided is over.
    Copied {
        /// What it moved.
        moved: Moved,
        /// What was noted since it began, and what arrived damaged.
        left: ExtentSet,
    },
    /// The guest runs and goes on running; these extents are dirty too.
    Again(ExtentSet),
    /// The guest is suspended and its disk quiet; these were noted since the last round began.
    Frozen(ExtentSet),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Copy these.
    Round(ExtentSet),
    /// Suspend the guest, and freeze the disk.
    Suspend(Forecast),
    /// The other side has everything.
    Over,
    /// It does not become quiet.
    GiveUp {
        /// Rounds since the guest was suspended.
        rounds: u32,
        /// Bytes left.
        left: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The guest runs; `set` is being copied.
    Live,
    /// It may be suspended; `set` is not copied.
    Asked(Why),
    /// It is suspended; `set` is being copied.
    Last,
    /// Nothing is left.
    Over,
}

/// The whole of a plan. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    policy: Policy,
    phase: Phase,
    /// Rounds of the phase that were decided.
    rounds: u32,
    /// Rounds in a row without gain.
    flat: u32,
    /// Bytes in a second.
    rate: Option<u64>,
    /// What the other side does not have for certain.
    set: ExtentSet,
}

impl Plan {
    /// Begins with what the image holds.
    #[must_use]
    pub fn begin(policy: Policy, allocated: ExtentSet) -> (Self, Decision) {
        let plan = Self {
            policy,
            phase: Phase::Live,
            rounds: 0,
            flat: 0,
            rate: None,
            set: ExtentSet::default(),
        };
        plan.live(allocated)
    }

    /// What follows from what happened.
    #[must_use]
    pub fn step(mut self, input: Input) -> (Self, Decision) {
        match (self.phase.clone(), input) {
            (Phase::Live, Input::Copied { moved, left }) => {
                self.learn(moved);
                let gained = left.count() < self.set.count();
                self.flat = if gained { 0 } else { self.flat + 1 };
                self.set = left;
                match self.time_to_suspend() {
                    Some(why) => self.ask(why),
                    None => {
                        let left = std::mem::take(&mut self.set);
                        self.live(left)
                    }
                }
            }
            (Phase::Live | Phase::Asked(_) | Phase::Last | Phase::Over, Input::Again(dirty)) => {
                if self.phase != Phase::Live {
                    (self.rounds, self.flat) = (0, 0);
                }
                self.live(dirty)
            }
            (Phase::Live | Phase::Asked(_) | Phase::Over, Input::Frozen(dirty)) => {
                self.rounds = 0;
                self.last(dirty)
            }
            // Nothing was to be copied; what is left counts, whoever found it.
            (Phase::Asked(why), Input::Copied { left, .. }) => {
                self.set = std::mem::take(&mut self.set).with(left);
                self.ask(why)
            }
            (Phase::Last | Phase::Over, Input::Copied { moved, left }) => {
                self.learn(moved);
                self.set = ExtentSet::default();
                self.last(left)
            }
            (Phase::Last, Input::Frozen(dirty)) => self.last(dirty),
        }
    }

    /// What the other side does not have for certain.
    #[must_use]
    pub fn pending(&self) -> &ExtentSet {
        &self.set
    }

    fn live(mut self, more: ExtentSet) -> (Self, Decision) {
        self.set = std::mem::take(&mut self.set).with(more);
        self.phase = Phase::Live;
        if self.set.is_empty() {
            return self.ask(Why::Fits);
        }
        self.rounds += 1;
        let set = self.set.clone();
        (self, Decision::Round(set))
    }

    fn ask(mut self, why: Why) -> (Self, Decision) {
        self.phase = Phase::Asked(why);
        let forecast = Forecast {
            left: self.set.bytes(),
            expected: self.expected(),
            why,
        };
        (self, Decision::Suspend(forecast))
    }

    fn last(mut self, more: ExtentSet) -> (Self, Decision) {
        self.set = std::mem::take(&mut self.set).with(more);
        let decision = if self.set.is_empty() {
            self.phase = Phase::Over;
            Decision::Over
        } else if self.rounds >= LAST_ROUNDS {
            let (rounds, left) = (self.rounds, self.set.bytes());
            Decision::GiveUp { rounds, left }
        } else {
            self.phase = Phase::Last;
            self.rounds += 1;
            Decision::Round(self.set.clone())
        };
        (self, decision)
    }

    fn learn(&mut self, moved: Moved) {
        if moved.bytes >= RATE_SAMPLE_BYTES {
            let micros = moved.took.as_micros().max(1);
            let rate = u128::from(moved.bytes) * 1_000_000 / micros;
            self.rate = Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1));
        }
    }

    fn expected(&self) -> Option<Duration> {
        match (self.set.bytes(), self.rate) {
            (0, _) => Some(Duration::ZERO),
            (_, None) => None,
            (left, Some(rate)) => {
                let micros = u128::from(left) * 1_000_000 / u128::from(rate);
                Some(Duration::from_micros(
                    u64::try_from(micros).unwrap_or(u64::MAX),
                ))
            }
        }
    }

    fn time_to_suspend(&self) -> Option<Why> {
        if self
            .expected()
            .is_some_and(|time| time <= self.policy.max_downtime)
        {
            Some(Why::Fits)
        } else if self.rounds >= self.policy.max_rounds {
            Some(Why::Rounds)
        } else if self.flat >= ROUNDS_WITHOUT_GAIN {
            Some(Why::NoGain)
        } else {
            None
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
