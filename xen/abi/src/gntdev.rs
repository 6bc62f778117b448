//! `/dev/xen/gntdev`: ioctl numbers and arguments for mapping and copying granted pages. Source: `xen/sys/gntdev.h`.
//!
//! `MAP_GRANT_REF` only records references; the hypercall happens in `mmap`, all or nothing. The argument ends in an
//! array of [`GrantRefEntry`] whose length is `count`, so it is built as bytes by [`encode_map`]. Unmapping may finish
//! after `munmap` returned: a backend must not answer on the strength of `munmap` alone.

use crate::ids::{DomId, GrantRef};
use crate::layout;
use crate::layout::{UserPtr, copy_out, ioctl_number};
use zerocopy::IntoBytes;

/// Path of the device.
pub const GNTDEV_PATH: &str = "/dev/xen/gntdev";

crate::constants! {
    /// Record grant references for mapping: [`MapGrantRefHeader`] then the entries. The number encodes one entry.
    pub const IOCTL_MAP_GRANT_REF: u64 =
        ioctl_number(b'G', 0, size_of::<MapGrantRefHeader>() + size_of::<GrantRefEntry>()) => "IOCTL_GNTDEV_MAP_GRANT_REF";
    /// Forget recorded references after `munmap`: [`UnmapGrantRef`].
    pub const IOCTL_UNMAP_GRANT_REF: u64 = ioctl_number(b'G', 1, size_of::<UnmapGrantRef>()) => "IOCTL_GNTDEV_UNMAP_GRANT_REF";
    /// Find the offset of a mapping: [`GetOffsetForVaddr`].
    pub const IOCTL_GET_OFFSET_FOR_VADDR: u64 = ioctl_number(b'G', 2, size_of::<GetOffsetForVaddr>()) => "IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR";
    /// Limit of grants of this descriptor (argument: `u32`).
    pub const IOCTL_SET_MAX_GRANTS: u64 = ioctl_number(b'G', 3, size_of::<u32>()) => "IOCTL_GNTDEV_SET_MAX_GRANTS";
    /// What to do when a page is unmapped, also by death: [`UnmapNotify`].
    pub const IOCTL_SET_UNMAP_NOTIFY: u64 = ioctl_number(b'G', 7, size_of::<UnmapNotify>()) => "IOCTL_GNTDEV_SET_UNMAP_NOTIFY";
    /// Copy between grants and local memory: [`GrantCopy`].
    pub const IOCTL_GRANT_COPY: u64 = ioctl_number(b'G', 8, size_of::<GrantCopy>()) => "IOCTL_GNTDEV_GRANT_COPY";
    /// [`UnmapNotify::action`]: clear the byte at `index`.
    pub const UNMAP_NOTIFY_CLEAR_BYTE: u32 = 1 => "UNMAP_NOTIFY_CLEAR_BYTE";
    /// [`UnmapNotify::action`]: signal the port.
    pub const UNMAP_NOTIFY_SEND_EVENT: u32 = 2 => "UNMAP_NOTIFY_SEND_EVENT";
    /// [`GrantCopySegment::flags`]: `source` is a grant.
    pub const COPY_SOURCE_GREF: u16 = 1 => "GNTCOPY_source_gref";
    /// [`GrantCopySegment::flags`]: `dest` is a grant.
    pub const COPY_DEST_GREF: u16 = 2 => "GNTCOPY_dest_gref";
}

layout! {
    /// Fixed part of the argument of [`IOCTL_MAP_GRANT_REF`].
    pub struct MapGrantRefHeader: "struct ioctl_gntdev_map_grant_ref", 16 {
        /// Entries that follow.
        pub count: u32 = 0 => "count",
        /// Padding, zero.
        pub pad: u32 = 4 => "pad",
        /// Out: offset to give to `mmap`.
        pub index: u64 = 8 => "index",
    }
}

layout! {
    /// One granted page to map.
    pub struct GrantRefEntry: "struct ioctl_gntdev_grant_ref", 8 {
        /// The granter.
        pub domid: u32 = 0 => "domid",
        /// Its grant reference.
        pub gref: u32 = 4 => "ref",
    }
}

layout! {
    /// Argument of [`IOCTL_UNMAP_GRANT_REF`].
    pub struct UnmapGrantRef: "struct ioctl_gntdev_unmap_grant_ref", 16 {
        /// Offset from the map call.
        pub index: u64 = 0 => "index",
        /// Pages.
        pub count: u32 = 8 => "count",
        /// Padding, zero.
        pub pad: u32 = 12 => "pad",
    }
}

layout! {
    /// Argument of [`IOCTL_GET_OFFSET_FOR_VADDR`].
    pub struct GetOffsetForVaddr: "struct ioctl_gntdev_get_offset_for_vaddr", 24 {
        /// Start of a mapping.
        pub vaddr: u64 = 0 => "vaddr",
        /// Out: its offset.
        pub offset: u64 = 8 => "offset",
        /// Out: its pages.
        pub count: u32 = 16 => "count",
        /// Padding, zero.
        pub pad: u32 = 20 => "pad",
    }
}

layout! {
    /// Argument of [`IOCTL_SET_UNMAP_NOTIFY`], and of its twin in [`crate::gntalloc`].
    pub struct UnmapNotify: "struct ioctl_gntdev_unmap_notify", 16 {
        /// Offset of a byte of the page, as used in `mmap`.
        pub index: u64 = 0 => "index",
        /// `UNMAP_NOTIFY_*`, or 0 to cancel.
        pub action: u32 = 8 => "action",
        /// Local port to signal.
        pub event_channel_port: u32 = 12 => "event_channel_port",
    }
}

