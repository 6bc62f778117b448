//! A guest of a lab host, seen through its console.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::deadline;
use super::host::Host;
use super::port::Output;

/// How often a guest that boots is looked at again.
const LOOK: Duration = Duration::from_millis(500);
/// The first attempt to reach the shell of a guest that may still be booting, in seconds; each further one waits twice as long, so that a slow answer is
/// heard in the end.
const HELLO_SECONDS: u64 = 5;
/// The longest attempt: what was typed while nobody read may be lost.
const HELLO_SECONDS_MOST: u64 = 20;

/// Made by [`Host::guest`].
#[derive(Debug)]
pub struct Guest<'h> {
    host: &'h Host,
    name: String,
}

impl<'h> Guest<'h> {
    pub(super) fn new(host: &'h Host, name: &str) -> Self {
        Self {
            host,
            name: name.into(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its domain id, from xenstore, so that no toolstack under test is asked; the newest if there are several.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn domid(&self) -> Result<u32> {
        let script = format!(
            "for d in $(xenstore-list /local/domain); do \
               [ \"$(xenstore-read /local/domain/$d/name 2>/dev/null)\" = '{}' ] && echo $d; done; true",
            self.name
        );
        let answer = self.host.sh(&script)?;
        let ids = answer.lines().filter_map(|line| line.trim().parse().ok());
        ids.max()
            .with_context(|| format!("no domain is named {}", self.name))
    }

    /// Its console's terminal in dom0.
    ///
    /// # Errors
    /// When it has none yet.
    pub fn console(&self) -> Result<String> {
        let path = format!("/local/domain/{}/console/tty", self.domid()?);
        Ok(self.host.ok(&["xenstore-read", &path])?.trim().to_owned())
    }

    /// Runs a shell command at the guest's console.
    ///
    /// # Errors
    /// When the guest does not answer in time; a failing command is an [`Output`].
    pub fn run(&self, command: &str) -> Result<Output> {
        let limit = deadline::scaled(deadline::GUEST_COMMAND);
        self.run_within(command, limit.as_secs())
    }

    fn run_within(&self, command: &str, seconds: u64) -> Result<Output> {
        let console = self.console()?;
        let seconds = seconds.to_string();
        self.host.run_with(
            &["/lab/delegate", "console-exec", &console, &seconds, command],
            &[],
            deadline::COMMAND,
        )
    }

    /// Runs a command that must succeed; what it printed.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when it exits with anything but 0.
    pub fn sh(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.code != 0 {
            bail!(
                "`{command}` in {} exited with {}: {}{}",
                self.name,
                output.code,
                output.text(),
                output.errors()
            );
        }
        Ok(output.text())
    }

    /// Waits until the shell at the console of a minimal guest answers.
    ///
    /// # Errors
    /// When it does not within [`deadline::GUEST_BOOT`]; the last words of the console are in the error.
    pub fn wait_up(&self) -> Result<()> {
        self.wait_up_within(deadline::GUEST_BOOT)
    }

    /// The same for a guest that takes its time.
    ///
    /// # Errors
    /// When its shell does not answer within `limit`.
    pub fn wait_up_within(&self, limit: Duration) -> Result<()> {
        let give_up = Instant::now() + deadline::scaled(limit);
        let mut seconds = HELLO_SECONDS;
        loop {
            let last = match self.run_within("true", seconds) {
                Ok(output) if output.code == 0 => return Ok(()),
                Ok(output) => output.errors(),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                Instant::now() < give_up,
                "{} did not come up: {last}",
                self.name
            );
            std::thread::sleep(LOOK);
            seconds = (seconds * 2).min(HELLO_SECONDS_MOST);
        }
    }

    /// Seconds since it booted, by its own clock.
    ///
    /// # Errors
    /// As [`sh`](Self::sh).
    pub fn uptime(&self) -> Result<f64> {
        let text = self.sh("cut -d' ' -f1 /proc/uptime")?;
        text.trim()
            .parse()
            .with_context(|| format!("{} says its uptime is {text:?}", self.name))
    }
}
