//! `xl uptime`.

use super::list::{NULL, put};

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
const MINUTE: u64 = 60;

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UptimeRow {
    /// Name.
    pub name: Option<String>,
    /// Number.
    pub domid: u32,
    /// Seconds since it started; a guest for which that is not known has no row.
    pub seconds: u64,
}

/// How long something has been up: `[N days, ]H:MM:SS`, the hour in two columns; without seconds in the short form.
#[must_use]
pub fn span(seconds: u64, short: bool) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let (hours, rest) = (rest / HOUR, rest % HOUR);
    let (minutes, seconds) = (rest / MINUTE, rest % MINUTE);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".into(),
        days => format!("{days} days, "),
    };
    let clock = format!("{days}{hours:>2}:{minutes:02}");
    if short {
        clock
    } else {
        format!("{clock}:{seconds:02}")
    }
}

/// The table, header first.
#[must_use]
pub fn table(rows: &[UptimeRow]) -> String {
    let mut out = format!("{:<33} {:>4} {}\n", "Name", "ID", "Uptime");
    for row in rows {
        let name = row.name.as_deref().unwrap_or(NULL);
        put(
            &mut out,
            format_args!("{name:<33} {:>4} {}\n", row.domid, span(row.seconds, false)),
        );
    }
    out
}

/// The form of `-s`: no header, each line starting with the time of day, `HH:MM:SS`.
#[must_use]
pub fn short(rows: &[UptimeRow], time_of_day: &str) -> String {
    let mut out = String::new();
    for row in rows {
        let name = row.name.as_deref().unwrap_or(NULL);
        let up = span(row.seconds, true);
        put(
            &mut out,
            format_args!(" {time_of_day} up {up}, {name} ({})\n", row.domid),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_days_hours_minutes_seconds() {
        let cases = [
            (0, " 0:00:00", " 0:00"),
            (59, " 0:00:59", " 0:00"),
            (152, " 0:02:32", " 0:02"),
            (10 * HOUR + 61, "10:01:01", "10:01"),
            (DAY, "1 day,  0:00:00", "1 day,  0:00"),
            (
                2 * DAY + 3 * HOUR + 4 * MINUTE + 5,
                "2 days,  3:04:05",
                "2 days,  3:04",
            ),
        ];
        for (seconds, long, short) in cases {
            assert_eq!(span(seconds, false), long);
            assert_eq!(span(seconds, true), short);
        }
    }
}
