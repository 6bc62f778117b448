//! Guest pages that stay mapped, for frontends that keep their grants (`feature-persistent`): data moves by a plain copy, without a hypercall.
//!
//! Missing pages of a request are mapped by one call, so they form one region; the region that was unused longest goes first, whole, when the
//! bound is reached. No page here is ever given to the kernel for I/O. If the guest cannot be mapped (revoked, read-only), the caller falls back to
//! grant copy, which tells which reference is bad.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_host::seam::Grants;

#[derive(Debug)]
struct Mapped {
    region: SharedRegion,
    refs: Vec<GrantRef>,
    last_used: u64,
}

/// A page: which of the regions, and which page of it.
#[derive(Debug, Clone, Copy)]
struct Place {
    region: usize,
    page: usize,
}

/// See the module.
#[derive(Debug)]
pub struct GrantCache {
    domid: DomId,
    /// Pages kept at most.
    bound: usize,
    /// Regions keep their place; `None` is one that can be given again.
    regions: Vec<Option<Mapped>>,
    index: HashMap<GrantRef, Place, Scatter>,
    pages: usize,
    clock: u64,
    missing: Vec<GrantRef>,
    /// Where the pages of the last request are, in its order.
    found: Vec<Place>,
}

impl GrantCache {
    /// Nothing mapped, at most `bound` pages of `domid` later.
    #[must_use]
    pub fn new(domid: DomId, bound: usize) -> Self {
        Self {
            domid,
            bound,
            regions: Vec::new(),
            index: HashMap::with_hasher(Scatter::new()),
            pages: 0,
            clock: 0,
            missing: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Pages mapped now.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Makes sure that all of `refs` are mapped, and makes them the most recently used; [`GrantCache::places`] says where they are then.
    /// False if they cannot be.
    pub fn ensure(
        &mut self,
        grants: &dyn Grants,
        refs: impl Iterator<Item = GrantRef> + Clone,
    ) -> bool {
        self.clock += 1;
        self.find(refs.clone());
        if self.missing.is_empty() {
            return true;
        }
        if !self.make_room(self.missing.len()) {
            return false;
        }
        let Ok(region) = grants.map(self.domid, &self.missing, true) else {
            return false;
        };
        self.keep(region);
        self.find(refs);
        self.missing.is_empty()
    }

    /// The regions and offsets of the pages that the last successful [`GrantCache::ensure`] was about, in its order.
    pub fn places(&self) -> impl Iterator<Item = (&SharedRegion, usize)> {
        self.found.iter().filter_map(|place| {
            let mapped = self.regions.get(place.region)?.as_ref()?;
            Some((&mapped.region, place.page * PAGE_SIZE))
        })
    }

    /// Sorts `refs` into found and missing.
    fn find(&mut self, refs: impl Iterator<Item = GrantRef>) {
        self.missing.clear();
        self.found.clear();
        for gref in refs {
            match self.index.get(&gref) {
                Some(place) => {
                    if let Some(Some(mapped)) = self.regions.get_mut(place.region) {
                        mapped.last_used = self.clock;
                    }
                    self.found.push(*place);
                }
                None if self.missing.contains(&gref) => {}
                None => self.missing.push(gref),
            }
        }
    }

    fn keep(&mut self, region: SharedRegion) {
        let refs = std::mem::take(&mut self.missing);
        self.pages += refs.len();
        let free = self.regions.iter().position(Option::is_none);
        let at = free.unwrap_or(self.regions.len());
        for (page, gref) in refs.iter().enumerate() {
            self.index.insert(*gref, Place { region: at, page });
        }
        let mapped = Some(Mapped {
            region,
            refs,
            last_used: self.clock,
        });
        match self.regions.get_mut(at) {
            Some(place) => *place = mapped,
            None => self.regions.push(mapped),
        }
    }

    /// Unmaps what was unused longest, but nothing that this request uses, until `more` pages fit; false if they cannot.
    fn make_room(&mut self, more: usize) -> bool {
        while self.pages + more > self.bound {
            let kept = self.regions.iter_mut().filter_map(|place| {
                let last_used = place.as_ref()?.last_used;
                (last_used < self.clock).then_some((last_used, place))
            });
            let oldest = kept.min_by_key(|(last_used, _)| *last_used);
            let Some(mapped) = oldest.and_then(|(_, place)| place.take()) else {
                return false;
            };
            self.pages -= mapped.refs.len();
            mapped.refs.iter().for_each(|gref| {
                self.index.remove(gref);
            });
        }
        true
    }
}

/// Hashes references by one multiplication; they are looked up for every page that moves. The guest chooses them, so the factor is a secret: it
/// cannot choose ones that collide (and would only harm its own driver).
#[derive(Debug, Clone)]
struct Scatter {
    factor: u64,
}

impl Scatter {
    fn new() -> Self {
        Self {
            factor: RandomState::new().hash_one(0_u8) | 1,
        }
    }
}

impl BuildHasher for Scatter {
    type Hasher = Scattered;

    fn build_hasher(&self) -> Scattered {
        Scattered {
            factor: self.factor,
            hash: 0,
        }
    }
}

struct Scattered {
    factor: u64,
    hash: u64,
}

impl Hasher for Scattered {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, value: u32) {
        /// Keeps a reference of zero from being hashed to zero by every factor.
        const OFFSET: u64 = 0x9e37_79b9_7f4a_7c15;
        let wide = u128::from(u64::from(value) ^ self.hash ^ OFFSET) * u128::from(self.factor);
        let [low, high] = [wide & u128::from(u64::MAX), wide >> 64];
        self.hash = u64::try_from(low ^ high).unwrap_or(0);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{GUEST, GuestMemory};
    use std::sync::atomic::Ordering;

    #[test]
    fn what_was_unused_longest_goes_first_and_the_bound_is_kept() {
        let memory = GuestMemory::new(64);
        let grants = memory.grants();
        let mut cache = GrantCache::new(GUEST, 4);
        let pages: Vec<GrantRef> = (0..8).map(|_| memory.page()).collect();
        let mut ensure = |wanted: &[usize]| {
            let refs = wanted.iter().map(|n| pages[*n]);
            let before = memory.maps.load(Ordering::Relaxed);
            let there = cache.ensure(grants.as_ref(), refs);
            assert!(cache.pages() <= 4, "{} pages", cache.pages());
            assert!(!there || cache.places().count() == wanted.len());
            (there, memory.maps.load(Ordering::Relaxed) - before)
        };
        assert_eq!(ensure(&[0, 1]), (true, 1));
        assert_eq!(ensure(&[2, 3]), (true, 1));
        assert_eq!(ensure(&[1]), (true, 0), "used again");
        assert_eq!(ensure(&[4, 5]), (true, 1), "2 and 3 make room");
        assert_eq!(ensure(&[0, 1, 4, 5]), (true, 0));
        assert_eq!(ensure(&[2]), (true, 1));
        assert_eq!(
            ensure(&[0, 1, 2, 3, 4]),
            (false, 0),
            "more than there may be"
        );
        // A request never loses its own pages to itself.
        assert_eq!(ensure(&[6, 7]), (true, 1));
        assert_eq!(ensure(&[6, 7, 0, 1]), (true, 1));
        assert_eq!(ensure(&[6, 7, 0, 1]), (true, 0));
    }

    #[test]
    fn references_in_a_row_are_scattered() {
        let scatter = Scatter::new();
        let hashes: std::collections::HashSet<u64> = (0..4096)
            .map(|n| scatter.hash_one(GrantRef(n)) % 4096)
            .collect();
        assert!(hashes.len() > 2000, "{} of 4096 buckets", hashes.len());
    }
}
