//! The loop: beat, pet, wait; and the goodbye at the end.

use crate::args::Options;
use crate::signals::{Signals, Woken};
use crate::watchdog::Watchdog;
use crate::xenbus::{Xenbus, XenbusError};
use std::time::{Duration, Instant};

/// The counter, relative to the domain's directory. The control domain watches this node.
pub const BEAT_NODE: &str = "data/parapet/heartbeat";
/// Release of this program.
pub const VERSION_NODE: &str = "data/parapet/version";
/// Seconds since the guest's boot.
pub const UPTIME_NODE: &str = "data/parapet/uptime";
/// What [`BEAT_NODE`] says after a clean exit.
pub const STOPPED: &str = "stopped";
/// Beats between two writes of [`VERSION_NODE`] and [`UPTIME_NODE`].
pub const BEATS_PER_DETAILS: u64 = 10;
/// Longest that one beat waits for xenstored.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Beats until SIGTERM or SIGINT.
///
/// # Errors
/// Only at the start, when the device, the watchdog or the signals cannot be had: one line for the user. Later trouble is reported on stderr
/// once per change and survived.
pub fn run(options: &Options) -> Result<(), String> {
    let signals = Signals::catch().map_err(|error| format!("signals: {error}"))?;
    let xenbus = Xenbus::open(options.xenbus.as_deref()).map_err(|error| error.to_string())?;
    let mut line = Line {
        xenbus: Some(xenbus),
        introduced: false,
        said: None,
    };
    let mut dog = match options.watchdog {
        Some(timeout) => Some(Watchdog::arm(&options.watchdog_device, timeout)?),
        None => None,
    };
    let mut counter = line.predecessor(options, &signals);
    let mut next = Instant::now();
    loop {
        if let Some(dog) = &mut dog
            && let Err(error) = dog.pet()
        {
            line.say(format!("watchdog: {error}"));
        }
        counter = counter.wrapping_add(1);
        if line.beat(options, &signals, counter) == Woken::Stop {
            break;
        }
        // A late beat is not made up for: the next one comes a whole interval after now.
        next = (next + options.interval).max(Instant::now());
        match signals.wait(next, None) {
            Ok(Woken::Stop) => break,
            Ok(_) => {}
            Err(error) => return Err(format!("poll: {error}")),
        }
    }
    line.goodbye(options);
    match dog.map(Watchdog::disarm) {
        Some(Err(error)) => Err(format!(
            "the watchdog could not be disarmed and will fire: {error}"
        )),
        _ => Ok(()),
    }
}

/// The connection and what was last said about it.
struct Line {
    xenbus: Option<Xenbus>,
    /// Whether the nodes beside the counter were written through this connection.
    introduced: bool,
    said: Option<String>,
}

impl Line {
    /// One beat; any failure closes the connection, and the next beat opens a new one.
    fn beat(&mut self, options: &Options, signals: &Signals, counter: u64) -> Woken {
        match self.try_beat(options, signals, counter) {
            Ok(()) => {
                if self.said.take().is_some() {
                    eprintln!("parapet-guest: heartbeats reach xenstore again");
                }
                Woken::Time
            }
            Err(XenbusError::Stopped) => {
                self.hang_up();
                Woken::Stop
            }
            Err(error) => {
                self.hang_up();
                self.say(error.to_string());
                Woken::Time
            }
        }
    }

    fn try_beat(
        &mut self,
        options: &Options,
        signals: &Signals,
        counter: u64,
    ) -> Result<(), XenbusError> {
        let xenbus = match &mut self.xenbus {
            Some(xenbus) => xenbus,
            none => none.insert(Xenbus::open(options.xenbus.as_deref())?),
        };
        let deadline = Instant::now() + patience(options);
        xenbus.write(BEAT_NODE, &counter.to_string(), deadline, Some(signals))?;
        if !self.introduced || counter.is_multiple_of(BEATS_PER_DETAILS) {
            xenbus.write(
                VERSION_NODE,
                env!("CARGO_PKG_VERSION"),
                deadline,
                Some(signals),
            )?;
            if let Some(uptime) = uptime() {
                xenbus.write(UPTIME_NODE, &uptime, deadline, Some(signals))?;
            }
            self.introduced = true;
        }
        Ok(())
    }

    /// Says that silence from now on is meant. A fresh connection: the old one may have an answer outstanding.
    fn goodbye(&mut self, options: &Options) {
        self.hang_up();
        let last = Xenbus::open(options.xenbus.as_deref()).and_then(|mut xenbus| {
            xenbus.write(BEAT_NODE, STOPPED, Instant::now() + patience(options), None)
        });
        if let Err(error) = last {
            self.say(format!("could not say goodbye: {error}"));
        }
    }

    fn hang_up(&mut self) {
        self.xenbus = None;
        self.introduced = false;
    }

    /// The counter that a predecessor in this domain left behind, so that the count goes on; 0 when there is none.
    fn predecessor(&mut self, options: &Options, signals: &Signals) -> u64 {
        let Some(xenbus) = &mut self.xenbus else {
            return 0;
        };
        match xenbus.read(BEAT_NODE, Instant::now() + patience(options), Some(signals)) {
            Ok(value) => String::from_utf8_lossy(&value).parse().unwrap_or(0),
            Err(XenbusError::Refused(..)) => 0,
            Err(_) => {
                self.hang_up();
                0
            }
        }
    }

    /// Reports trouble once, not at each beat.
    fn say(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            eprintln!("parapet-guest: {text}");
            self.said = Some(text);
        }
    }
}

/// How long a beat may wait for xenstored: a silent xenstored must never keep the watchdog from its pet, so that an
/// interval and a wait together stay below the watchdog's timeout.
fn patience(options: &Options) -> Duration {
    match options.watchdog {
        Some(timeout) => ANSWER_TIMEOUT.min(timeout.saturating_sub(options.interval) / 2),
        None => ANSWER_TIMEOUT,
    }
}

/// Whole seconds since boot, as the kernel tells them.
fn uptime() -> Option<String> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Some(text.split(['.', ' ']).next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    #[test]
    fn a_silent_xenstored_never_starves_the_watchdog() {
        for line in [
            "--watchdog 2",
            "--watchdog 3",
            "--watchdog 15",
            "--watchdog 120 --interval 60",
        ] {
            let Ok(Command::Run(options)) = parse(line.split_whitespace().map(str::to_owned))
            else {
                panic!("{line}")
            };
            let wait = patience(&options);
            assert!(
                !wait.is_zero() && options.interval + wait < options.watchdog.unwrap(),
                "{line}"
            );
        }
    }
}
