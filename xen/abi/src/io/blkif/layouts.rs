//! The bytes of block requests, for 64-bit and for 32-bit guests.
//!
//! The 32-bit structures have no alignment beyond bytes, which stands for "64-bit fields at 4": every offset is asserted,
//! and the header check compiles the C for both.

use super::{
    GrantRef, MAX_INDIRECT_PAGES, MAX_SEGMENTS, OP_DISCARD, OP_INDIRECT, Request, Segment,
};
use crate::layout;
use zerocopy::FromZeros;

/// Bytes of an answer to a 32-bit guest.
pub const RESPONSE32_BYTES: usize = 12;

layout! {
    /// A segment, the same for both.
    pub struct SegmentLayout: "struct blkif_request_segment", 8 {
        /// The page.
        pub gref: u32 = 0 => "gref",
        /// First sector.
        pub first_sect: u8 = 4 => "first_sect",
        /// Last sector.
        pub last_sect: u8 = 5 => "last_sect",
        /// Padding.
        pub pad: u16 = 6,
    }
}

layout! {
    /// A direct request of a 64-bit guest.
    pub struct Direct64: "struct blkif_request", 112 {
        /// `OP_*`.
        pub operation: u8 = 0 => "operation",
        /// Segments.
        pub nr_segments: u8 = 1 => "nr_segments",
        /// Of no use.
        pub handle: u16 = 2 => "handle",
        /// Padding.
        pub pad: u32 = 4,
        /// Id.
        pub id: u64 = 8 => "id",
        /// First sector.
        pub sector: u64 = 16 => "sector_number",
        /// Segments.
        pub seg: [SegmentLayout; 11] = 24 => "seg",
    }
}

layout! {
    /// A discard of a 64-bit guest.
    pub struct Discard64: "struct blkif_request_discard", 32 {
        /// `OP_DISCARD`.
        pub operation: u8 = 0 => "operation",
        /// Flag.
        pub flag: u8 = 1 => "flag",
        /// Of no use.
        pub handle: u16 = 2 => "handle",
        /// Padding.
        pub pad: u32 = 4,
        /// Id.
        pub id: u64 = 8 => "id",
        /// First sector.
        pub sector: u64 = 16 => "sector_number",
        /// Sectors.
        pub nr_sectors: u64 = 24 => "nr_sectors",
    }
}

layout! {
    /// An indirect request of a 64-bit guest.
    pub struct Indirect64: "struct blkif_request_indirect", 64 {
        /// `OP_INDIRECT`.
        pub operation: u8 = 0 => "operation",
        /// Inner operation.
        pub indirect_op: u8 = 1 => "indirect_op",
        /// Segments.
        pub nr_segments: u16 = 2 => "nr_segments",
        /// Padding.
        pub pad: u32 = 4,
        /// Id.
        pub id: u64 = 8 => "id",
        /// First sector.
        pub sector: u64 = 16 => "sector_number",
        /// Of no use.
        pub handle: u16 = 24 => "handle",
        /// Padding.
        pub pad2: u16 = 26,
        /// Pages of segments.
        pub grefs: [u32; 8] = 28 => "indirect_grefs",
        /// Padding.
        pub pad3: u32 = 60,
    }
}

layout! {
    /// An answer to a 64-bit guest.
    pub struct Response64: "struct blkif_response", 16 {
        /// Id.
        pub id: u64 = 0 => "id",
        /// Operation.
        pub operation: u8 = 8 => "operation",
        /// Padding.
        pub pad: u8 = 9,
        /// `RSP_*`.
        pub status: i16 = 10 => "status",
        /// Padding.
        pub pad2: u32 = 12,
    }
}

/// A 64-bit field aligned to four bytes, as on a 32-bit machine.
pub type U64Packed = zerocopy::byteorder::U64<zerocopy::byteorder::LittleEndian>;

layout! {
    /// A direct request of a 32-bit guest.
    pub struct Direct32: "struct blkif_request", 108 {
        /// `OP_*`.
        pub operation: u8 = 0 => "operation",
        /// Segments.
        pub nr_segments: u8 = 1 => "nr_segments",
        /// Of no use.
        pub handle: u16 = 2 => "handle",
        /// Id.
        pub id: U64Packed = 4 => "id",
        /// First sector.
        pub sector: U64Packed = 12 => "sector_number",
        /// Segments.
        pub seg: [SegmentLayout; 11] = 20 => "seg",
    }
}

