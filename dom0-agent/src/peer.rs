//! The two ends of a connection to another host, as a command hands them over: pipes or sockets. The other side may stop without a word, so nothing
//! here waits for ever.
//!
//! ```text
//!   Outgoing ──▶ ssh, socat, a socket ──▶ the other side
//!   Incoming ◀── ssh, socat, a socket ◀──
//! ```
//!
//! Writing and reading wait in slices, and between them ask whether somebody still wants this.

pub mod replies;

pub use replies::Replies;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use xen_host::region::SharedRegion;

/// How often somebody who waits for the other side is asked whether it is still worth it.
const SLICE: Duration = Duration::from_millis(200);

/// Room of a pipe to or from the other side, in bytes: its end need not wait for this one while that looks for the next pages. More takes a privilege.
const PIPE_BYTES: i32 = 1 << 20;

/// Why a wait ended early.
const UNWANTED: &str = "nobody waits for it any more";

/// The end that is written to.
pub struct Outgoing<'a> {
    file: File,
    /// Longest time in which the other side may take nothing; `None`: for ever, for files.
    stall: Option<Duration>,
    wanted: &'a dyn Fn() -> bool,
    sent: Rc<Cell<u64>>,
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("file", &self.file)
            .field("stall", &self.stall)
            .finish_non_exhaustive()
    }
}

impl<'a> Outgoing<'a> {
    /// A file, or whatever else takes what it is given in its own time.
    #[must_use]
    pub fn patient(file: File, wanted: &'a dyn Fn() -> bool) -> Self {
        Self {
            file,
            stall: None,
            wanted,
            sent: Rc::default(),
        }
    }

    /// A connection. From now on its description does not block, for nobody who has it.
    ///
    /// # Errors
    /// It has no such switch.
    pub fn connection(
        file: File,
        stall: Duration,
        wanted: &'a dyn Fn() -> bool,
    ) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        widen(&file);
        Ok(Self {
            file,
            stall: Some(stall),
            wanted,
            sent: Rc::default(),
        })
    }

    /// Bytes that have gone, also later.
    #[must_use]
    pub fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.sent)
    }

    /// What is behind it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a file on a file system, which takes what it is given or refuses.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.is_file())
    }

    /// Whether bytes may be left out ([`Outgoing::skip`]): they read as zeroes at the end of a file, where nothing was before.
    #[must_use]
    pub fn may_skip(&self) -> bool {
        let appends = || fcntl(&self.file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        let at_its_end = || {
            let file = self.file.metadata()?;
            let stands = (&self.file).stream_position()?;
            Ok::<_, io::Error>(file.is_file() && stands >= file.len())
        };
        at_its_end().unwrap_or(false)
            && appends().is_ok_and(|flags| !flags.contains(OFlag::O_APPEND))
    }

    /// Writes `head`, and leaves `len` bytes out; something must be written behind them. Answers how many bytes that were.
    ///
    /// # Errors
    /// The file's.
    pub fn skip(&mut self, head: &[u8], len: usize) -> io::Result<usize> {
        self.file.write_all(head)?;
        let by = i64::try_from(len).map_err(io::Error::other)?;
        self.file.seek(SeekFrom::Current(by))?;
        self.count(head.len() + len)
    }

    /// Writes `head` and then `bytes`, once; answers how many bytes went.
    ///
    /// # Errors
    /// As [`Outgoing::write_region`].
    pub fn write_both(&mut self, head: &[u8], bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(head), IoSlice::new(bytes)])
    }

    /// Lets somebody else write to what is behind it, who answers how many bytes went.
    ///
    /// # Errors
    /// The writer's.
    pub fn written_by(&mut self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        let written = write()?;
        self.count(written)
    }

    fn count(&self, written: usize) -> io::Result<usize> {
        self.sent.set(self.sent.get() + written as u64);
        Ok(written)
    }

    /// Writes `head` and then a part of mapped memory, once; answers how many bytes went.
    ///
    /// # Errors
    /// The other side is gone, or takes nothing for too long, or nobody wants it any more.
    pub fn write_region(
        &mut self,
        head: &[u8],
        region: &SharedRegion,
        offset: usize,
        len: usize,
    ) -> io::Result<usize> {
        self.patiently(|file| region.write_out(file.as_fd(), head, offset, len))
    }

    fn patiently(
        &mut self,
        mut write: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match write(&mut self.file) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let Some(stall) = self.stall else {
                        return Err(error);
                    };
                    await_ready(self.file.as_fd(), PollFlags::POLLOUT, stall, self.wanted)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(written) => return self.count(written),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|file| file.write(bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.patiently(|file| file.write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The end that is read from. What is behind it may be shared with others, and blocks for them as it did.
pub struct Incoming<'a> {
    file: File,
    /// Longest time in which nothing may come; `None`: for ever, for files.
    stall: Option<Duration>,
    wanted: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("file", &self.file)
            .field("stall", &self.stall)
            .finish_non_exhaustive()
    }
}

impl<'a> Incoming<'a> {
    /// Reads from `file`, and gives up when nothing comes for as long as `stall`.
    #[must_use]
    pub const fn new(file: File, stall: Duration, wanted: &'a dyn Fn() -> bool) -> Self {
        Self {
            file,
            stall: Some(stall),
            wanted,
        }
    }

    /// A file, which is there as a whole.
    #[must_use]
    pub const fn patient(file: File, wanted: &'a dyn Fn() -> bool) -> Self {
        Self {
            file,
            stall: None,
            wanted,
        }
    }

    /// Reads once, into a part of mapped memory; answers how many bytes came.
    ///
    /// # Errors
    /// As reading.
    pub fn read_region(
        &self,
        region: &SharedRegion,
        offset: usize,
        len: usize,
    ) -> io::Result<usize> {
        self.await_some()?;
        region.read_in(self.file.as_fd(), offset, len)
    }

    /// What is behind it, once more.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// What is behind it.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Waits until something is there, or the other side has hung up. Does not wait for a file.
    ///
    /// # Errors
    /// Nothing comes for too long, or nobody wants it any more.
    pub fn await_some(&self) -> io::Result<()> {
        match self.stall {
            Some(stall) => await_ready(self.file.as_fd(), PollFlags::POLLIN, stall, self.wanted),
            None => Ok(()),
        }
    }
}

impl AsFd for Incoming<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.await_some()?;
        self.file.read(into)
    }
}

