//! Contents on their way in by copies that Xen makes, where it is patched (`xen-patches/0001-foreign-copy.patch`): from the file into a buffer, and from there
//! into the guest, which is not mapped.

use super::error::{RestoreError, Step};
use super::limits::WINDOW_PAGES;
use super::window::Window;
use crate::build::Hypervisor;
use crate::peer::Incoming;
use nix::errno::Errno;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::Offer;
use xen_stream::reader::Pages;

const STEP: &str = "copying into the guest's memory";

/// Copies into a guest by way of one buffer.
#[derive(Debug)]
pub(super) struct Copied<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    buffer: SharedRegion,
}

impl<'a> Copied<'a> {
    /// `None` where Xen makes no copies.
    pub(super) fn of(host: &'a dyn Hypervisor, domid: DomId) -> Result<Option<Self>, RestoreError> {
        if !host.offers_copies(domid).step(STEP)? {
            return Ok(None);
        }
        let buffer = host.copy_buffer(WINDOW_PAGES).step(STEP)?;
        Ok(Some(Self {
            host,
            domid,
            buffer,
        }))
    }

    /// Copies the buffer's beginning into these frames.
    fn copy(&self, frames: &[u64]) -> Result<(), RestoreError> {
        let answer = self.host.copy_in(self.domid, frames, &self.buffer);
        match answer.step(STEP)? {
            Offer::Done(()) => Ok(()),
            Offer::NotThere => {
                let missing = Error::refused_for("foreign_copy", self.domid, Errno::ENOSYS);
                Err(missing).step(STEP)
            }
        }
    }
}

impl Window for Copied<'_> {
    fn read(
        &mut self,
        frames: &[u64],
        pages: &mut Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError> {
        let bytes = frames.len() * PAGE_SIZE;
        let mut done = 0;
        pages.read_with(bytes as u64, |from, _| {
            let got = from.read_region(&self.buffer, done, bytes - done)?;
            done += got;
            Ok(got)
        })?;
        self.copy(frames)
    }

    fn clear(&mut self, frames: &[u64]) -> Result<(), RestoreError> {
        self.buffer.fill(0, frames.len() * PAGE_SIZE, 0);
        self.copy(frames)
    }

    fn close(self: Box<Self>) -> Result<(), RestoreError> {
        Ok(())
    }
}