layout! {
    /// A discard of a 32-bit guest.
    pub struct Discard32: "struct blkif_request_discard", 28 {
        /// `OP_DISCARD`.
        pub operation: u8 = 0 => "operation",
        /// Flag.
        pub flag: u8 = 1 => "flag",
        /// Of no use.
        pub handle: u16 = 2 => "handle",
        /// Id.
        pub id: U64Packed = 4 => "id",
        /// First sector.
        pub sector: U64Packed = 12 => "sector_number",
        /// Sectors.
        pub nr_sectors: U64Packed = 20 => "nr_sectors",
    }
}

layout! {
    /// An indirect request of a 32-bit guest.
    pub struct Indirect32: "struct blkif_request_indirect", 64 {
        /// `OP_INDIRECT`.
        pub operation: u8 = 0 => "operation",
        /// Inner operation.
        pub indirect_op: u8 = 1 => "indirect_op",
        /// Segments.
        pub nr_segments: u16 = 2 => "nr_segments",
        /// Id.
        pub id: U64Packed = 4 => "id",
        /// First sector.
        pub sector: U64Packed = 12 => "sector_number",
        /// Of no use.
        pub handle: u16 = 20 => "handle",
        /// Padding.
        pub pad: u16 = 22,
        /// Pages of segments.
        pub grefs: [u32; 8] = 24 => "indirect_grefs",
        /// Padding.
        pub pad2: [u32; 2] = 56 => "pad",
    }
}

macro_rules! conversions {
    ($direct:ident, $discard:ident, $indirect:ident) => {
        impl From<$direct> for Request {
            fn from(raw: $direct) -> Self {
                Request::Direct {
                    operation: raw.operation,
                    nr_segments: raw.nr_segments,
                    handle: raw.handle,
                    id: raw.id.into(),
                    sector: raw.sector.into(),
                    segments: raw.seg.map(Segment::from),
                }
            }
        }

        impl From<$discard> for Request {
            fn from(raw: $discard) -> Self {
                Request::Discard {
                    flag: raw.flag,
                    handle: raw.handle,
                    id: raw.id.into(),
                    sector: raw.sector.into(),
                    nr_sectors: raw.nr_sectors.into(),
                }
            }
        }

        impl From<$indirect> for Request {
            fn from(raw: $indirect) -> Self {
                Request::Indirect {
                    operation: raw.indirect_op,
                    nr_segments: raw.nr_segments,
                    handle: raw.handle,
                    id: raw.id.into(),
                    sector: raw.sector.into(),
                    pages: raw.grefs.map(GrantRef),
                }
            }
        }

        impl $direct {
            /// The direct form of a request; zero for any other.
            pub(super) fn of(request: &Request) -> Self {
                let mut raw = Self::new_zeroed();
                if let Request::Direct {
                    operation,
                    nr_segments,
                    handle,
                    id,
                    sector,
                    segments,
                } = request
                {
                    raw.operation = *operation;
                    raw.nr_segments = *nr_segments;
                    raw.handle = *handle;
                    raw.id = (*id).into();
                    raw.sector = (*sector).into();
                    raw.seg = segments.map(SegmentLayout::from);
                }
                raw
            }
        }

        impl $discard {
            /// The discard form of a request; zero for any other.
            pub(super) fn of(request: &Request) -> Self {
                let mut raw = Self::new_zeroed();
                if let Request::Discard {
                    flag,
                    handle,
                    id,
                    sector,
                    nr_sectors,
                } = request
                {
                    raw.operation = OP_DISCARD;
                    raw.flag = *flag;
                    raw.handle = *handle;
                    raw.id = (*id).into();
                    raw.sector = (*sector).into();
                    raw.nr_sectors = (*nr_sectors).into();
                }
                raw
            }
        }

        impl $indirect {
            /// The indirect form of a request; zero for any other.
            pub(super) fn of(request: &Request) -> Self {
                let mut raw = Self::new_zeroed();
                if let Request::Indirect {
                    operation,
                    nr_segments,
                    handle,
                    id,
                    sector,
                    pages,
                } = request
                {
                    raw.operation = OP_INDIRECT;
                    raw.indirect_op = *operation;
                    raw.nr_segments = *nr_segments;
                    raw.handle = *handle;
                    raw.id = (*id).into();
                    raw.sector = (*sector).into();
                    raw.grefs = pages.map(|page| page.0);
                }
                raw
            }
        }
    };
}

conversions!(Direct64, Discard64, Indirect64);
conversions!(Direct32, Discard32, Indirect32);
const _: () = assert!(MAX_SEGMENTS == 11 && MAX_INDIRECT_PAGES == 8);