/// Gives a pipe more room. Sockets see to it themselves.
pub fn widen(file: &File) {
    if let Err(errno) = fcntl(file, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        tracing::debug!(%errno, "no wider pipe");
    }
}

/// Waits until `what` is so, or the other side has hung up.
fn await_ready(
    fd: BorrowedFd<'_>,
    what: PollFlags,
    most: Duration,
    wanted: &dyn Fn() -> bool,
) -> io::Result<()> {
    let deadline = Instant::now() + most;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(fd, what)];
        let slice = PollTimeout::try_from(left.min(SLICE)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, slice) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        if !wanted() {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, UNWANTED));
        }
        if left.is_zero() {
            let what = format!("the other side did not move for {} s", most.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const SHORT: Duration = Duration::from_millis(10);

    fn pair() -> (File, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (File::from(OwnedFd::from(ours)), theirs)
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = pair();
        let wanted = || true;
        let mut out = Outgoing::connection(ours, SHORT, &wanted).unwrap();
        let error = out.write_all(&[0; 1 << 22]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(out.counter().get() > 0);
    }

    #[test]
    fn a_peer_that_says_nothing_is_given_up_and_one_that_is_gone_is_the_end() {
        let (ours, theirs) = pair();
        let wanted = || true;
        let mut from = Incoming::new(ours, SHORT, &wanted);
        let error = from.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        (&theirs).write_all(b"x").unwrap();
        assert_eq!(from.read(&mut [0; 8]).unwrap(), 1);
        drop(theirs);
        assert_eq!(from.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn nobody_waits_for_what_nobody_wants() {
        let (ours, _theirs) = pair();
        let wanted = || false;
        let mut from = Incoming::new(ours, Duration::from_secs(3600), &wanted);
        let error = from.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
    }
}
