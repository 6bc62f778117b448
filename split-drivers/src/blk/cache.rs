//! Guest pages that stay mapped, for frontends that keep their grants (`feature-persistent`): data moves by a plain copy, without a hypercall.
//!
//! Missing pages of a request are mapped by one call, so they form one region; the region that was unused longest goes first, whole, when the
//! bound is reached. No page here is ever given to the kernel for I/O. If the guest cannot be mapped (revoked, read-only), the caller falls back to
//! grant copy, which tells which reference is bad.

use std::collections::HashMap;
use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_host::seam::Grants;

#[derive(Debug)]
struct Mapped {
    region: SharedRegion,
    refs: Vec<GrantRef>,
    last_used: u64,
}

/// See the module.
#[derive(Debug)]
pub struct GrantCache {
    domid: DomId,
    /// Pages kept at most.
    bound: usize,
    regions: HashMap<u64, Mapped>,
    index: HashMap<GrantRef, (u64, usize)>,
    pages: usize,
    clock: u64,
    missing: Vec<GrantRef>,
}

impl GrantCache {
    /// Nothing mapped, at most `bound` pages of `domid` later.
    #[must_use]
    pub fn new(domid: DomId, bound: usize) -> Self {
        Self {
            domid,
            bound,
            regions: HashMap::new(),
            index: HashMap::new(),
            pages: 0,
            clock: 0,
            missing: Vec::new(),
        }
    }

    /// Pages mapped now.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Makes sure that all of `refs` are mapped, and makes them the most recently used. False if they cannot be.
    pub fn ensure(&mut self, grants: &dyn Grants, refs: impl Iterator<Item = GrantRef>) -> bool {
        self.clock += 1;
        self.missing.clear();
        for gref in refs {
            match self.index.get(&gref) {
                Some((key, _)) => {
                    if let Some(mapped) = self.regions.get_mut(key) {
                        mapped.last_used = self.clock;
                    }
                }
                None if self.missing.contains(&gref) => {}
                None => self.missing.push(gref),
            }
        }
        if self.missing.is_empty() {
            return true;
        }
        if !self.make_room(self.missing.len()) {
            return false;
        }
        match grants.map(self.domid, &self.missing, true) {
            Ok(region) => {
                self.keep(region);
                true
            }
            Err(_) => false,
        }
    }

    /// The region and the offset at which a page is mapped.
    #[must_use]
    pub fn find(&self, gref: GrantRef) -> Option<(&SharedRegion, usize)> {
        let (key, page) = self.index.get(&gref)?;
        Some((&self.regions.get(key)?.region, page * PAGE_SIZE))
    }

    fn keep(&mut self, region: SharedRegion) {
        let refs = std::mem::take(&mut self.missing);
        for (page, gref) in refs.iter().enumerate() {
            self.index.insert(*gref, (self.clock, page));
        }
        self.pages += refs.len();
        self.regions.insert(
            self.clock,
            Mapped {
                region,
                refs,
                last_used: self.clock,
            },
        );
    }

    /// Unmaps what was unused longest, but nothing that this request uses, until `more` pages fit; false if they cannot.
    fn make_room(&mut self, more: usize) -> bool {
        while self.pages + more > self.bound {
            let oldest = self
                .regions
                .iter()
                .filter(|(_, mapped)| mapped.last_used < self.clock);
            let Some((&key, _)) = oldest.min_by_key(|(_, mapped)| mapped.last_used) else {
                return false;
            };
            if let Some(mapped) = self.regions.remove(&key) {
                self.pages -= mapped.refs.len();
                mapped.refs.iter().for_each(|gref| {
                    self.index.remove(gref);
                });
            }
        }
        true
    }
}
