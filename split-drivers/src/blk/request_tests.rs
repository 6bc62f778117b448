//! What is accepted and what is refused, by table and by property.

use super::super::wire::{MAX_REQUEST_BYTES, layout};
use super::*;
use parapet_wire::driver::Protocol;
use proptest::prelude::*;

const DISK: Geometry = Geometry {
    sectors: 1000,
    sector_size: 512,
    read_only: false,
    discard: true,
};

fn segment(first: u8, last: u8) -> Segment {
    Segment {
        gref: GrantRef(8),
        first,
        last,
    }
}

fn direct(operation: u8, sector: u64, segments: &[Segment]) -> blkif::Request {
    let mut all = [segment(0, 0); blkif::MAX_SEGMENTS];
    all[..segments.len()].copy_from_slice(segments);
    let nr_segments = u8::try_from(segments.len()).unwrap();
    blkif::Request::Direct {
        operation,
        nr_segments,
        handle: 0,
        id: 1,
        sector,
        segments: all,
    }
}

fn indirect(operation: u8, nr_segments: u16) -> blkif::Request {
    blkif::Request::Indirect {
        operation,
        nr_segments,
        handle: 0,
        id: 1,
        sector: 0,
        pages: [GrantRef(1); 8],
    }
}

fn discard(sector: u64, nr_sectors: u64) -> blkif::Request {
    blkif::Request::Discard {
        flag: 0,
        handle: 0,
        id: 1,
        sector,
        nr_sectors,
    }
}

fn refusal(raw: &blkif::Request, disk: Geometry) -> Refusal {
    Request::check(raw, &disk).unwrap_err()
}

#[test]
fn reads_and_writes_within_the_disk_pass() {
    let raw = direct(blkif::OP_READ, 984, &[segment(0, 7), segment(0, 7)]);
    let Request::Transfer(Way::Read, transfer) = Request::check(&raw, &DISK).unwrap() else {
        panic!()
    };
    assert_eq!(
        (transfer.sector, transfer.sectors, transfer.bytes()),
        (984, 16, 8192)
    );
}

#[test]
fn the_end_of_the_disk_and_the_end_of_numbers_are_the_end() {
    for sector in [985, 1000, u64::MAX, u64::MAX - 7, 1 << 55] {
        let raw = direct(blkif::OP_READ, sector, &[segment(0, 7), segment(0, 7)]);
        assert_eq!(
            refusal(&raw, DISK),
            Refusal::Range {
                sector,
                sectors: 16
            }
        );
    }
    let raw = discard(8, u64::MAX);
    assert!(matches!(refusal(&raw, DISK), Refusal::Range { .. }));
    let raw = discard(8, 0);
    assert!(matches!(refusal(&raw, DISK), Refusal::Range { .. }));
}

#[test]
fn segments_stay_in_their_page_and_are_counted() {
    for (first, last) in [(0, 8), (3, 2), (255, 0), (0, 255)] {
        assert_eq!(
            refusal(
                &direct(blkif::OP_WRITE, 0, &[segment(0, 7), segment(first, last)]),
                DISK
            ),
            Refusal::Segment { first, last }
        );
    }
    assert_eq!(
        refusal(&direct(blkif::OP_READ, 0, &[]), DISK),
        Refusal::Segments(0)
    );
    let raw = blkif::Request::Direct {
        operation: blkif::OP_READ,
        nr_segments: 12,
        handle: 0,
        id: 1,
        sector: 0,
        segments: [segment(0, 7); 11],
    };
    assert_eq!(refusal(&raw, DISK), Refusal::Segments(12));
    for segments in [0, 257, u16::MAX] {
        let raw = indirect(blkif::OP_READ, segments);
        assert_eq!(
            refusal(&raw, DISK),
            Refusal::Segments(usize::from(segments))
        );
    }
}

