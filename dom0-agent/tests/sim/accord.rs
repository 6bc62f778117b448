//! Moves between two of ours that agree upon more than stock's format: the same guest arrives, with fewer bytes, and nothing else is different.

use crate::migrate::{GUEST, broken, go, options, pair_of, settle_on_one, with_each_fault};
use crate::support::Machine;
use crate::support::faults::{DEATHS, FAILURES, explain};
use crate::support::line::{Cut, Ear, Went, travel_to};
use dom0_agent::agent::lock;
use dom0_agent::agent::migrate::MoveOptions;
use dom0_agent::agent::receive::ArrivalOptions;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use xen_stream::Accord;
use xen_stream::accord::ANSWER_BYTES;

/// Offers everything, and lets no page go before the answer is there: each run has the same bytes.
fn agreeing() -> MoveOptions {
    MoveOptions {
        offers: Accord::ALL,
        answer: Duration::from_secs(60),
        ..options()
    }
}

fn quietly(options: &MoveOptions, cut: Cut) -> Went {
    go(&pair_of("pvh"), options, cut, &Ear::with(&|_| {}))
}

#[test]
fn pages_of_zeroes_are_named_and_are_zeroes_there() {
    for kind in ["pvh", "pv"] {
        let mut pair = pair_of(kind);
        let domu = pair.here.machine(GUEST).kernel.domu().clone();
        for gfn in [700, 702] {
            domu.page_at(gfn).unwrap().write(100, &gfn.to_le_bytes());
        }
        let went = go(&pair, &agreeing(), Cut::NEVER, &Ear::with(&|_| {}));
        let moved = went.left.unwrap().unwrap();
        let domid = went.arrived.unwrap().unwrap();
        // Nearly all of its 16 MiB are zeroes.
        assert!(moved.bytes < 4 << 20, "{kind}: {moved:?}");
        assert_eq!(went.bytes.1, (ANSWER_BYTES + 34 + 40) as u64);
        let there = |gfn, at| pair.there.world.read_guest(domid, gfn, at, 8).unwrap();
        // Memory that a domain is given holds what its last owner left there, here as on Xen.
        for gfn in (600..800).filter(|gfn| ![700, 702].contains(gfn)) {
            assert_eq!(there(gfn, 4000), [0; 8], "{kind}: page {gfn}");
        }
        for gfn in [700, 702] {
            assert_eq!(there(gfn, 100), u64::to_le_bytes(gfn), "{kind}");
        }
        assert!(settle_on_one(&mut pair), "{kind}");
    }
}

#[test]
fn a_page_that_becomes_zeroes_while_it_is_moved_is_zeroes_there() {
    const PAGES: std::ops::Range<u64> = 1000..1300;
    let mut pair = pair_of("pvh");
    let domu = pair.here.machine(GUEST).kernel.domu().clone();
    let world = pair.here.world.clone();
    let fill = |byte| {
        for gfn in PAGES {
            domu.page_at(gfn).unwrap().write(0, &[byte; 4096]);
        }
    };
    fill(7);
    let cleared = AtomicBool::new(false);
    // When the first round is told, all of it has gone.
    let hook = |line: &str| {
        if line.contains("round 1") && Machine::runs(&world, GUEST) {
            fill(0);
            cleared.store(true, Ordering::SeqCst);
        }
    };
    let mut chosen = agreeing();
    chosen.max_downtime = Duration::ZERO;
    let went = go(&pair, &chosen, Cut::NEVER, &Ear::with(&hook));
    went.left.unwrap().unwrap();
    assert!(cleared.load(Ordering::SeqCst));
    let domid = went.arrived.unwrap().unwrap();
    for gfn in PAGES {
        let bytes = pair.there.world.read_guest(domid, gfn, 0, 4096).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "page {gfn}");
    }
    assert!(settle_on_one(&mut pair));
}

