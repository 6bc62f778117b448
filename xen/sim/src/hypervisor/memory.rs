//! Guest memory: populate, claims, memory maps, the paging pool, and which frames a mapping may name.

use super::Outcome;
use crate::limits::{DOM0_PAGES, MAX_MEMORY_MAP, MAX_ORDER};
use crate::machine::byte_of;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domain::MemoryRange;
use xen_abi::ids::{DomId, PAGE_SIZE};

impl State {
    /// Pages nobody has and nobody claimed.
    pub(crate) fn unclaimed_pages(&self) -> u64 {
        self.free_pages().saturating_sub(self.outstanding_pages())
    }

    /// Free pages of the host. Pools are taken out of them by number: their frames have no content that matters.
    pub(crate) fn free_pages(&self) -> u64 {
        self.frames.free_pages().saturating_sub(self.pool_pages)
    }

    pub(crate) fn outstanding_pages(&self) -> u64 {
        self.domains.values().map(|domain| domain.claim).sum()
    }

    pub(crate) fn total_pages(&self) -> u64 {
        self.frames.total() + DOM0_PAGES
    }

    pub(crate) fn take_pool(&mut self, pages: u64) -> Outcome<()> {
        if self.unclaimed_pages() < pages {
            return Err(Errno::ENOMEM);
        }
        self.pool_pages += pages;
        Ok(())
    }

    pub(crate) fn set_max_mem(&mut self, domid: DomId, kib: u64) -> Outcome<()> {
        self.domain(domid)?.max_pages = kib / 4;
        Ok(())
    }

    pub(crate) fn set_paging_pool(&mut self, domid: DomId, bytes: u64) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.is_pv() {
            return Err(Errno::EOPNOTSUPP);
        }
        if !bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(Errno::EINVAL);
        }
        let (have, want) = (domain.pool_pages, bytes / PAGE_SIZE as u64);
        if want < domain.p2m_tables.len() as u64 {
            return Err(Errno::EBUSY);
        }
        if want > have {
            self.take_pool(want - have)?;
        } else {
            self.pool_pages -= have - want;
        }
        self.guest(domid)?.pool_pages = want;
        Ok(())
    }

    pub(crate) fn claim(&mut self, domid: DomId, pages: u64) -> Outcome<()> {
        let unclaimed = self.unclaimed_pages();
        let domain = self.guest(domid)?;
        if pages == 0 {
            domain.claim = 0;
            return Ok(());
        }
        if domain.claim != 0 || pages < domain.tot_pages || pages > domain.max_pages {
            return Err(Errno::EINVAL);
        }
        let wanted = pages - domain.tot_pages;
        if wanted > unclaimed {
            return Err(Errno::ENOMEM);
        }
        domain.claim = wanted;
        Ok(())
    }

    pub(crate) fn set_memory_map(&mut self, domid: DomId, map: &[MemoryRange]) -> Outcome<()> {
        if map.len() > MAX_MEMORY_MAP {
            return Err(Errno::EINVAL);
        }
        self.guest(domid)?.memory_map = map.to_vec();
        Ok(())
    }

    /// Answers how many extents were done.
    pub(crate) fn populate(
        &mut self,
        domid: DomId,
        frames: &mut [u64],
        order: u32,
        most: usize,
    ) -> Outcome<usize> {
        self.guest(domid)?;
        if order > MAX_ORDER {
            return Ok(0);
        }
        let mut done = 0;
        for frame in frames.iter_mut().take(most) {
            let Some(mfn) = self.populate_one(domid, *frame, order) else {
                break;
            };
            if self
                .domains
                .get(&domid)
                .is_some_and(super::domain::Domain::is_pv)
            {
                *frame = mfn;
            }
            done += 1;
        }
        Ok(done)
    }

    fn populate_one(&mut self, domid: DomId, gfn: u64, order: u32) -> Option<u64> {
        let size = 1u64 << order;
        let (free, unclaimed) = (self.free_pages(), self.unclaimed_pages());
        let domain = self.domains.get_mut(&domid)?;
        if domain.overlaps(gfn, size) {
            let what = format!("populate of domain {domid} over gfn {gfn:#x}, which is populated");
            self.violations.push(what);
            return None;
        }
        if domain.tot_pages + size > domain.max_pages {
            let (have, most) = (domain.tot_pages + size, domain.max_pages);
            self.log_xen(&format!("Over-allocation for d{domid}: {have} > {most}"));
            return None;
        }
        if free < size || unclaimed + domain.claim < size {
            return None;
        }
        if !domain.is_pv() {
            let mut tables = domain.p2m_tables.clone();
            if order < 9 {
                tables.insert((1, gfn >> 9));
            }
            if order < 18 {
                tables.insert((2, gfn >> 18));
            }
            let old = std::mem::replace(&mut domain.p2m_tables, tables);
            if domain.pool_needed() > domain.pool_pages {
                domain.p2m_tables = old;
                return None;
            }
        }
        let mfn = self.frames.alloc(order)?;
        if self.stale {
            let bytes = usize::try_from(size).unwrap_or(0) * PAGE_SIZE;
            let left_there = 0x5a;
            self.memory.whole().fill(byte_of(mfn, 0), bytes, left_there);
        }
        let domain = self.domains.get_mut(&domid)?;
        domain.claim = domain.claim.saturating_sub(size);
        domain.add_extent(gfn, mfn, size);
        Some(mfn)
    }

    /// The machine frames the control domain names, all or nothing.
    pub(crate) fn foreign_frames(
        &mut self,
        domid: DomId,
        frames: &[u64],
        writable: bool,
    ) -> Outcome<Vec<u64>> {
        if frames.is_empty() {
            return Err(Errno::EINVAL);
        }
        let domain = self.guest(domid)?;
        let mut mfns = Vec::with_capacity(frames.len());
        for frame in frames {
            let mfn = domain.frame(*frame).ok_or(Errno::EINVAL)?;
            if writable && domain.tables.contains_key(&mfn) {
                return Err(Errno::EINVAL);
            }
            mfns.push(mfn);
        }
        Ok(mfns)
    }

    /// The frames of the grant table, which grows to what is asked for.
    pub(crate) fn grant_table_frames(&mut self, domid: DomId, count: u32) -> Outcome<Vec<u64>> {
        let domain = self.guest(domid)?;
        if count == 0 || count > domain.max_grant_frames {
            return Err(Errno::EINVAL);
        }
        let have = domain.grant_frames.len();
        let mut grown = Vec::new();
        for _ in have..count as usize {
            grown.push(self.frames.alloc(0).ok_or(Errno::ENOMEM)?);
        }
        let domain = self.guest(domid)?;
        domain.grant_frames.extend(grown);
        Ok(domain.grant_frames[..count as usize].to_vec())
    }
}
