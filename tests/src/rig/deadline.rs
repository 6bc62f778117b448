//! How long things may take in the lab, all scaled by one factor.
//!
//! The values are several times what a two-core machine needs; `PARAPET_LAB_PATIENCE` (a number, default 1) stretches them
//! on a slower or busier one. A deadline is a limit for giving up, never a time to wait.

use std::time::Duration;

/// From power-on to a working toolstack (measured: 20 to 35 s).
pub const BOOT: Duration = Duration::from_secs(240);
/// The same under systemd.
pub const BOOT_SYSTEMD: Duration = Duration::from_secs(480);
/// From `-incoming` to a running fork (measured: 1 s).
pub const FORK: Duration = Duration::from_secs(60);
/// Writing a host's memory to a file (measured: 1 s).
pub const SAVE: Duration = Duration::from_secs(120);
/// QEMU's own answers.
pub const QMP: Duration = Duration::from_secs(30);
/// Silence of a command in dom0 before it is given up.
pub const COMMAND: Duration = Duration::from_secs(180);
/// From `create` to the shell of a minimal guest (measured: 5 to 30 s).
pub const GUEST_BOOT: Duration = Duration::from_secs(180);
/// A command in a guest.
pub const GUEST_COMMAND: Duration = Duration::from_secs(120);
/// Something asynchronous in dom0, such as a device that goes away.
pub const SETTLE: Duration = Duration::from_secs(60);
/// Waiting for other tests to give up their machines, or for another process to finish an image.
pub const TURN: Duration = Duration::from_secs(2400);

/// `limit`, stretched by the patience asked for.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    limit.mul_f64(patience(
        std::env::var("PARAPET_LAB_PATIENCE").ok().as_deref(),
    ))
}

/// The factor: at least 1 and at most 100, 1 for anything that is no number.
fn patience(asked: Option<&str>) -> f64 {
    asked
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|f| f.is_finite())
        .unwrap_or(1.0)
        .clamp(1.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_never_shortens_and_never_runs_away() {
        let cases = [
            (None, 1.0),
            (Some("3"), 3.0),
            (Some("0.1"), 1.0),
            (Some("x"), 1.0),
            (Some("inf"), 1.0),
            (Some("1e9"), 100.0),
        ];
        for (asked, factor) in cases {
            assert!((patience(asked) - factor).abs() < f64::EPSILON, "{asked:?}");
        }
    }
}