#[test]
fn nothing_changes_a_read_only_disk() {
    let disk = Geometry {
        read_only: true,
        ..DISK
    };
    let data = [segment(0, 7)];
    for operation in [
        blkif::OP_WRITE,
        blkif::OP_FLUSH_DISKCACHE,
        blkif::OP_WRITE_BARRIER,
    ] {
        assert_eq!(
            refusal(&direct(operation, 0, &data), disk),
            Refusal::ReadOnly
        );
    }
    assert_eq!(refusal(&discard(0, 8), disk), Refusal::ReadOnly);
    let indirect = indirect(blkif::OP_WRITE, 1);
    assert_eq!(refusal(&indirect, disk), Refusal::ReadOnly);
    assert!(Request::check(&direct(blkif::OP_READ, 0, &data), &disk).is_ok());
    assert_eq!(
        Request::check(&direct(blkif::OP_FLUSH_DISKCACHE, 0, &[]), &disk),
        Ok(Request::Flush(None))
    );
}

#[test]
fn what_is_not_offered_is_not_supported() {
    for operation in [4, 7, 200] {
        assert_eq!(
            refusal(&direct(operation, 0, &[]), DISK).status(),
            Status::NotSupported
        );
    }
    let disk = Geometry {
        discard: false,
        ..DISK
    };
    assert_eq!(refusal(&discard(0, 8), disk).status(), Status::NotSupported);
    for operation in [
        blkif::OP_INDIRECT,
        blkif::OP_FLUSH_DISKCACHE,
        blkif::OP_DISCARD,
    ] {
        let nested = indirect(operation, 1);
        assert_eq!(refusal(&nested, DISK), Refusal::Operation(operation));
    }
}

#[test]
fn a_4k_disk_takes_whole_sectors_only() {
    let disk = Geometry {
        sector_size: 4096,
        ..DISK
    };
    assert!(Request::check(&direct(blkif::OP_READ, 8, &[segment(0, 7)]), &disk).is_ok());
    assert!(
        Request::check(
            &direct(blkif::OP_READ, 8, &[segment(4, 7), segment(0, 3)]),
            &disk
        )
        .is_ok()
    );
    assert!(matches!(
        refusal(&direct(blkif::OP_READ, 4, &[segment(0, 7)]), disk),
        Refusal::Alignment { .. }
    ));
    assert!(matches!(
        refusal(&direct(blkif::OP_READ, 8, &[segment(0, 3)]), disk),
        Refusal::Alignment { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever a slot holds: no panic, and what passes is inside of the disk, inside of its pages, and adds up.
    #[test]
    fn an_accepted_request_is_safe(
        bytes: [u8; 32],
        tail: [u8; 32],
        small in any::<bool>(),
        read_only: bool,
    ) {
        let mut slot = [0; MAX_REQUEST_BYTES];
        slot[..32].copy_from_slice(&bytes);
        slot[32..64].copy_from_slice(&tail);
        slot[0] %= 8;
        if small {
            // Steer towards the inside of the disk.
            slot[1] %= 12;
            slot[18..24].fill(0);
        }
        let disk = Geometry { read_only, ..DISK };
        for protocol in [Protocol::X86_64, Protocol::X86_32] {
            let raw = blkif::Request::decode(layout(protocol), &slot).unwrap();
            match Request::check(&raw, &disk) {
                Ok(Request::Transfer(way, transfer)) => {
                    prop_assert!(!(read_only && way == Way::Write));
                    assert_safe(&transfer);
                }
                Ok(Request::Flush(Some(transfer)) | Request::Barrier(Some(transfer))) => {
                    prop_assert!(!read_only);
                    assert_safe(&transfer);
                }
                Ok(Request::Discard { sector, sectors }) => {
                    prop_assert!(!read_only);
                    prop_assert!(sectors > 0 && sector + sectors <= DISK.sectors);
                }
                Ok(Request::Indirect { segments, .. }) => prop_assert!((1..=BLK_INDIRECT_SEGMENTS).contains(&segments)),
                Ok(Request::Flush(None) | Request::Barrier(None)) => {}
                Err(refusal) => prop_assert_ne!(refusal.status(), Status::Okay),
            }
        }
    }
}

fn assert_safe(transfer: &Transfer) {
    assert!(transfer.sectors > 0 && transfer.sector + transfer.sectors <= DISK.sectors);
    let sum: u64 = transfer
        .segments
        .iter()
        .map(|s| u64::from(s.last - s.first) + 1)
        .sum();
    assert_eq!(sum, transfer.sectors);
    assert!(
        transfer
            .segments
            .iter()
            .all(|s| s.first <= s.last && s.last <= 7)
    );
}
