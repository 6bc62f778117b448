//! Pages on their way out to a connection: a process of their own ([`xen_host::mover`]) puts them into a buffer that both share, and they go from there.
//!
//! ```text
//!   guest ──mover: maps, writes──▶ memfd = buffer ──▶ connection, as fast as the other side takes it
//! ```
//!
//! A mover cannot write to the connection itself: it would wait for the other side, and nobody could tell it that the move is off.

use super::error::{SaveError, Step};
use super::limits::BUFFER_PAGES;
use super::pages::Sender;
use super::window::Window;
use crate::peer::Outgoing;
use nix::unistd::{Whence, lseek};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use xen_abi::ids::PAGE_SIZE;
use xen_host::memfd::MemFd;
use xen_host::region::SharedRegion;
use xen_host::seam::{Access, Look, Mover};

const STEP: &str = "moving the guest's memory";

/// Lets a mover fill a buffer.
pub(super) struct Buffered {
    mover: Box<dyn Mover>,
    memory: MemFd,
    buffer: SharedRegion,
    /// Pages that the window is open on.
    pages: usize,
    /// Bytes of the window that are in the buffer.
    held: Range<usize>,
}

impl Buffered {
    /// `None` if there is no mover.
    pub(super) fn of(sender: Sender<'_>) -> Result<Option<Self>, SaveError> {
        let memory = MemFd::create("pages", BUFFER_PAGES * PAGE_SIZE).step(STEP)?;
        let buffer = memory.map().step(STEP)?;
        let mover = sender
            .host
            .mover(sender.domid, Access::Read, memory.as_fd());
        Ok(mover.map(|mover| Self {
            mover,
            memory,
            buffer,
            pages: 0,
            held: 0..0,
        }))
    }

    /// Fills the buffer with what stands at this byte of the window, and what follows.
    fn hold(&mut self, byte: usize) -> io::Result<()> {
        let first = byte / PAGE_SIZE;
        let pages = first..self.pages.min(first + BUFFER_PAGES);
        self.held = 0..0;
        lseek(self.memory.as_fd(), 0, Whence::SeekSet)?;
        self.mover.write(&[], pages.clone())?;
        self.held = pages.start * PAGE_SIZE..pages.end * PAGE_SIZE;
        Ok(())
    }
}

impl Window for Buffered {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>, SaveError> {
        (self.pages, self.held) = (frames.len(), 0..0);
        self.mover.open(frames, look).step(STEP)
    }

    fn write(
        &mut self,
        out: &mut Outgoing<'_>,
        head: &[u8],
        bytes: Range<usize>,
    ) -> io::Result<usize> {
        if !self.held.contains(&bytes.start) {
            self.hold(bytes.start)?;
        }
        let len = bytes.end.min(self.held.end) - bytes.start;
        out.write_region(head, &self.buffer, bytes.start - self.held.start, len)
    }

    fn close(self: Box<Self>) -> Result<(), SaveError> {
        self.mover.end().step(STEP)
    }
}
