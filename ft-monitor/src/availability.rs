//! Outages as they were seen, and what may honestly be said about availability.
//!
//! ```text
//!   last sign of life      detected        domain runs again      serves again
//!        │ began ◀──────────▶ │ ◀───────────────▶ │ ◀───────────────▶ │ ended
//!        └── time to detect ──┘└───────── time to restore ────────────┘
//! ```
//!
//! An outage is counted from the last moment at which the guest may have been well to the moment at which it shows again what it showed before. A
//! figure is never better than what was observed: it is rounded down, and without an outage there is no figure at all, only the time observed.

use crate::evidence::Signs;
use crate::limits::RESOLUTION;
use crate::record::End;
use crate::time::{Mono, Now, human, millis};
use crate::verdict::Cause;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One outage of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// What failed.
    pub cause: Cause,
    /// The last moment at which the guest may have been well.
    pub began: Now,
    /// When the monitor was sure.
    pub detected: Now,
    /// What the guest must show to count as restored.
    pub expected: Signs,
    /// When a new domain ran.
    pub restarted: Option<Now>,
    /// When and how it ended.
    pub ended: Option<(Now, End)>,
}

impl Outage {
    /// One that goes on.
    #[must_use]
    pub fn new(cause: Cause, began: Now, detected: Now, expected: Signs) -> Self {
        Self {
            cause,
            began,
            detected,
            expected,
            restarted: None,
            ended: None,
        }
    }

    /// How long it took to be sure.
    #[must_use]
    pub fn time_to_detect(&self) -> Duration {
        self.detected.mono.since(self.began.mono)
    }

    /// How long it took from there until the guest served again; `None` unless it does.
    #[must_use]
    pub fn time_to_restore(&self) -> Option<Duration> {
        match self.ended {
            Some((at, End::Restored)) => Some(at.mono.since(self.detected.mono)),
            _ => None,
        }
    }

    /// How long it lasted, up to `now` when it goes on.
    #[must_use]
    pub fn length(&self, now: Now) -> Duration {
        match self.ended {
            // The host's clock started anew: only the wall clock can tell.
            Some((at, End::HostRebooted)) => {
                Duration::from_millis(at.wall.0.saturating_sub(self.began.wall.0))
            }
            Some((at, _)) => at.mono.since(self.began.mono),
            None => now.mono.since(self.began.mono),
        }
    }
}

/// Totals of one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Up to when time was booked.
    pub accounted_to: Mono,
    /// Milliseconds in which the guest should have run and was heard, or was known to be down.
    pub observed_ms: u64,
    /// Milliseconds in which it should have run and nobody was listening.
    pub unobserved_ms: u64,
    /// Failures that are not kept in detail any more.
    pub archived: u64,
    /// Their length together.
    pub archived_down_ms: u64,
    /// Length of the planned outages that are not kept in detail.
    pub archived_planned_ms: u64,
}

impl Account {
    /// Nothing booked yet.
    #[must_use]
    pub fn new(at: Mono) -> Self {
        Self {
            accounted_to: at,
            observed_ms: 0,
            unobserved_ms: 0,
            archived: 0,
            archived_down_ms: 0,
            archived_planned_ms: 0,
        }
    }

    /// Keeps only the length of an outage that ended.
    pub fn archive(&mut self, outage: &Outage) {
        let length = millis(outage.length(Now::default()));
        match outage.cause.planned() {
            true => self.archived_planned_ms += length,
            false => {
                self.archived += 1;
                self.archived_down_ms += length;
            }
        }
    }
}

/// What may be said about one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Time observed.
    pub observed: Duration,
    /// Time in which nobody was listening.
    pub unobserved: Duration,
    /// Time lost to failures.
    pub down: Duration,
    /// Time lost on purpose (reboots asked for in the guest).
    pub planned: Duration,
    /// Failures.
    pub failures: u64,
}

/// Adds up an account and its outages.
#[must_use]
pub fn summary<'a>(
    account: &Account,
    outages: impl Iterator<Item = &'a Outage>,
    now: Now,
) -> Summary {
    let mut down = Duration::from_millis(account.archived_down_ms);
    let mut planned = Duration::from_millis(account.archived_planned_ms);
    let mut failures = account.archived;
    for outage in outages {
        match outage.cause.planned() {
            true => planned += outage.length(now),
            false => {
                down += outage.length(now);
                failures += 1;
            }
        }
    }
    Summary {
        // An outage may have begun before anybody looked.
        observed: Duration::from_millis(account.observed_ms).max(down + planned),
        unobserved: Duration::from_millis(account.unobserved_ms),
        down,
        planned,
        failures,
    }
}

