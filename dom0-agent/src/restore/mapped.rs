//! Contents on their way into a mapping of ours.

use super::error::{RestoreError, Step};
use super::window::Window;
use crate::build::Hypervisor;
use crate::peer::Incoming;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_stream::reader::Pages;

/// Maps some pages, and unmaps them for the next.
#[derive(Debug)]
pub(super) struct Mapped<'a> {
    pub(super) host: &'a dyn Hypervisor,
    pub(super) domid: DomId,
}

impl Mapped<'_> {
    fn map(&self, frames: &[u64]) -> Result<SharedRegion, RestoreError> {
        self.host
            .map_foreign(self.domid, frames, true)
            .step("mapping the guest's memory")
    }
}

impl Window for Mapped<'_> {
    fn read(
        &mut self,
        frames: &[u64],
        pages: &mut Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError> {
        let region = self.map(frames)?;
        let bytes = frames.len() * PAGE_SIZE;
        let mut done = 0;
        pages.read_with(bytes as u64, |from, _| {
            let got = from.read_region(&region, done, bytes - done)?;
            done += got;
            Ok(got)
        })?;
        Ok(())
    }

    fn clear(&mut self, frames: &[u64]) -> Result<(), RestoreError> {
        let region = self.map(frames)?;
        region.fill(0, region.len(), 0);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), RestoreError> {
        Ok(())
    }
}
