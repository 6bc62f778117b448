//! The side of whoever has pages to move.

use super::child::words;
use super::words::{Answer, Order, Raw};
use super::{Access, Look, MAX_PAGES, MOVER_ARGUMENT, Mover};
use crate::error::Error;
use crate::eventfd::errno_of;
use crate::seam::Result;
use nix::errno::Errno;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use xen_abi::ids::{DomId, PAGE_SIZE};
use zerocopy::{FromBytes, IntoBytes};

const OP: &str = "move of pages";

/// A mover that is a process. It ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    domid: DomId,
    access: Access,
    file: OwnedFd,
    running: Running,
    /// Pages that it has mapped.
    mapped: usize,
}

impl Process {
    /// Starts one: `program` with [`MOVER_ARGUMENT`], which has to call [`super::mover_main`].
    ///
    /// # Errors
    /// No process, no descriptor.
    pub fn start(
        program: &Path,
        domid: DomId,
        access: Access,
        file: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let file = file.try_clone_to_owned()?;
        Ok(Self {
            running: Running::start(program, domid, access, &file)?,
            program: program.to_owned(),
            domid,
            access,
            file,
            mapped: 0,
        })
    }

    fn refused(&self, error: &io::Error) -> Error {
        Error::refused_for(OP, self.domid, errno_of(error))
    }

    /// Another takes over before this one's page tables take too much memory.
    fn replace(&mut self) -> io::Result<()> {
        let next = Running::start(&self.program, self.domid, self.access, &self.file)?;
        let before = std::mem::replace(&mut self.running, next);
        self.mapped = 0;
        before.end()
    }
}

impl Mover for Process {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>> {
        if self.mapped + frames.len() > MAX_PAGES {
            self.replace().map_err(|error| self.refused(&error))?;
        }
        self.mapped += frames.len();
        let order = Order::Open {
            frames: frames.len(),
            look,
        };
        self.running
            .ask(&order, frames.as_bytes())
            .and_then(|_| match look {
                Look::Away => Ok(Vec::new()),
                Look::ForZeroes => self.running.told(frames.len()),
            })
            .map_err(|error| self.refused(&error))
    }

    fn write(&mut self, head: &[u8], pages: Range<usize>) -> io::Result<()> {
        let all = head.len() + pages.len() * PAGE_SIZE;
        let head_bytes = head.len();
        let order = Order::Write {
            head: head_bytes,
            pages,
        };
        match self.running.ask(&order, head)? {
            written if written == all as u64 => Ok(()),
            _ => Err(io::Error::other("the mover wrote less than it was told")),
        }
    }

    fn read(&mut self, pages: Range<usize>, at: Option<u64>) -> io::Result<usize> {
        let all = pages.len() * PAGE_SIZE;
        let got = self.running.ask(&Order::Read { pages, at }, &[])?;
        usize::try_from(got)
            .ok()
            .filter(|got| *got <= all)
            .ok_or_else(|| io::Error::other("the mover read more than it was told"))
    }

    fn clear(&mut self, pages: Range<usize>) -> Result<()> {
        let cleared = self.running.ask(&Order::Clear { pages }, &[]);
        cleared.map(drop).map_err(|error| self.refused(&error))
    }

    fn end(self: Box<Self>) -> Result<()> {
        let (domid, running) = (self.domid, self.running);
        running
            .end()
            .map_err(|error| Error::refused_for(OP, domid, errno_of(&error)))
    }
}

/// A process that waits for orders; hung up on and reaped when dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    orders: UnixStream,
}

impl Running {
    fn start(program: &Path, domid: DomId, access: Access, file: &OwnedFd) -> io::Result<Self> {
        let (orders, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(MOVER_ARGUMENT)
            .args(words(domid, access))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(file.try_clone()?))
            .spawn()?;
        Ok(Self { child, orders })
    }

