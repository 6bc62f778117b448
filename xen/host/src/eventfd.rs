//! An event counter behind a descriptor: the wake-up between two of our own threads or processes.
//!
//! `xen-sim` uses it as the body of a simulated event channel, and the ring threads of a driver wait on one for "stop" and "more work".
//! Many signals before a take are one wake-up. It never blocks unless [`EventFd::wait`] is asked to.

use crate::error::Error;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd as NixEventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A counter that a descriptor makes visible to `poll`, io_uring and tokio.
#[derive(Debug)]
pub struct EventFd {
    inner: NixEventFd,
}

impl EventFd {
    /// A new counter at zero, close-on-exec, non-blocking.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new() -> Result<Self, Error> {
        NixEventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|inner| Self { inner })
            .map_err(|errno| Error::refused("eventfd", errno))
    }

    /// Another handle to the same counter.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let fd = self
            .inner
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::refused("dup of an eventfd", errno_of(&error)))?;
        Self::from_fd(fd)
    }

    /// Takes over an eventfd that was made elsewhere (passed in by a parent).
    ///
    /// # Errors
    /// The descriptor is not valid.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        set_nonblocking(fd.as_fd())?;
        // SAFETY: the descriptor is owned by the caller and handed over; a descriptor that is no eventfd fails each call with an errno.
        let inner = unsafe { NixEventFd::from_owned_fd(fd) };
        Ok(Self { inner })
    }

    /// Adds one. A counter that is full stays full: the other side is awake anyway.
    ///
    /// # Errors
    /// The descriptor is not an eventfd.
    pub fn signal(&self) -> Result<(), Error> {
        match self.inner.write(1) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(Error::refused("signal of an eventfd", errno)),
        }
    }

    /// Takes the count and resets it; 0 when nobody signalled. Never blocks.
    ///
    /// # Errors
    /// The descriptor is not an eventfd.
    pub fn take(&self) -> Result<u64, Error> {
        match self.inner.read() {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(Error::refused("read of an eventfd", errno)),
        }
    }

    /// Waits until somebody signalled; false on timeout. Does not take the count.
    ///
    /// # Errors
    /// The descriptor is not valid.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        wait_readable(self.as_fd(), timeout)
    }

    /// The descriptor, for somebody else's poll.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.inner.into()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

/// The errno behind an I/O error, or EIO where the standard library has none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Makes a descriptor answer EAGAIN instead of blocking.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Error> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(fd, FcntlArg::F_GETFL)
        .map(OFlag::from_bits_retain)
        .map_err(|errno| Error::refused("flags of a descriptor", errno))?;
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(|errno| Error::refused("flags of a descriptor", errno))
}

/// Waits until a descriptor is readable (or broken, which a read then reports); false on timeout. Signals do not shorten it.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool, Error> {
    wait_for(fd, PollFlags::POLLIN, timeout)
}

/// Waits for `flags`, an error or a hang-up; false on timeout.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    timeout: Option<Duration>,
) -> Result<bool, Error> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => poll_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match poll(&mut [PollFd::new(fd, flags)], left) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::refused("poll", errno)),
        }
    }
}

/// In milliseconds, rounded up so that a short wait is never a spin.
fn poll_timeout(left: Duration) -> PollTimeout {
    let millis = left.as_micros().div_ceil(1000);
    i32::try_from(millis)
        .ok()
        .and_then(|millis| PollTimeout::try_from(millis).ok())
        .unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_signals_are_one_wakeup() {
        let event = EventFd::new().unwrap();
        assert_eq!(event.take().unwrap(), 0);
        assert!(!event.wait(Some(Duration::ZERO)).unwrap());
        event.signal().unwrap();
        event.signal().unwrap();
        assert!(event.wait(None).unwrap());
        assert_eq!(event.take().unwrap(), 2);
        assert_eq!(event.take().unwrap(), 0);
    }

    #[test]
    fn a_passed_descriptor_is_the_same_counter() {
        let event = EventFd::new().unwrap();
        let other = EventFd::from_fd(event.try_clone().unwrap().into_fd()).unwrap();
        other.signal().unwrap();
        assert_eq!(event.take().unwrap(), 1);
    }

    #[test]
    fn a_full_counter_is_no_error() {
        let event = EventFd::new().unwrap();
        event.inner.write(u64::MAX - 1).unwrap();
        event.signal().unwrap();
        assert_eq!(event.take().unwrap(), u64::MAX - 1);
    }
}
