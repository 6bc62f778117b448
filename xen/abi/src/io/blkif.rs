//! Block requests and responses. Source: `xen/io/blkif.h`.
//!
//! A 32-bit guest aligns 64-bit fields to 4 bytes, so requests exist in two layouts ([`Protocol`]). Decoding takes a private
//! copy of a ring entry and never fails for its content: every number is as the guest wrote it and means nothing until the
//! backend has checked it. All sectors are of 512 bytes, whatever the disk's.

use crate::ids::GrantRef;
use crate::layout::copy_out;
use zerocopy::{FromZeros, IntoBytes};

mod layouts;
pub use layouts::*;

crate::constants! {
    /// Read.
    pub const OP_READ: u8 = 0 => "BLKIF_OP_READ";
    /// Write.
    pub const OP_WRITE: u8 = 1 => "BLKIF_OP_WRITE";
    /// Write after all before and before all after.
    pub const OP_WRITE_BARRIER: u8 = 2 => "BLKIF_OP_WRITE_BARRIER";
    /// Make what was answered durable.
    pub const OP_FLUSH_DISKCACHE: u8 = 3 => "BLKIF_OP_FLUSH_DISKCACHE";
    /// Forget sectors.
    pub const OP_DISCARD: u8 = 5 => "BLKIF_OP_DISCARD";
    /// Read or write with segments in pages of their own.
    pub const OP_INDIRECT: u8 = 6 => "BLKIF_OP_INDIRECT";

    /// Done.
    pub const RSP_OKAY: i16 = 0 => "BLKIF_RSP_OKAY";
    /// Failed.
    pub const RSP_ERROR: i16 = -1 => "BLKIF_RSP_ERROR";
    /// Not offered here.
    pub const RSP_EOPNOTSUPP: i16 = -2 => "BLKIF_RSP_EOPNOTSUPP";

    /// Segments in a request itself.
    pub const MAX_SEGMENTS: usize = 11 => "BLKIF_MAX_SEGMENTS_PER_REQUEST";
    /// Pages of segments of an indirect request.
    pub const MAX_INDIRECT_PAGES: usize = 8 => "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST";
    /// [`Request::Discard`]: leave nothing readable.
    pub const DISCARD_SECURE: u8 = 1 => "BLKIF_DISCARD_SECURE";

    /// `info` key: a CD-ROM.
    pub const VDISK_CDROM: u32 = 1 => "VDISK_CDROM";
    /// `info` key: removable.
    pub const VDISK_REMOVABLE: u32 = 2 => "VDISK_REMOVABLE";
    /// `info` key: read-only.
    pub const VDISK_READONLY: u32 = 4 => "VDISK_READONLY";
}

/// Bytes of a sector in every number of the protocol.
pub const SECTOR_BYTES: u64 = 512;
/// Sectors of a page; the highest `last` is one below.
pub const SECTORS_PER_PAGE: u8 = 8;
/// Segments in one page of an indirect request.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = 512;
/// Segments the largest indirect request could name.
pub const MAX_INDIRECT_SEGMENTS: usize = MAX_INDIRECT_PAGES * SEGMENTS_PER_INDIRECT_PAGE;

/// Layout of a guest's requests, from its `protocol` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `x86_64-abi`.
    X86_64,
    /// `x86_32-abi`.
    X86_32,
}

impl Protocol {
    /// From the `protocol` key; a missing key means that of the backend, which is [`Protocol::X86_64`].
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        match key {
            "x86_64-abi" => Some(Self::X86_64),
            "x86_32-abi" => Some(Self::X86_32),
            _ => None,
        }
    }

    /// The key's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        }
    }

    /// Bytes of a ring entry.
    #[must_use]
    pub const fn entry_bytes(self) -> usize {
        match self {
            Self::X86_64 => size_of::<Direct64>(),
            Self::X86_32 => size_of::<Direct32>(),
        }
    }
}

/// A piece of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The page.
    pub gref: GrantRef,
    /// First sector in it.
    pub first: u8,
    /// Last sector in it, which is part of the piece.
    pub last: u8,
}

impl Segment {
    /// Bytes of a segment in a request or an indirect page.
    pub const BYTES: usize = size_of::<SegmentLayout>();