#[test]
fn whoever_does_not_answer_gets_what_stock_understands() {
    let mut pair = pair_of("pvh");
    let shared = pair.here.agent.by_domid(GUEST).unwrap();
    let config = lock(&shared).record.config.clone();
    let deaf = ArrivalOptions {
        takes: Accord::NONE,
        ..ArrivalOptions::default()
    };
    let chosen = MoveOptions {
        answer: Duration::ZERO,
        ..agreeing()
    };
    let (from, to) = (&pair.here.agent, &pair.there.agent);
    let ear = Ear::with(&|_| {});
    let went = travel_to(from, to, (GUEST, config), &chosen, deaf, Cut::NEVER, &ear);
    let moved = went.left.unwrap().unwrap();
    assert!(moved.bytes > 16 << 20, "{moved:?}");
    assert_eq!(went.bytes.1, 34 + 40);
    assert!(settle_on_one(&mut pair));
}

/// A move whose memory goes twice; `damage`: a page changes in between, though the guest stands still. Answers what the receiver said of it.
fn compared(kind: &str, options: &MoveOptions, damage: bool) -> String {
    let mut pair = pair_of(kind);
    let (world, domu) = (
        pair.here.world.clone(),
        pair.here.machine(GUEST).kernel.domu().clone(),
    );
    let done = AtomicBool::new(!damage);
    let wanted = || {
        if !Machine::runs(&world, GUEST) && !done.swap(true, Ordering::SeqCst) {
            domu.page_at(3000).unwrap().write(8, b"damaged");
        }
        true
    };
    let ear = Ear {
        wanted: &wanted,
        ..Ear::with(&|_| {})
    };
    let chosen = MoveOptions {
        verify: true,
        ..*options
    };
    let went = go(&pair, &chosen, Cut::NEVER, &ear);
    went.left.unwrap().unwrap();
    assert!(settle_on_one(&mut pair));
    let told = went.told.into_iter().find(|line| line.contains("twice"));
    told.unwrap()
}

#[test]
fn memory_that_comes_twice_is_compared() {
    for options in [options(), agreeing()] {
        for kind in ["pvh", "pv"] {
            let told = compared(kind, &options, false);
            assert!(
                told.ends_with(" pages came twice, 0 of them differ."),
                "{told}"
            );
            let pages: u64 = told.split(' ').nth(2).unwrap().parse().unwrap();
            assert!(pages > 3000, "{kind}: {told}");
        }
        let told = compared("pvh", &options, true);
        assert!(
            told.ends_with(" pages came twice, 1 of them differ."),
            "{told}"
        );
    }
}

#[test]
fn an_answer_may_come_at_any_time() {
    let never_waits = MoveOptions {
        answer: Duration::ZERO,
        ..agreeing()
    };
    for _ in 0..3 {
        let went = quietly(&never_waits, Cut::NEVER);
        went.left.unwrap().unwrap();
        went.arrived.unwrap().unwrap();
    }
}

#[test]
fn a_line_that_breaks_anywhere_leaves_one_guest() {
    let (forth, _) = quietly(&agreeing(), Cut::NEVER).bytes;
    let early = (0..700).step_by(40);
    let pages = (700..forth).step_by(150_000);
    for at in early
        .chain(pages)
        .chain([forth - 45, forth - 44, forth - 1])
    {
        let cut = Cut {
            forth: at,
            ..Cut::NEVER
        };
        explain(&format!("cut at {at} of {forth}"), || {
            assert!(!broken(&agreeing(), cut));
        });
    }
    let answer = ANSWER_BYTES as u64;
    for at in [
        0,
        1,
        answer - 1,
        answer,
        answer + 33,
        answer + 34,
        answer + 73,
    ] {
        let cut = Cut {
            back: at,
            ..Cut::NEVER
        };
        explain(&format!("cut at {at} on the way back"), || {
            let arrived = broken(&agreeing(), cut);
            assert!(at >= answer + 34 || !arrived);
        });
    }
}

#[test]
fn whatever_fails_where_it_arrives_there_is_one_guest() {
    with_each_fault(&agreeing(), |pair| &mut pair.there, &FAILURES, false);
}

#[test]
fn an_agent_that_dies_where_it_arrives_costs_nobody_a_guest() {
    with_each_fault(&agreeing(), |pair| &mut pair.there, &DEATHS, true);
}
