//! When to stop copying a guest that runs, and suspend it. Pure.
//!
//! ```text
//!   Copying ──a round is sent, so many pages are dirty again──▶ decide ──▶ another round
//!                                                                  └─────▶ suspend: the rest goes while the guest stands still
//! ```
//!
//! The rest takes as long as it has pages at the rate that the last rounds had. If that is within the goal, the guest is suspended. If the guest dirties
//! its memory so fast that rounds do not get smaller, more of them are of no use to anybody; three bounds end them in any case.

use super::limits::{
    FEW_PAGES, MAX_DOWNTIME, MAX_ROUNDS, MAX_VOLUME_FACTOR, PROGRESS_PERCENT, STALE_ROUNDS,
};
use std::fmt;
use std::time::Duration;

/// One round that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Pages in it.
    pub pages: u64,
    /// Of them, those of zeroes that were only named: they say nothing about the line.
    pub named: u64,
    /// How long it took.
    pub took: Duration,
}

impl Round {
    /// Pages whose contents went.
    #[must_use]
    pub const fn contents(self) -> u64 {
        self.pages.saturating_sub(self.named)
    }
}

/// Why a guest is suspended now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The rest goes within the goal.
    WithinGoal,
    /// The guest dirties its memory as fast as it is sent.
    NoProgress,
    /// There were as many rounds as there may be.
    Rounds,
    /// Its memory has gone over several times.
    Volume,
    /// It was never to run meanwhile.
    NotLive,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithinGoal => "the rest is small enough",
            Self::NoProgress => "it dirties its memory as fast as that is sent",
            Self::Rounds => "there were as many rounds as there may be",
            Self::Volume => "its memory has been sent several times",
            Self::NotLive => "it is not moved live",
        })
    }
}

/// What comes after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another round, of what is dirty.
    Copy,
    /// Suspend.
    Suspend(Why),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precopy {
    goal: Duration,
    /// Pages of the whole guest.
    memory: u64,
    sent: u64,
    rounds: u32,
    /// Pages a second, of the last round that was long enough to measure.
    rate: Option<u64>,
    /// The fewest pages that were dirty after a round.
    least: u64,
    /// Rounds in a row after which hardly fewer were.
    stale: u32,
}

impl Precopy {
    /// For a guest of so many pages that shall stand still for no longer than `goal` for the sake of its memory.
    #[must_use]
    pub const fn new(memory: u64, goal: Duration) -> Self {
        Self {
            goal,
            memory,
            sent: 0,
            rounds: 0,
            rate: None,
            least: u64::MAX,
            stale: 0,
        }
    }

    /// With the goal that holds where nobody says another.
    #[must_use]
    pub const fn of(memory: u64) -> Self {
        Self::new(memory, MAX_DOWNTIME)
    }

