//! One sweep's grant copies as one call, with each failure laid at the door of the request that caused it.
//!
//! Batching pays up to 16 segments per call and does no harm beyond. A bad reference never spoils its
//! neighbours: the hypervisor gives each segment a status. What does spoil a whole call is a range that leaves its page, so
//! [`CopyBatch::push`] refuses one.

use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, GrantCopy, Grants};

/// One end of a copy: bytes of a granted page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRange {
    /// The page.
    pub gref: GrantRef,
    /// First byte.
    pub offset: u16,
    /// Bytes; `offset + len` is at most a page.
    pub len: u16,
}

/// Copies that wait to be made together.
#[derive(Debug)]
pub struct CopyBatch {
    domid: DomId,
    segments: Vec<GrantCopy>,
    owners: Vec<u32>,
}

impl CopyBatch {
    /// An empty batch for grants of `domid`.
    #[must_use]
    pub fn new(domid: DomId) -> Self {
        Self {
            domid,
            segments: Vec::new(),
            owners: Vec::new(),
        }
    }

    /// Adds a copy on behalf of `owner`. False, and nothing is added, if the range leaves its page.
    #[must_use]
    pub fn push(
        &mut self,
        owner: u32,
        direction: Direction,
        range: GrantRange,
        local_offset: usize,
    ) -> bool {
        if usize::from(range.offset) + usize::from(range.len) > PAGE_SIZE {
            return false;
        }
        if range.len == 0 {
            return true;
        }
        self.owners.push(owner);
        self.segments.push(GrantCopy {
            direction,
            domid: self.domid,
            gref: range.gref,
            offset: range.offset,
            local_offset,
            len: range.len,
            status: 0,
        });
        true
    }

    /// Copies waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Makes all copies, tells `failed` each owner with a copy that did not succeed (perhaps more than once), and empties the batch.
    pub fn run(&mut self, grants: &dyn Grants, local: &SharedRegion, mut failed: impl FnMut(u32)) {
        if self.segments.is_empty() {
            return;
        }
        match grants.copy(local, &mut self.segments) {
            Ok(()) => {
                for (segment, owner) in self.segments.iter().zip(&self.owners) {
                    if segment.status != 0 {
                        failed(*owner);
                    }
                }
            }
            Err(_) => self.owners.iter().for_each(|owner| failed(*owner)),
        }
        self.segments.clear();
        self.owners.clear();
    }
}
