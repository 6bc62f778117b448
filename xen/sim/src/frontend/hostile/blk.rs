//! Bad block requests, one at a time.

use super::Expect;
use crate::frontend::blk::{BlkFront, RequestId, direct};
use crate::grants::{GTF_PERMIT_ACCESS, GTF_READONLY};
use crate::kernel::GuestPage;
use xen_abi::ids::{DomId, GrantRef};
use xen_abi::io::blkif::{
    DISCARD_SECURE, MAX_INDIRECT_PAGES, MAX_SEGMENTS, OP_FLUSH_DISKCACHE, OP_INDIRECT, OP_READ,
    OP_WRITE, Request, Segment,
};

/// A reference far beyond every grant table.
const NO_SUCH_GRANT: GrantRef = GrantRef(0x00FF_FFFF);

/// What is wrong with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlkAttack {
    /// `req_prod` is 2^31 ahead.
    ReqProdJumps,
    /// `req_prod` goes back.
    ReqProdGoesBack,
    /// `req_prod` is one more than the ring holds.
    ReqProdOneTooMany,
    /// An operation that does not exist.
    UnknownOperation(u8),
    /// More segments than a request holds.
    TooManySegments(u8),
    /// A read of nothing.
    NoSegments,
    /// First sector after last.
    FirstAfterLast,
    /// Last sector beyond the page.
    LastBeyondPage(u8),
    /// Begins at the last sector there can be.
    SectorOverflow,
    /// Ends just beyond the disk.
    BeyondEnd,
    /// A discard whose end wraps around.
    DiscardWraps,
    /// A discard beyond the disk.
    DiscardBeyondEnd,
    /// A discard with a flag nobody offered.
    DiscardSecure,
    /// A flush with data.
    FlushWithData,
    /// An indirect request of no segment.
    IndirectNone,
    /// An indirect request of as few segments as a direct one holds.
    IndirectFew,
    /// An indirect request of more segments than was offered, up to 65535.
    IndirectTooMany(u16),
    /// An indirect request in an indirect request.
    IndirectNested,
    /// An indirect flush.
    IndirectFlush,
    /// The page of segments is not granted.
    IndirectPageBad,
    /// A segment in the page of segments is not granted.
    IndirectSegmentBad,
    /// This segment (from 0) is not granted, the others are.
    BadGrant(usize),
    /// A grant that was taken back.
    RevokedGrant,
    /// A read into a page that is granted read-only.
    ReadOnlyGrant,
    /// A page granted to another domain.
    ForeignGrant,
    /// A grant of a frame that is not there.
    EmptyFrame,
    /// Another device's number in the request.
    OtherHandle,
    /// The same page in every segment.
    SamePage,
}

impl BlkAttack {
    /// Every attack, those with a number at the numbers that matter.
    pub const ALL: &[BlkAttack] = &[
        Self::ReqProdJumps,
        Self::ReqProdGoesBack,
        Self::ReqProdOneTooMany,
        Self::UnknownOperation(4),
        Self::UnknownOperation(7),
        Self::UnknownOperation(255),
        Self::TooManySegments(12),
        Self::TooManySegments(255),
        Self::NoSegments,
        Self::FirstAfterLast,
        Self::LastBeyondPage(8),
        Self::LastBeyondPage(255),
        Self::SectorOverflow,
        Self::BeyondEnd,
        Self::DiscardWraps,
        Self::DiscardBeyondEnd,
        Self::DiscardSecure,
        Self::FlushWithData,
        Self::IndirectNone,
        Self::IndirectFew,
        Self::IndirectTooMany(4097),
        Self::IndirectTooMany(u16::MAX),
        Self::IndirectNested,
        Self::IndirectFlush,
        Self::IndirectPageBad,
        Self::IndirectSegmentBad,
        Self::BadGrant(0),
        Self::BadGrant(5),
        Self::BadGrant(10),
        Self::RevokedGrant,
        Self::ReadOnlyGrant,
        Self::ForeignGrant,
        Self::EmptyFrame,
        Self::OtherHandle,
        Self::SamePage,
    ];

    /// What a good backend makes of it.
    #[must_use]
    pub fn expect(self) -> Expect {
        match self {
            Self::ReqProdJumps | Self::ReqProdGoesBack | Self::ReqProdOneTooMany => Expect::Stopped,
            Self::OtherHandle | Self::SamePage => Expect::Done,
            Self::DiscardSecure | Self::FlushWithData | Self::IndirectFew => Expect::Either,
            _ => Expect::Refused,
        }
    }

    /// Puts it on the first queue of a connected frontend. `None` when it is no request but a broken ring.
    pub fn launch(self, front: &mut BlkFront) -> Option<RequestId> {
        let prod = front.ring(0).req_prod();
        let size = front.ring(0).size();
        let index = match self {
            Self::ReqProdJumps => prod.wrapping_add(1 << 31),
            Self::ReqProdGoesBack => prod.wrapping_sub(1),
            Self::ReqProdOneTooMany => prod.wrapping_add(size + 1),
            _ => return Some(self.submit(front)),
        };
        front.ring(0).force_req_prod(index);
        let port = front.port(0);
        front.device().domu().send(port);
        None
    }

