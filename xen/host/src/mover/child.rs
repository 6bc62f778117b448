//! The mover's own side: one order after another, until nobody gives any.

use super::words::{Answer, Order, Raw};
use super::{Access, Look};
use crate::eventfd::errno_of;
use crate::region::SharedRegion;
use crate::xen::Xen;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use xen_abi::ids::{DomId, PAGE_SIZE};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes read before it is asked again whether a hole begins.
const PIECE: usize = 128 << 10;

/// The mover's `main`: standard input is the parent, standard output the file; `arguments` are those behind [`super::MOVER_ARGUMENT`].
#[must_use]
pub fn mover_main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent's log; it names the operation.
            eprintln!("mover: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The words that [`super::parent`] starts a mover with.
pub(super) fn words(domid: DomId, access: Access) -> [String; 2] {
    let may = if access.is_write() { "write" } else { "read" };
    [domid.0.to_string(), may.to_owned()]
}

fn understood(arguments: &[String]) -> Option<(DomId, Access)> {
    let [domid, may] = arguments else { return None };
    let access = match may.as_str() {
        "read" => Access::Read,
        "write" => Access::Write,
        _ => return None,
    };
    Some((DomId(domid.parse().ok()?), access))
}

fn run(arguments: &[String]) -> io::Result<()> {
    let strange = || io::Error::other("this is started by the agent, which says DOMID read|write");
    let (domid, access) = understood(arguments).ok_or_else(strange)?;
    let parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let xen = Xen::open().map_err(io::Error::other)?;
    let map = |frames: &[u64]| {
        xen.map_frames(domid, frames, access.is_write())
            .map_err(|error| error.errno().unwrap_or(Errno::EIO))
    };
    serve(&parent, &file, &map)
}

/// Maps frames.
type Map<'a> = dyn Fn(&[u64]) -> Result<SharedRegion, Errno> + 'a;

/// Serves until the parent hangs up. No window is ever unmapped.
pub(super) fn serve(mut parent: &UnixStream, file: &File, map: &Map<'_>) -> io::Result<()> {
    let mut window: Option<ManuallyDrop<SharedRegion>> = None;
    let mut rest = Vec::new();
    let mut holes = Holes::default();
    let mut raw = [0; size_of::<Raw>()];
    loop {
        match parent.read_exact(&mut raw) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let order = Raw::read_from_bytes(&raw[..])
            .ok()
            .and_then(Order::decode)
            .ok_or_else(|| io::Error::other("an order that is none"))?;
        let follows = match &order {
            Order::Open { frames, .. } => frames * size_of::<u64>(),
            Order::Write { head, .. } => *head,
            Order::Read { .. } | Order::Clear { .. } => 0,
        };
        rest.resize(follows, 0);
        parent.read_exact(&mut rest)?;
        let (answer, told) = match order {
            Order::Open { look, .. } => match map(&frames_of(&rest)) {
                Ok(region) => {
                    let told = zeroes(&region, look);
                    window = Some(ManuallyDrop::new(region));
                    (Answer::done(0), told)
                }
                Err(errno) => {
                    window = None;
                    (Answer::refused(errno as i32), Vec::new())
                }
            },
            Order::Write { pages, .. } => (
                answer(&write(window.as_deref(), file.as_fd(), &rest, &pages)),
                Vec::new(),
            ),
            Order::Read { pages, at: None } => (
                answer(&read_on(window.as_deref(), file, &mut holes, &pages)),
                Vec::new(),
            ),
            Order::Read { pages, at } => (
                answer(&read(window.as_deref(), file.as_fd(), &pages, at)),
                Vec::new(),
            ),
            Order::Clear { pages } => (answer(&clear(window.as_deref(), &pages)), Vec::new()),
        };
        parent.write_all(answer.as_bytes())?;
        parent.write_all(&told)?;
    }
}

fn frames_of(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| u64::from_ne_bytes(*word)).collect()
}

