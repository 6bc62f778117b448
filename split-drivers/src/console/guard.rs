//! A guest that rings its console's bell without end: after so many events in a period its port stays masked until the period is over.
//!
//! Pure: the caller gives the time. The figures are xenconsoled's, which guests are known to live with.

use crate::limits::{CONSOLE_EVENTS_PER_PERIOD, CONSOLE_PERIOD};
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Guard {
    period_ends: Instant,
    left: u32,
}

/// What to do with the port after an event was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Unmask it.
    Unmask,
    /// Leave it masked until then.
    MaskedUntil(Instant),
}

impl Guard {
    /// Starts a period.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            period_ends: now + CONSOLE_PERIOD,
            left: CONSOLE_EVENTS_PER_PERIOD,
        }
    }

    /// Counts an event.
    pub fn event(&mut self, now: Instant) -> Verdict {
        if now >= self.period_ends {
            *self = Self::new(now);
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            Verdict::Unmask
        } else {
            Verdict::MaskedUntil(self.period_ends)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_storm_is_ignored_until_its_period_ends() {
        let start = Instant::now();
        let mut guard = Guard::new(start);
        let verdicts: Vec<_> = (0..CONSOLE_EVENTS_PER_PERIOD)
            .map(|_| guard.event(start))
            .collect();
        assert_eq!(verdicts[0], Verdict::Unmask);
        assert_eq!(
            verdicts.iter().filter(|v| **v == Verdict::Unmask).count(),
            29
        );
        assert_eq!(verdicts[29], Verdict::MaskedUntil(start + CONSOLE_PERIOD));
        assert_eq!(guard.event(start + CONSOLE_PERIOD), Verdict::Unmask);
    }

    #[test]
    fn a_quiet_guest_is_never_masked() {
        let start = Instant::now();
        let mut guard = Guard::new(start);
        for i in 0..1000 {
            assert_eq!(
                guard.event(start + Duration::from_millis(10) * i),
                Verdict::Unmask
            );
        }
    }
}