    fn submit(self, front: &mut BlkFront) -> RequestId {
        let domu = front.device().domu().clone();
        let sectors = front.info().sectors;
        front.submit_raw(0, MAX_SEGMENTS + 1, |id, pages| {
            let segments: Vec<Segment> = pages[..MAX_SEGMENTS]
                .iter()
                .map(|(gref, _)| Segment {
                    gref: *gref,
                    first: 0,
                    last: 7,
                })
                .collect();
            self.spoil_grants(&domu, pages);
            match self {
                Self::DiscardWraps => discard(id, u64::MAX - 3, 8, 0),
                Self::DiscardBeyondEnd => discard(id, sectors, 1, 0),
                Self::DiscardSecure => discard(id, 0, 8, DISCARD_SECURE),
                Self::IndirectNone
                | Self::IndirectFew
                | Self::IndirectTooMany(_)
                | Self::IndirectNested
                | Self::IndirectFlush
                | Self::IndirectPageBad
                | Self::IndirectSegmentBad => self.indirect(id, pages, &segments),
                _ => self.direct(id, sectors, segments),
            }
        })
    }

    /// Makes the first page's grant what the attack needs.
    fn spoil_grants(self, domu: &crate::kernel::DomU, pages: &[(GrantRef, GuestPage)]) {
        let (gref, page) = &pages[0];
        let frame = domu.frame_name(page);
        match self {
            Self::RevokedGrant => domu.revoke(*gref),
            Self::ReadOnlyGrant => {
                domu.write_grant(*gref, GTF_PERMIT_ACCESS | GTF_READONLY, DomId::DOM0, frame);
            }
            Self::ForeignGrant => domu.write_grant(*gref, GTF_PERMIT_ACCESS, DomId(0x7FEF), frame),
            Self::EmptyFrame => domu.write_grant(*gref, GTF_PERMIT_ACCESS, DomId::DOM0, 0xF_FFF0),
            _ => {}
        }
    }

    fn direct(self, id: u64, sectors: u64, mut segments: Vec<Segment>) -> Request {
        let mut sector = 0;
        let mut operation = OP_READ;
        let mut claimed = 1;
        match self {
            Self::UnknownOperation(other) => operation = other,
            Self::TooManySegments(count) => claimed = count,
            Self::NoSegments => claimed = 0,
            Self::FirstAfterLast => (segments[0].first, segments[0].last) = (5, 4),
            Self::LastBeyondPage(last) => segments[0].last = last,
            Self::SectorOverflow => sector = u64::MAX - 3,
            Self::BeyondEnd => sector = sectors - 7,
            Self::FlushWithData => operation = OP_FLUSH_DISKCACHE,
            Self::BadGrant(at) => (segments[at].gref, claimed) = (NO_SUCH_GRANT, 11),
            Self::SamePage => {
                let first = segments[0];
                segments.fill(first);
                (claimed, operation) = (11, OP_WRITE);
            }
            _ => {}
        }
        let mut request = direct(operation, id, sector, &segments);
        if let Request::Direct {
            nr_segments,
            handle,
            ..
        } = &mut request
        {
            *nr_segments = claimed;
            *handle = if self == Self::OtherHandle { 0xBEEF } else { 0 };
        }
        request
    }

    fn indirect(self, id: u64, pages: &[(GrantRef, GuestPage)], segments: &[Segment]) -> Request {
        let Some((gref, page)) = pages.last() else {
            return discard(id, 0, 0, 0);
        };
        let mut segments = segments.to_vec();
        if self == Self::IndirectSegmentBad {
            segments[7].gref = NO_SUCH_GRANT;
        }
        let bytes: Vec<u8> = segments
            .iter()
            .flat_map(|segment| segment.to_bytes())
            .collect();
        page.write(0, &bytes);
        let mut table = [*gref; MAX_INDIRECT_PAGES];
        let (mut operation, mut claimed) = (OP_WRITE, 11);
        match self {
            Self::IndirectNone => claimed = 0,
            Self::IndirectTooMany(count) => claimed = count,
            Self::IndirectNested => operation = OP_INDIRECT,
            Self::IndirectFlush => operation = OP_FLUSH_DISKCACHE,
            Self::IndirectPageBad => table[0] = NO_SUCH_GRANT,
            _ => {}
        }
        let nr_segments = claimed;
        Request::Indirect {
            operation,
            nr_segments,
            handle: 0,
            id,
            sector: 0,
            pages: table,
        }
    }
}

fn discard(id: u64, sector: u64, nr_sectors: u64, flag: u8) -> Request {
    Request::Discard {
        flag,
        handle: 0,
        id,
        sector,
        nr_sectors,
    }
}