    /// Gives an order and waits until it is carried out; answers the bytes moved.
    fn ask(&mut self, order: &Order, rest: &[u8]) -> io::Result<u64> {
        let raw: Raw = order.encode().ok_or(Errno::EINVAL)?;
        let mut answer = [0; size_of::<Answer>()];
        let mut talk = || {
            self.orders.write_all(raw.as_bytes())?;
            self.orders.write_all(rest)?;
            self.orders.read_exact(&mut answer)
        };
        talk().map_err(gone)?;
        let answer = Answer::read_from_bytes(&answer[..]).map_err(|_| Errno::EIO)?;
        match answer.errno {
            0 => Ok(answer.bytes),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn told(&mut self, frames: usize) -> io::Result<Vec<bool>> {
        let mut bytes = vec![0; frames];
        self.orders.read_exact(&mut bytes).map_err(gone)?;
        Ok(bytes.into_iter().map(|byte| byte != 0).collect())
    }

    fn hang_up(&mut self) -> io::Result<ExitStatus> {
        // Fails only if it is gone already.
        let _ = self.orders.shutdown(Shutdown::Both);
        self.child.wait()
    }

    fn end(mut self) -> io::Result<()> {
        match self.hang_up()? {
            status if status.success() => Ok(()),
            status => {
                tracing::warn!(%status, "a mover of pages failed");
                Err(Errno::EIO.into())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that was waited for answers the same again.
        if let Err(error) = self.hang_up() {
            tracing::error!(%error, "a mover of pages was not reaped");
        }
    }
}

/// It hung up: killed, or out of memory. Its own words are in the log.
fn gone(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Errno::ECHILD.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::serve;
    use super::*;
    use crate::frames::FrameFile;
    use std::fs::File;
    use std::io::{Seek, SeekFrom};
    use std::os::fd::AsFd;
    use std::thread;

    /// A mover whose process is a thread, over the memory of a simulated machine.
    struct Threaded {
        running: Running,
        thread: thread::JoinHandle<io::Result<()>>,
    }

    fn threaded(memory: FrameFile, file: &File) -> Threaded {
        let (orders, theirs) = UnixStream::pair().unwrap();
        let file = file.try_clone().unwrap();
        let thread = thread::spawn(move || {
            let map = |frames: &[u64]| memory.map(frames, true).map_err(|_| Errno::EINVAL);
            serve(&theirs, &file, &map)
        });
        // Something that can be waited for.
        let child = Command::new("true").spawn().unwrap();
        Threaded {
            running: Running { child, orders },
            thread,
        }
    }

    fn mover(running: Running) -> Process {
        Process {
            program: PathBuf::from("true"),
            domid: DomId(1),
            access: Access::Write,
            file: File::open("/dev/null").unwrap().into(),
            running,
            mapped: 0,
        }
    }

    fn page(byte: u8) -> Vec<u8> {
        vec![byte; PAGE_SIZE]
    }

    #[test]
    fn pages_go_out_behind_their_head_and_come_in_again() {
        let memory = FrameFile::new("memory", 16).unwrap();
        let whole = memory.map(&(0..16).collect::<Vec<_>>(), true).unwrap();
        whole.write(3 * PAGE_SIZE, &page(3));
        whole.write(7 * PAGE_SIZE, &page(7));
        let mut file = tempfile::tempfile().unwrap();
        let Threaded { running, thread } = threaded(memory, &file);
        let mut mover = mover(running);
        let zeroes = mover.open(&[7, 5, 3], Look::ForZeroes).unwrap();
        assert_eq!(zeroes, [false, true, false]);
        mover.write(b"head", 0..1).unwrap();
        mover.write(&[], 2..3).unwrap();
        mover.write(b"tail", 0..0).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let wanted = [&b"head"[..], &page(7), &page(3), b"tail"].concat();
        assert!(bytes == wanted);

        assert_eq!(mover.open(&[1, 2], Look::Away).unwrap(), []);
        assert_eq!(mover.read(0..1, Some(4)).unwrap(), PAGE_SIZE);
        file.seek(SeekFrom::Start(4 + PAGE_SIZE as u64)).unwrap();
        assert_eq!(mover.read(1..2, None).unwrap(), PAGE_SIZE);
        assert!(whole.read_vec(PAGE_SIZE, PAGE_SIZE) == page(7));
        assert!(whole.read_vec(2 * PAGE_SIZE, PAGE_SIZE) == page(3));
        // The file ends.
        assert_eq!(mover.read(0..2, Some(4 + 2 * PAGE_SIZE as u64)).unwrap(), 4);
        drop(mover);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn holes_of_a_file_are_zeroes_whatever_the_memory_held() {
        const PAGES: usize = 64;
        let memory = FrameFile::new("memory", PAGES as u64).unwrap();
        let frames: Vec<u64> = (0..PAGES as u64).collect();
        let whole = memory.map(&frames, true).unwrap();
        whole.fill(0, whole.len(), 0x5a);
        // Nothing is where a page begins: data, a hole, a byte, a hole up to the end.
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 5000]).unwrap();
        file.seek(SeekFrom::Start(100_000)).unwrap();
        file.write_all(&[2]).unwrap();
        file.set_len(30 + (PAGES * PAGE_SIZE) as u64).unwrap();
        file.seek(SeekFrom::Start(30)).unwrap();
        let Threaded { running, thread } = threaded(memory, &file);
        let mut mover = mover(running);
        for part in [0..10, 10..PAGES] {
            mover.open(&frames[part.clone()], Look::Away).unwrap();
            assert_eq!(
                mover.read(0..part.len(), None).unwrap(),
                part.len() * PAGE_SIZE
            );
        }
        let mut wanted = vec![0; PAGES * PAGE_SIZE];
        wanted[..4970].fill(1);
        wanted[100_000 - 30] = 2;
        assert!(whole.read_vec(0, whole.len()) == wanted);
        assert_eq!(
            file.stream_position().unwrap(),
            file.metadata().unwrap().len()
        );
        assert_eq!(mover.read(0..1, None).unwrap(), 0, "the file ends");
        drop(mover);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn what_cannot_be_done_is_said_and_harms_nothing_else() {
        let memory = FrameFile::new("memory", 4).unwrap();
        let file = File::open("/dev/null").unwrap();
        let Threaded { running, thread } = threaded(memory, &file);
        let mut mover = mover(running);
        let early = mover.write(&[], 0..1).unwrap_err();
        assert_eq!(
            early.raw_os_error(),
            Some(Errno::EINVAL as i32),
            "no window"
        );
        let beyond = mover.open(&[1, 99], Look::ForZeroes).unwrap_err();
        assert_eq!(beyond.errno(), Some(Errno::EINVAL));
        mover.open(&[1], Look::Away).unwrap();
        let outside = mover.read(0..2, None).unwrap_err();
        assert_eq!(outside.raw_os_error(), Some(Errno::EINVAL as i32));
        let read_only = mover.write(&[], 0..1).unwrap_err();
        assert_eq!(read_only.raw_os_error(), Some(Errno::EBADF as i32));
        let full = File::options().write(true).open("/dev/full").unwrap();
        drop(full);
        drop(mover);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn another_takes_over_before_one_has_mapped_too_much() {
        let memory = FrameFile::new("memory", 4).unwrap();
        let file = File::open("/dev/null").unwrap();
        let Threaded { running, thread } = threaded(memory, &file);
        let mut mover = Process {
            // The next one, which ends at once.
            program: PathBuf::from("false"),
            mapped: MAX_PAGES - 1,
            ..mover(running)
        };
        assert_eq!(mover.open(&[1], Look::Away).unwrap(), []);
        assert_eq!(mover.mapped, MAX_PAGES);
        assert!(mover.open(&[1], Look::Away).is_err());
        thread.join().unwrap().unwrap();
        assert_eq!(mover.mapped, 1, "the first was hung up on and reaped");
    }

    #[test]
    fn a_mover_that_dies_is_an_error_of_every_order() {
        let file = File::open("/dev/null").unwrap();
        let program = Path::new("false");
        let mut mover =
            Box::new(Process::start(program, DomId(1), Access::Read, file.as_fd()).unwrap());
        mover.running.child.wait().unwrap();
        let lost = mover.open(&[1], Look::Away).unwrap_err();
        assert!(
            matches!(lost.errno(), Some(Errno::ECHILD | Errno::ECONNRESET)),
            "{lost}"
        );
        assert!(mover.write(b"x", 0..0).is_err());
        assert!(mover.end().is_err());
    }
}
