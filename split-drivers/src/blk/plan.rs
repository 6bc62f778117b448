//! Pure: a checked request becomes what is done at the medium and which pages take part.
//!
//! A request of blkif covers one contiguous range of the disk, so it gets one contiguous run of private buffer and one medium operation
//! per step; the guest's pages are pieces of that run, in order.

use super::request::{Request, Transfer, Way};
use crate::disk::Step;
use crate::ring::copy::GrantRange;
use xen_abi::io::blkif::SECTOR_BYTES;

/// Bytes of a sector, as lengths within a page are counted.
const SECTOR: u16 = 512;
const _: () = assert!(SECTOR as u64 == SECTOR_BYTES);

/// What to do, in which order, for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// At the medium, one after the other.
    pub steps: Vec<Step>,
    /// The guest's pages: consecutive parts of the buffer. Read: filled after the last step; write: copied before the first one.
    pub pieces: Vec<GrantRange>,
    /// Direction of the pieces.
    pub way: Way,
    /// Bytes of buffer.
    pub bytes: usize,
    /// Runs alone: after everything before it, before everything after it.
    pub alone: bool,
}

impl Plan {
    /// The plan of a request; `None` if its descriptors are still to be fetched.
    #[must_use]
    pub fn of(request: Request) -> Option<Self> {
        match request {
            Request::Transfer(way, transfer) => Some(Self::transfer(way, &transfer)),
            Request::Indirect { .. } => None,
            Request::Flush(data) => Some(Self::ordered(data, false)),
            Request::Barrier(data) => Some(Self::ordered(data, true)),
            Request::Discard { sector, sectors } => {
                let step = Step::Discard {
                    offset: sector * SECTOR_BYTES,
                    len: sectors * SECTOR_BYTES,
                };
                Some(Self {
                    steps: vec![step],
                    pieces: Vec::new(),
                    way: Way::Write,
                    bytes: 0,
                    alone: false,
                })
            }
        }
    }

    /// The plan of a read or write.
    #[must_use]
    pub fn transfer(way: Way, transfer: &Transfer) -> Self {
        let (offset, len) = (transfer.sector * SECTOR_BYTES, transfer.bytes());
        let step = match way {
            Way::Read => Step::Read { offset, len },
            Way::Write => Step::Write { offset, len },
        };
        Self {
            steps: vec![step],
            pieces: pieces(transfer),
            way,
            bytes: len,
            alone: false,
        }
    }

    fn ordered(data: Option<Transfer>, barrier: bool) -> Self {
        let mut plan = match &data {
            Some(transfer) => Self::transfer(Way::Write, transfer),
            None => Self {
                steps: Vec::new(),
                pieces: Vec::new(),
                way: Way::Write,
                bytes: 0,
                alone: false,
            },
        };
        plan.steps.insert(0, Step::Sync);
        if barrier && data.is_some() {
            plan.steps.push(Step::Sync);
        }
        plan.alone = barrier;
        plan
    }
}

fn pieces(transfer: &Transfer) -> Vec<GrantRange> {
    let sector = SECTOR;
    transfer
        .segments
        .iter()
        .map(|s| GrantRange {
            gref: s.gref,
            offset: u16::from(s.first) * sector,
            len: u16::from(s.last - s.first + 1) * sector,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xen_abi::ids::{GrantRef, PAGE_SIZE};
    use xen_abi::io::blkif::Segment;

    fn transfer(sector: u64, segments: &[(u32, u8, u8)]) -> Transfer {
        let segments: Vec<_> = segments
            .iter()
            .map(|&(gref, first, last)| Segment {
                gref: GrantRef(gref),
                first,
                last,
            })
            .collect();
        let sectors = segments
            .iter()
            .map(|s| u64::from(s.last - s.first) + 1)
            .sum();
        Transfer {
            sector,
            sectors,
            segments,
        }
    }

    #[test]
    fn a_write_covers_its_range_once() {
        let plan = Plan::of(Request::Transfer(
            Way::Write,
            transfer(10, &[(1, 2, 7), (2, 0, 0)]),
        ))
        .unwrap();
        assert_eq!(
            plan.steps,
            [Step::Write {
                offset: 5120,
                len: 3584
            }]
        );
        assert_eq!(
            plan.pieces[0],
            GrantRange {
                gref: GrantRef(1),
                offset: 1024,
                len: 3072
            }
        );
        assert_eq!(
            plan.pieces[1],
            GrantRange {
                gref: GrantRef(2),
                offset: 0,
                len: 512
            }
        );
        assert!(!plan.alone);
    }

    #[test]
    fn a_flush_with_data_syncs_before_and_a_barrier_on_both_sides() {
        let write = Step::Write {
            offset: 0,
            len: 512,
        };
        let data = || Some(transfer(0, &[(1, 0, 0)]));
        assert_eq!(
            Plan::of(Request::Flush(data())).unwrap().steps,
            [Step::Sync, write]
        );
        let barrier = Plan::of(Request::Barrier(data())).unwrap();
        assert_eq!(barrier.steps, [Step::Sync, write, Step::Sync]);
        assert!(barrier.alone);
        assert_eq!(
            Plan::of(Request::Barrier(None)).unwrap().steps,
            [Step::Sync]
        );
    }

    proptest! {
        #[test]
        fn pieces_add_up_and_stay_in_their_pages(segments in prop::collection::vec((any::<u32>(), 0_u8..8, 0_u8..8), 1..256)) {
            let ordered: Vec<_> = segments.into_iter().map(|(g, a, b)| (g, a.min(b), a.max(b))).collect();
            let plan = Plan::transfer(Way::Read, &transfer(0, &ordered));
            let sum: usize = plan.pieces.iter().map(|p| usize::from(p.len)).sum();
            prop_assert_eq!(sum, plan.bytes);
            prop_assert!(plan.pieces.iter().all(|p| usize::from(p.offset + p.len) <= PAGE_SIZE && p.len > 0));
        }
    }
}