layout! {
    /// Argument of [`IOCTL_GRANT_COPY`].
    pub struct GrantCopy: "struct ioctl_gntdev_grant_copy", 16 {
        /// Segments.
        pub count: u32 = 0 => "count",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of [`GrantCopySegment`].
        pub segments: UserPtr = 8 => "segments",
    }
}

layout! {
    /// One copy of at most a page. Exactly one end is a grant, the other a local address.
    pub struct GrantCopySegment: "struct ioctl_gntdev_grant_copy_segment", 24 {
        /// [`GrantEnd`] or a [`UserPtr`], as bytes.
        pub source: [u8; 8] = 0 => "source",
        /// The same.
        pub dest: [u8; 8] = 8 => "dest",
        /// Bytes, at most 4096.
        pub len: u16 = 16 => "len",
        /// `COPY_*_GREF`.
        pub flags: u16 = 18 => "flags",
        /// Out: `grant_table::Status`, 0 for done.
        pub status: i16 = 20 => "status",
        /// Padding, zero.
        pub pad: u16 = 22,
    }
}

/// The grant end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantEnd {
    /// The granter.
    pub domid: DomId,
    /// Its grant reference.
    pub gref: GrantRef,
    /// First byte within the page.
    pub offset: u16,
}

impl GrantEnd {
    fn bytes(self) -> [u8; 8] {
        let [r0, r1, r2, r3] = self.gref.0.to_le_bytes();
        let [o0, o1] = self.offset.to_le_bytes();
        let [d0, d1] = self.domid.0.to_le_bytes();
        [r0, r1, r2, r3, o0, o1, d0, d1]
    }
}

impl GrantCopySegment {
    /// Copies `len` bytes out of a granted page to local memory.
    #[must_use]
    pub fn from_grant(source: GrantEnd, dest: UserPtr, len: u16) -> Self {
        let (source, dest) = (source.bytes(), dest.0.to_le_bytes());
        Self {
            source,
            dest,
            len,
            flags: COPY_SOURCE_GREF,
            status: 0,
            pad: 0,
        }
    }

    /// Copies `len` bytes of local memory into a granted page.
    #[must_use]
    pub fn to_grant(source: UserPtr, dest: GrantEnd, len: u16) -> Self {
        let (source, dest) = (source.0.to_le_bytes(), dest.bytes());
        Self {
            source,
            dest,
            len,
            flags: COPY_DEST_GREF,
            status: 0,
            pad: 0,
        }
    }
}

/// Grants one map call may carry: what fits a 4 KiB page of arguments, far above any ring or request.
pub const MAX_GRANTS_PER_MAP: usize =
    (4096 - size_of::<MapGrantRefHeader>()) / size_of::<GrantRefEntry>();

/// The argument of [`IOCTL_MAP_GRANT_REF`] for `grants`, or `None` if there are none or more than
/// [`MAX_GRANTS_PER_MAP`].
#[must_use]
pub fn encode_map(grants: &[(DomId, GrantRef)]) -> Option<Vec<u8>> {
    if grants.is_empty() || grants.len() > MAX_GRANTS_PER_MAP {
        return None;
    }
    let header = MapGrantRefHeader {
        count: u32::try_from(grants.len()).ok()?,
        pad: 0,
        index: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    for (domid, gref) in grants {
        let entry = GrantRefEntry {
            domid: domid.0.into(),
            gref: gref.0,
        };
        bytes.extend_from_slice(entry.as_bytes());
    }
    Some(bytes)
}

/// The `mmap` offset the kernel left in an argument made by [`encode_map`].
#[must_use]
pub fn decode_map_index(argument: &[u8]) -> Option<u64> {
    copy_out::<MapGrantRefHeader>(argument).map(|header| header.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_the_measured_ones() {
        assert_eq!(IOCTL_MAP_GRANT_REF, 0x0018_4700);
        assert_eq!(IOCTL_UNMAP_GRANT_REF, 0x0010_4701);
        assert_eq!(IOCTL_GET_OFFSET_FOR_VADDR, 0x0018_4702);
        assert_eq!(IOCTL_SET_MAX_GRANTS, 0x0004_4703);
        assert_eq!(IOCTL_SET_UNMAP_NOTIFY, 0x0010_4707);
        assert_eq!(IOCTL_GRANT_COPY, 0x0010_4708);
    }

    #[test]
    fn a_map_argument_is_a_header_and_its_entries() {
        let bytes = encode_map(&[(DomId(3), GrantRef(8)), (DomId(3), GrantRef(9))]).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[0], 2);
        assert_eq!(&bytes[16..24], &[3, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(&bytes[24..32], &[3, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(decode_map_index(&bytes), Some(0));
        assert_eq!(encode_map(&[]), None);
        assert_eq!(
            encode_map(&vec![(DomId(1), GrantRef(1)); MAX_GRANTS_PER_MAP + 1]),
            None
        );
    }

    #[test]
    fn a_copy_segment_marks_which_end_is_a_grant() {
        let end = GrantEnd {
            domid: DomId(0x102),
            gref: GrantRef(0x0403_0201),
            offset: 0x605,
        };
        let out = GrantCopySegment::from_grant(end, UserPtr(0x10), 7);
        assert_eq!(out.source, [1, 2, 3, 4, 5, 6, 2, 1]);
        assert_eq!(
            (out.dest[0], out.len, out.flags),
            (0x10, 7, COPY_SOURCE_GREF)
        );
        let back = GrantCopySegment::to_grant(UserPtr(0x10), end, 7);
        assert_eq!(
            (back.source, back.dest, back.flags),
            (out.dest, out.source, COPY_DEST_GREF)
        );
    }
}
