//! The thread of one ring: a loop around [`BlkQueue::pass`] that decides when to look again, when to sleep and when to tell the guest.
//!
//! ```text
//!   ┌▶ pass ──moved──┐            the port stays masked from an event until the ring was found empty, so a storm of
//!   │   │ nothing    │            events costs the guest one wake-up each time we sleep, not one per event
//!   │   ▼            │
//!   │  look at the ring for a while (adaptive: only if looking paid off before)
//!   │   ▼
//!   └─ unmask, arm (last check), sleep in io_uring: I/O, event, order
//! ```
//!
//! Between two passes it heeds what the control thread asks ([`super::reins`]): note writes, freeze, thaw, end. A frozen ring takes nothing and keeps its
//! port masked.
//!
//! Everything of a ring is made, used and dropped by its own thread: io_uring demands it, and nothing needs a lock.

use super::queue::{BlkQueue, Progress, QueueFault, Setup};
use super::reins::{Ask, Ears};
use crate::control::pool::Handles;
use crate::disk::file::{FileDisk, Image};
use crate::limits::{BLK_BUFFER_PAGES, BLK_POLL, DRAIN_TIMEOUT, THREAD_WAIT};
use crate::stats::{Counters, add};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xen_abi::ids::Port;
use xen_host::error::Error;
use xen_host::seam::Events;

