//! The dirty log: which pages a guest has written since it was last asked.
//!
//! ```text
//!   Off --Enable--> Logging --Clean (read and reset) | Peek (read)--> Logging --Off--> Off
//! ```
//! A PV guest has one only where the hypervisor has shadow paging; otherwise enabling says `EOPNOTSUPP`.

use super::{Call, Command};
use crate::ids::DomId;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table SHADOW_CONSTANTS;
    /// Stop.
    pub const SHADOW_OFF: u32 = 0 => "XEN_DOMCTL_SHADOW_OP_OFF";
    /// Start logging.
    pub const SHADOW_ENABLE_LOGDIRTY: u32 = 2 => "XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY";
    /// Read and reset.
    pub const SHADOW_CLEAN: u32 = 11 => "XEN_DOMCTL_SHADOW_OP_CLEAN";
    /// Read.
    pub const SHADOW_PEEK: u32 = 12 => "XEN_DOMCTL_SHADOW_OP_PEEK";
    /// Mode of reading: also the pages Xen itself has mapped writable. For the last round only.
    pub const SHADOW_LOGDIRTY_FINAL: u32 = 1 => "XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL";
}

layout! {
    /// `XEN_DOMCTL_shadow_op`.
    pub struct ShadowOp: "struct xen_domctl_shadow_op", 40 {
        /// `SHADOW_*`.
        pub op: u32 = 0 => "op",
        /// [`SHADOW_LOGDIRTY_FINAL`] or 0.
        pub mode: u32 = 4 => "mode",
        /// Of the removed allocation calls.
        pub mb: u32 = 8 => "mb",
        /// Padding, zero.
        pub pad: u32 = 12,
        /// One bit per gfn, or null to only reset.
        pub dirty_bitmap: UserPtr = 16 => "dirty_bitmap",
        /// Bits wanted; out, bits written.
        pub pages: u64 = 24 => "pages",
        /// Out: write faults since the last reset.
        pub fault_count: u32 = 32 => "stats.fault_count",
        /// Out: pages dirtied since the last reset.
        pub dirty_count: u32 = 36 => "stats.dirty_count",
    }
}

/// What to do with the dirty log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDirty {
    /// Start; every page counts as clean from here.
    Enable,
    /// Stop.
    Disable,
    /// Read `pages` bits into the bitmap and start anew.
    Clean {
        /// Hypercall buffer of `pages / 8` bytes, rounded up.
        bitmap: UserPtr,
        /// First page after the last one wanted.
        pages: u64,
        /// The guest is stopped and this is the last round.
        last: bool,
    },
    /// Read without a new start.
    Peek {
        /// Hypercall buffer of `pages / 8` bytes, rounded up.
        bitmap: UserPtr,
        /// First page after the last one wanted.
        pages: u64,
    },
}

/// What a read of the dirty log answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyStats {
    /// Bits written to the bitmap.
    pub pages: u64,
    /// Write faults since the last reset.
    pub faults: u32,
    /// Pages dirtied since the last reset.
    pub dirty: u32,
}

/// Works on the dirty log; see [`log_dirty_answer`].
#[must_use]
pub fn log_dirty(abi: Abi, domain: DomId, what: LogDirty) -> Call {
    let mut raw = ShadowOp::new_zeroed();
    match what {
        LogDirty::Enable => raw.op = SHADOW_ENABLE_LOGDIRTY,
        LogDirty::Disable => raw.op = SHADOW_OFF,
        LogDirty::Clean {
            bitmap,
            pages,
            last,
        } => {
            raw.op = SHADOW_CLEAN;
            raw.mode = if last { SHADOW_LOGDIRTY_FINAL } else { 0 };
            raw.dirty_bitmap = bitmap;
            raw.pages = pages;
        }
        LogDirty::Peek { bitmap, pages } => {
            raw.op = SHADOW_PEEK;
            raw.dirty_bitmap = bitmap;
            raw.pages = pages;
        }
    }
    Call::with(abi, Command::ShadowOp, domain, &raw)
}

/// Counts after [`LogDirty::Clean`] or [`LogDirty::Peek`].
#[must_use]
pub fn log_dirty_answer(answer: &Call) -> DirtyStats {
    let raw: ShadowOp = answer.payload();
    DirtyStats {
        pages: raw.pages,
        faults: raw.fault_count,
        dirty: raw.dirty_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_of_the_log_has_its_number() {
        let op = |what| log_dirty(Abi::V4_20, DomId(1), what).payload::<ShadowOp>();
        assert_eq!(op(LogDirty::Enable).op, 2);
        assert_eq!(op(LogDirty::Disable).op, 0);
        let bitmap = UserPtr(0x2000);
        let clean = op(LogDirty::Clean {
            bitmap,
            pages: 64,
            last: true,
        });
        assert_eq!(
            (clean.op, clean.mode, clean.dirty_bitmap, clean.pages),
            (11, 1, bitmap, 64)
        );
        assert_eq!(
            op(LogDirty::Clean {
                bitmap,
                pages: 64,
                last: false
            })
            .mode,
            0
        );
        assert_eq!(op(LogDirty::Peek { bitmap, pages: 64 }).op, 12);
    }
}
