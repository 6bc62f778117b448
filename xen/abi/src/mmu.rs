//! `mmuext_op`: what the control domain does to the page tables of a PV guest under construction. Source: `xen/xen.h`.
//!
//! The hypercall takes an array of [`MmuextOp`], its length, where to leave the count done (or null) and the domain whose
//! frames are meant. Pinning validates the whole tree: any writable mapping of a table, also one of ours, fails it.

use crate::ids::Mfn;
use crate::layout;

crate::constants! {
    /// Pin as level 1.
    pub const PIN_L1_TABLE: u32 = 0 => "MMUEXT_PIN_L1_TABLE";
    /// Pin as level 2.
    pub const PIN_L2_TABLE: u32 = 1 => "MMUEXT_PIN_L2_TABLE";
    /// Pin as level 3.
    pub const PIN_L3_TABLE: u32 = 2 => "MMUEXT_PIN_L3_TABLE";
    /// Pin as level 4.
    pub const PIN_L4_TABLE: u32 = 3 => "MMUEXT_PIN_L4_TABLE";
    /// Take a pin back.
    pub const UNPIN_TABLE: u32 = 4 => "MMUEXT_UNPIN_TABLE";
    /// Zero a page.
    pub const CLEAR_PAGE: u32 = 16 => "MMUEXT_CLEAR_PAGE";
    /// Copy a page.
    pub const COPY_PAGE: u32 = 17 => "MMUEXT_COPY_PAGE";
}

/// Operations given in one call when restoring; more would hold the hypervisor for long.
pub const MAX_PIN_BATCH: usize = 1024;

layout! {
    /// One operation.
    pub struct MmuextOp: "struct mmuext_op", 24 {
        /// What to do.
        pub cmd: u32 = 0 => "cmd",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// The frame.
        pub mfn: u64 = 8 => "arg1.mfn",
        /// Where to copy from.
        pub src_mfn: u64 = 16 => "arg2.src_mfn",
    }
}

impl MmuextOp {
    /// Pins a table of a level from 1 to 4; `None` for another level.
    #[must_use]
    pub fn pin(level: u8, table: Mfn) -> Option<Self> {
        let cmd = match level {
            1 => PIN_L1_TABLE,
            2 => PIN_L2_TABLE,
            3 => PIN_L3_TABLE,
            4 => PIN_L4_TABLE,
            _ => return None,
        };
        Some(Self {
            cmd,
            pad: 0,
            mfn: table.0,
            src_mfn: 0,
        })
    }

    /// Takes the pin of a table back.
    #[must_use]
    pub const fn unpin(table: Mfn) -> Self {
        Self {
            cmd: UNPIN_TABLE,
            pad: 0,
            mfn: table.0,
            src_mfn: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_commands() {
        let pin = |level| MmuextOp::pin(level, Mfn(9)).map(|op| (op.cmd, op.mfn));
        assert_eq!(
            [pin(0), pin(1), pin(4), pin(5)],
            [None, Some((0, 9)), Some((3, 9)), None]
        );
        assert_eq!(MmuextOp::unpin(Mfn(9)).cmd, 4);
    }
}
