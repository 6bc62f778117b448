//! One queue between a correct front and a medium in memory: what is written is read, what is refused is refused once, order where order is due.

use super::super::front::{Front, settle};
use super::*;
use crate::disk::faulty::{Fault, FaultyDisk};
use crate::disk::memory::{Medium, MemoryDisk};
use crate::limits::BLK_BUFFER_PAGES;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::Segment;

const DISK_BYTES: usize = 4 << 20;
const DISK: Geometry = Geometry {
    sectors: DISK_BYTES as u64 / 512,
    sector_size: 512,
    read_only: false,
    discard: true,
};

fn segment(gref: GrantRef, first: u8, last: u8) -> Segment {
    Segment { gref, first, last }
}

fn disk(medium: &Medium, seed: u64) -> MemoryDisk {
    MemoryDisk::open(medium, BLK_BUFFER_PAGES, seed).unwrap()
}

#[test]
fn what_is_written_is_read_in_every_layout_and_mode() {
    for protocol in [Protocol::X86_64, Protocol::X86_32] {
        for persistent in [false, true] {
            let (mut front, medium) =
                (Front::new(protocol, persistent, 1), Medium::new(DISK_BYTES));
            let mut queue = front.backend(disk(&medium, 0), DISK, false);
            let (a, b) = (front.memory.page(), front.memory.page());
            front.memory.write(a, 0, &[0xaa; 4096]);
            front.memory.write(b, 512, b"tail");
            front.direct(blkif::OP_WRITE, 9, &[segment(a, 0, 7), segment(b, 1, 1)]);
            let progress = settle(&mut queue);
            assert!(progress.notify);
            assert_eq!(front.answers()[0].status, 0);
            assert_eq!(
                medium.read(9 * 512, 4100),
                [&[0xaa; 4096][..], b"tail"].concat()
            );

            front.direct(blkif::OP_READ, 16, &[segment(b, 0, 1), segment(a, 7, 7)]);
            settle(&mut queue);
            assert_eq!(front.answers()[0].status, 0);
            assert_eq!(
                front.memory.read(b, 0, 516),
                [&[0xaa; 512][..], b"tail"].concat()
            );
            assert_eq!(front.memory.read(a, 7 * 512, 512), [0; 512]);
        }
    }
}

