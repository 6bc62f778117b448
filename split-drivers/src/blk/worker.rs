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
//! Everything of a ring is made, used and dropped by its own thread: io_uring demands it, and nothing needs a lock.

use super::queue::{BlkQueue, Progress, QueueFault, Setup};
use crate::control::pool::Handles;
use crate::disk::file::{FileDisk, Image};
use crate::limits::{BLK_BUFFER_PAGES, BLK_POLL, DRAIN_TIMEOUT, THREAD_WAIT};
use crate::stats::{Counters, add};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;
use xen_abi::ids::Port;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;
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
    /// Signalled when the ring is to be drained and left.
    pub stop: EventFd,
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
        stop,
        may_poll,
    } = tools;
    let counters = Arc::clone(&setup.counters);
    // A successor owes the guest one event: one may have been lost with the predecessor.
    let owed = setup.recovered.is_some();
    let slots = setup.ring.entries();
    let made = FileDisk::open(&image, events.fd(), stop.as_fd(), BLK_BUFFER_PAGES, slots)
        .and_then(|disk| BlkQueue::new(setup.with_disk(disk)));
    let mut queue = match made {
        Ok(queue) => queue,
        Err(error) => {
            ready(Err(error));
            return (None, Ok(()));
        }
    };
    ready(Ok(()));
    let mut thread = Loop {
        events,
        port,
        stop,
        may_poll,
        counters,
        masked: false,
        polling: false,
    };
    let result = thread
        .run(&mut queue, owed)
        .and_then(|()| thread.drain(&mut queue));
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
    stop: EventFd,
    may_poll: bool,
    counters: Arc<Counters>,
    /// An event was taken and the port is masked.
    masked: bool,
    /// Looking at the empty ring paid off the last time.
    polling: bool,
}

impl Loop {
    fn run(&mut self, queue: &mut BlkQueue<FileDisk>, mut owed: bool) -> Result<(), WorkerError> {
        loop {
            let progress = queue.pass()?;
            self.tell(progress, &mut owed)?;
            if progress.moved() {
                self.polling |= progress.taken > 0 && self.may_poll;
                continue;
            }
            if self.look(queue)? {
                continue;
            }
            if self.masked {
                self.events.unmask(self.port)?;
                self.masked = false;
            }
            if queue.arm()? > 0 {
                continue;
            }
            if self.sleep(queue)? {
                return Ok(());
            }
        }
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

    /// Sleeps; true if the thread is to stop.
    fn sleep(&mut self, queue: &mut BlkQueue<FileDisk>) -> Result<bool, Error> {
        let wake = queue.disk_mut().wait(THREAD_WAIT)?;
        if wake.event {
            add(&self.counters.wakeups, 1);
            self.masked |= !self.events.pending()?.is_empty();
        }
        if wake.stop {
            self.stop.take()?;
        }
        Ok(wake.stop)
    }

    /// Answers everything that was taken; takes nothing more.
    fn drain(&mut self, queue: &mut BlkQueue<FileDisk>) -> Result<(), WorkerError> {
        queue.stop_taking();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while queue.in_flight() > 0 {
            let progress = queue.pass()?;
            self.tell(progress, &mut false)?;
            if progress.moved() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WorkerError::NotDrained(queue.in_flight()));
            }
            queue.disk_mut().wait(left)?;
        }
        Ok(())
    }
}
