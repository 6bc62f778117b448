//! A process by descriptor: no other process can ever be meant by it, and its end can be polled.

use crate::error::Error;
use crate::eventfd::wait_readable;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A process, alive or dead.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl PidFd {
    /// The process that has this id now. For a child that was not waited for, this is certain to be the child.
    ///
    /// # Errors
    /// There is none (`ESRCH`).
    pub fn open(pid: u32) -> Result<Self, Error> {
        let raw =
            libc::pid_t::try_from(pid).map_err(|_| Error::refused("pidfd_open", Errno::EINVAL))?;
        // SAFETY: pidfd_open takes two integers and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, raw, 0) };
        let fd = Errno::result(result).map_err(|errno| Error::refused("pidfd_open", errno))?;
        let fd = i32::try_from(fd).map_err(|_| Error::refused("pidfd_open", Errno::EBADF))?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec) for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Sends a signal to exactly this process.
    ///
    /// # Errors
    /// It is gone (`ESRCH`), or not ours to signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let fd = self.fd.as_raw_fd();
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal with a null siginfo touches no memory.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) };
        Errno::result(result)
            .map(drop)
            .map_err(|errno| Error::refused("signal to a process", errno))
    }

    /// Waits until the process ended; false on timeout. Works for any process, and does not reap a child.
    ///
    /// # Errors
    /// The descriptor is not valid.
    pub fn wait_exit(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        wait_readable(self.fd.as_fd(), timeout)
    }

    /// Reaps a child: its end, or `None` while it runs.
    ///
    /// # Errors
    /// It is not our child, or was reaped before (`ECHILD`).
    pub fn reap(&self) -> Result<Option<WaitStatus>, Error> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.fd.as_fd()), flags) {
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(status) => Ok(Some(status)),
            Err(errno) => Err(Error::refused("wait for a child", errno)),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_signalled_awaited_and_reaped() {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert!(!process.wait_exit(Some(Duration::ZERO)).unwrap());
        assert_eq!(process.reap().unwrap(), None);
        process.signal(Signal::SIGKILL).unwrap();
        assert!(process.wait_exit(Some(Duration::from_secs(10))).unwrap());
        assert!(matches!(
            process.reap().unwrap(),
            Some(WaitStatus::Signaled(_, Signal::SIGKILL, _))
        ));
        assert_eq!(
            process.signal(Signal::SIGTERM).unwrap_err().errno(),
            Some(Errno::ESRCH)
        );
        drop(child);
    }

    #[test]
    fn a_process_that_never_was_is_no_process() {
        assert_eq!(
            PidFd::open(i32::MAX.cast_unsigned()).unwrap_err().errno(),
            Some(Errno::ESRCH)
        );
    }
}
