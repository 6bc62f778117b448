//! `xl list` and `xl claims`.
//!
//! The first six columns are what scripts split by blanks, so a row never has fewer or more of them. The layout is
//! stock's to the byte, tabs in the header included.

use std::fmt::Write;

use uuid::Uuid;

/// Why a guest has shut down, by Xen's number (`SHUTDOWN_*` of `xen/sched.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownCode(pub u32);

impl ShutdownCode {
    /// The letter in the state column.
    #[must_use]
    pub fn letter(self) -> char {
        const LETTERS: [char; 6] = ['-', 'r', 's', 'c', 'w', 'S'];
        let index = usize::try_from(self.0).unwrap_or(usize::MAX);
        LETTERS.get(index).copied().unwrap_or('?')
    }
}

/// What a guest is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunState {
    /// On a CPU at this moment.
    pub running: bool,
    /// Waiting for an event.
    pub blocked: bool,
    /// Paused by the toolstack or by itself.
    pub paused: bool,
    /// Stopped, and why.
    pub shutdown: Option<ShutdownCode>,
    /// Being removed.
    pub dying: bool,
}

impl RunState {
    /// The six letters of the state column.
    #[must_use]
    pub fn letters(self) -> String {
        let flag = |on: bool, letter: char| if on { letter } else { '-' };
        [
            flag(self.running, 'r'),
            flag(self.blocked, 'b'),
            flag(self.paused, 'p'),
            flag(self.shutdown.is_some(), 's'),
            self.shutdown.map_or('-', ShutdownCode::letter),
            flag(self.dying, 'd'),
        ]
        .into_iter()
        .collect()
    }
}

/// One guest of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRow {
    /// Name in xenstore; `None` for what is left of a removed guest.
    pub name: Option<String>,
    /// Number.
    pub domid: u32,
    /// KiB it holds.
    pub current_kib: u64,
    /// KiB claimed for it and not yet given.
    pub outstanding_kib: u64,
    /// Virtual CPUs that are online.
    pub vcpus_online: u32,
    /// What it is doing.
    pub state: RunState,
    /// CPU time used so far, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Identity.
    pub uuid: Uuid,
    /// XSM label.
    pub security_label: Option<String>,
    /// CPU pool, by name.
    pub pool: Option<String>,
    /// Nodes it prefers, as [`super::bitmap::ranges`] writes them.
    pub nodes: String,
}

/// Columns beside the first six.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Columns {
    /// `-v`: UUID, reason code and security label.
    pub verbose: bool,
    /// `-Z`: security label.
    pub label: bool,
    /// `xl claims`: outstanding claims.
    pub claims: bool,
    /// `-c`: CPU pool.
    pub pool: bool,
    /// `-n`: nodes.
    pub nodes: bool,
}

/// What glibc prints for a missing string.
pub(crate) const NULL: &str = "(null)";

/// The whole list, header first.
#[must_use]
pub fn list(rows: &[ListRow], columns: Columns) -> String {
    let mut out = header(columns);
    for row in rows {
        put_row(&mut out, row, columns);
    }
    out
}

fn header(columns: Columns) -> String {
    let mut out =
        String::from("Name                                        ID   Mem VCPUs\tState\tTime(s)");
    if columns.verbose {
        out.push_str("   UUID                            Reason-Code\tSecurity Label");
    } else if columns.label {
        out.push_str("   Security Label");
    }
    if columns.claims {
        out.push_str("  Claimed");
    }
    if columns.pool {
        out.push_str("         Cpupool");
    }
    if columns.nodes {
        out.push_str(" NODE Affinity");
    }
    out.push('\n');
    out
}

fn put_row(out: &mut String, row: &ListRow, columns: Columns) {
    let name = row.name.as_deref().unwrap_or(NULL);
    let mib = row.current_kib.saturating_add(row.outstanding_kib) / 1024;
    let (domid, vcpus, state) = (row.domid, row.vcpus_online, row.state.letters());
    let seconds = seconds(row.cpu_time_ns);
    put(
        out,
        format_args!("{name:<40} {domid:>5} {mib:>5} {vcpus:>5}     {state}  {seconds:>8.1}"),
    );
    if columns.verbose {
        put(out, format_args!(" {}", row.uuid.hyphenated()));
        match row.state.shutdown {
            Some(ShutdownCode(code)) => put(out, format_args!(" {code:>8x}")),
            None => put(out, format_args!(" {:>8}", "-")),
        }
    }
    if columns.claims {
        put(out, format_args!(" {:>5}", row.outstanding_kib / 1024));
    }
    if columns.verbose || columns.label {
        put(
            out,
            format_args!(" {:>16}", row.security_label.as_deref().unwrap_or("-")),
        );
    }
    if columns.pool {
        put(
            out,
            format_args!("{:>16}", row.pool.as_deref().unwrap_or(NULL)),
        );
    }
    if columns.nodes {
        put(out, format_args!(" {}", row.nodes));
    }
    out.push('\n');
}

/// Nanoseconds as seconds, through the same single precision that stock loses digits in.
#[expect(clippy::cast_precision_loss, reason = "stock prints a float")]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    f64::from(nanoseconds as f32) / 1e9
}

/// Writing to a `String` cannot fail.
pub(crate) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "formatting into memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_letters_have_their_places() {
        let shut = |code| RunState {
            shutdown: Some(ShutdownCode(code)),
            ..RunState::default()
        };
        let cases = [
            (RunState::default(), "------"),
            (
                RunState {
                    running: true,
                    ..RunState::default()
                },
                "r-----",
            ),
            (
                RunState {
                    blocked: true,
                    paused: true,
                    ..RunState::default()
                },
                "-bp---",
            ),
            (shut(0), "---s--"),
            (shut(1), "---sr-"),
            (shut(2), "---ss-"),
            (shut(3), "---sc-"),
            (shut(4), "---sw-"),
            (shut(5), "---sS-"),
            (shut(6), "---s?-"),
            (shut(u32::MAX), "---s?-"),
            (
                RunState {
                    dying: true,
                    ..shut(3)
                },
                "---scd",
            ),
        ];
        for (state, want) in cases {
            assert_eq!(state.letters(), want);
        }
    }
}
