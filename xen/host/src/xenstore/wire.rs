//! One connection and the right to write to it.

use super::endpoint::{Link, each_request};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest that one write to xenstored may take before the connection counts as dead.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection; requests of several threads go out one after the other.
#[derive(Debug)]
pub(super) struct Wire {
    link: Link,
    writing: Mutex<()>,
    /// Requests sent and not answered, for a device.
    open: Mutex<Open>,
    answer: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    requests: u64,
    ended: bool,
}

impl Wire {
    pub fn new(link: Link) -> Self {
        if let Err(error) = link.set_write_timeout(WRITE_TIMEOUT) {
            tracing::warn!(%error, "writes to xenstored have no time limit");
        }
        Self {
            link,
            writing: Mutex::new(()),
            open: Mutex::new(Open::default()),
            answer: Condvar::new(),
        }
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends whole requests. What cannot be sent ends the connection: the reader then fails everything that waits.
    pub fn send(&self, requests: &[u8]) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = if self.link.is_device() {
            each_request(requests).try_for_each(|request| self.send_when_answered(request))
        } else {
            super::count_round_trip();
            self.link.send(requests)
        };
        if let Err(error) = result {
            tracing::warn!(%error, "writing to xenstored failed");
            self.link.shut_down();
        }
    }

    /// Sends one request once the one before has been answered.
    fn send_when_answered(&self, request: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + WRITE_TIMEOUT;
        let mut open = self.open();
        while open.requests > 0 && !open.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let waited = self.answer.wait_timeout(open, left);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if open.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        open.requests += 1;
        drop(open);
        super::count_round_trip();
        self.link.send(request)
    }

    /// The reader saw an answer.
    pub fn answered(&self) {
        let mut open = self.open();
        open.requests = open.requests.saturating_sub(1);
        drop(open);
        self.answer.notify_all();
    }

    /// The reader saw the end: nobody shall wait for an answer.
    pub fn end(&self) {
        self.open().ended = true;
        self.answer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use xen_abi::xs_wire::Request;

    #[test]
    fn a_device_gets_the_next_request_only_after_the_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let wire = Arc::new(Wire::new(Link::Device(OwnedFd::from(ours).into())));
        let mut bytes = Vec::new();
        for id in 0..3 {
            let request = Request::Read("/a".into()).to_message(id, 0).unwrap();
            request.encode_into(&mut bytes).unwrap();
        }
        let sender = Arc::clone(&wire);
        let thread = std::thread::spawn(move || sender.send(&bytes));
        let mut request = [0; 19];
        for id in 0..2 {
            theirs.read_exact(&mut request).unwrap();
            assert_eq!(request[4], id);
            theirs.set_nonblocking(true).unwrap();
            let early = theirs.read(&mut [0; 19]).unwrap_err().kind();
            assert_eq!(
                early,
                io::ErrorKind::WouldBlock,
                "the kernel would overwrite it"
            );
            theirs.set_nonblocking(false).unwrap();
            wire.answered();
        }
        theirs.read_exact(&mut request).unwrap();
        thread.join().unwrap();
        wire.end();
        wire.send(&request);
        theirs.set_nonblocking(true).unwrap();
        assert!(
            theirs.read(&mut request).is_err(),
            "nothing is sent after the end"
        );
    }
}
