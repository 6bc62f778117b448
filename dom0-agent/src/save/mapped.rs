//! Pages on their way out of a mapping of ours.

use super::error::SaveError;
use super::pages::Sender;
use super::window::Window;
use crate::peer::Outgoing;
use std::io;
use std::ops::Range;
use xen_abi::ids::PAGE_SIZE;
use xen_host::region::SharedRegion;
use xen_host::seam::Look;

/// Maps a record's pages, and unmaps them for the next.
pub(super) struct Mapped<'a> {
    sender: Sender<'a>,
    region: Option<SharedRegion>,
}

impl<'a> Mapped<'a> {
    pub(super) const fn of(sender: Sender<'a>) -> Self {
        Self {
            sender,
            region: None,
        }
    }
}

impl Window for Mapped<'_> {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>, SaveError> {
        // One at a time.
        self.region = None;
        let region = self.region.insert(self.sender.map(frames)?);
        let is_zero = |page| region.is_zero(page * PAGE_SIZE, PAGE_SIZE);
        Ok(match look {
            Look::ForZeroes => (0..frames.len()).map(is_zero).collect(),
            Look::Away => Vec::new(),
        })
    }

    fn write(
        &mut self,
        out: &mut Outgoing<'_>,
        head: &[u8],
        bytes: Range<usize>,
    ) -> io::Result<usize> {
        let closed = || io::Error::other("nothing is mapped");
        let region = self.region.as_ref().ok_or_else(closed)?;
        out.write_region(head, region, bytes.start, bytes.len())
    }

    fn close(self: Box<Self>) -> Result<(), SaveError> {
        Ok(())
    }
}
