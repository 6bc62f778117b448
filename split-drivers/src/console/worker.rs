//! The thread of one console: a loop around [`ConsoleQueue::pass`] that sleeps on the event channel, the terminal and the stop signal.

use super::guard::{Guard, Verdict};
use super::log::Log;
use super::queue::{ConsoleQueue, Progress};
use super::ring::{ConsoleFault, ConsoleRing};
use crate::limits::{CONSOLE_HANGUP_RETRY, CONSOLE_LOG_BYTES, THREAD_WAIT};
use crate::stats::{Counters, add};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use xen_abi::ids::Port;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;
use xen_host::seam::Events;

/// Why a console stopped.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The guest broke its page.
    #[error("the guest broke its console: {0}")]
    Guest(#[from] ConsoleFault),
    /// The event channel failed.
    #[error(transparent)]
    Host(#[from] Error),
    /// Waiting failed.
    #[error("poll: {0}")]
    Poll(#[from] Errno),
    /// The log is no file.
    #[error("log of the console: {0}")]
    Log(#[from] std::io::Error),
}

/// The outside of a console.
#[derive(Debug)]
pub struct Terminal {
    /// Master of the pty, non-blocking.
    pub line: OwnedFd,
    /// Log file.
    pub log: Option<OwnedFd>,
}

impl Terminal {
    fn open(self) -> Result<(File, Option<Log>), ConsoleError> {
        let log = self
            .log
            .map(|fd| Log::append_to(File::from(fd), CONSOLE_LOG_BYTES))
            .transpose()?;
        Ok((File::from(self.line), log))
    }
}

/// What the control thread asks of a console's thread.
#[derive(Debug)]
pub enum Ask {
    /// Go on with this terminal.
    Reconnect(Terminal),
    /// End.
    Stop,
}

/// What a console's thread is made of.
#[derive(Debug)]
pub struct Setup {
    /// The mapped page.
    pub ring: ConsoleRing,
    /// The outside.
    pub terminal: Terminal,
    /// Event channels, with the console's port bound.
    pub events: Box<dyn Events>,
    /// Local port.
    pub port: Port,
    /// What is asked.
    pub asks: Receiver<Ask>,
    /// Signalled with each.
    pub asked: EventFd,
    /// Counters.
    pub counters: Arc<Counters>,
}

/// Serves a console until it is told to stop.
///
/// # Errors
/// See [`ConsoleError`].
pub fn serve(setup: Setup) -> Result<Box<dyn Events>, ConsoleError> {
    let Setup {
        ring,
        terminal,
        events,
        port,
        asks,
        asked,
        counters,
    } = setup;
    let (line, log) = terminal.open()?;
    let mut queue = ConsoleQueue::new(ring, line, log, Arc::clone(&counters));
    let mut guard = Guard::new(Instant::now());
    let mut masked_until = None;
    loop {
        let progress = queue.pass()?;
        if progress.moved {
            add(&counters.notifies, 1);
            events.notify(port)?;
        }
        if masked_until.is_some_and(|until| Instant::now() >= until) {
            masked_until = None;
            events.unmask(port)?;
            continue;
        }
        let ready = sleep(&*events, &asked, &queue, progress, masked_until)?;
        if ready.event && !events.pending()?.is_empty() {
            add(&counters.wakeups, 1);
            match guard.event(Instant::now()) {
                Verdict::Unmask => events.unmask(port)?,
                Verdict::MaskedUntil(until) => masked_until = Some(until),
            }
        }
        if ready.asked {
            asked.take()?;
            for ask in asks.try_iter() {
                match ask {
                    Ask::Stop => {
                        events.unbind(port)?;
                        return Ok(events);
                    }
                    Ask::Reconnect(terminal) => {
                        let (line, log) = terminal.open()?;
                        queue.reconnect(line, log);
                    }
                }
            }
        }
    }
}

struct Ready {
    event: bool,
    asked: bool,
}

fn sleep(
    events: &dyn Events,
    asked: &EventFd,
    queue: &ConsoleQueue<File>,
    progress: Progress,
    masked_until: Option<Instant>,
) -> Result<Ready, ConsoleError> {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::POLLIN, progress.want_read);
    wanted.set(PollFlags::POLLOUT, progress.want_write);
    let mut fds = vec![
        PollFd::new(events.fd(), PollFlags::POLLIN),
        PollFd::new(asked.as_fd(), PollFlags::POLLIN),
    ];
    // A terminal that hung up is always ready; look at it again later. One without room for input waits for the guest's event.
    if !progress.hung_up && !wanted.is_empty() {
        fds.push(PollFd::new(queue.line().as_fd(), wanted));
    }
    let mut timeout = if progress.hung_up {
        CONSOLE_HANGUP_RETRY
    } else {
        THREAD_WAIT
    };
    if let Some(until) = masked_until {
        timeout =
            timeout.min(until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    }
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    match poll(
        &mut fds,
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX),
    ) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let ready = |at: usize| fds[at].any().unwrap_or(false);
    Ok(Ready {
        event: ready(0),
        asked: ready(1),
    })
}
