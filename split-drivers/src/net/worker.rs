//! The thread of one queue: a loop around [`NetQueue::pass`] that sleeps on the tap, the event channels and the stop signal.

use super::link::TapLink;
use super::queue::{NetFault, NetQueue, Progress, Setup, buffer_pages};
use crate::control::pool::Handles;
use crate::limits::{NET_BATCH, NET_LOOK_AGAIN, THREAD_WAIT};
use crate::stats::{Counters, add};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use xen_abi::ids::Port;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;
use xen_host::seam::Events;

/// How a queue's thread ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The queue cannot go on.
    #[error(transparent)]
    Queue(#[from] NetFault),
    /// Event channel or io_uring failed.
    #[error(transparent)]
    Host(#[from] Error),
}

/// What a thread needs beside its queue.
#[derive(Debug)]
pub struct Tools {
    /// The tap's queue, non-blocking.
    pub tap: Arc<OwnedFd>,
    /// Event channels, with both ports bound.
    pub events: Box<dyn Events>,
    /// Local port of the transmit ring.
    pub tx_port: Port,
    /// Local port of the receive ring; may be the same.
    pub rx_port: Port,
    /// Signalled when the thread is to end.
    pub stop: EventFd,
}

/// Serves a queue until it is told to stop. `ready` hears once whether serving began. Answers the handles to be used again, and how it ended.
pub fn serve(
    tools: Tools,
    setup: Setup<()>,
    ready: impl FnOnce(Result<(), Error>),
) -> (Option<Handles>, Result<(), WorkerError>) {
    let Tools {
        tap,
        events,
        tx_port,
        rx_port,
        stop,
    } = tools;
    let link = match TapLink::open(
        tap.as_fd(),
        events.fd(),
        stop.as_fd(),
        buffer_pages(),
        NET_BATCH,
    ) {
        Ok(link) => link,
        Err(error) => {
            ready(Err(error));
            return (None, Ok(()));
        }
    };
    ready(Ok(()));
    let counters = Arc::clone(&setup.counters);
    let mut thread = Loop {
        events,
        tx_port,
        rx_port,
        stop,
        counters,
        masked: Vec::new(),
    };
    let (mut queue, owed) = match NetQueue::new(setup.with_link(link)) {
        Ok(made) => made,
        Err(fault) => return (None, Err(fault.into())),
    };
    let result = thread
        .tell(owed)
        .map_err(WorkerError::from)
        .and_then(|()| thread.run(&mut queue));
    let grants = queue.into_grants();
    let events = thread.events;
    let unbound = events.unbind(tx_port).and_then(|()| {
        if rx_port == tx_port {
            Ok(())
        } else {
            events.unbind(rx_port)
        }
    });
    match unbound {
        Ok(()) => (Some(Handles { grants, events }), result),
        Err(error) => {
            tracing::warn!(%error, "event channel handle is not used again");
            (None, result)
        }
    }
}

struct Loop {
    events: Box<dyn Events>,
    tx_port: Port,
    rx_port: Port,
    stop: EventFd,
    counters: Arc<Counters>,
    /// Ports that fired and are masked until the rings were found empty.
    masked: Vec<Port>,
}

impl Loop {
    fn run(&mut self, queue: &mut NetQueue<TapLink>) -> Result<(), WorkerError> {
        loop {
            let progress = queue.pass()?;
            self.tell(progress)?;
            if progress.sent + progress.received > 0 {
                continue;
            }
            for port in self.masked.drain(..) {
                self.events.unmask(port)?;
            }
            let Some(sleep) = queue.arm()? else { continue };
            let timeout = if sleep.soon {
                NET_LOOK_AGAIN
            } else {
                THREAD_WAIT
            };
            let wake = queue.link_mut().wait(sleep.link, timeout)?;
            if wake.event {
                add(&self.counters.wakeups, 1);
                self.masked = self.events.pending()?;
            }
            if wake.stop {
                self.stop.take()?;
                return Ok(());
            }
        }
    }

    fn tell(&self, progress: Progress) -> Result<(), Error> {
        let tx = progress.notify_tx.then_some(self.tx_port);
        // With one port, one event is enough.
        let rx = progress
            .notify_rx
            .then_some(self.rx_port)
            .filter(|port| tx != Some(*port));
        for port in [tx, rx].into_iter().flatten() {
            add(&self.counters.notifies, 1);
            self.events.notify(port)?;
        }
        Ok(())
    }
}
