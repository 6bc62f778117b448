//! Newtypes for every identifier that crosses the Xen interface.
//!
//! An integer that names something is never passed bare: a gfn given where an mfn is wanted is a corrupted guest. These
//! types do no checking beyond their range; what exists is for the hypervisor to say.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A domain id. Valid guests are `0..0x7FF0`; the rest is reserved (`xen.h`, `DOMID_*`).
    DomId(u16)
);
id!(
    /// A machine frame number: a 4 KiB frame of real memory.
    Mfn(u64)
);
id!(
    /// A guest frame number: what the guest calls a frame (equals the pfn for PVH and HVM).
    Gfn(u64)
);
id!(
    /// An index into a granter's grant table.
    GrantRef(u32)
);
id!(
    /// An event channel port, local to one domain.
    Port(u32)
);
id!(
    /// A virtual CPU of one domain, from 0.
    VcpuId(u32)
);
id!(
    /// A physical CPU, from 0.
    CpuId(u32)
);

impl DomId {
    /// The control domain.
    pub const DOM0: DomId = DomId(0);
    /// "The calling domain" (`DOMID_SELF`).
    pub const SELF: DomId = DomId(0x7FF0);
    /// First id that can never name a guest (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: DomId = DomId(0x7FF0);
    /// No domain (`DOMID_INVALID`).
    pub const INVALID: DomId = DomId(0x7FF4);

    /// Whether a guest (not dom0) could have this id.
    #[must_use]
    pub fn is_guest(self) -> bool {
        self > Self::DOM0 && self < Self::FIRST_RESERVED
    }
}

/// Size of a frame and of every granted page, in bytes.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// A domain's uuid, the `handle` of `createdomain`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub [u8; 16]);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}
