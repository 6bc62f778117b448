//! The dirty map of a disk: which extents a guest may have changed, in memory that the agent made and that outlives the driver.
//!
//! ```text
//!   page 0              live: one bit per extent           taken: one bit per extent
//!   ┌──────────────────┬──────────────────────────────────┬──────────────────────────────────┐
//!   │ magic, version,  │ set by the driver before a write │ filled by the driver on order,   │
//!   │ extent, bytes    │ is issued, and when it has ended │ emptied by the agent             │
//!   └──────────────────┴──────────────────────────────────┴──────────────────────────────────┘
//!                            live ──TakeDirty──▶ taken ──the agent's own reading──▶ a set of extents
//! ```
//!
//! A bit moves into `taken` before it leaves `live`, so a driver that is killed between the two leaves it in both, never in none.
//!
//! This file is where everything lies, and the arithmetic; pure. Who maps the memory accesses it by atomic operations. The agent takes every
//! word for a claim of a process that looks at a guest all day: a word can name no extent that the disk does not have, and that is all it can do.

use std::ops::Range;

/// log2 of the bytes of an extent.
pub const EXTENT_SHIFT: u32 = 16;
/// Bytes of an extent: what one bit stands for. A guest's small write costs a copy of this much; a map of 1 TiB has 2 MiB for each of its two halves.
pub const EXTENT_BYTES: u64 = 1 << EXTENT_SHIFT;
/// Most bytes of a map: a disk of 64 TiB.
pub const MAX_MAP_BYTES: usize = PAGE + 2 * (128 << 20);
/// First word.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PRPTDTY\x01");
/// Version of the layout.
pub const VERSION: u32 = 1;

/// Offsets in page 0.
pub mod head {
    /// [`super::MAGIC`], u64, written last.
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`], u32.
    pub const VERSION: usize = 8;
    /// [`super::EXTENT_SHIFT`], u32.
    pub const EXTENT_SHIFT: usize = 12;
    /// Bytes of the disk, u64.
    pub const DISK_BYTES: usize = 16;
}

const PAGE: usize = 4096;
const WORD_BITS: u64 = 64;
const WORD_BYTES: usize = 8;

/// Where the words of a map lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    disk_bytes: u64,
    words: usize,
}

impl Layout {
    /// The layout for a disk of this size; `None` if it is empty or too large for a map.
    #[must_use]
    pub fn of(disk_bytes: u64) -> Option<Self> {
        let extents = disk_bytes.div_ceil(EXTENT_BYTES);
        let words = usize::try_from(extents.div_ceil(WORD_BITS)).ok()?;
        let layout = Self { disk_bytes, words };
        let fits = words > 0 && words <= MAX_MAP_BYTES / 2 / WORD_BYTES;
        (fits && layout.bytes() <= MAX_MAP_BYTES).then_some(layout)
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Extents of the disk; the last may be shorter than the others.
    #[must_use]
    pub fn extents(&self) -> u64 {
        self.disk_bytes.div_ceil(EXTENT_BYTES)
    }

    /// Words of each half.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }

    /// Bytes of the whole map.
    #[must_use]
    pub fn bytes(&self) -> usize {
        PAGE + 2 * self.half()
    }

    /// Offset of a word of the live half.
    #[must_use]
    pub fn live(&self, word: usize) -> usize {
        PAGE + word * WORD_BYTES
    }

    /// Offset of a word of the taken half.
    #[must_use]
    pub fn taken(&self, word: usize) -> usize {
        PAGE + self.half() + word * WORD_BYTES
    }

    fn half(&self) -> usize {
        (self.words * WORD_BYTES).next_multiple_of(PAGE)
    }

    /// The words that stand for a range of bytes, each with the bits in it. What lies beyond the disk is left out.
    pub fn marks(&self, offset: u64, len: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let end = offset.saturating_add(len).min(self.disk_bytes);
        let extents = if offset < end {
            offset >> EXTENT_SHIFT..end.div_ceil(EXTENT_BYTES)
        } else {
            0..0
        };
        let first = extents.start / WORD_BITS;
        let last = extents.end.div_ceil(WORD_BITS).max(first);
        (first..last).filter_map(move |word| {
            let base = word * WORD_BITS;
            let from = extents.start.max(base) - base;
            let to = extents.end.min(base + WORD_BITS) - base;
            Some((usize::try_from(word).ok()?, mask(from, to)))
        })
    }

    /// The extents that the bits of one word name, as ascending ranges that do not touch; bits beyond the disk name none.
    pub fn extents_of(&self, word: usize, bits: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let base = word as u64 * WORD_BITS;
        let most = self.extents().saturating_sub(base).min(WORD_BITS);
        let mut left = bits & mask(0, most);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let from = u64::from(left.trailing_zeros());
            let run = u64::from((left >> from).trailing_ones());
            left &= !mask(from, from + run);
            Some(base + from..base + from + run)
        })
    }
}

/// Bits `from` to `to`, the latter not included; both at most 64.
fn mask(from: u64, to: u64) -> u64 {
    let below = |bit: u64| match bit {
        WORD_BITS.. => u64::MAX,
        bit => (1 << bit) - 1,
    };
    below(to) & !below(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_terabyte_costs_two_megabytes_a_half_and_what_does_not_fit_is_refused() {
        let layout = Layout::of(1 << 40).unwrap();
        assert_eq!(layout.bytes(), PAGE + (4 << 20));
        assert_eq!(Layout::of(0), None);
        assert!(Layout::of(64 << 40).is_some());
        assert_eq!(Layout::of((64 << 40) + 1), None);
        assert_eq!(Layout::of(u64::MAX), None);
        assert!(Layout::of(512).is_some());
    }

    proptest! {
        #[test]
        fn a_range_marks_exactly_the_extents_that_it_touches(
            bytes in 1_u64..40_000_000, offset in 0_u64..50_000_000, len in 0_u64..20_000_000,
        ) {
            let layout = Layout::of(bytes).unwrap();
            let mut named = BTreeSet::new();
            for (word, bits) in layout.marks(offset, len) {
                prop_assert!(word < layout.words() && bits != 0);
                named.extend(layout.extents_of(word, bits).flatten());
            }
            let touched: BTreeSet<u64> = (0..layout.extents())
                .filter(|e| e * EXTENT_BYTES < offset + len && offset < ((e + 1) * EXTENT_BYTES).min(bytes) && len > 0)
                .collect();
            prop_assert_eq!(named, touched);
        }

        #[test]
        fn whatever_a_word_says_it_names_no_extent_that_is_not_there(bytes in 1_u64..40_000_000, word in 0_usize..20, bits: u64) {
            let layout = Layout::of(bytes).unwrap();
            let mut before = None;
            for range in layout.extents_of(word, bits) {
                prop_assert!(range.start < range.end && range.end <= layout.extents());
                prop_assert!(before.is_none_or(|end| end < range.start));
                before = Some(range.end);
            }
        }
    }
}