    /// Segment `index` of a page of an indirect request.
    #[must_use]
    pub fn in_page(page: &[u8], index: usize) -> Option<Self> {
        let start = index.checked_mul(Self::BYTES)?;
        copy_out::<SegmentLayout>(page.get(start..)?).map(Self::from)
    }

    /// As it stands in an indirect page.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(SegmentLayout::from(self).as_bytes());
        bytes
    }
}

impl From<SegmentLayout> for Segment {
    fn from(raw: SegmentLayout) -> Self {
        Self {
            gref: GrantRef(raw.gref),
            first: raw.first_sect,
            last: raw.last_sect,
        }
    }
}

impl From<Segment> for SegmentLayout {
    fn from(segment: Segment) -> Self {
        let Segment { gref, first, last } = segment;
        Self {
            gref: gref.0,
            first_sect: first,
            last_sect: last,
            pad: 0,
        }
    }
}

/// A request as the guest wrote it, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Every operation but the two below, also ones that do not exist.
    Direct {
        /// `OP_*` or anything.
        operation: u8,
        /// How many segments it claims.
        nr_segments: u8,
        /// Of no use.
        handle: u16,
        /// To be given back.
        id: u64,
        /// First sector.
        sector: u64,
        /// All places for segments; those beyond the claim are leftovers.
        segments: [Segment; MAX_SEGMENTS],
    },
    /// [`OP_DISCARD`].
    Discard {
        /// [`DISCARD_SECURE`] or anything.
        flag: u8,
        /// Of no use.
        handle: u16,
        /// To be given back.
        id: u64,
        /// First sector.
        sector: u64,
        /// Sectors.
        nr_sectors: u64,
    },
    /// [`OP_INDIRECT`].
    Indirect {
        /// `OP_READ`, `OP_WRITE` or anything.
        operation: u8,
        /// How many segments it claims.
        nr_segments: u16,
        /// Of no use.
        handle: u16,
        /// To be given back.
        id: u64,
        /// First sector.
        sector: u64,
        /// Pages of segments; those beyond the claim are leftovers.
        pages: [GrantRef; MAX_INDIRECT_PAGES],
    },
}

impl Request {
    /// From a private copy of a ring entry of [`Protocol::entry_bytes`]; `None` if it is shorter.
    #[must_use]
    pub fn decode(protocol: Protocol, entry: &[u8]) -> Option<Self> {
        if entry.len() < protocol.entry_bytes() {
            return None;
        }
        match protocol {
            Protocol::X86_64 => Self::decode64(entry),
            Protocol::X86_32 => Self::decode32(entry),
        }
    }

    fn decode64(entry: &[u8]) -> Option<Self> {
        Some(match *entry.first()? {
            OP_DISCARD => copy_out::<Discard64>(entry)?.into(),
            OP_INDIRECT => copy_out::<Indirect64>(entry)?.into(),
            _ => copy_out::<Direct64>(entry)?.into(),
        })
    }

    fn decode32(entry: &[u8]) -> Option<Self> {
        Some(match *entry.first()? {
            OP_DISCARD => copy_out::<Discard32>(entry)?.into(),
            OP_INDIRECT => copy_out::<Indirect32>(entry)?.into(),
            _ => copy_out::<Direct32>(entry)?.into(),
        })
    }

    /// As a frontend would write it, [`Protocol::entry_bytes`] long.
    #[must_use]
    pub fn encode(&self, protocol: Protocol) -> Vec<u8> {
        let mut entry = vec![0; protocol.entry_bytes()];
        let mut put = |bytes: &[u8]| entry[..bytes.len()].copy_from_slice(bytes);
        match (protocol, self) {
            (Protocol::X86_64, Self::Direct { .. }) => put(Direct64::of(self).as_bytes()),
            (Protocol::X86_64, Self::Discard { .. }) => put(Discard64::of(self).as_bytes()),
            (Protocol::X86_64, Self::Indirect { .. }) => put(Indirect64::of(self).as_bytes()),
            (Protocol::X86_32, Self::Direct { .. }) => put(Direct32::of(self).as_bytes()),
            (Protocol::X86_32, Self::Discard { .. }) => put(Discard32::of(self).as_bytes()),
            (Protocol::X86_32, Self::Indirect { .. }) => put(Indirect32::of(self).as_bytes()),
        }
        entry
    }

