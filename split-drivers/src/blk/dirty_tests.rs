//! The dirty map by itself, and the moments at which a queue notes what it does.

use super::super::front::{Front, settle};
use super::super::request::Geometry;
use super::*;
use crate::disk::memory::{Medium, MemoryDisk};
use crate::limits::BLK_BUFFER_PAGES;
use parapet_wire::dirty::EXTENT_BYTES;
use parapet_wire::driver::Protocol;
use std::os::fd::AsFd;
use std::sync::Arc;
use xen_abi::io::blkif::{self, Segment};

const BYTES: u64 = 40 * EXTENT_BYTES;
const DISK: Geometry = Geometry {
    sectors: BYTES / 512,
    sector_size: 512,
    read_only: false,
    discard: true,
};

/// A map as the agent makes it, and the memory itself.
pub(in super::super) fn agents_map(disk_bytes: u64) -> MemFd {
    let layout = Layout::of(disk_bytes).unwrap();
    let memory = MemFd::create("dirty", layout.bytes()).unwrap();
    let region = memory.map().unwrap();
    region.store_u32(head::VERSION, VERSION);
    region.store_u32(head::EXTENT_SHIFT, EXTENT_SHIFT);
    region.store_u64(head::DISK_BYTES, disk_bytes);
    region.store_u64(head::MAGIC, MAGIC);
    memory
}

/// What the agent reads: the taken half, emptied.
pub(in super::super) fn drain(memory: &MemFd, disk_bytes: u64) -> Vec<u64> {
    let layout = Layout::of(disk_bytes).unwrap();
    let region = memory.map().unwrap();
    (0..layout.words())
        .flat_map(|word| {
            let bits = region.clear_bits_u64(layout.taken(word), u64::MAX);
            layout.extents_of(word, bits).flatten()
        })
        .collect()
}

fn passed(memory: &MemFd) -> OwnedFd {
    memory.as_fd().try_clone_to_owned().unwrap()
}

pub(in super::super) fn adopt(memory: &MemFd, disk_bytes: u64) -> DirtyMap {
    DirtyMap::adopt(passed(memory), disk_bytes).unwrap()
}

#[test]
fn what_is_no_map_of_this_disk_is_refused() {
    let good = agents_map(BYTES);
    assert!(DirtyMap::adopt(passed(&good), BYTES).is_ok());
    assert!(matches!(
        DirtyMap::adopt(passed(&good), BYTES + 1),
        Err(MapError::Size { .. })
    ));
    for (at, value) in [
        (head::MAGIC, 1),
        (head::VERSION, 2 | u64::from(EXTENT_SHIFT) << 32),
        (head::VERSION, 1 | 12 << 32),
        (head::DISK_BYTES, 1 << 40),
        (head::DISK_BYTES, 0),
        (head::DISK_BYTES, u64::MAX),
    ] {
        let bad = agents_map(BYTES);
        bad.map().unwrap().store_u64(at, value);
        assert!(
            matches!(DirtyMap::adopt(passed(&bad), 512), Err(MapError::Foreign)),
            "{at} {value:#x}"
        );
    }
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(
        DirtyMap::adopt(file.into(), 512),
        Err(MapError::Foreign)
    ));
    let file = tempfile::tempfile().unwrap();
    file.set_len(12288).unwrap();
    assert!(
        matches!(DirtyMap::adopt(file.into(), 512), Err(MapError::Host(_))),
        "memory that could shrink under a mapping"
    );
}

#[test]
fn what_is_taken_is_noted_no_more_and_named_once() {
    let memory = agents_map(BYTES);
    let map = adopt(&memory, BYTES);
    map.note_begin(&Step::Write {
        offset: EXTENT_BYTES - 512,
        len: 1024,
    });
    map.note_begin(&Step::Discard {
        offset: 30 * EXTENT_BYTES,
        len: 10 * EXTENT_BYTES,
    });
    map.note_begin(&Step::Read {
        offset: 5 * EXTENT_BYTES,
        len: 512,
    });
    map.note_begin(&Step::Sync);
    assert_eq!(map.take(), 12);
    let named: Vec<u64> = [0, 1].into_iter().chain(30..40).collect();
    assert_eq!(drain(&memory, BYTES), named);
    assert_eq!(map.take(), 0);
    assert!(drain(&memory, BYTES).is_empty());
}

/// One write of a page, at the medium and not ended, on a queue that may be tracked already.
fn one_write_at_the_medium(
    map: Option<&Arc<DirtyMap>>,
) -> (Front, crate::blk::queue::BlkQueue<MemoryDisk>) {
    let medium = Medium::new(usize::try_from(BYTES).unwrap());
    let mut front = Front::new(Protocol::X86_64, false, 1);
    front.tracking = map.cloned();
    let disk = MemoryDisk::open(&medium, BLK_BUFFER_PAGES, 0).unwrap();
    let mut queue = front.backend(disk, DISK, false);
    let segment = Segment {
        gref: front.memory.page(),
        first: 0,
        last: 7,
    };
    front.direct(blkif::OP_WRITE, 3 * EXTENT_BYTES / 512, &[segment]);
    let progress = queue.pass().unwrap();
    assert_eq!((progress.taken, progress.completed), (1, 0));
    (front, queue)
}

#[test]
fn a_write_is_noted_before_it_is_issued_and_again_when_it_has_ended() {
    let memory = agents_map(BYTES);
    let map = Arc::new(adopt(&memory, BYTES));
    let (mut front, mut queue) = one_write_at_the_medium(Some(&map));
    assert_eq!(map.take(), 1, "before it has ended");
    assert_eq!(map.take(), 0);
    settle(&mut queue);
    assert_eq!(front.answers().len(), 1);
    assert_eq!(map.take(), 1, "a copier may have read before it landed");
    assert_eq!(drain(&memory, BYTES), [3]);
}

#[test]
fn a_write_in_flight_when_tracking_begins_counts() {
    let memory = agents_map(BYTES);
    let map = Arc::new(adopt(&memory, BYTES));
    let (_front, mut queue) = one_write_at_the_medium(None);
    queue.track(Some(Arc::clone(&map)));
    assert_eq!(map.take(), 1);
    settle(&mut queue);
    assert_eq!(map.take(), 1);
    queue.track(None);
    assert_eq!(drain(&memory, BYTES), [3]);
}

#[test]
fn a_flush_that_began_too_early_is_followed_by_another() {
    let (_front, mut queue) = one_write_at_the_medium(None);
    queue.stop_taking();
    queue.flush();
    queue.flush();
    assert_eq!(queue.flushed(), None);
    queue.pass().unwrap();
    queue.pass().unwrap();
    assert_eq!(queue.flushed(), None, "the second has only begun");
    queue.pass().unwrap();
    assert_eq!(queue.flushed(), Some(Ok(())));
}
