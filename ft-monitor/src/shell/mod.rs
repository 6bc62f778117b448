//! The process around the pure machine: clock, journal, agent connection, probes, API, systemd.
//!
//! ```text
//!   link.rs ── events ──▶ ┌───────────┐ ──▶ journal (durable before anything that follows)
//!   probes ── answers ──▶ │ main loop │ ──▶ act: orders to the agent, each in its own task
//!   act ── results ─────▶ │  Monitor  │ ──▶ probe: questions, each in its own task
//!   server.rs ─ queries ▶ └───────────┘ ──▶ followers of events
//! ```
//!
//! One task owns the machine and the journal; the others only send it messages, through bounded queues. Crash-only: there is no orderly end, a
//! successor reads the journal. The watchdog of systemd is petted by the main loop and by nothing else.

pub mod clock;
mod link;
mod server;

use crate::act;
use crate::api::EventLine;
use crate::config::{self, ConfigError};
use crate::journal::{Journal, JournalError, keep};
use crate::limits::{FOLLOW_LAG_MAX, INPUT_QUEUE_MAX};
use crate::monitor::{Action, Input, Monitor, Rules};
use crate::policy::Defaults;
use crate::record::Entry;
use crate::report;
use crate::time::{Mono, Now};
use clock::Clock;
use server::Query;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// The agent's socket.
    pub agent: PathBuf,
    /// The monitor's own socket.
    pub socket: PathBuf,
    /// Directory of the journal.
    pub state: PathBuf,
    /// Directory of the configuration.
    pub config: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        use parapet_wire::paths;
        Self {
            agent: paths::AGENT_SOCKET.into(),
            socket: paths::MONITOR_SOCKET.into(),
            state: PathBuf::from(paths::STATE_DIR).join("monitor"),
            config: paths::CONFIG_DIR.into(),
        }
    }
}

/// Why the monitor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The API socket cannot be made.
    #[error("socket {path}: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused something every process needs.
    #[error("cannot {what}: {source}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the monitor until SIGTERM or SIGINT.