    /// Rounds so far.
    #[must_use]
    pub const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Pages a second; `None` before the first round.
    #[must_use]
    pub const fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// How long so many pages take.
    #[must_use]
    pub fn expected(&self, pages: u64) -> Duration {
        match self.rate {
            // A rate of nothing is a link that stands: nothing goes in any time.
            Some(0) | None => Duration::MAX,
            Some(rate) => {
                let nanos = u128::from(pages) * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    }

    /// A round is sent, and so many pages are dirty after it.
    pub fn after(&mut self, round: Round, dirty: u64) -> Next {
        self.rounds += 1;
        self.sent = self.sent.saturating_add(round.contents());
        self.measure(round);
        let shrinks =
            u128::from(dirty) * 100 < u128::from(self.least) * u128::from(PROGRESS_PERCENT);
        self.stale = if shrinks { 0 } else { self.stale + 1 };
        self.least = self.least.min(dirty);
        let why = if dirty <= FEW_PAGES || self.expected(dirty) <= self.goal {
            Why::WithinGoal
        } else if self.stale >= STALE_ROUNDS {
            Why::NoProgress
        } else if self.rounds >= MAX_ROUNDS {
            Why::Rounds
        } else if self.sent >= self.memory.saturating_mul(MAX_VOLUME_FACTOR) {
            Why::Volume
        } else {
            return Next::Copy;
        };
        Next::Suspend(why)
    }

    /// Takes over how fast a round went, unless it was too small to tell: its pages may still be in somebody's buffer.
    fn measure(&mut self, round: Round) {
        let contents = round.contents();
        if self.rate.is_some() && contents <= FEW_PAGES {
            return;
        }
        let nanos = round.took.as_nanos().max(1);
        let rate = u128::from(contents) * 1_000_000_000 / nanos;
        self.rate = Some(u64::try_from(rate).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(pages: u64, millis: u64) -> Round {
        Round {
            pages,
            named: 0,
            took: Duration::from_millis(millis),
        }
    }

    #[test]
    fn an_idle_guest_is_suspended_after_its_first_round() {
        let mut precopy = Precopy::of(32_768);
        assert_eq!(
            precopy.after(round(32_768, 1000), 20),
            Next::Suspend(Why::WithinGoal)
        );
    }

    #[test]
    fn the_guest_runs_until_the_rest_fits_the_goal() {
        let mut precopy = Precopy::new(100_000, Duration::from_millis(100));
        // 10,000 pages a second: 1,000 pages are 100 ms.
        assert_eq!(precopy.after(round(100_000, 10_000), 20_000), Next::Copy);
        assert_eq!(precopy.expected(1000), Duration::from_millis(100));
        assert_eq!(precopy.after(round(20_000, 2000), 4000), Next::Copy);
        assert_eq!(
            precopy.after(round(4000, 400), 900),
            Next::Suspend(Why::WithinGoal)
        );
        assert_eq!(precopy.rounds(), 3);
    }

    #[test]
    fn a_guest_that_is_as_fast_as_the_link_is_not_chased_for_ever() {
        let mut precopy = Precopy::of(100_000);
        let mut rounds = 0;
        let why = loop {
            rounds += 1;
            match precopy.after(round(50_000, 5000), 50_000) {
                Next::Copy => {}
                Next::Suspend(why) => break why,
            }
        };
        assert_eq!((why, rounds), (Why::NoProgress, STALE_ROUNDS + 1));
    }

    #[test]
    fn memory_that_went_over_several_times_is_enough() {
        let mut precopy = Precopy::of(1000);
        let mut dirty = 1_000_000;
        let why = loop {
            dirty = dirty * 4 / 5;
            match precopy.after(round(1000, 1000), dirty) {
                Next::Copy => {}
                Next::Suspend(why) => break why,
            }
        };
        assert_eq!(why, Why::Volume);
    }

    #[test]
    fn pages_that_were_only_named_make_no_line_faster() {
        let mut precopy = Precopy::new(100_000, Duration::from_millis(100));
        let first = Round {
            named: 90_000,
            ..round(100_000, 1000)
        };
        assert_eq!(precopy.after(first, 1001), Next::Copy);
        assert_eq!(precopy.rate(), Some(10_000));
        assert_eq!(
            precopy.after(round(1001, 100), 1000),
            Next::Suspend(Why::WithinGoal)
        );
    }

    #[test]
    fn a_link_that_stands_never_fits_a_goal() {
        let mut precopy = Precopy::of(1000);
        assert_eq!(precopy.expected(1), Duration::MAX);
        assert_eq!(precopy.after(round(1000, u64::MAX), 500), Next::Copy);
    }

    proptest! {
        #[test]
        fn whatever_the_guest_does_it_is_suspended_in_the_end(
            memory in 1u64..1 << 24,
            rounds in prop::collection::vec((0u64..1 << 24, 0u64..1 << 20, 0u64..1 << 24), MAX_ROUNDS as usize),
        ) {
            let mut precopy = Precopy::of(memory);
            let ended = rounds.into_iter().position(|(pages, millis, dirty)| {
                precopy.after(round(pages, millis), dirty) != Next::Copy
            });
            prop_assert!(ended.is_some());
        }
    }
}
