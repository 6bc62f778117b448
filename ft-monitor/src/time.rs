//! Two clocks, never mixed up: one to decide by, one to show.
//!
//! [`Mono`] counts since the host's boot (`CLOCK_BOOTTIME`) and survives a restart of the monitor; every decision uses it. [`Wall`] is what
//! people and logs read; it may jump and nothing depends on it. This module never reads a clock: the shell does, in one place.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds since the host's boot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// This much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(millis(span)))
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since 1970, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// To decide by.
    pub mono: Mono,
    /// To show.
    pub wall: Wall,
}

impl Now {
    /// The moment that `mono` was, seen from here.
    #[must_use]
    pub fn back_at(self, mono: Mono) -> Now {
        let ago = self.mono.0.saturating_sub(mono.0);
        Now {
            mono,
            wall: Wall(self.wall.0.saturating_sub(ago)),
        }
    }
}

/// Whole milliseconds of a span.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A span for people: `340 ms`, `12.4 s`, `3 min 20 s`, `5 h 02 min`, `4 d 01 h`.
#[must_use]
pub fn human(span: Duration) -> String {
    let ms = millis(span);
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {:02} h", s / 86400, s % 86400 / 3600),
    }
}

/// A wall time for people, UTC: `2026-11-22 15:04:05`.
#[must_use]
pub fn utc(wall: Wall) -> String {
    let seconds = wall.0 / 1000;
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days to a civil date: years start in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well_at_every_size() {
        for (ms, text) in [
            (0, "0 ms"),
            (340, "340 ms"),
            (12_449, "12.4 s"),
            (200_000, "3 min 20 s"),
            (18_120_000, "5 h 02 min"),
            (349_200_000, "4 d 01 h"),
        ] {
            assert_eq!(human(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_732_288_805, "2024-11-22 15:20:05"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(Wall(seconds * 1000)), text);
        }
    }

    #[test]
    fn a_moment_of_the_past_has_both_clocks_moved() {
        let now = Now {
            mono: Mono(5_000),
            wall: Wall(100_000),
        };
        assert_eq!(
            now.back_at(Mono(2_000)),
            Now {
                mono: Mono(2_000),
                wall: Wall(97_000)
            }
        );
    }
}
