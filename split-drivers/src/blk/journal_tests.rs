//! The journal as a file: what is written is found again, and what is not a journal of these rings is refused.

use super::super::recover::{Recovered, recover};
use super::*;
use parapet_wire::driver::Ring;
use proptest::prelude::*;
use xen_abi::ids::{GrantRef, Port};
use xen_host::memfd::MemFd;

fn order(rings: u32) -> ConnectDisk {
    let ring = |n: u32| Ring {
        refs: vec![GrantRef(8 + n)],
        port: Port(3 + n),
    };
    ConnectDisk {
        devid: 51712,
        protocol: Protocol::X86_64,
        persistent: true,
        rings: (0..rings).map(ring).collect(),
        resume: false,
    }
}

fn memory(rings: u32) -> MemFd {
    MemFd::create("journal", bytes(rings as usize, 32)).unwrap()
}

fn request(byte: u8) -> [u8; MAX_REQUEST_BYTES] {
    [byte; MAX_REQUEST_BYTES]
}

#[test]
fn a_successor_finds_what_was_begun() {
    let memory = memory(2);
    let journal = Journal::create(memory.map().unwrap(), &order(2), 32).unwrap();
    let ring = journal.ring(1);
    ring.set_busy(5, 77, 1, &request(9));
    ring.mark_started(5);
    ring.set_taken(78);
    ring.promise(5, 70);
    drop((journal, ring));

    let journal = Journal::open(memory.map().unwrap(), &order(2), 32).unwrap();
    assert_eq!(journal.generation(), 2);
    let found = journal.ring(1).busy().unwrap();
    assert_eq!(
        found,
        [Found {
            entry: 5,
            starts: 1,
            rsp_idx: Some(70),
            seq: 1,
            index: 77,
            request: request(9)
        }]
    );
    assert_eq!(journal.ring(1).taken(), 78);
    assert_eq!(journal.ring(0).busy().unwrap(), []);
}

#[test]
fn other_rings_other_files_and_damage_are_refused() {
    let memory = memory(1);
    let blank = Journal::open(memory.map().unwrap(), &order(1), 32);
    assert!(matches!(blank, Err(JournalError::Foreign { magic: 0, .. })));
    assert!(Journal::is_blank(&memory.map().unwrap()));
    let journal = Journal::create(memory.map().unwrap(), &order(1), 32).unwrap();
    let mut other = order(1);
    other.rings[0].port = Port(99);
    assert_eq!(
        Journal::open(memory.map().unwrap(), &other, 32).unwrap_err(),
        JournalError::Identity
    );
    assert!(matches!(
        Journal::open(memory.map().unwrap(), &order(2), 32),
        Err(JournalError::Size { .. })
    ));

    let ring = journal.ring(0);
    ring.set_busy(0, 0, 0, &request(1));
    memory
        .map()
        .unwrap()
        .store_u8(PAGE_SIZE + ring::BYTES + entry::REQUEST + 3, 2);
    assert!(matches!(
        ring.busy(),
        Err(JournalError::Damaged { ring: 0, .. })
    ));
}

#[test]
fn a_new_journal_remembers_nothing_of_an_old_one() {
    let memory = memory(1);
    let old = Journal::create(memory.map().unwrap(), &order(1), 32).unwrap();
    old.ring(0).set_busy(0, 0, 0, &request(1));
    let new = Journal::create(memory.map().unwrap(), &order(1), 32).unwrap();
    assert_eq!(new.ring(0).busy().unwrap(), []);
    assert_eq!(new.generation(), 1);
}

proptest! {
    /// Whatever bytes a journal holds: a verdict, no panic.
    #[test]
    fn arbitrary_bytes_never_panic(noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..60), raw: bool) {
        let memory = memory(1);
        let journal = Journal::create(memory.map().unwrap(), &order(1), 32).unwrap();
        for number in 0..4 {
            journal.ring(0).set_busy(number, number, u64::from(number), &request(0));
        }
        journal.ring(0).set_taken(4);
        let region = memory.map().unwrap();
        for (at, byte) in noise {
            let start = if raw { 0 } else { PAGE_SIZE };
            region.store_u8(start + at.index(region.len() - start), byte);
        }
        if let Ok(journal) = Journal::open(region, &order(1), 32) {
            let verdict: Result<Recovered, _> = recover(&journal.ring(0));
            if let Ok(recovered) = verdict {
                prop_assert!(recovered.redo.len() <= 32);
            }
        }
    }
}
