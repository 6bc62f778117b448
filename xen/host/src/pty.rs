//! A pseudo terminal for a guest's console: raw, without echo.
//!
//! The slave end stays open with the master: a client that leaves would otherwise hang the line up and the master would read EIO
//! until the next one comes. What is typed reaches the guest as it is; what the guest prints is not touched by the line discipline.

use crate::error::Error;
use crate::eventfd::{errno_of, set_nonblocking};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    path: PathBuf,
}

impl Pty {
    /// A new pair. The master is non-blocking, both are close-on-exec.
    ///
    /// # Errors
    /// No pseudo terminal is free, or `/dev/pts` is not mounted.
    pub fn open() -> Result<Self, Error> {
        let refused = |errno| Error::named("open of", "/dev/ptmx", errno);
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).map_err(refused)?;
        grantpt(&master).map_err(refused)?;
        unlockpt(&master).map_err(refused)?;
        let path = PathBuf::from(ptsname_r(&master).map_err(refused)?);
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&path)
            .map_err(|error| named(&path, errno_of(&error)))?;
        make_raw(&slave).map_err(|errno| named(&path, errno))?;
        let master = owned(master);
        set_nonblocking(master.as_fd())?;
        Ok(Self {
            master,
            slave: slave.into(),
            path,
        })
    }

    /// The name a client opens (`/dev/pts/3`), the value of `console/tty`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master, to read what was typed and write what the guest printed.
    #[must_use]
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// Master, slave (to be kept open as long as the master) and name.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, OwnedFd, PathBuf) {
        (self.master, self.slave, self.path)
    }
}

fn make_raw(terminal: &File) -> Result<(), Errno> {
    let mut attributes = tcgetattr(terminal)?;
    cfmakeraw(&mut attributes);
    tcsetattr(terminal, SetArg::TCSANOW, &attributes)
}

fn named(path: &Path, errno: Errno) -> Error {
    Error::named("open of", path.display().to_string(), errno)
}

fn owned(master: PtyMaster) -> OwnedFd {
    debug_assert!(master.as_raw_fd() >= 0);
    // SAFETY: into_raw_fd gives up the only owner of the descriptor, which becomes ours.
    unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_pass_unchanged_both_ways_and_nothing_echoes() {
        let pty = Pty::open().unwrap();
        let mut client = OpenOptions::new()
            .read(true)
            .write(true)
            .open(pty.path())
            .unwrap();
        let (master, _slave, _) = pty.into_parts();
        let mut master = File::from(master);

        master.write_all(b"login:\n\x03\x7f").unwrap();
        let mut seen = [0; 9];
        client.read_exact(&mut seen).unwrap();
        assert_eq!(
            &seen, b"login:\n\x03\x7f",
            "no newline translation, no signal characters"
        );

        client.write_all(b"root\r").unwrap();
        assert!(crate::eventfd::wait_readable(master.as_fd(), None).unwrap());
        let mut typed = [0; 16];
        let count = master.read(&mut typed).unwrap();
        assert_eq!(&typed[..count], b"root\r");
        let mut pending = [0; 1];
        let again = master.read(&mut pending).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock, "echo is off");
    }

    #[test]
    fn a_client_that_leaves_does_not_hang_up_the_line() {
        let pty = Pty::open().unwrap();
        drop(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(pty.path())
                .unwrap(),
        );
        let mut buffer = [0; 1];
        let result = nix::unistd::read(pty.master(), &mut buffer);
        assert_eq!(result, Err(Errno::EAGAIN));
    }
}
