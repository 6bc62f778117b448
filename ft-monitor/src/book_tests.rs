//! What the book makes of the facts, and what it never forgets.

use super::*;
use crate::time::Wall;
use crate::verdict::Cause;

const GUEST: Handle = Handle([7; 16]);

fn told(book: &mut Book, ms: u64, record: Record) {
    let at = Now {
        mono: Mono(ms),
        wall: Wall(1_700_000_000_000 + ms),
    };
    book.apply(&Entry {
        seq: book.seq + 1,
        at,
        record,
    });
}

fn opened(boot: &str) -> Record {
    Record::Opened {
        boot: boot.into(),
        release: "0.1.0".into(),
    }
}

fn known(domid: u16) -> Record {
    let protection = Protection::Restart;
    Record::Known {
        guest: GUEST,
        name: "web1".into(),
        domid: Some(DomId(domid)),
        protection,
    }
}

fn up() -> Record {
    Record::AgentUp {
        release: "r".into(),
        xen: "x".into(),
    }
}

fn began(ms: u64) -> Record {
    let began = Now {
        mono: Mono(ms),
        wall: Wall(1_700_000_000_000 + ms),
    };
    Record::OutageBegan {
        guest: GUEST,
        cause: Cause::Hang,
        began,
        expected: Signs::default(),
    }
}

fn watched() -> Book {
    let mut book = Book::default();
    told(&mut book, 0, opened("b1"));
    told(&mut book, 0, up());
    told(&mut book, 1000, known(3));
    book
}

fn page(book: &Book) -> &Page {
    &book.pages[&GUEST]
}

#[test]
fn time_is_observed_only_while_somebody_listens_or_an_outage_goes_on() {
    let mut book = watched();
    told(&mut book, 11_000, Record::AgentDown { why: "gone".into() });
    told(&mut book, 16_000, up());
    assert_eq!(
        (
            page(&book).account.observed_ms,
            page(&book).account.unobserved_ms
        ),
        (10_000, 5_000)
    );
    told(&mut book, 17_000, began(16_000));
    told(&mut book, 18_000, Record::AgentDown { why: "gone".into() });
    told(
        &mut book,
        28_000,
        Record::OutageEnded {
            guest: GUEST,
            end: End::Restored,
        },
    );
    assert_eq!(
        (
            page(&book).account.observed_ms,
            page(&book).account.unobserved_ms
        ),
        (22_000, 5_000)
    );
}

#[test]
fn time_in_which_no_monitor_ran_is_not_observed() {
    let mut book = watched();
    told(&mut book, 11_000, Record::Alive);
    told(&mut book, 61_000, opened("b1"));
    assert_eq!(
        (
            page(&book).account.observed_ms,
            page(&book).account.unobserved_ms
        ),
        (10_000, 50_000)
    );
}

#[test]
fn a_guest_that_was_shut_down_on_purpose_owes_nothing() {
    let mut book = watched();
    told(
        &mut book,
        2000,
        Record::ShutDown {
            guest: GUEST,
            reason: ShutdownReason::Poweroff,
        },
    );
    told(&mut book, 900_000, Record::Alive);
    assert_eq!(page(&book).account.observed_ms, 1000);
    told(&mut book, 900_000, known(4));
    told(&mut book, 901_000, Record::Alive);
    assert_eq!(page(&book).account.observed_ms, 2000);
}

#[test]
fn every_new_domain_after_a_failure_counts_as_a_restart_whoever_made_it() {
    let mut book = watched();
    told(&mut book, 2000, known(4));
    assert!(page(&book).restarts.is_empty(), "nothing had failed");
    told(&mut book, 3000, began(3000));
    told(&mut book, 4000, known(5));
    assert_eq!(page(&book).restarts, [Mono(4000)]);
    assert_eq!(
        page(&book).outage.as_ref().unwrap().restarted.unwrap().mono,
        Mono(4000)
    );
}

#[test]
fn another_boot_of_the_host_starts_with_clean_clocks() {
    let mut book = watched();
    told(&mut book, 3000, began(3000));
    told(&mut book, 4000, known(5));
    told(&mut book, 10, opened("b2"));
    let page = page(&book);
    assert!(page.restarts.is_empty() && page.open.is_none() && page.outage.is_none());
    let last = page.past.back().unwrap();
    assert_eq!(last.ended.unwrap().1, End::HostRebooted);
    assert_eq!(book.boot, "b2");
}

#[test]
fn old_outages_are_added_up_and_let_go() {
    let mut book = watched();
    for round in 0..OUTAGES_KEPT_MAX as u64 + 5 {
        told(&mut book, 2000 + round * 100, began(2000 + round * 100));
        told(
            &mut book,
            2010 + round * 100,
            Record::OutageEnded {
                guest: GUEST,
                end: End::Restored,
            },
        );
    }
    let page = page(&book);
    assert_eq!(page.past.len(), OUTAGES_KEPT_MAX);
    assert_eq!(
        (page.account.archived, page.account.archived_down_ms),
        (5, 50)
    );
}

#[test]
fn the_number_of_pages_is_bounded_and_living_guests_stay() {
    let mut book = watched();
    for number in 0..GUESTS_MAX as u64 + 10 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[15] = 1;
        let guest = Handle(bytes);
        let name = format!("g{number}");
        let protection = Protection::None;
        told(
            &mut book,
            2000 + number,
            Record::Known {
                guest,
                name,
                domid: None,
                protection,
            },
        );
    }
    assert_eq!(book.pages.len(), GUESTS_MAX);
    assert!(book.pages.contains_key(&GUEST));
}

#[test]
fn a_snapshot_folds_back_into_the_same_book() {
    let mut book = watched();
    told(&mut book, 3000, began(3000));
    let intent = Record::Intent {
        id: 4,
        guest: GUEST,
        domid: Some(DomId(3)),
        deed: Deed::Restart,
        why: "hang".into(),
        fresh: true,
    };
    told(&mut book, 3000, intent);
    let at = Now {
        mono: Mono(3000),
        wall: Wall(1_700_000_003_000),
    };
    let mut again = Book::default();
    book.snapshot(at)
        .iter()
        .for_each(|entry| again.apply(entry));
    assert_eq!(again, book);
}