fn zeroes(window: &SharedRegion, look: Look) -> Vec<u8> {
    match look {
        Look::Away => Vec::new(),
        Look::ForZeroes => (0..window.len() / PAGE_SIZE)
            .map(|page| window.is_zero(page * PAGE_SIZE, PAGE_SIZE).into())
            .collect(),
    }
}

fn answer(done: &io::Result<usize>) -> Answer {
    match done {
        Ok(bytes) => Answer::done(*bytes as u64),
        Err(error) => Answer::refused(errno_of(error) as i32),
    }
}

/// The bytes of these pages of the window, if it has them.
fn within<'a>(
    window: Option<&'a SharedRegion>,
    pages: &Range<usize>,
) -> io::Result<(&'a SharedRegion, Range<usize>)> {
    let bytes = pages.start * PAGE_SIZE..pages.end * PAGE_SIZE;
    let window = window.filter(|window| bytes.end <= window.len());
    Ok((window.ok_or(Errno::EINVAL)?, bytes))
}

fn write(
    window: Option<&SharedRegion>,
    file: BorrowedFd<'_>,
    mut head: &[u8],
    pages: &Range<usize>,
) -> io::Result<usize> {
    let (window, bytes) = within(window, pages)?;
    let all = head.len() + bytes.len();
    let mut done = 0;
    while !head.is_empty() || done < bytes.len() {
        match window.write_out(file, head, bytes.start + done, bytes.len() - done) {
            Ok(0) => return Err(Errno::EIO.into()),
            Ok(written) => {
                let of_head = written.min(head.len());
                head = &head[of_head..];
                done += written - of_head;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Where a file is known to hold nothing: it reads as zeroes up to here.
#[derive(Debug, Default)]
struct Holes {
    end: u64,
}

impl Holes {
    /// Bytes of a hole from `at` on. They cost a memset instead of a copy; and what the file system cannot tell is read.
    fn from(&mut self, file: &File, at: u64) -> u64 {
        if at >= self.end {
            self.end = next_data(file, at).unwrap_or(at);
        }
        self.end - at
    }
}

/// Where the next byte is that something was written to; `None` where nobody knows, or there is none.
fn next_data(file: &File, at: u64) -> Option<u64> {
    let from = i64::try_from(at).ok()?;
    let next = lseek(file, from, Whence::SeekData).ok()?;
    u64::try_from(next).ok().filter(|next| *next >= at)
}

/// Fills pages from where the file stands, which it leaves behind what was read.
fn read_on(
    window: Option<&SharedRegion>,
    mut file: &File,
    holes: &mut Holes,
    pages: &Range<usize>,
) -> io::Result<usize> {
    let (region, bytes) = within(window, pages)?;
    let Ok(start) = file.stream_position() else {
        return read(window, file.as_fd(), pages, None);
    };
    let mut done = 0;
    while done < bytes.len() {
        let (at, left) = (start + done as u64, bytes.len() - done);
        let hole = usize::try_from(holes.from(file, at))
            .unwrap_or(left)
            .min(left);
        region.fill(bytes.start + done, hole, 0);
        done += hole;
        let piece = (left - hole).min(PIECE);
        if piece == 0 {
            continue;
        }
        match region.read_in_at(file.as_fd(), start + done as u64, bytes.start + done, piece) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.seek(SeekFrom::Start(start + done as u64))?;
    Ok(done)
}

fn clear(window: Option<&SharedRegion>, pages: &Range<usize>) -> io::Result<usize> {
    let (window, bytes) = within(window, pages)?;
    window.fill(bytes.start, bytes.len(), 0);
    Ok(bytes.len())
}

fn read(
    window: Option<&SharedRegion>,
    file: BorrowedFd<'_>,
    pages: &Range<usize>,
    at: Option<u64>,
) -> io::Result<usize> {
    let (window, bytes) = within(window, pages)?;
    let mut done = 0;
    while done < bytes.len() {
        let (offset, len) = (bytes.start + done, bytes.len() - done);
        let got = match at {
            None => window.read_in(file, offset, len),
            Some(at) => window.read_in_at(file, at + done as u64, offset, len),
        };
        match got {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