/// How a ring's thread ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The queue cannot go on.
    #[error(transparent)]
    Queue(#[from] QueueFault),
    /// Event channel or io_uring failed.
    #[error(transparent)]
    Host(#[from] Error),
    /// The medium did not answer while the ring was drained.
    #[error("{0} requests are still at the medium")]
    NotDrained(u32),
}

/// What a thread needs beside its queue.
#[derive(Debug)]
pub struct Tools {
    /// The medium, shared by the rings of the disk.
    pub image: Arc<Image>,
    /// Event channels, with the ring's port bound.
    pub events: Box<dyn Events>,
    /// The ring's local port.
    pub port: Port,
    /// What the control thread asks.
    pub ears: Ears,
    /// Take nothing until that is asked for.
    pub frozen: bool,
    /// Look at an empty ring before sleeping; off where guest and driver share one CPU.
    pub may_poll: bool,
}

/// Serves a ring until it is told to stop; everything taken is answered then. `ready` hears once whether serving began. Answers the handles
/// to be used again, with nothing mapped and nothing bound, and how it ended: after an error, requests in flight stay in the journal.
pub fn serve(
    tools: Tools,
    setup: Setup<()>,
    ready: impl FnOnce(Result<(), Error>),
) -> (Option<Handles>, Result<(), WorkerError>) {
    let Tools {
        image,
        events,
        port,
        ears,
        frozen,
        may_poll,
    } = tools;
    let counters = Arc::clone(&setup.counters);
    // A successor owes the guest one event: one may have been lost with the predecessor.
    let owed = setup.recovered.is_some();
    let slots = setup.ring.entries();
    let bell = ears.bell().as_fd();
    let made = FileDisk::open(&image, events.fd(), bell, BLK_BUFFER_PAGES, slots)
        .and_then(|disk| BlkQueue::new(setup.with_disk(disk)));
    let mut queue = match made {
        Ok(queue) => queue,
        Err(error) => {
            ready(Err(error));
            return (None, Ok(()));
        }
    };
    if frozen {
        queue.stop_taking();
    }
    image.begin_use();
    ready(Ok(()));
    let mut thread = Loop {
        events,
        port,
        ears,
        may_poll,
        counters,
        masked: false,
        polling: false,
        frozen,
    };
    let result = thread
        .run(&mut queue, owed)
        .and_then(|()| thread.drain(&mut queue));
    if result.is_ok() {
        image.end_use();
    }
    let grants = queue.into_grants();
    let events = thread.events;
    let handles = match events.unbind(port) {
        Ok(()) => Some(Handles { grants, events }),
        Err(error) => {
            tracing::warn!(%error, "event channel handle is not used again");
            None
        }
    };
    (handles, result)
}

struct Loop {
    events: Box<dyn Events>,
    port: Port,
    ears: Ears,
    may_poll: bool,
    counters: Arc<Counters>,
    /// An event was taken and the port is masked.
    masked: bool,
    /// Looking at the empty ring paid off the last time.
    polling: bool,
    /// Takes nothing.
    frozen: bool,
}

impl Loop {
    fn run(&mut self, queue: &mut BlkQueue<FileDisk>, mut owed: bool) -> Result<(), WorkerError> {
        loop {
            while let Some(ask) = self.ears.next() {
                if self.heed(queue, ask)? {
                    return Ok(());
                }
            }
            let progress = queue.pass()?;
            self.tell(progress, &mut owed)?;
            if progress.moved() {
                self.polling |= progress.taken > 0 && self.may_poll;
                continue;
            }
            if self.look(queue)? {
                continue;
            }
            if self.masked && !self.frozen {
                self.events.unmask(self.port)?;
                self.masked = false;
            }
            if queue.arm()? > 0 {
                continue;
            }
            self.sleep(queue)?;
        }
    }

    /// Does what the control thread asks; true if the ring is to be left.
    fn heed(&mut self, queue: &mut BlkQueue<FileDisk>, ask: Ask) -> Result<bool, WorkerError> {
        match ask {
            Ask::Track(map, reply) => {
                queue.track(map);
                let _ = reply.send(());
            }
            Ask::Freeze { until, reply } => {
                let quiet = self.freeze(queue, until)?;
                let _ = reply.send(quiet);
            }
            Ask::Thaw(reply) => {
                self.thaw(queue);
                let _ = reply.send(());
            }
            Ask::End => return Ok(true),
        }
        Ok(false)
    }

    /// Becomes quiet, or goes on as before: answers how many requests wait in the ring, or why it is not quiet.
    fn freeze(
        &mut self,
        queue: &mut BlkQueue<FileDisk>,
        until: Instant,
    ) -> Result<Result<u32, String>, WorkerError> {
        self.frozen = true;
        queue.stop_taking();
        let mut quiet = self.run_dry(queue, until, |queue| queue.in_flight() == 0)?;
        if quiet {
            queue.flush();
            quiet = self.run_dry(queue, until, |queue| queue.flushed().is_some())?;
        }
        let why = match queue.flushed() {
            Some(Err(errno)) if quiet => format!("flush of the medium: {errno}"),
            _ if quiet => return Ok(Ok(queue.untaken()?)),
            _ => format!("{} requests are still at the medium", queue.in_flight()),
        };
        self.thaw(queue);
        Ok(Err(why))
    }

    fn thaw(&mut self, queue: &mut BlkQueue<FileDisk>) {
        self.frozen = false;
        queue.start_taking();
    }

    fn tell(&self, progress: Progress, owed: &mut bool) -> Result<(), Error> {
        if progress.notify || std::mem::take(owed) {
            add(&self.counters.notifies, 1);
            self.events.notify(self.port)?;
        }
        Ok(())
    }

    /// Looks for requests and completions for a while; true if something came.
    fn look(&mut self, queue: &mut BlkQueue<FileDisk>) -> Result<bool, WorkerError> {
        if !self.polling {
            return Ok(false);
        }
        let until = Instant::now() + BLK_POLL;
        while Instant::now() < until {
            let mut owed = false;
            let progress = queue.pass()?;
            self.tell(progress, &mut owed)?;
            if progress.moved() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        self.polling = false;
        Ok(false)
    }

    fn sleep(&mut self, queue: &mut BlkQueue<FileDisk>) -> Result<(), Error> {
        self.sleep_for(queue, THREAD_WAIT)
    }

    fn sleep_for(&mut self, queue: &mut BlkQueue<FileDisk>, most: Duration) -> Result<(), Error> {
        let wake = queue.disk_mut().wait(most)?;
        if wake.event {
            add(&self.counters.wakeups, 1);
            self.masked |= !self.events.pending()?.is_empty();
        }
        if wake.stop {
            self.ears.bell().take()?;
        }
        Ok(())
    }

    /// Answers everything that was taken; takes nothing more.
    fn drain(&mut self, queue: &mut BlkQueue<FileDisk>) -> Result<(), WorkerError> {
        queue.stop_taking();
        let until = Instant::now() + DRAIN_TIMEOUT;
        match self.run_dry(queue, until, |queue| queue.in_flight() == 0)? {
            true => Ok(()),
            false => Err(WorkerError::NotDrained(queue.in_flight())),
        }
    }

    /// Passes until `done`, or until it is too late: false.
    fn run_dry(
        &mut self,
        queue: &mut BlkQueue<FileDisk>,
        until: Instant,
        done: impl Fn(&BlkQueue<FileDisk>) -> bool,
    ) -> Result<bool, WorkerError> {
        while !done(queue) {
            let progress = queue.pass()?;
            self.tell(progress, &mut false)?;
            if progress.moved() {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.sleep_for(queue, left)?;
        }
        Ok(true)
    }
}
