//! The machine, input by input: orders, journal and what a restart of ours remembers.

use super::*;
use crate::record::{End, Outcome};
use crate::time::Wall;
use parapet_wire::agent::{GuestState, Heartbeat, Protection, Watching};
use xen_abi::domain::ShutdownReason;

const UUID: Handle = Handle([7; 16]);

fn at(ms: u64) -> Now {
    Now {
        mono: Mono(ms),
        wall: Wall(1_700_000_000_000 + ms),
    }
}

fn guest(domid: u16, state: GuestState) -> Guest {
    let watching = Watching {
        heartbeat_timeout_ms: Some(8000),
        ..Watching::default()
    };
    let protection = Protection::Restart;
    let name = "web1".to_owned();
    let domid = Some(DomId(domid));
    Guest {
        uuid: UUID,
        name,
        domid,
        state,
        protection,
        watching,
        driver_pid: None,
    }
}

fn restored(book: Book, boot: &str, ms: u64) -> Monitor {
    Monitor::restore(book, Defaults::default(), Rules::default(), boot, at(ms)).0
}

fn watching() -> Monitor {
    let mut monitor = restored(Book::default(), "b1", 1000);
    let up = Input::AgentUp {
        release: "r".into(),
        xen: "x".into(),
    };
    let _ = monitor.step(up, at(1000));
    let _ = monitor.step(snapshot(guest(3, GuestState::Running)), at(1000));
    monitor
}

fn snapshot(guest: Guest) -> Input {
    Input::Event(Event::Snapshot(vec![guest]))
}

fn crash(domid: u16) -> Input {
    let reason = ShutdownReason::Crash;
    Input::Event(Event::ShutDown {
        uuid: UUID,
        domid: DomId(domid),
        reason,
    })
}

fn orders(actions: &[Action]) -> Vec<Order> {
    let order = |action: &Action| match action {
        Action::Perform(order) => Some(order.clone()),
        Action::Journal(_) | Action::Ask(_) => None,
    };
    actions.iter().filter_map(order).collect()
}

/// Ticks once a second from one time to another; all orders on the way.
fn pass(monitor: &mut Monitor, from: u64, to: u64) -> Vec<Order> {
    let mut found = Vec::new();
    for ms in (from..=to).step_by(1000) {
        found.extend(orders(&monitor.step(Input::Tick, at(ms))));
    }
    found
}

#[test]
fn the_intent_is_written_down_before_the_order_goes_out() {
    let mut monitor = watching();
    let actions = monitor.step(crash(3), at(2000));
    let intent = actions.iter().position(|action| {
        matches!(
            action,
            Action::Journal(Entry {
                record: Record::Intent { .. },
                ..
            })
        )
    });
    let order = actions
        .iter()
        .position(|action| matches!(action, Action::Perform(_)));
    assert!(intent.unwrap() < order.unwrap(), "{actions:?}");
}

#[test]
fn the_same_crash_told_twice_is_one_order() {
    let mut monitor = watching();
    assert_eq!(orders(&monitor.step(crash(3), at(2000))).len(), 1);
    assert_eq!(orders(&monitor.step(crash(3), at(2100))), []);
    assert_eq!(
        orders(&monitor.step(
            snapshot(guest(3, GuestState::Down(ShutdownReason::Crash))),
            at(2200)
        )),
        []
    );
    assert_eq!(pass(&mut monitor, 3000, 30_000), []);
}

#[test]
fn a_late_word_about_an_old_domain_changes_nothing() {
    let mut monitor = watching();
    let _ = monitor.step(
        Input::Event(Event::Started(guest(4, GuestState::Running))),
        at(2000),
    );
    assert_eq!(orders(&monitor.step(crash(3), at(2100))), []);
    assert_eq!(monitor.guests[&UUID].verdict, Verdict::Healthy);
}

#[test]
fn the_answer_of_the_agent_counts_before_its_event() {
    let mut monitor = watching();
    let order = orders(&monitor.step(crash(3), at(2000))).remove(0);
    let done = Input::Performed {
        order,
        result: Performed::Done(Some(DomId(4))),
    };
    assert_eq!(orders(&monitor.step(done, at(4000))), []);
    assert_eq!(monitor.guests[&UUID].evidence.domid, Some(DomId(4)));
    let outage = monitor.book.pages[&UUID].past.back().unwrap();
    assert_eq!(outage.ended.unwrap().1, End::Restored);
    assert_eq!(outage.time_to_restore(), Some(Duration::from_secs(2)));
}

#[test]
fn a_hang_that_began_while_no_monitor_ran_is_noticed() {
    let mut monitor = watching();
    let _ = monitor.step(
        Input::Event(Event::Heartbeats(vec![Heartbeat {
            uuid: UUID,
            counter: 9,
        }])),
        at(2000),
    );
    let book = monitor.book.clone();
    drop(monitor);
    let mut successor = restored(book, "b1", 500_000);
    let _ = successor.step(snapshot(guest(3, GuestState::Running)), at(500_000));
    // What xenstore still holds is no sign of life.
    let _ = successor.step(
        Input::Event(Event::Heartbeats(vec![Heartbeat {
            uuid: UUID,
            counter: 9,
        }])),
        at(500_100),
    );
    let found = pass(&mut successor, 501_000, 509_000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].by_silence);
}

