//! The command line, by hand: this program stays small enough for an initrd.

use std::path::PathBuf;
use std::time::Duration;

/// Time between two beats when nothing else is asked for.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Longest time between two beats, in seconds.
pub const INTERVAL_MAX_S: u64 = 60;
/// Shortest watchdog timeout, in seconds: below it an ordinary stall would kill the guest.
pub const WATCHDOG_MIN_S: u64 = 2;
/// Longest watchdog timeout, in seconds.
pub const WATCHDOG_MAX_S: u64 = 3600;

/// The text of `--help`.
pub const HELP: &str = "\
parapet-guest - tells the control domain that this guest is alive

Usage: parapet-guest [OPTIONS]

Options:
  --interval SECONDS   time between two heartbeats, 1 to 60 [default: 1]
  --watchdog SECONDS   also pet a watchdog device; if this program or the kernel stops for
                       SECONDS (2 to 3600), Xen shuts the guest down. Loads xen_wdt with that
                       timeout when there is no device yet
  --watchdog-device PATH   the device [default: /dev/watchdog]
  --xenbus PATH        the xenstore device [default: /dev/xen/xenbus, then /proc/xen/xenbus]
  -h, --help           this text
  -V, --version        the release

It writes a counter to data/parapet/heartbeat in this domain's part of xenstore. On SIGTERM or
SIGINT it writes \"stopped\" there, disarms the watchdog and exits 0.

Examples:
  parapet-guest                    in a systemd unit (Type=exec)
  parapet-guest --watchdog 15 &    in the init script of an initrd

Exit codes: 0 asked to stop, 1 cannot start (no xenstore device, no watchdog), 2 wrong usage.
";

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Time between two beats.
    pub interval: Duration,
    /// Watchdog timeout asked for; `None`: no watchdog.
    pub watchdog: Option<Duration>,
    /// The watchdog device.
    pub watchdog_device: PathBuf,
    /// The xenstore device, when it is not one of the usual two.
    pub xenbus: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Beat until told to stop.
    Run(Options),
    /// Print this and exit.
    Print(String),
}

/// Reads the command line (without the program's name).
///
/// # Errors
/// One line naming the argument.
pub fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = Options {
        interval: INTERVAL_DEFAULT,
        watchdog: None,
        watchdog_device: PathBuf::from("/dev/watchdog"),
        xenbus: None,
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = || {
            attached
                .clone()
                .or_else(|| args.next())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Command::Print(HELP.to_owned())),
            "-V" | "--version" => {
                return Ok(Command::Print(format!(
                    "parapet-guest {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            "--interval" => options.interval = seconds(&name, &value()?, 1, INTERVAL_MAX_S)?,
            "--watchdog" => {
                options.watchdog = Some(seconds(&name, &value()?, WATCHDOG_MIN_S, WATCHDOG_MAX_S)?);
            }
            "--watchdog-device" => options.watchdog_device = PathBuf::from(value()?),
            "--xenbus" => options.xenbus = Some(PathBuf::from(value()?)),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    match options.watchdog {
        Some(timeout) if timeout < options.interval * 2 => Err(format!(
            "--watchdog {} is too short for --interval {}: it must be at least twice as long",
            timeout.as_secs(),
            options.interval.as_secs()
        )),
        _ => Ok(Command::Run(options)),
    }
}

fn seconds(name: &str, value: &str, min: u64, max: u64) -> Result<Duration, String> {
    match value.parse::<u64>() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "{name} takes whole seconds from {min} to {max}, not {value:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Command, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_spellings_of_a_value_work() {
        let Ok(Command::Run(a)) = line("--watchdog 15 --interval=2") else {
            panic!()
        };
        assert_eq!(
            (a.watchdog, a.interval.as_secs()),
            (Some(Duration::from_secs(15)), 2)
        );
        assert_eq!(line("--watchdog=15 --interval 2"), Ok(Command::Run(a)));
    }

    #[test]
    fn wrong_usage_is_named() {
        for (text, part) in [
            ("--watchdog", "--watchdog needs a value"),
            ("--watchdog 1", "from 2 to 3600"),
            ("--watchdog soon", "\"soon\""),
            ("--interval 61", "from 1 to 60"),
            ("--interval 10 --watchdog 15", "at least twice"),
            ("--wathcdog 3", "--wathcdog"),
        ] {
            let error = line(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn help_shows_every_option() {
        let Ok(Command::Print(help)) = line("-h") else {
            panic!()
        };
        for option in [
            "--interval",
            "--watchdog ",
            "--watchdog-device",
            "--xenbus",
            "--version",
        ] {
            assert!(help.contains(option), "{option}");
        }
    }
}
