//! QEMU's machine protocol: one command at a time, answers awaited, events passed over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{deadline, port};

/// How often a state that QEMU does not announce is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// An open control connection.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the QEMU that runs in `dir`.
    ///
    /// # Errors
    /// When it does not answer within [`deadline::QMP`].
    pub fn connect(dir: &Path) -> Result<Self> {
        let stream =
            port::connect(dir, "qmp.sock").context("QEMU's control socket is not there")?;
        stream.set_read_timeout(Some(deadline::scaled(deadline::QMP)))?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
        };
        qmp.line()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self
            .stream
            .read_line(&mut line)
            .context("QEMU does not answer")?
            == 0
        {
            bail!("QEMU is gone");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs one command and returns what it returned.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .context("QEMU is gone")?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!(
                    "QEMU refused {command}: {}",
                    error["desc"].as_str().unwrap_or("no reason given")
                );
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Runs one command of the human monitor.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let value = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(value.as_str().unwrap_or_default().to_owned())
    }

    /// Asks `command` until `field` of its answer is none of `passing`, and returns it.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub fn await_field(
        &mut self,
        command: &str,
        field: &str,
        passing: &[&str],
        limit: Duration,
    ) -> Result<String> {
        let give_up = Instant::now() + limit;
        loop {
            let answer = self.execute(command, json!({}))?;
            let state = answer[field].as_str().unwrap_or_default().to_owned();
            if !state.is_empty() && !passing.contains(&state.as_str()) {
                return Ok(state);
            }
            if Instant::now() > give_up {
                bail!("{command} still says {state:?} after {limit:?}");
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }
}
