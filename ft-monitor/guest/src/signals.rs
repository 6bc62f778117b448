//! Being asked to stop, without a signal handler: the signals are blocked and read from a descriptor.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The time is up.
    Time,
    /// The descriptor has something to read.
    Readable,
    /// SIGTERM or SIGINT came.
    Stop,
}

/// The two signals that end this program.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes SIGTERM and SIGINT away from their default action.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptor.
    pub fn catch() -> io::Result<Self> {
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(
            &set,
            SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
        )?))
    }

    /// Waits until `until`, for a signal, or for `device` (when given) to become readable.
    ///
    /// # Errors
    /// The kernel's, of `poll`.
    pub fn wait(&self, until: Instant, device: Option<BorrowedFd<'_>>) -> io::Result<Woken> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up: poll counts whole milliseconds and must not end early and spin.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX);
            let stop = PollFd::new(self.0.as_fd(), PollFlags::POLLIN);
            let outcome = match device {
                Some(device) => {
                    let mut fds = [stop, PollFd::new(device, PollFlags::POLLIN)];
                    poll(&mut fds, timeout).map(|_| (ready(&fds[0]), ready(&fds[1])))
                }
                None => {
                    let mut fds = [stop];
                    poll(&mut fds, timeout).map(|_| (ready(&fds[0]), false))
                }
            };
            match outcome {
                Ok((true, _)) => return Ok(Woken::Stop),
                Ok((false, true)) => return Ok(Woken::Readable),
                Ok((false, false)) if Instant::now() >= until => return Ok(Woken::Time),
                Ok((false, false)) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn ready(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_wait_ends_by_time_or_by_data() {
        let signals = Signals::catch().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(signals.wait(soon, Some(far.as_fd())).unwrap(), Woken::Time);
        assert!(Instant::now() >= soon);
        near.write_all(b"x").unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(
            signals.wait(later, Some(far.as_fd())).unwrap(),
            Woken::Readable
        );
    }
}
