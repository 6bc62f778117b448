//! How much one guest can make the agent write into its log (XSA-43 was a log that guests could fill).
//!
//! ```text
//!   BURST lines at once; after that one more each minute / PER_MINUTE; the rest is counted, and the next line that is written says how many
//! ```
//!
//! Pure: it is told the time, and whoever asks writes.

use std::time::{Duration, Instant};

/// Lines that a guest can cause at once.
pub const BURST: u32 = 20;
/// Lines per minute that it can cause for ever.
pub const PER_MINUTE: u32 = 6;
/// Time in which the right to one line comes back.
const REFILL: Duration = Duration::from_millis(60_000 / PER_MINUTE as u64);

/// One guest's lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chatter {
    /// Lines that were written and have not come back yet.
    spent: u32,
    /// Since when the oldest of them comes back; meaningless while there is none.
    since: Option<Instant>,
    /// Lines that were not written since the last one that was.
    left_out: u64,
}

impl Chatter {
    /// Whether a line may be written now: `Some` with how many were left out before it, or `None` when it is to be left out, too.
    pub fn speak(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        if self.spent >= BURST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.spent += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        let back = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_sub(back);
        self.since = if self.spent == 0 {
            Some(now)
        } else {
            Some(since + REFILL * back)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_written_then_a_few_lines_a_minute_and_what_was_left_out_is_told() {
        let mut chatter = Chatter::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(chatter.speak(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(chatter.speak(start + REFILL / 2), None);
        }
        assert_eq!(chatter.speak(start + REFILL), Some(7));
        assert_eq!(chatter.speak(start + REFILL), None);
        assert_eq!(chatter.speak(start + REFILL * 2), Some(1));
        // A quiet while, and all of it is back, but no more.
        let later = start + REFILL * 1000;
        let written = (0..100).filter_map(|_| chatter.speak(later)).count();
        assert_eq!(written, BURST as usize);
    }

    proptest! {
        #[test]
        fn whenever_a_guest_speaks_its_lines_are_bounded_and_all_are_counted(
            steps in prop::collection::vec(0_u64..30_000, 1..400)
        ) {
            let mut chatter = Chatter::default();
            let start = Instant::now();
            let (mut now, mut written, mut told) = (start, 0_u64, 0);
            for step in &steps {
                now += Duration::from_millis(*step);
                if let Some(left_out) = chatter.speak(now) {
                    written += 1;
                    told += left_out;
                }
            }
            let passed = now.duration_since(start);
            let back = u64::from(PER_MINUTE) * (passed.as_secs() + 1) / 60;
            prop_assert!(written <= u64::from(BURST) + back, "{written} lines in {passed:?}");
            prop_assert_eq!(written + told + chatter.left_out, steps.len() as u64);
        }
    }
}
