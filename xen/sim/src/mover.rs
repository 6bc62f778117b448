//! A mover of pages that is no process: each order is a call of the process that gives it, and can fail and die as one.

use crate::simhost::SimHost;
use nix::errno::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::{Access, Look, MemoryControl, Mover, Result};

/// Moves through this process, one window at a time.
#[derive(Debug)]
pub(crate) struct SimMover {
    pub(crate) host: SimHost,
    pub(crate) domid: DomId,
    pub(crate) access: Access,
    pub(crate) file: OwnedFd,
    pub(crate) window: Option<SharedRegion>,
}

impl SimMover {
    fn pages(&self, pages: &Range<usize>) -> io::Result<(&SharedRegion, Range<usize>)> {
        self.host.outside("mover").map_err(io::Error::other)?;
        let bytes = pages.start * PAGE_SIZE..pages.end * PAGE_SIZE;
        let window = self.window.as_ref();
        let window = window.filter(|window| bytes.end <= window.len());
        Ok((window.ok_or(Errno::EINVAL)?, bytes))
    }

    fn file(&self) -> io::Result<File> {
        Ok(self.file.try_clone()?.into())
    }
}

impl Mover for SimMover {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>> {
        let writable = self.access.is_write();
        let window = self.host.map_foreign(self.domid, frames, writable)?;
        let zeroes = match look {
            Look::Away => Vec::new(),
            Look::ForZeroes => (0..frames.len())
                .map(|page| window.is_zero(page * PAGE_SIZE, PAGE_SIZE))
                .collect(),
        };
        self.window = Some(window);
        Ok(zeroes)
    }

    fn write(&mut self, head: &[u8], pages: Range<usize>) -> io::Result<()> {
        let (window, bytes) = self.pages(&pages)?;
        let mut file = self.file()?;
        file.write_all(head)?;
        file.write_all(&window.read_vec(bytes.start, bytes.len()))
    }

    fn read(&mut self, pages: Range<usize>, at: Option<u64>) -> io::Result<usize> {
        let (window, bytes) = self.pages(&pages)?;
        let mut done = 0;
        while done < bytes.len() {
            let (offset, len) = (bytes.start + done, bytes.len() - done);
            let got = match at {
                None => window.read_in(self.file.as_fd(), offset, len),
                Some(at) => window.read_in_at(self.file.as_fd(), at + done as u64, offset, len),
            };
            match got {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn clear(&mut self, pages: Range<usize>) -> Result<()> {
        self.host.outside("mover")?;
        let window = self.window.as_ref();
        let bytes = pages.start * PAGE_SIZE..pages.end * PAGE_SIZE;
        match window.filter(|window| bytes.end <= window.len()) {
            Some(window) => window.fill(bytes.start, bytes.len(), 0),
            None => return Err(Error::refused_for("mover", self.domid, Errno::EINVAL)),
        }
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<()> {
        self.host.outside("mover")
    }
}
