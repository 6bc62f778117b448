//! Contents on their way in by copies that Xen makes, where it is patched (`xen-patches/0001-foreign-copy.patch`): from the file into a buffer, and from there
//! into the guest, which is not mapped.

use super::error::{RestoreError, Step};
use super::limits::MAP_PAGES;
use crate::build::Hypervisor;
use std::fs::File;
use std::os::fd::AsFd;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::Offer;
use xen_stream::reader::Pages;

const STEP: &str = "copying into the guest's memory";

/// Copies into a guest by way of one buffer.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    host: &'a dyn Hypervisor,
    domid: DomId,
    buffer: SharedRegion,
}

impl<'a> Copier<'a> {
    /// `None` where Xen makes no copies.
    pub(super) fn of(host: &'a dyn Hypervisor, domid: DomId) -> Result<Option<Self>, RestoreError> {
        if !host.offers_copies(domid).step(STEP)? {
            return Ok(None);
        }
        let buffer = host.copy_buffer(MAP_PAGES).step(STEP)?;
        Ok(Some(Self {
            host,
            domid,
            buffer,
        }))
    }

    /// Reads the contents of the next pages of a record into these frames, at most [`MAP_PAGES`].
    pub(super) fn read(
        &self,
        frames: &[u64],
        pages: &mut Pages<'_, File>,
    ) -> Result<(), RestoreError> {
        let bytes = frames.len() * PAGE_SIZE;
        let mut done = 0;
        pages.read_with(bytes as u64, |file, _| {
            let got = self.buffer.read_in(file.as_fd(), done, bytes - done)?;
            done += got;
            Ok(got)
        })?;
        self.copy(frames)
    }

    /// Writes these bytes into these frames, at most [`MAP_PAGES`].
    pub(super) fn write(&self, frames: &[u64], bytes: &[u8]) -> Result<(), RestoreError> {
        self.buffer.write(0, bytes);
        self.copy(frames)
    }

    fn copy(&self, frames: &[u64]) -> Result<(), RestoreError> {
        let answer = self.host.copy_in(self.domid, frames, &self.buffer);
        match answer.step(STEP)? {
            Offer::Done(()) => Ok(()),
            Offer::NotThere => {
                let missing = nix::errno::Errno::ENOSYS;
                Err(Error::refused_for("foreign_copy", self.domid, missing)).step(STEP)
            }
        }
    }
}
