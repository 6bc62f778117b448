//! Queues on pages that a guest writes as it pleases, also while they are read: never a panic, never more answers than requests, never a byte
//! of the medium that no request was allowed.

use super::front::{Front, settle};
use super::request::Geometry;
use super::wire;
use crate::disk::memory::{Medium, MemoryDisk};
use crate::limits::{BLK_BUFFER_PAGES, BLK_REFUSALS_LOGGED};
use crate::testing::{Flips, Lines};
use parapet_wire::driver::Protocol;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::{self, Segment};

const DISK_BYTES: usize = 1 << 20;
const DISK: Geometry = Geometry {
    sectors: DISK_BYTES as u64 / 512,
    sector_size: 512,
    read_only: false,
    discard: true,
};
/// Rounds after which a queue that still moves counts as endless.
const MAX_PASSES: usize = 10_000;

fn disk(medium: &Medium) -> MemoryDisk {
    MemoryDisk::open(medium, BLK_BUFFER_PAGES, 9).unwrap()
}

fn pages(front: &Front, count: usize) -> Vec<Segment> {
    let page = |_| {
        let gref = front.memory.page();
        front.memory.write(gref, 0, &[1; 4096]);
        Segment {
            gref,
            first: 0,
            last: 7,
        }
    };
    (0..count).map(page).collect()
}

/// The number of segments is read once: a write of 11 pages never becomes one of more.
#[test]
fn a_number_of_segments_that_changes_is_judged_once() {
    for round in 0..40 {
        let persistent = round % 2 == 0;
        let mut front = Front::new(Protocol::X86_64, persistent, 1);
        let medium = Medium::new(DISK_BYTES);
        let mut queue = front.backend(disk(&medium), DISK, false);
        let segments = pages(&front, 11);
        for _ in 0..32 {
            front.direct(blkif::OP_WRITE, 8, &segments);
        }
        let ring = front.order.rings[0].refs[0];
        let stride = wire::stride(Protocol::X86_64);
        let cells = (0..32).map(|slot| (ring, 64 + slot * stride + 1)).collect();
        let flips = Flips::start(&front.memory, cells, [11, 255]);
        settle(&mut queue);
        flips.stop();
        // The responses' ids were spoiled by the guest itself, so they are only counted.
        assert_eq!(front.page.load_u32(8), 32, "round {round}");
        let end = 8 * 512 + 11 * 4096;
        assert!(
            medium
                .read(end, DISK_BYTES - end)
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

/// The page of segments is copied once, then judged and used.
#[test]
fn segments_that_change_in_their_page_are_judged_once() {
    for round in 0..40 {
        let persistent = round % 2 == 0;
        let mut front = Front::new(Protocol::X86_64, persistent, 1);
        let medium = Medium::new(DISK_BYTES);
        let mut queue = front.backend(disk(&medium), DISK, false);
        let (descriptors, segments) = (front.memory.page(), pages(&front, 64));
        for _ in 0..8 {
            front.indirect(blkif::OP_WRITE, 8, &segments, &[descriptors]);
        }
        // References, first and last sectors.
        let cells = (0..64).flat_map(|n| [n * 8 + 2, n * 8 + 4, n * 8 + 5]);
        let cells = cells.map(|at| (descriptors, at)).collect();
        let flips = Flips::start(&front.memory, cells, [0, 255]);
        settle(&mut queue);
        flips.stop();
        let answers = front.answers();
        assert_eq!(answers.len(), 8, "round {round}");
        assert!(answers.iter().all(|it| matches!(it.status, 0 | -1)));
        let end = 8 * 512 + 64 * 4096;
        assert!(
            medium
                .read(end, DISK_BYTES - end)
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

#[test]
fn of_many_refusals_a_few_are_logged() {
    let mut front = Front::new(Protocol::X86_64, false, 1);
    let medium = Medium::new(DISK_BYTES);
    let mut queue = front.backend(disk(&medium), DISK, false);
    let lines = Lines::default();
    let answers = lines.count(|| {
        let mut answers = 0;
        for _ in 0..10 {
            for _ in 0..20 {
                front.direct(77, 0, &[]);
            }
            settle(&mut queue);
            answers += front.answers().len();
        }
        answers
    });
    assert_eq!(answers, 200, "each is answered");
    assert_eq!(
        lines.0.load(Ordering::Relaxed),
        BLK_REFUSALS_LOGGED as usize
    );
}

/// Bytes that follow from a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| byte()).collect()
}

/// Makes requests of noise likelier to be taken for real ones.
fn tame(slot: &mut [u8], sector_at: usize) {
    slot[0] %= 8;
    slot[1] %= 14;
    slot[sector_at + 2..sector_at + 8].fill(0);
    slot[sector_at + 1] %= 8;
    for segment in slot[sector_at + 8..].chunks_exact_mut(8) {
        // Not the ring's own page, which a guest may only spoil for itself.
        segment[0] = segment[0] % 64 + 9;
        segment[1..4].fill(0);
        segment[4] %= 8;
        segment[5] %= 8;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_pass_over_any_ring_page_ends_and_answers_what_was_asked_and_no_more(
        seed: u64, tamed: bool, persistent: bool, wide: bool, prod in 0_u32..40
    ) {
        let protocol = if wide { Protocol::X86_64 } else { Protocol::X86_32 };
        let front = Front::new(protocol, persistent, 1);
        let granted: Vec<GrantRef> = (0..64).map(|_| front.memory.page()).collect();
        prop_assert!(granted.len() == 64);
        let medium = Medium::new(DISK_BYTES);
        let mut queue = front.backend(disk(&medium), DISK, false);
        let mut bytes = noise(seed, 4096 - 64);
        if tamed {
            let sector_at = if wide { 16 } else { 12 };
            bytes.chunks_exact_mut(wire::stride(protocol)).for_each(|slot| tame(slot, sector_at));
        }
        front.page.write(64, &bytes);
        front.page.store_u32(0, prod);
        let (mut taken, mut answered, mut ended) = (0, 0, false);
        for _ in 0..MAX_PASSES {
            let Ok(progress) = queue.pass() else {
                prop_assert!(prod > 32, "a ring that is sound is served");
                ended = true;
                break;
            };
            taken += progress.taken;
            answered += progress.answered;
            prop_assert!(answered <= taken && taken <= prod);
            if !progress.moved() && queue.in_flight() == 0 {
                ended = true;
                break;
            }
        }
        prop_assert!(ended, "it never ends");
        prop_assert_eq!(answered, if prod > 32 { 0 } else { prod });
    }
}
