//! The journal on a real file system, torn and damaged at will.

use super::*;
use crate::record::{Deed, Outcome};
use crate::time::{Mono, Now, Wall};
use parapet_wire::agent::Protection;
use proptest::prelude::*;
use xen_abi::ids::{DomId, Handle};

fn entry(seq: u64, record: Record) -> Entry {
    Entry {
        seq,
        at: Now {
            mono: Mono(seq * 1000),
            wall: Wall(1_700_000_000_000 + seq),
        },
        record,
    }
}

/// A short life: a guest is known, crashes, is restarted.
fn life() -> Vec<Entry> {
    let guest = Handle([7; 16]);
    let records = vec![
        Record::Opened {
            boot: "b1".into(),
            release: "0.1.0".into(),
        },
        Record::Known {
            guest,
            name: "web \"1\"\n".into(),
            domid: Some(DomId(3)),
            protection: Protection::Restart,
        },
        Record::Intent {
            id: 1,
            guest,
            domid: Some(DomId(3)),
            deed: Deed::Restart,
            why: "crash".into(),
            fresh: true,
        },
        Record::Outcome {
            id: 1,
            guest,
            outcome: Outcome::Done {
                domid: Some(DomId(4)),
            },
        },
        Record::Alive,
    ];
    records
        .into_iter()
        .zip(1..)
        .map(|(record, seq)| entry(seq, record))
        .collect()
}

fn written(dir: &Path, entries: &[Entry]) -> Vec<u8> {
    let (mut journal, _) = Journal::open(dir).unwrap();
    for entry in entries {
        journal.append(entry).unwrap();
    }
    fs::read(dir.join("journal")).unwrap()
}

fn folded(entries: &[Entry]) -> Book {
    let mut book = Book::default();
    entries.iter().for_each(|entry| book.apply(entry));
    book
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), &life());
    let (_journal, back) = Journal::open(dir.path()).unwrap();
    assert_eq!(back.book, folded(&life()));
    // `Alive` is bookkeeping and no event.
    assert_eq!(back.events, &life()[..4]);
    assert_eq!((back.damaged, back.torn_bytes), (0, 0));
}

#[test]
fn a_journal_cut_anywhere_keeps_every_whole_line_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written(dir.path(), &life());
    for cut in 0..bytes.len() {
        fs::write(dir.path().join("journal"), &bytes[..cut]).unwrap();
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let (mut journal, back) = Journal::open(dir.path()).unwrap();
        assert_eq!(back.book, folded(&life()[..whole]), "cut at {cut}");
        assert_eq!(back.damaged, 0, "cut at {cut}");
        journal.append(&life()[3]).unwrap();
        drop(journal);
        let (_, again) = Journal::open(dir.path()).unwrap();
        assert_eq!((again.damaged, again.torn_bytes), (0, 0), "cut at {cut}");
    }
}

#[test]
fn a_second_monitor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, _) = Journal::open(dir.path()).unwrap();
    let error = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(error, JournalError::Locked(_)), "{error}");
}

#[test]
fn a_rotated_journal_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let mut book = Book::default();
    for entry in life() {
        book.apply(&entry);
        journal.append(&entry).unwrap();
    }
    for round in 0..JOURNALS_KEPT as u64 + 2 {
        journal.rotate(&book.snapshot(Now::default())).unwrap();
        let more = entry(6 + round, Record::AgentDown { why: "gone".into() });
        book.apply(&more);
        journal.append(&more).unwrap();
    }
    drop(journal);
    let (_journal, back) = Journal::open(dir.path()).unwrap();
    assert_eq!(back.book, book);
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(
        files,
        JOURNALS_KEPT + 2,
        "journal, its predecessors and the lock"
    );
}

#[test]
fn a_rotation_that_was_cut_short_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), &life());
    fs::write(dir.path().join("journal.new"), "half a snapsh").unwrap();
    fs::hard_link(dir.path().join("journal"), dir.path().join("journal.1")).unwrap();
    let (mut journal, back) = Journal::open(dir.path()).unwrap();
    assert_eq!(back.book, folded(&life()));
    journal.rotate(&back.book.snapshot(Now::default())).unwrap();
    drop(journal);
    assert_eq!(Journal::open(dir.path()).unwrap().1.book, back.book);
}

#[test]
fn a_journal_grows_only_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let remark = entry(
        1,
        Record::Remark {
            guest: Handle([1; 16]),
            text: "x".repeat(50_000),
        },
    );
    let mut rotations = 0;
    for _ in 0..100 {
        journal.append(&remark).unwrap();
        if journal.is_full() {
            journal
                .rotate(&Book::default().snapshot(Now::default()))
                .unwrap();
            rotations += 1;
        }
        assert!(journal.size <= JOURNAL_ROTATE_BYTES + 60_000);
    }
    assert!(rotations > 2, "{rotations}");
}

proptest! {
    #[test]
    fn a_damaged_byte_costs_one_line(at: prop::sample::Index, bit in 0_u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = written(dir.path(), &life());
        let at = at.index(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        fs::write(dir.path().join("journal"), &bytes).unwrap();
        let (_journal, back) = Journal::open(dir.path()).unwrap();
        // A newline that became something else joins two lines; a byte that became a newline splits one.
        prop_assert!((1..=2).contains(&back.damaged));
        prop_assert!(back.events.len() + 2 >= life().len() - 1);
    }

    #[test]
    fn arbitrary_files_are_survived(bytes: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal"), &bytes).unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&life()[0]).unwrap();
        drop(journal);
        prop_assert_eq!(Journal::open(dir.path()).unwrap().1.events.len(), 1);
    }
}
