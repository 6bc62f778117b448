//! What the control thread asks of a ring's thread while it serves, and the answer it waits for.
//!
//! A ring's thread looks at one flag between two passes, so that it heeds an ask however busy its guest keeps it; the bell is for a thread that sleeps.

use super::dirty::DirtyMap;
use crate::limits::ASK_GRACE;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;

/// What is asked. Whoever is asked answers once, or ends.
#[derive(Debug)]
pub enum Ask {
    /// Note writes in this map from now on, those in flight included; or no more.
    Track(Option<Arc<DirtyMap>>, SyncSender<()>),
    /// Take no more, end what is in flight, flush; answers how many requests wait in the ring.
    Freeze {
        /// Give up at this time, and go on as before.
        until: Instant,
        /// For the answer.
        reply: SyncSender<Result<u32, String>>,
    },
    /// Take requests again.
    Thaw(SyncSender<()>),
    /// End what is in flight and leave the ring.
    End,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Reins {
    asks: Sender<Ask>,
    waiting: Arc<AtomicBool>,
    bell: EventFd,
}

/// The ring thread's end.
#[derive(Debug)]
pub struct Ears {
    asks: Receiver<Ask>,
    waiting: Arc<AtomicBool>,
    bell: EventFd,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The thread has ended by itself; its device is about to be reported as stopped.
    #[error("its ring has just stopped")]
    Ended,
    /// It does not answer.
    #[error("its ring does not answer")]
    Late,
}

/// Both ends; `bell` wakes the ring's thread.
///
/// # Errors
/// No descriptor is free.
pub fn pair(bell: &EventFd) -> Result<(Reins, Ears), Error> {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicBool::new(false));
    let reins = Reins {
        asks: sender,
        waiting: Arc::clone(&waiting),
        bell: bell.try_clone()?,
    };
    let ears = Ears {
        asks: receiver,
        waiting,
        bell: bell.try_clone()?,
    };
    Ok((reins, ears))
}

/// An answer to come.
#[derive(Debug)]
pub struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// Waits until `until`, and a little longer than that: whoever was asked may need all of the time.
    ///
    /// # Errors
    /// There is none.
    pub fn wait(self, until: Instant) -> Result<T, NoAnswer> {
        let left = until.saturating_duration_since(Instant::now()) + ASK_GRACE;
        self.0.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoAnswer::Late,
            RecvTimeoutError::Disconnected => NoAnswer::Ended,
        })
    }
}

impl Reins {
    /// See [`Ask::Track`].
    #[must_use]
    pub fn track(&self, map: Option<&Arc<DirtyMap>>) -> Pending<()> {
        self.ask(|reply| Ask::Track(map.cloned(), reply))
    }

    /// See [`Ask::Freeze`].
    #[must_use]
    pub fn freeze(&self, until: Instant) -> Pending<Result<u32, String>> {
        self.ask(|reply| Ask::Freeze { until, reply })
    }

    /// See [`Ask::Thaw`].
    #[must_use]
    pub fn thaw(&self) -> Pending<()> {
        self.ask(Ask::Thaw)
    }

    /// See [`Ask::End`].
    pub fn end(&self) {
        self.send(Ask::End);
    }

    fn ask<T>(&self, ask: impl FnOnce(SyncSender<T>) -> Ask) -> Pending<T> {
        // Room for the answer: whoever was asked never waits for us.
        let (reply, answer) = sync_channel(1);
        self.send(ask(reply));
        Pending(answer)
    }

    /// An ask that nobody hears any more is dropped, and with it the place for its answer.
    fn send(&self, ask: Ask) {
        let _ = self.asks.send(ask);
        self.waiting.store(true, Ordering::SeqCst);
        if let Err(error) = self.bell.signal() {
            tracing::error!(%error, "bell of a ring");
        }
    }
}

impl Ears {
    /// The next ask, if there is one. Costs one load when there is none.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Ask> {
        if !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        self.take()
    }

    #[cold]
    fn take(&self) -> Option<Ask> {
        // Lowered before the look: an ask that comes after the look raises it again.
        self.waiting.store(false, Ordering::SeqCst);
        let ask = self.asks.try_recv().ok();
        if ask.is_some() {
            self.waiting.store(true, Ordering::SeqCst);
        }
        ask
    }

    /// The descriptor that wakes the thread.
    #[must_use]
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now()
    }

    #[test]
    fn an_ask_is_heard_once_and_an_end_of_the_thread_is_an_answer() {
        let bell = EventFd::new().unwrap();
        let (reins, ears) = pair(&bell).unwrap();
        assert!(ears.next().is_none());
        let (one, two) = (reins.thaw(), reins.track(None));
        assert_eq!(bell.take().unwrap(), 2);
        let Some(Ask::Thaw(reply)) = ears.next() else {
            panic!("not the first")
        };
        reply.send(()).unwrap();
        one.wait(soon()).unwrap();
        assert!(matches!(ears.next(), Some(Ask::Track(None, _))));
        assert_eq!(two.wait(soon()), Err(NoAnswer::Ended));
        assert!(ears.next().is_none());
        drop(ears);
        assert_eq!(reins.thaw().wait(soon()), Err(NoAnswer::Ended));
    }
}
