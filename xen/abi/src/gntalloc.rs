//! `/dev/xen/gntalloc`: ioctl numbers and arguments for granting own pages. Source: `xen/sys/gntalloc.h`.
//!
//! The argument of `ALLOC_GREF` has one reference in its number and as many at its end as pages were asked for.

use crate::ids::{DomId, GrantRef};
use crate::layout;
use crate::layout::{copy_out, ioctl_number};
use zerocopy::IntoBytes;

/// Path of the device.
pub const GNTALLOC_PATH: &str = "/dev/xen/gntalloc";
/// Pages one call may grant: what fits a 4 KiB page of arguments.
pub const MAX_GRANTS_PER_ALLOC: usize = (4096 - size_of::<AllocGrefHeader>()) / size_of::<u32>();
/// Bytes of the C argument with its one declared reference, after alignment to 8.
const ALLOC_ARGUMENT_BYTES: usize = 24;

crate::constants! {
    /// Allocate pages and grant them: [`AllocGrefHeader`] and the references.
    pub const IOCTL_ALLOC_GREF: u64 = ioctl_number(b'G', 5, ALLOC_ARGUMENT_BYTES) => "IOCTL_GNTALLOC_ALLOC_GREF";
    /// Take grants back: [`DeallocGref`].
    pub const IOCTL_DEALLOC_GREF: u64 = ioctl_number(b'G', 6, size_of::<DeallocGref>()) => "IOCTL_GNTALLOC_DEALLOC_GREF";
    /// What to do on unmap: [`crate::gntdev::UnmapNotify`].
    pub const IOCTL_SET_UNMAP_NOTIFY: u64 =
        ioctl_number(b'G', 7, size_of::<crate::gntdev::UnmapNotify>()) => "IOCTL_GNTALLOC_SET_UNMAP_NOTIFY";
    /// [`AllocGrefHeader::flags`]: the peer may write.
    pub const FLAG_WRITABLE: u16 = 1 => "GNTALLOC_FLAG_WRITABLE";
}

layout! {
    /// Fixed part of the argument of [`IOCTL_ALLOC_GREF`]; `count` references (u32) follow at offset 16.
    pub struct AllocGrefHeader: "struct ioctl_gntalloc_alloc_gref", 16 {
        /// Who may map.
        pub domid: u16 = 0 => "domid",
        /// 0 or [`FLAG_WRITABLE`].
        pub flags: u16 = 2 => "flags",
        /// Pages.
        pub count: u32 = 4 => "count",
        /// Out: offset to give to `mmap`.
        pub index: u64 = 8 => "index",
    }
}

layout! {
    /// Argument of [`IOCTL_DEALLOC_GREF`].
    pub struct DeallocGref: "struct ioctl_gntalloc_dealloc_gref", 16 {
        /// Offset from the allocation.
        pub index: u64 = 0 => "index",
        /// References.
        pub count: u32 = 8 => "count",
        /// Padding, zero.
        pub pad: u32 = 12,
    }
}

/// The argument of [`IOCTL_ALLOC_GREF`], or `None` if `count` is 0 or above [`MAX_GRANTS_PER_ALLOC`].
#[must_use]
pub fn encode_alloc(domid: DomId, writable: bool, count: usize) -> Option<Vec<u8>> {
    if count == 0 || count > MAX_GRANTS_PER_ALLOC {
        return None;
    }
    let flags = if writable { FLAG_WRITABLE } else { 0 };
    let header = AllocGrefHeader {
        domid: domid.0,
        flags,
        count: u32::try_from(count).ok()?,
        index: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize((16 + 4 * count).max(ALLOC_ARGUMENT_BYTES), 0);
    Some(bytes)
}

/// Offset for `mmap` and the references the kernel left in an argument made by [`encode_alloc`].
#[must_use]
pub fn decode_alloc(argument: &[u8]) -> Option<(u64, Vec<GrantRef>)> {
    let header: AllocGrefHeader = copy_out(argument)?;
    let count = usize::try_from(header.count)
        .ok()?
        .min(MAX_GRANTS_PER_ALLOC);
    let refs = argument.get(16..16 + 4 * count)?;
    let refs = refs
        .chunks_exact(4)
        .filter_map(copy_out)
        .map(GrantRef)
        .collect();
    Some((header.index, refs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_round_trips() {
        assert_eq!(IOCTL_ALLOC_GREF, 0x0018_4705);
        let mut bytes = encode_alloc(DomId(5), true, 2).unwrap();
        assert_eq!(&bytes[..8], &[5, 0, 1, 0, 2, 0, 0, 0]);
        bytes[8] = 0x40;
        bytes[16] = 11;
        bytes[20] = 12;
        assert_eq!(
            decode_alloc(&bytes),
            Some((0x40, vec![GrantRef(11), GrantRef(12)]))
        );
        assert_eq!(encode_alloc(DomId(5), true, 0), None);
        assert_eq!(encode_alloc(DomId(5), true, MAX_GRANTS_PER_ALLOC + 1), None);
        assert_eq!(decode_alloc(&bytes[..17]), None);
    }
}
