//! `/dev/xen/privcmd` and `/dev/xen/hypercall`: ioctl numbers and arguments. Source: `xen/sys/privcmd.h`.
//!
//! Everything a hypercall dereferences belongs in pages from `/dev/xen/hypercall` (or, without it, locked pages that are
//! not inherited by children). Addresses are [`UserPtr`]s; this module never dereferences one.

use crate::layout;
use crate::layout::{UserPtr, ioctl_number};

/// Path of the hypercall device.
pub const PRIVCMD_PATH: &str = "/dev/xen/privcmd";
/// Path of the device whose mappings are hypercall buffers that neither move nor fault.
pub const HYPERCALL_BUFFER_PATH: &str = "/dev/xen/hypercall";

crate::constants! {
    /// Raw hypercall: [`Hypercall`]. The result is the ioctl's; a negative errno becomes `errno`.
    pub const IOCTL_HYPERCALL: u64 = ioctl_number(b'P', 0, size_of::<Hypercall>()) => "IOCTL_PRIVCMD_HYPERCALL";
    /// Map foreign frames: [`MmapBatchV2`]. Success still requires a look at every entry of `err`.
    pub const IOCTL_MMAPBATCH_V2: u64 = ioctl_number(b'P', 4, size_of::<MmapBatchV2>()) => "IOCTL_PRIVCMD_MMAPBATCH_V2";
    /// Device model operation: [`DmOp`].
    pub const IOCTL_DM_OP: u64 = ioctl_number(b'P', 5, size_of::<DmOp>()) => "IOCTL_PRIVCMD_DM_OP";
    /// Give up everything but mapping and dm_op on one domain (argument: `u16` domain id); there is no way back.
    pub const IOCTL_RESTRICT: u64 = ioctl_number(b'P', 6, size_of::<u16>()) => "IOCTL_PRIVCMD_RESTRICT";
    /// Map a resource of a domain: [`MmapResource`].
    pub const IOCTL_MMAP_RESOURCE: u64 = ioctl_number(b'P', 7, size_of::<MmapResource>()) => "IOCTL_PRIVCMD_MMAP_RESOURCE";
    /// Never implemented: its errno is what this kernel answers to an unknown ioctl.
    pub const IOCTL_UNIMPLEMENTED: u64 = ioctl_number(b'P', 0xff, 0) => "IOCTL_PRIVCMD_UNIMPLEMENTED";
}

layout! {
    /// Argument of [`IOCTL_HYPERCALL`].
    pub struct Hypercall: "privcmd_hypercall_t", 48 {
        /// One of [`crate::hypercall`].
        pub op: u64 = 0 => "op",
        /// Up to five arguments; unused ones are zero.
        pub arg: [u64; 5] = 8 => "arg",
    }
}

layout! {
    /// Argument of [`IOCTL_MMAPBATCH_V2`]. The first call on a mapping must cover it exactly; later calls may only fill
    /// entries that failed.
    pub struct MmapBatchV2: "privcmd_mmapbatch_v2_t", 32 {
        /// Frames to map.
        pub num: u32 = 0 => "num",
        /// Owner of the frames.
        pub dom: u16 = 4 => "dom",
        /// Padding, zero.
        pub pad: u16 = 6,
        /// Start of the mapping.
        pub addr: u64 = 8 => "addr",
        /// `num` frame numbers (u64): mfns of a PV guest, gfns of any other.
        pub arr: UserPtr = 16 => "arr",
        /// `num` results (i32), 0 or a negative errno; `-ENOENT` means paged out, try again.
        pub err: UserPtr = 24 => "err",
    }
}

layout! {
    /// One buffer of [`DmOp`].
    pub struct DmOpBuf: "privcmd_dm_op_buf_t", 16 {
        /// Where.
        pub uptr: UserPtr = 0 => "uptr",
        /// Bytes, at most 4096 by the kernel's default.
        pub size: u64 = 8 => "size",
    }
}

layout! {
    /// Argument of [`IOCTL_DM_OP`].
    pub struct DmOp: "privcmd_dm_op_t", 16 {
        /// Target domain.
        pub dom: u16 = 0 => "dom",
        /// Buffers, at most 16 by the kernel's default.
        pub num: u16 = 2 => "num",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of [`DmOpBuf`].
        pub ubufs: UserPtr = 8 => "ubufs",
    }
}

layout! {
    /// Argument of [`IOCTL_MMAP_RESOURCE`]. With `num` and `addr` both zero it asks the size, returned in `num`.
    pub struct MmapResource: "privcmd_mmap_resource_t", 32 {
        /// Owner of the resource.
        pub dom: u16 = 0 => "dom",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// One of `memory::RESOURCE_*`.
        pub kind: u32 = 4 => "type",
        /// Which resource of that type.
        pub id: u32 = 8 => "id",
        /// First frame of it.
        pub idx: u32 = 12 => "idx",
        /// Frames to map.
        pub num: u64 = 16 => "num",
        /// Start of the mapping.
        pub addr: u64 = 24 => "addr",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_the_measured_ones() {
        assert_eq!(IOCTL_HYPERCALL, 0x0030_5000);
        assert_eq!(IOCTL_MMAPBATCH_V2, 0x0020_5004);
        assert_eq!(IOCTL_DM_OP, 0x0010_5005);
        assert_eq!(IOCTL_RESTRICT, 0x0002_5006);
        assert_eq!(IOCTL_MMAP_RESOURCE, 0x0020_5007);
        assert_eq!(IOCTL_UNIMPLEMENTED, 0x0000_50ff);
    }
}