    /// What its answer must give back: id and operation, for an indirect request the inner one.
    #[must_use]
    pub const fn identity(&self) -> (u64, u8) {
        match self {
            Self::Direct { operation, id, .. } | Self::Indirect { operation, id, .. } => {
                (*id, *operation)
            }
            Self::Discard { id, .. } => (*id, OP_DISCARD),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Of the request.
    pub id: u64,
    /// Of the request; see [`Request::identity`].
    pub operation: u8,
    /// `RSP_*`.
    pub status: i16,
}

impl Response {
    /// The bytes, padding zero: 16 or 12 of them.
    #[must_use]
    pub fn encode(&self, protocol: Protocol) -> Vec<u8> {
        let mut raw = Response64::new_zeroed();
        (raw.id, raw.operation, raw.status) = (self.id, self.operation, self.status);
        let bytes = raw.as_bytes();
        match protocol {
            Protocol::X86_64 => bytes.to_vec(),
            Protocol::X86_32 => bytes[..RESPONSE32_BYTES].to_vec(),
        }
    }

    /// From a private copy of a ring entry. Both layouts begin alike.
    #[must_use]
    pub fn decode(entry: &[u8]) -> Option<Self> {
        let id = copy_out(entry)?;
        let operation = *entry.get(8)?;
        let status = copy_out(entry.get(10..)?)?;
        Some(Self {
            id,
            operation,
            status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::X86_64), Just(Protocol::X86_32)]
    }

    #[test]
    fn fields_are_where_the_guest_puts_them() {
        for (protocol, id, sector, segments) in
            [(Protocol::X86_64, 8, 16, 24), (Protocol::X86_32, 4, 12, 20)]
        {
            let mut entry = vec![0; protocol.entry_bytes()];
            (entry[0], entry[1], entry[id], entry[sector]) = (OP_WRITE, 2, 7, 9);
            entry[segments + 8..segments + 14].copy_from_slice(&[5, 0, 0, 0, 1, 6]);
            let Some(Request::Direct {
                nr_segments,
                id,
                sector,
                segments,
                ..
            }) = Request::decode(protocol, &entry)
            else {
                panic!("a write is a direct request");
            };
            assert_eq!((nr_segments, id, sector), (2, 7, 9));
            assert_eq!(
                segments[1],
                Segment {
                    gref: GrantRef(5),
                    first: 1,
                    last: 6
                }
            );
            assert_eq!(Request::decode(protocol, &entry[1..]), None);
        }
    }

    #[test]
    fn an_indirect_answer_names_the_inner_operation() {
        let mut entry = [0; 112];
        (entry[0], entry[1], entry[8]) = (OP_INDIRECT, OP_READ, 3);
        let request = Request::decode(Protocol::X86_64, &entry).unwrap();
        assert_eq!(request.identity(), (3, OP_READ));
        entry[0] = OP_DISCARD;
        let request = Request::decode(Protocol::X86_64, &entry).unwrap();
        assert_eq!(request.identity(), (3, OP_DISCARD));
    }

    #[test]
    fn an_answer_has_its_length_and_clean_padding() {
        let answer = Response {
            id: u64::MAX,
            operation: 1,
            status: RSP_EOPNOTSUPP,
        };
        let long = answer.encode(Protocol::X86_64);
        assert_eq!(long[8..], [1, 0, 0xfe, 0xff, 0, 0, 0, 0]);
        assert_eq!(answer.encode(Protocol::X86_32), long[..12]);
        assert_eq!(Response::decode(&long), Some(answer));
        assert_eq!(Response::decode(&long[..11]), None);
    }

    #[test]
    fn segments_of_an_indirect_page_are_read_singly() {
        let mut page = vec![0; 4096];
        let segment = Segment {
            gref: GrantRef(0x0102_0304),
            first: 2,
            last: 7,
        };
        page[511 * 8..].copy_from_slice(&segment.to_bytes());
        assert_eq!(Segment::in_page(&page, 511), Some(segment));
        assert_eq!(Segment::in_page(&page, 512), None);
        assert_eq!(Segment::in_page(&page, usize::MAX), None);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_is_a_request_and_survives(
            protocol in both(),
            operation in 0..9u8,
            noise in proptest::collection::vec(any::<u8>(), 112),
        ) {
            let mut entry = noise;
            entry[0] = operation;
            let request = Request::decode(protocol, &entry).unwrap();
            let again = request.encode(protocol);
            prop_assert_eq!(Request::decode(protocol, &again), Some(request));
        }
    }
}