///
/// # Errors
/// Something it cannot work without: see [`ShellError`]. That the agent is not there is no error.
pub async fn run(options: Options) -> Result<(), ShellError> {
    let defaults = config::load(&options.config)?;
    let clock = Clock::open()?;
    let listener = server::bind(&options.socket)?;
    let mut shell = Shell::open(&options, defaults, clock)?;
    let (queries_in, mut queries) = mpsc::channel::<Query>(crate::limits::CLIENTS_MAX);
    tokio::spawn(server::serve(listener, queries_in));
    tokio::spawn(link::keep_connected(
        options.agent.clone(),
        shell.inputs_in.clone(),
    ));
    let mut stop = Stop::catch()?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(socket = %options.socket.display(), "ready");
    let pet_every = sd_notify::watchdog_enabled().map(|timeout| timeout / 3);
    let mut petted = Instant::now();
    loop {
        if pet_every.is_some_and(|every| petted.elapsed() >= every) {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            petted = Instant::now();
        }
        let wake = shell.next_wake(pet_every);
        tokio::select! {
            input = shell.inputs.recv() => shell.take_in(input),
            Some(query) = queries.recv() => shell.answer(query),
            () = tokio::time::sleep(wake) => shell.step(Input::Tick),
            () = stop.asked() => break,
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping; guests go on, and nobody watches them until the next start");
    Ok(())
}

/// The main loop's things.
struct Shell {
    agent: PathBuf,
    clock: Clock,
    began: Instant,
    monitor: Monitor,
    journal: Journal,
    /// Why the journal on disk lags behind the book, until it is rewritten.
    journal_trouble: Option<String>,
    startup_alarm: Option<String>,
    events: VecDeque<Entry>,
    followers: broadcast::Sender<EventLine>,
    inputs_in: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
}

impl Shell {
    fn open(options: &Options, defaults: Defaults, clock: Clock) -> Result<Self, ShellError> {
        let (journal, back) = Journal::open(&options.state)?;
        let startup_alarm = (back.damaged > 0).then(|| {
            format!(
                "the journal had {} damaged lines, which were skipped",
                back.damaged
            )
        });
        if back.torn_bytes > 0 {
            tracing::info!(
                bytes = back.torn_bytes,
                "the journal's torn last line was cut off"
            );
        }
        let (monitor, first) = Monitor::restore(
            back.book,
            defaults,
            Rules::default(),
            clock.boot(),
            clock.now(),
        );
        let (inputs_in, inputs) = mpsc::channel(INPUT_QUEUE_MAX);
        let mut shell = Self {
            agent: options.agent.clone(),
            clock,
            began: Instant::now(),
            monitor,
            journal,
            journal_trouble: None,
            startup_alarm,
            events: back.events,
            followers: broadcast::channel(FOLLOW_LAG_MAX).0,
            inputs_in,
            inputs,
        };
        shell.carry_out(first);
        Ok(shell)
    }

    /// How long nothing needs to be done unless something happens.
    fn next_wake(&self, pet_every: Option<Duration>) -> Duration {
        let now = self.clock.now().mono;
        let wait = self.monitor.wake_at(now).since(now);
        wait.min(pet_every.unwrap_or(wait))
    }

    /// Takes in what waits, all of it, before the next wake-up is computed.
    fn take_in(&mut self, first: Option<Input>) {
        let mut next = first;
        for _ in 0..INPUT_QUEUE_MAX {
            let Some(input) = next else { return };
            self.step(input);
            next = self.inputs.try_recv().ok();
        }
        if let Some(input) = next {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        let actions = self.monitor.step(input, self.clock.now());
        self.carry_out(actions);
    }

    /// In the order given: an order goes out after its intent is on disk.
    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Journal(entry) => self.write_down(entry),
                Action::Perform(order) => {
                    let (agent, inputs) = (self.agent.clone(), self.inputs_in.clone());
                    tokio::spawn(async move {
                        let result = act::perform(&agent, &order).await;
                        let _ = inputs.send(Input::Performed { order, result }).await;
                    });
                }
                Action::Ask(question) => {
                    let inputs = self.inputs_in.clone();
                    tokio::spawn(async move {
                        let answer = crate::probe::ask(&question.target, question.timeout).await;
                        let _ = inputs.send(Input::Answer { question, answer }).await;
                    });
                }
            }
        }
    }

    fn write_down(&mut self, entry: Entry) {
        let now = self.clock.now();
        let written = match self.journal_trouble.is_some() || self.journal.is_full() {
            // The book has the entry already: a rewritten journal needs nothing else.
            true => self.journal.rotate(&self.monitor.book.snapshot(now)),
            false => Ok(()),
        }
        .and_then(|()| self.journal.append(&entry));
        match written {
            Ok(()) => self.journal_trouble = None,
            // Guests come first: what cannot be written down is done all the same, and said.
            Err(error) => {
                if self.journal_trouble.is_none() {
                    tracing::error!(%error, "the journal cannot be written; going on without");
                }
                self.journal_trouble = Some(error.to_string());
            }
        }
        if let Some(line) = report::event(&entry, &self.monitor.book) {
            log(&line);
            let _ = self.followers.send(line);
        }
        keep(&mut self.events, entry);
    }

    fn answer(&mut self, query: Query) {
        let now: Now = self.clock.now();
        match query {
            Query::Status(reply) => {
                let trouble = self.journal_trouble.iter().map(|why| {
                    format!("{why}; guests are still restarted, but a restart of the monitor would forget it")
                });
                let alarms = trouble.chain(self.startup_alarm.clone()).collect();
                let status = report::status(&self.monitor, self.began.elapsed(), alarms, now);
                let _ = reply.send(status);
            }
            Query::Availability(guest, reply) => {
                let _ = reply.send(report::availability(
                    &self.monitor.book,
                    guest.as_deref(),
                    now,
                ));
            }
            Query::Events(last, reply) => {
                let lines = self
                    .events
                    .iter()
                    .rev()
                    .filter_map(|e| report::event(e, &self.monitor.book));
                let mut lines: Vec<EventLine> = lines.take(last).collect();
                lines.reverse();
                let _ = reply.send((lines, self.followers.subscribe()));
            }
        }
    }
}

fn log(line: &EventLine) {
    let guest = line.guest.as_deref().unwrap_or("-");
    match line.kind.as_str() {
        "outage_began" | "gave_up" | "agent_down" => tracing::warn!(guest, "{}", line.text),
        "signs" | "remark" => tracing::debug!(guest, "{}", line.text),
        _ => tracing::info!(guest, "{}", line.text),
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn catch() -> Result<Self, ShellError> {
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |kind| {
            signal(kind).map_err(|source| ShellError::Process {
                what: "catch signals",
                source,
            })
        };
        Ok(Self {
            term: catch(SignalKind::terminate())?,
            int: catch(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// A moment on the clock that decisions use, for tests of the process.
#[must_use]
pub fn mono_now() -> Option<Mono> {
    Clock::open().ok().map(|clock| clock.now().mono)
}