/// Availability in millionths, rounded down; `None` when nothing failed or too little was seen: then there is no figure to give.
#[must_use]
pub fn parts_per_million(summary: &Summary) -> Option<u32> {
    let observed = millis(summary.observed);
    if summary.failures == 0 || observed < millis(RESOLUTION) {
        return None;
    }
    // What is shorter than the resolution may have been missed once per outage: it counts as lost.
    let lost = millis(summary.down)
        .saturating_add(millis(RESOLUTION) * summary.failures)
        .min(observed);
    let ppm = u128::from(observed - lost) * 1_000_000 / u128::from(observed);
    u32::try_from(ppm).ok()
}

/// One honest sentence.
#[must_use]
pub fn sentence(summary: &Summary) -> String {
    let observed = human(summary.observed);
    let mut text = match parts_per_million(summary) {
        None if summary.failures == 0 => format!(
            "no outage seen in {observed} observed (one shorter than {} would not be noticed)",
            human(RESOLUTION)
        ),
        None => format!("observed for {observed} only: too little for a figure"),
        Some(ppm) => format!(
            "up {}.{:04} % of {observed} observed; {} {}, {} lost",
            ppm / 10_000,
            ppm % 10_000,
            summary.failures,
            if summary.failures == 1 {
                "outage"
            } else {
                "outages"
            },
            human(summary.down),
        ),
    };
    if !summary.planned.is_zero() {
        text.push_str(&format!("; {} of planned restarts", human(summary.planned)));
    }
    if !summary.unobserved.is_zero() {
        text.push_str(&format!("; {} not observed", human(summary.unobserved)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;
    use proptest::prelude::*;

    fn at(ms: u64) -> Now {
        Now {
            mono: Mono(ms),
            wall: Wall(1_700_000_000_000 + ms),
        }
    }

    fn outage(cause: Cause, began: u64, detected: u64, ended: u64) -> Outage {
        let mut outage = Outage::new(cause, at(began), at(detected), Signs::default());
        outage.ended = Some((at(ended), End::Restored));
        outage
    }

    fn account(observed_ms: u64) -> Account {
        Account {
            observed_ms,
            ..Account::new(Mono(0))
        }
    }

    #[test]
    fn an_outage_counts_from_the_last_sign_of_life() {
        let hang = outage(Cause::Hang, 10_000, 16_000, 40_000);
        assert_eq!(hang.time_to_detect(), Duration::from_secs(6));
        assert_eq!(hang.time_to_restore(), Some(Duration::from_secs(24)));
        assert_eq!(hang.length(at(99_000)), Duration::from_secs(30));
    }

    #[test]
    fn without_an_outage_there_is_no_figure() {
        let summary = summary(&account(3_600_000), [].iter(), at(0));
        assert_eq!(parts_per_million(&summary), None);
        let text = sentence(&summary);
        assert!(
            text.contains("no outage seen in 1 h 00 min") && !text.contains('%'),
            "{text}"
        );
    }

    #[test]
    fn a_figure_says_what_it_stands_on() {
        let outages = [
            outage(Cause::Crash, 0, 0, 9_000),
            outage(Cause::Reboot, 100, 100, 5_100),
        ];
        let summary = summary(&account(10_000_000), outages.iter(), at(0));
        assert_eq!(
            sentence(&summary),
            "up 99.9000 % of 2 h 46 min observed; 1 outage, 9.0 s lost; 5.0 s of planned restarts"
        );
    }

    proptest! {
        #[test]
        fn a_figure_never_claims_more_than_was_observed(observed in 0_u64..1 << 40, lengths in prop::collection::vec(0_u64..1 << 30, 1..20)) {
            let outages: Vec<_> = lengths.iter().map(|length| outage(Cause::Hang, 0, 0, *length)).collect();
            let summary = summary(&account(observed), outages.iter(), at(0));
            if let Some(ppm) = parts_per_million(&summary) {
                let up = summary.observed.saturating_sub(summary.down).as_secs_f64();
                prop_assert!(f64::from(ppm) / 1e6 <= up / summary.observed.as_secs_f64() + 1e-12);
                prop_assert!(ppm < 1_000_000);
            }
        }
    }
}
