//! Bytes between the guest's pages and our private buffer: by copy from a kept mapping where the frontend keeps its grants, by one
//! grant copy for a whole sweep otherwise.
//!
//! After [`Mover::run`] nothing of a request is mapped but what the frontend agreed to keep, so a request may be answered at once: safety rule
//! "never while it still maps the request's non-persistent grant" holds by construction.

use super::cache::GrantCache;
use crate::limits::BLK_PERSISTENT_PAGES;
use crate::ring::copy::{CopyBatch, GrantRange};
use xen_abi::ids::DomId;
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, Grants};

/// See the module.
#[derive(Debug)]
pub struct Mover {
    grants: Box<dyn Grants>,
    cache: Option<GrantCache>,
    batch: CopyBatch,
}

impl Mover {
    /// Moves bytes of `domid`; `persistent` if the frontend keeps its grants.
    #[must_use]
    pub fn new(domid: DomId, grants: Box<dyn Grants>, persistent: bool) -> Self {
        let cache = persistent.then(|| GrantCache::new(domid, BLK_PERSISTENT_PAGES));
        Self {
            grants,
            cache,
            batch: CopyBatch::new(domid),
        }
    }

    /// Moves consecutive bytes of `local` from `at` on to or from `pieces`, now or at the next [`Mover::run`]. False if a piece leaves its page.
    #[must_use]
    pub fn add(
        &mut self,
        owner: u32,
        direction: Direction,
        pieces: &[GrantRange],
        local: &SharedRegion,
        mut at: usize,
    ) -> bool {
        if let Some(cache) = &mut self.cache
            && cache.ensure(&*self.grants, pieces.iter().map(|piece| piece.gref))
        {
            copy_mapped(cache, direction, pieces, local, at);
            return true;
        }
        for piece in pieces {
            if !self.batch.push(owner, direction, *piece, at) {
                return false;
            }
            at += usize::from(piece.len);
        }
        true
    }

    /// Makes the copies that are waiting; tells `failed` whose did not succeed.
    pub fn run(&mut self, local: &SharedRegion, failed: impl FnMut(u32)) {
        self.batch.run(&*self.grants, local, failed);
    }

    /// Gives the grant handle back, with nothing mapped.
    #[must_use]
    pub fn into_grants(self) -> Box<dyn Grants> {
        self.grants
    }
}

/// Copies `pieces`, whose pages the cache has just found.
fn copy_mapped(
    cache: &GrantCache,
    direction: Direction,
    pieces: &[GrantRange],
    local: &SharedRegion,
    mut at: usize,
) {
    for (piece, (page, base)) in pieces.iter().zip(cache.places()) {
        let (offset, len) = (usize::from(piece.offset), usize::from(piece.len));
        match direction {
            Direction::FromGuest => page.copy_to(base + offset, local, at, len),
            Direction::ToGuest => local.copy_to(at, page, base + offset, len),
        }
        at += len;
    }
}
