//! The bytes of blkif in a slot: both guest layouts to one private form, and responses back. Source: `xen/io/blkif.h`.
//!
//! The layouts differ in one thing: 32-bit guests align u64 to 4, so everything after the first word moves up by four bytes. Nothing is
//! judged here; a slot of arbitrary bytes decodes to something that [`super::request`] then refuses.

use super::request::{RawRequest, RawSegment};
use parapet_wire::driver::Protocol;
use xen_abi::ids::GrantRef;

/// Bytes of the larger layout's request.
pub const MAX_REQUEST_BYTES: usize = 112;
/// Bytes of one segment, direct or indirect.
pub const SEGMENT_BYTES: usize = 8;

/// Operation codes.
pub mod op {
    /// Read into the segments.
    pub const READ: u8 = 0;
    /// Write the segments.
    pub const WRITE: u8 = 1;
    /// Write with everything before and after in order.
    pub const BARRIER: u8 = 2;
    /// Make what was written durable.
    pub const FLUSH: u8 = 3;
    /// Give sectors back.
    pub const DISCARD: u8 = 5;
    /// Read or write with segments in pages of their own.
    pub const INDIRECT: u8 = 6;
}

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Status {
    /// Done.
    Okay = 0,
    /// Failed.
    Error = -1,
    /// Not offered.
    NotSupported = -2,
}

/// Bytes of one ring entry (a request; responses are shorter).
#[must_use]
pub fn stride(protocol: Protocol) -> usize {
    match protocol {
        Protocol::X86_64 => 112,
        Protocol::X86_32 => 108,
    }
}

/// Offsets of the fields after the first word.
struct Offsets {
    id: usize,
    sector: usize,
    rest: usize,
}

fn offsets(protocol: Protocol) -> Offsets {
    match protocol {
        Protocol::X86_64 => Offsets {
            id: 8,
            sector: 16,
            rest: 24,
        },
        Protocol::X86_32 => Offsets {
            id: 4,
            sector: 12,
            rest: 20,
        },
    }
}

/// Decodes a private copy of a slot.
#[must_use]
pub fn decode(protocol: Protocol, slot: &[u8; MAX_REQUEST_BYTES]) -> RawRequest {
    let at = offsets(protocol);
    let (operation, second) = (slot[0], slot[1]);
    let (id, sector) = (u64_at(slot, at.id), u64_at(slot, at.sector));
    match operation {
        op::INDIRECT => RawRequest::Indirect {
            id,
            operation: second,
            segments: u16::from_le_bytes([slot[2], slot[3]]),
            sector,
            // After `handle` and two bytes of padding.
            pages: std::array::from_fn(|i| GrantRef(u32_at(slot, at.rest + 4 + i * 4))),
        },
        op::DISCARD => RawRequest::Discard {
            id,
            sector,
            sectors: u64_at(slot, at.rest),
        },
        _ => RawRequest::Direct {
            id,
            operation,
            count: second,
            sector,
            segments: std::array::from_fn(|i| segment_at(&slot[at.rest + i * SEGMENT_BYTES..])),
        },
    }
}

/// Decodes a private copy of a page (or less) of indirect segments.
pub fn decode_segments(bytes: &[u8]) -> impl Iterator<Item = RawSegment> {
    bytes.chunks_exact(SEGMENT_BYTES).map(segment_at)
}

/// A response, padding zero.
#[must_use]
pub fn response(protocol: Protocol, id: u64, operation: u8, status: Status) -> ([u8; 16], usize) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8] = operation;
    bytes[10..12].copy_from_slice(&(status as i16).to_le_bytes());
    let len = match protocol {
        Protocol::X86_64 => 16,
        Protocol::X86_32 => 12,
    };
    (bytes, len)
}

fn segment_at(bytes: &[u8]) -> RawSegment {
    RawSegment {
        gref: GrantRef(u32_at(bytes, 0)),
        first: bytes[4],
        last: bytes[5],
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_request_reads_the_same_in_both_layouts() {
        for (protocol, shift) in [(Protocol::X86_64, 0), (Protocol::X86_32, 4)] {
            let mut slot = [0; MAX_REQUEST_BYTES];
            slot[0] = op::WRITE;
            slot[1] = 2;
            slot[8 - shift..16 - shift].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
            slot[16 - shift..24 - shift].copy_from_slice(&77_u64.to_le_bytes());
            slot[32 - shift..36 - shift].copy_from_slice(&9_u32.to_le_bytes());
            slot[36 - shift] = 1;
            slot[37 - shift] = 6;
            let RawRequest::Direct {
                id,
                operation,
                count,
                sector,
                segments,
            } = decode(protocol, &slot)
            else {
                panic!("not direct")
            };
            assert_eq!(
                (id, operation, count, sector),
                (0x1122_3344_5566_7788, op::WRITE, 2, 77)
            );
            assert_eq!(
                segments[1],
                RawSegment {
                    gref: GrantRef(9),
                    first: 1,
                    last: 6
                }
            );
        }
    }

    #[test]
    fn an_indirect_request_has_its_pages_after_the_handle() {
        for (protocol, rest) in [(Protocol::X86_64, 24), (Protocol::X86_32, 20)] {
            let mut slot = [0; MAX_REQUEST_BYTES];
            slot[..4].copy_from_slice(&[op::INDIRECT, op::READ, 0x02, 0x01]);
            slot[rest + 4] = 41;
            slot[rest + 4 + 28] = 48;
            let RawRequest::Indirect {
                operation,
                segments,
                pages,
                ..
            } = decode(protocol, &slot)
            else {
                panic!("not indirect")
            };
            assert_eq!((operation, segments), (op::READ, 0x102));
            assert_eq!((pages[0], pages[7]), (GrantRef(41), GrantRef(48)));
        }
    }

    #[test]
    fn a_response_is_zero_but_for_its_fields() {
        assert_eq!(
            response(Protocol::X86_64, 0x0102, op::FLUSH, Status::NotSupported),
            ([2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0xfe, 0xff, 0, 0, 0, 0], 16)
        );
        assert_eq!(response(Protocol::X86_32, 1, 0, Status::Okay).1, 12);
    }
}