#[test]
fn a_sweep_is_one_copy_and_kept_grants_are_mapped_once() {
    let (mut front, medium) = (
        Front::new(Protocol::X86_64, false, 1),
        Medium::new(DISK_BYTES),
    );
    let pages: Vec<_> = (0..8).map(|_| front.memory.page()).collect();
    let mut queue = front.backend(disk(&medium, 0), DISK, false);
    for (i, page) in pages.iter().enumerate() {
        front.direct(blkif::OP_WRITE, i as u64 * 8, &[segment(*page, 0, 7)]);
    }
    settle(&mut queue);
    assert_eq!(
        front
            .memory
            .copies
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    assert_eq!(front.answers().len(), 8);

    let (mut front, medium) = (
        Front::new(Protocol::X86_64, true, 1),
        Medium::new(DISK_BYTES),
    );
    let page = front.memory.page();
    let mut queue = front.backend(disk(&medium, 0), DISK, false);
    for i in 0..5 {
        front.direct(blkif::OP_WRITE, i * 8, &[segment(page, 0, 7)]);
        settle(&mut queue);
        front.answers();
    }
    assert_eq!(
        front.memory.maps.load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    assert_eq!(
        front
            .memory
            .copies
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn indirect_requests_carry_a_megabyte() {
    for persistent in [false, true] {
        let (mut front, medium) = (
            Front::new(Protocol::X86_64, persistent, 1),
            Medium::new(DISK_BYTES),
        );
        let descriptors = front.memory.page();
        let segments: Vec<_> = (0..256)
            .map(|_| segment(front.memory.page(), 0, 7))
            .collect();
        for (i, segment) in segments.iter().enumerate() {
            front
                .memory
                .write(segment.gref, 0, &[u8::try_from(i).unwrap(); 4096]);
        }
        let mut queue = front.backend(disk(&medium, 5), DISK, false);
        front.indirect(blkif::OP_WRITE, 8, &segments, &[descriptors]);
        settle(&mut queue);
        assert_eq!(front.answers()[0].status, 0);
        assert_eq!(medium.read(4096 * 201, 4096), [200; 4096]);
    }
}

#[test]
fn one_bad_reference_fails_one_request() {
    for persistent in [false, true] {
        let (mut front, medium) = (
            Front::new(Protocol::X86_64, persistent, 1),
            Medium::new(DISK_BYTES),
        );
        let (good, bad) = (front.memory.page(), front.memory.page());
        front.memory.revoke(bad);
        front.memory.write(good, 0, &[1; 4096]);
        let mut queue = front.backend(disk(&medium, 3), DISK, false);
        let one = front.direct(blkif::OP_WRITE, 0, &[segment(good, 0, 7)]);
        let two = front.direct(
            blkif::OP_WRITE,
            8,
            &[segment(good, 0, 7), segment(bad, 0, 7)],
        );
        let three = front.direct(blkif::OP_READ, 0, &[segment(bad, 0, 7)]);
        let four = front.indirect(blkif::OP_READ, 0, &[], &[good]);
        let mut expected = vec![(one, 0), (two, -1), (three, -1), (four, -1)];
        settle(&mut queue);
        let mut seen: Vec<_> = front.answers().iter().map(|a| (a.id, a.status)).collect();
        seen.sort_unstable();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(
            medium.read(4096, 4096),
            [0; 4096],
            "no part of a write whose data is incomplete"
        );
    }
}

#[test]
fn a_failing_and_a_short_medium_are_an_error_and_a_continuation() {
    let (mut front, medium) = (
        Front::new(Protocol::X86_64, false, 1),
        Medium::new(DISK_BYTES),
    );
    let page = front.memory.page();
    front.memory.write(page, 0, &[7; 4096]);
    let faults = [
        (1, Fault::Fails(Errno::EIO)),
        (2, Fault::Short),
        (4, Fault::Refused(Errno::EBUSY)),
    ];
    let mut queue = front.backend(FaultyDisk::new(disk(&medium, 0), faults), DISK, false);
    let mut outcome = |front: &mut Front| {
        front.direct(blkif::OP_WRITE, 0, &[segment(page, 0, 7)]);
        settle(&mut queue);
        front.answers()[0].status
    };
    assert_eq!(outcome(&mut front), -1);
    assert_eq!(outcome(&mut front), 0);
    assert_eq!(
        medium.read(0, 4096),
        [7; 4096],
        "the rest of a short write followed"
    );
    assert_eq!(outcome(&mut front), -1);
    assert_eq!(outcome(&mut front), 0);
}

#[test]
fn a_flush_answered_is_durable_and_a_barrier_keeps_its_place() {
    let (mut front, medium) = (
        Front::new(Protocol::X86_64, false, 1),
        Medium::new(DISK_BYTES),
    );
    let page = front.memory.page();
    front.memory.write(page, 0, &[7; 4096]);
    let mut queue = front.backend(disk(&medium, 11), DISK, false);
    front.direct(blkif::OP_WRITE, 0, &[segment(page, 0, 7)]);
    settle(&mut queue);
    assert_eq!(medium.durable(0, 4096), [0; 4096]);
    front.direct(blkif::OP_FLUSH_DISKCACHE, 0, &[]);
    settle(&mut queue);
    assert_eq!(medium.durable(0, 4096), [7; 4096]);

    // Write, barrier with data to the same place, write: the middle one never wins, whatever the medium's order.
    for seed in 1..40 {
        let (mut front, medium) = (
            Front::new(Protocol::X86_64, false, 1),
            Medium::new(DISK_BYTES),
        );
        let pages: Vec<_> = (1..=3_u8)
            .map(|i| {
                let page = front.memory.page();
                front.memory.write(page, 0, &[i; 4096]);
                page
            })
            .collect();
        let mut queue = front.backend(disk(&medium, seed), DISK, false);
        front.direct(blkif::OP_WRITE, 0, &[segment(pages[0], 0, 7)]);
        front.direct(blkif::OP_WRITE_BARRIER, 0, &[segment(pages[1], 0, 7)]);
        front.direct(blkif::OP_WRITE, 0, &[segment(pages[2], 0, 7)]);
        settle(&mut queue);
        assert_eq!(medium.read(0, 4096), [3; 4096]);
        assert_ne!(
            medium.durable(0, 1),
            [1],
            "what the barrier replaced is not what is durable"
        );
    }
}

#[test]
fn discard_gives_back_and_read_only_refuses_every_change() {
    let (mut front, medium) = (
        Front::new(Protocol::X86_64, false, 1),
        Medium::new(DISK_BYTES),
    );
    medium.write(0, &[9; 8192]);
    let mut queue = front.backend(disk(&medium, 0), DISK, false);
    front.discard(0, 8);
    settle(&mut queue);
    assert_eq!(front.answers()[0].status, 0);
    assert_eq!(medium.read(0, 8192), [[0; 4096], [9; 4096]].concat());

    let mut front = Front::new(Protocol::X86_64, false, 1);
    let page = front.memory.page();
    let mut queue = front.backend(
        disk(&medium, 0),
        Geometry {
            read_only: true,
            ..DISK
        },
        false,
    );
    front.direct(blkif::OP_WRITE, 8, &[segment(page, 0, 7)]);
    front.discard(8, 8);
    front.direct(blkif::OP_FLUSH_DISKCACHE, 8, &[segment(page, 0, 7)]);
    settle(&mut queue);
    assert!(front.answers().iter().all(|answer| answer.status == -1));
    assert_eq!(medium.read(4096, 4096), [9; 4096]);
}

#[test]
fn more_than_the_buffer_holds_waits_and_none_is_lost() {
    let (mut front, medium) = (
        Front::new(Protocol::X86_64, false, 4),
        Medium::new(DISK_BYTES),
    );
    let descriptors = front.memory.page();
    let segments: Vec<_> = (0..256)
        .map(|_| segment(front.memory.page(), 0, 7))
        .collect();
    let mut queue = front.backend(disk(&medium, 21), DISK, false);
    for _ in 0..12 {
        front.indirect(blkif::OP_READ, 0, &segments, &[descriptors]);
    }
    settle(&mut queue);
    assert_eq!(front.answers().len(), 12);
}

#[test]
fn a_broken_ring_stops_the_queue() {
    let (front, medium) = (
        Front::new(Protocol::X86_64, false, 1),
        Medium::new(DISK_BYTES),
    );
    let mut queue = front.backend(disk(&medium, 0), DISK, false);
    front.page.store_u32(0, 1 << 31);
    assert!(matches!(queue.pass(), Err(QueueFault::Ring(_))));
}
