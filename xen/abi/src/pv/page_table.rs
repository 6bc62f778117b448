//! Page tables of 64-bit x86: bits, levels and indexes.
//!
//! A builder writes machine frames; a stream carries pfns in their place. The top table's slots from
//! [`XEN_L4_SLOTS`] belong to the hypervisor and are filled by it.

use std::ops::Range;

/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Levels of tables.
pub const LEVELS: u8 = 4;

/// Present.
pub const PRESENT: u64 = 1 << 0;
/// Writable.
pub const RW: u64 = 1 << 1;
/// Open to user mode; the kernel of a 64-bit PV guest runs there.
pub const USER: u64 = 1 << 2;
/// Accessed.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty.
pub const DIRTY: u64 = 1 << 6;
/// A large page, above level 1; Xen allows PV guests none.
pub const PSE: u64 = 1 << 7;
/// Not executable.
pub const NX: u64 = 1 << 63;
/// The frame's bits.
pub const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Bits of a first-level entry for an ordinary page.
pub const LEAF: u64 = PRESENT | RW | ACCESSED;
/// Bits of a first-level entry for a page that is itself a page table.
pub const LEAF_READ_ONLY: u64 = PRESENT | ACCESSED;
/// Bits of an entry that points to a table.
pub const TABLE: u64 = PRESENT | RW | USER | ACCESSED | DIRTY;

crate::constants! {
    /// First address of the hypervisor.
    pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000 => "HYPERVISOR_VIRT_START";
    /// First address after it.
    pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000 => "HYPERVISOR_VIRT_END";
}

/// Slots of the top table that belong to the hypervisor.
pub const XEN_L4_SLOTS: Range<usize> = 256..272;
const _: () = assert!(index(4, HYPERVISOR_VIRT_START) == XEN_L4_SLOTS.start);
const _: () = assert!(index(4, HYPERVISOR_VIRT_END) == XEN_L4_SLOTS.end);

/// Bits of address below one entry of a level from 1 to 4.
#[must_use]
pub const fn shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

/// Which entry of its level-`level` table maps `address`.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "nine bits are left")]
pub const fn index(level: u8, address: u64) -> usize {
    ((address >> shift(level)) & (ENTRIES as u64 - 1)) as usize
}

/// An entry for a frame.
#[must_use]
pub const fn entry(frame: u64, bits: u64) -> u64 {
    ((frame << 12) & FRAME_MASK) | bits
}

/// The frame of an entry.
#[must_use]
pub const fn frame(entry: u64) -> u64 {
    (entry & FRAME_MASK) >> 12
}

/// An entry with another frame and the same bits.
#[must_use]
pub const fn with_frame(entry: u64, frame: u64) -> u64 {
    (entry & !FRAME_MASK) | ((frame << 12) & FRAME_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_bits_are_the_known_words() {
        assert_eq!((LEAF, LEAF_READ_ONLY, TABLE), (0x23, 0x21, 0x67));
        let address = 0xffff_ffff_8100_1000;
        assert_eq!(
            [4, 3, 2, 1].map(|level| index(level, address)),
            [511, 510, 8, 1]
        );
    }

    proptest! {
        #[test]
        fn frames_and_bits_do_not_touch(old: u64, number in 0..1u64 << 40) {
            let changed = with_frame(old, number);
            prop_assert_eq!(frame(changed), number);
            prop_assert_eq!(changed & !FRAME_MASK, old & !FRAME_MASK);
            prop_assert_eq!(entry(number, TABLE) & !FRAME_MASK, TABLE);
        }
    }
}
