//! Page tables of a new PV guest: how many, where, and their entries. x86-64, four levels, 4 KiB leaves.
//!
//! ```text
//!   Tables::full    L4 │ L3 ... │ L2 ... │ L1 ...     the mapping at virt_base
//!   Tables::lower        L3 ... │ L2 ... │ L1 ...     the p2m list, hung into the same L4
//! ```
//!
//! Entries hold machine frames. A page that is a table is mapped read-only, or Xen refuses to pin it. Pure.

use super::limits::PAGE;
use super::plan_pv::Run;
use std::ops::RangeInclusive;
use xen_abi::pv::page_table::{self, LEAF, LEAF_READ_ONLY, TABLE};

/// Entries in a table.
const ENTRIES: u64 = page_table::ENTRIES as u64;

/// One page table.
pub type Table = Box<[u64; 512]>;

/// A virtually and physically contiguous mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First virtual address, page-aligned.
    pub start: u64,
    /// Pages mapped, at least one.
    pub pages: u64,
    /// First pfn mapped.
    pub pfn: u64,
}

impl Area {
    /// First pfn behind it.
    #[must_use]
    pub fn pfn_end(&self) -> u64 {
        self.pfn + self.pages
    }

    fn last(&self) -> u64 {
        self.start + (self.pages * PAGE - 1)
    }

    /// Index, in the sequence of all tables of a level, of the first and the last table of this area.
    fn tables_at(&self, level: u32) -> RangeInclusive<u64> {
        let shift = 12 + 9 * level;
        // Bits above the 48 of a virtual address are sign extension.
        let canonical = |address: u64| address & ((1 << 48) - 1);
        (canonical(self.start) >> shift)..=(canonical(self.last()) >> shift)
    }
}

/// L4 slots of an address range.
#[must_use]
pub fn l4_slots(start: u64, end: u64) -> RangeInclusive<u64> {
    let slot = |address: u64| (address >> 39) & (ENTRIES - 1);
    slot(start)..=slot(end.saturating_sub(1).max(start))
}

/// The tables of one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// What they map.
    pub area: Area,
    /// Pages of L1, L2, L3 and L4 tables (no L4 for [`Tables::lower`]).
    pub levels: [Run; 4],
}

impl Tables {
    /// All four levels, the L4 at `pfn`.
    #[must_use]
    pub fn full(area: Area, pfn: u64) -> Self {
        let mut tables = Self::lower(area, pfn + 1);
        tables.levels[3] = Run { pfn, pages: 1 };
        tables
    }

    /// L3 and below, from `pfn` on.
    #[must_use]
    pub fn lower(area: Area, pfn: u64) -> Self {
        let mut next = pfn;
        let mut levels = [Run { pfn, pages: 0 }; 4];
        for level in [2_u8, 1, 0] {
            // A table of this level maps one entry of the level above.
            let tables = area.tables_at(u32::from(level) + 1);
            let pages = tables.end() - tables.start() + 1;
            levels[usize::from(level)] = Run { pfn: next, pages };
            next += pages;
        }
        Self { area, levels }
    }

    /// All pages of the tables; they are contiguous.
    #[must_use]
    pub fn run(&self) -> Run {
        let pages = self.levels.iter().map(|level| level.pages).sum();
        let pfn = if self.levels[3].pages == 1 {
            self.levels[3].pfn
        } else {
            self.levels[2].pfn
        };
        Run { pfn, pages }
    }

    /// The pages of level 1, 2 and 3 in the order of [`Tables::run`] behind the L4, filled in.
    ///
    /// `is_table` says which pfns are tables, `mfn` what machine frame a pfn is.
    #[must_use]
    pub fn fill(&self, mfn: impl Fn(u64) -> u64, is_table: impl Fn(u64) -> bool) -> Vec<Table> {
        let mut filled = Vec::new();
        for level in [2_u32, 1, 0] {
            let at = self.levels[level as usize];
            let first_table = *self.area.tables_at(level + 1).start();
            let mut tables = vec![[0_u64; 512]; usize::try_from(at.pages).unwrap_or(0)];
            for (position, entry) in self.entries(level, &mfn, &is_table) {
                let table = (position / ENTRIES).saturating_sub(first_table);
                let index = position % ENTRIES;
                let table = usize::try_from(table)
                    .ok()
                    .and_then(|table| tables.get_mut(table));
                if let (Some(table), Ok(index)) = (table, usize::try_from(index)) {
                    table[index] = entry;
                }
            }
            filled.extend(tables.into_iter().map(Box::new));
        }
        filled
    }

    /// Entries of all tables of a level: position counted over the whole address space, and value.
    fn entries(
        &self,
        level: u32,
        mfn: impl Fn(u64) -> u64,
        is_table: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = (u64, u64)> {
        let span = self.area.tables_at(level);
        let below = level
            .checked_sub(1)
            .map(|level| self.levels[level as usize].pfn);
        let base = below.unwrap_or(self.area.pfn);
        span.enumerate().map(move |(index, position)| {
            let pfn = base + index as u64;
            let bits = match below {
                Some(_) => TABLE,
                None if is_table(pfn) => LEAF_READ_ONLY,
                None => LEAF,
            };
            (position, page_table::entry(mfn(pfn), bits))
        })
    }

    /// Hangs these tables' L3s into an L4.
    pub fn link(&self, l4: &mut [u64; 512], mfn: impl Fn(u64) -> u64) {
        for (position, entry) in self.entries(3, mfn, |_| false) {
            if let Some(slot) = usize::try_from(position % ENTRIES)
                .ok()
                .and_then(|slot| l4.get_mut(slot))
            {
                *slot = entry;
            }
        }
    }
}