#[test]
fn an_open_intent_is_found_done() {
    let mut monitor = watching();
    let _ = monitor.step(crash(3), at(2000));
    let mut successor = restored(monitor.book.clone(), "b1", 5000);
    let actions = successor.step(snapshot(guest(4, GuestState::Running)), at(5000));
    assert_eq!(orders(&actions), []);
    let found = actions.iter().any(|action| {
        matches!(
            action,
            Action::Journal(Entry {
                record: Record::Outcome {
                    outcome: Outcome::FoundDone { .. },
                    ..
                },
                ..
            })
        )
    });
    assert!(found, "{actions:?}");
    assert!(successor.book.pages[&UUID].open.is_none());
}

#[test]
fn an_open_intent_is_finished() {
    let mut monitor = watching();
    let _ = monitor.step(crash(3), at(2000));
    let mut successor = restored(monitor.book.clone(), "b1", 5000);
    let _ = successor.step(
        snapshot(guest(3, GuestState::Down(ShutdownReason::Crash))),
        at(5000),
    );
    let found = pass(&mut successor, 5500, 9500);
    assert_eq!(
        found.len(),
        1,
        "after the back-off of an attempt that failed: {found:?}"
    );
    assert_eq!(found[0].domid, Some(DomId(3)));
}

#[test]
fn an_open_intent_for_a_guest_still_being_built_waits() {
    let mut monitor = watching();
    let _ = monitor.step(crash(3), at(2000));
    let mut successor = restored(monitor.book.clone(), "b1", 5000);
    let _ = successor.step(snapshot(guest(3, GuestState::Building)), at(5000));
    assert_eq!(pass(&mut successor, 6000, 60_000), []);
    assert!(successor.book.pages[&UUID].open.is_some());
}

#[test]
fn restarts_at_the_same_time_are_bounded() {
    let mut monitor = restored(Book::default(), "b1", 1000);
    let many: Vec<Guest> = (0..20)
        .map(|n| Guest {
            uuid: Handle([n; 16]),
            ..guest(u16::from(n) + 1, GuestState::Down(ShutdownReason::Crash))
        })
        .collect();
    let actions = monitor.step(Input::Event(Event::Snapshot(many)), at(1000));
    let first = orders(&actions);
    assert_eq!(first.len(), crate::limits::ACTIONS_AT_ONCE_MAX);
    let done = Input::Performed {
        order: first[0].clone(),
        result: Performed::Done(Some(DomId(90))),
    };
    assert_eq!(orders(&monitor.step(done, at(2000))).len(), 1);
}

fn beat(counter: u64) -> Input {
    let uuid = UUID;
    Input::Event(Event::Heartbeats(vec![Heartbeat { uuid, counter }]))
}

#[test]
fn it_wakes_up_in_time_and_never_spins() {
    let mut monitor = watching();
    let _ = monitor.step(beat(1), at(40_000));
    let mut now = 40_000;
    let mut wakes = vec![];
    while now < 60_000 {
        let _ = monitor.step(Input::Tick, at(now));
        let wake = monitor.wake_at(Mono(now)).0;
        assert!((now + 20..=now + 1000).contains(&wake), "{now}: {wake}");
        now = wake;
        wakes.push(wake);
    }
    // Suspicion at 4 s, verdict at 8 s: on time to the millisecond.
    assert!(
        wakes.contains(&44_000) && wakes.contains(&48_000),
        "{wakes:?}"
    );
}

#[test]
fn nothing_but_a_look_at_all_guests_puts_the_next_one_off() {
    let mut monitor = watching();
    let _ = monitor.step(beat(1), at(40_000));
    let _ = monitor.step(Input::Tick, at(40_000));
    let due = monitor.wake_at(Mono(40_000));
    assert_eq!(due, Mono(41_000));
    for ms in 1..200 {
        // Whoever asks for the state computes it anew, and guests beat.
        let now = 40_000 + ms * 7;
        assert_eq!(monitor.wake_at(Mono(now)), due, "{now}");
        let _ = monitor.step(beat(1 + ms), at(now));
        assert_eq!(monitor.wake_at(Mono(now)), due, "{now}");
    }
}

#[test]
fn an_idle_minute_is_a_step_a_second_however_many_guests_there_are() {
    let mut monitor = watching();
    let many = (0..50).map(|n| Guest {
        uuid: Handle([n; 16]),
        ..guest(u16::from(n) + 1, GuestState::Running)
    });
    let mut now = 2000;
    let _ = monitor.step(Input::Event(Event::Snapshot(many.collect())), at(now));
    let (mut steps, end) = (0, now + 60_000);
    while now < end {
        now = monitor.wake_at(Mono(now)).0;
        let asked = monitor.step(Input::Tick, at(now));
        assert!(orders(&asked).is_empty(), "{asked:?}");
        steps += 1;
    }
    // A second's ticks, and the moments at which silence begins to count.
    assert!((60..=64).contains(&steps), "{steps}");
}

#[test]
fn what_a_peer_says_is_cut_to_one_bounded_line() {
    let long = listen::clip(format!("a\nb{}", "é".repeat(1000)));
    assert!(long.starts_with("a b") && long.len() <= crate::limits::TEXT_MAX_BYTES + 4);
}
