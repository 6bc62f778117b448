//! Contents on their way in from a connection: into a buffer, from where a process of their own ([`xen_host::mover`]) puts them into the domain.
//!
//! ```text
//!   connection, as fast as the other side sends ──▶ buffer = memfd ──mover: maps, reads──▶ domain
//! ```
//!
//! A mover that has mapped much takes long to end. That must not be while the guest stands still, so it is replaced often.

use super::error::{RestoreError, Step};
use super::limits::{BUFFER_PAGES, FEW_PAGES, MOVER_PAGES};
use super::mapped::Mapped;
use super::window::Window;
use crate::build::Hypervisor;
use crate::peer::Incoming;
use std::os::fd::AsFd;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::memfd::MemFd;
use xen_host::region::SharedRegion;
use xen_host::seam::{Access, Look, Mover};
use xen_stream::reader::Pages;

const STEP: &str = "moving memory into the guest";

/// Lets movers read from a buffer.
#[derive(Debug)]
pub(super) struct Buffered<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    memory: MemFd,
    buffer: SharedRegion,
    mover: Option<Box<dyn Mover>>,
    /// Pages that the mover has mapped.
    mapped: usize,
}

impl<'a> Buffered<'a> {
    /// Starts no process yet.
    pub(super) fn of(host: &'a dyn Hypervisor, domid: DomId) -> Result<Self, RestoreError> {
        let memory = MemFd::create("pages", BUFFER_PAGES * PAGE_SIZE).step(STEP)?;
        let buffer = memory.map().step(STEP)?;
        Ok(Self {
            host,
            domid,
            memory,
            buffer,
            mover: None,
            mapped: 0,
        })
    }

    /// A mover with a window on these frames; `None` where they are not worth one, or there is none.
    fn open(&mut self, frames: &[u64]) -> Result<Option<&mut Box<dyn Mover>>, RestoreError> {
        if frames.len() <= FEW_PAGES {
            return Ok(None);
        }
        if self.mapped + frames.len() > MOVER_PAGES {
            self.end()?;
        }
        if self.mover.is_none() {
            self.mover = self
                .host
                .mover(self.domid, Access::Write, self.memory.as_fd());
        }
        if let Some(mover) = &mut self.mover {
            self.mapped += frames.len();
            mover.open(frames, Look::Away).step(STEP)?;
        }
        Ok(self.mover.as_mut())
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        self.mapped = 0;
        match self.mover.take() {
            Some(mover) => mover.end().step(STEP),
            None => Ok(()),
        }
    }

    fn mapped(&self) -> Mapped<'a> {
        Mapped {
            host: self.host,
            domid: self.domid,
        }
    }
}

impl Window for Buffered<'_> {
    fn read(
        &mut self,
        frames: &[u64],
        pages: &mut Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError> {
        if self.open(frames)?.is_none() {
            return self.mapped().read(frames, pages);
        }
        for first in (0..frames.len()).step_by(BUFFER_PAGES) {
            let part = first..frames.len().min(first + BUFFER_PAGES);
            let bytes = part.len() * PAGE_SIZE;
            let (buffer, mut done) = (&self.buffer, 0);
            pages.read_with(bytes as u64, |from, _| {
                let got = from.read_region(buffer, done, bytes - done)?;
                done += got;
                Ok(got)
            })?;
            let moved = self.mover.as_mut().map(|mover| mover.read(part, Some(0)));
            match moved.transpose().map_err(RestoreError::Source)? {
                Some(moved) if moved == bytes => {}
                _ => {
                    return Err(RestoreError::Source(
                        std::io::ErrorKind::UnexpectedEof.into(),
                    ));
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self, frames: &[u64]) -> Result<(), RestoreError> {
        match self.open(frames)? {
            Some(mover) => mover.clear(0..frames.len()).step(STEP),
            None => self.mapped().clear(frames),
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), RestoreError> {
        self.end()
    }
}
