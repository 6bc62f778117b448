//! The plan: every pair of state and input, and what its rules promise for any guest.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn set(ranges: &[std::ops::Range<u64>]) -> ExtentSet {
    ExtentSet::of(ranges.iter().cloned())
}

fn one(range: std::ops::Range<u64>) -> ExtentSet {
    ExtentSet::of(std::iter::once(range))
}

/// A round at 64 MiB/s: 1024 extents in a second.
fn copied(extents: u64, left: ExtentSet) -> Input {
    Input::Copied {
        moved: Moved {
            bytes: extents << 16,
            took: Duration::from_micros(extents * 1_000_000 / 1024),
        },
        left,
    }
}

fn begin(extents: u64) -> Plan {
    Plan::begin(Policy::default(), one(0..extents)).0
}

fn phase(phase: Phase) -> Plan {
    Plan {
        phase,
        set: one(5..6),
        ..begin(100)
    }
}

/// What is decided of one extent that is pending when another is named, and the state afterwards.
fn table() -> Vec<(Phase, Input, Decision, Phase)> {
    let (a, both) = (one(1..2), set(&[1..2, 5..6]));
    let round = |set: &ExtentSet| Decision::Round(set.clone());
    let moved = || copied(1, a.clone());
    vec![
        (Phase::Live, moved(), round(&a), Phase::Live),
        (
            Phase::Live,
            Input::Again(a.clone()),
            round(&both),
            Phase::Live,
        ),
        (
            Phase::Live,
            Input::Frozen(a.clone()),
            round(&both),
            Phase::Last,
        ),
        (
            Phase::Asked(Why::Fits),
            Input::Again(a.clone()),
            round(&both),
            Phase::Live,
        ),
        (
            Phase::Asked(Why::Fits),
            Input::Frozen(a.clone()),
            round(&both),
            Phase::Last,
        ),
        (Phase::Last, moved(), round(&a), Phase::Last),
        (
            Phase::Last,
            Input::Again(a.clone()),
            round(&both),
            Phase::Live,
        ),
        (
            Phase::Last,
            Input::Frozen(a.clone()),
            round(&both),
            Phase::Last,
        ),
        (Phase::Over, moved(), round(&a), Phase::Last),
        (
            Phase::Over,
            Input::Again(a.clone()),
            round(&both),
            Phase::Live,
        ),
        (
            Phase::Over,
            Input::Frozen(a.clone()),
            round(&both),
            Phase::Last,
        ),
    ]
}

#[test]
fn every_input_has_its_meaning_in_every_state() {
    for (before, input, decision, after) in table() {
        let (plan, got) = phase(before.clone()).step(input.clone());
        assert_eq!(
            (&got, &plan.phase),
            (&decision, &after),
            "{before:?} {input:?}"
        );
    }
    let (plan, got) = phase(Phase::Asked(Why::Rounds)).step(copied(1, one(1..2)));
    assert!(matches!(
        got,
        Decision::Suspend(Forecast {
            why: Why::Rounds,
            ..
        })
    ));
    let both = set(&[1..2, 5..6]);
    assert_eq!(plan.pending(), &both, "nothing of it is forgotten");
}

#[test]
fn what_is_left_decides_when_to_suspend() {
    // 100 extents of the 1024 that go in a second take 98 ms.
    let (_, decision) = begin(5000).step(copied(5000, one(0..100)));
    let Decision::Suspend(forecast) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!(forecast.why, Why::Fits);
    assert_eq!(forecast.left, 100 << 16);
    assert_eq!(forecast.expected.unwrap().as_millis(), 97);
    let (_, decision) = begin(5000).step(copied(5000, one(0..400)));
    assert_eq!(decision, Decision::Round(one(0..400)));
    // Nothing at all, at no known speed.
    let (_, decision) = begin(1).step(copied(1, ExtentSet::default()));
    assert!(matches!(
        decision,
        Decision::Suspend(Forecast { why: Why::Fits, .. })
    ));
    let (_, decision) = Plan::begin(Policy::default(), ExtentSet::default());
    assert!(matches!(
        decision,
        Decision::Suspend(Forecast {
            why: Why::Fits,
            left: 0,
            ..
        })
    ));
    // A sample too small to tell keeps the speed that is known.
    let (plan, _) = begin(5000).step(copied(5000, one(0..400)));
    let known = plan.rate;
    let (plan, _) = plan.step(Input::Copied {
        moved: Moved {
            bytes: MIB - 1,
            took: Duration::from_secs(50),
        },
        left: one(0..390),
    });
    assert_eq!(plan.rate, known);
}

#[test]
fn a_guest_that_writes_faster_than_it_is_copied_is_suspended_all_the_same() {
    let (mut plan, mut rounds) = (begin(5000), 0);
    let why = loop {
        rounds += 1;
        let (next, decision) = plan.step(copied(5000, one(0..5000)));
        plan = next;
        if let Decision::Suspend(forecast) = decision {
            break forecast.why;
        }
    };
    assert_eq!((why, rounds), (Why::NoGain, ROUNDS_WITHOUT_GAIN));
    // One that leaves a little less each time has all its rounds.
    let (mut plan, mut rounds) = (begin(5000), 0);
    let why = loop {
        rounds += 1;
        let (next, decision) = plan.step(copied(5000, one(0..5000 - u64::from(rounds))));
        plan = next;
        if let Decision::Suspend(forecast) = decision {
            break forecast.why;
        }
    };
    assert_eq!((why, rounds), (Why::Rounds, Policy::default().max_rounds));
}

#[test]
fn the_last_rounds_end_or_are_given_up() {
    let (mut plan, decision) = begin(10).step(Input::Frozen(one(20..21)));
    assert_eq!(decision, Decision::Round(set(&[0..10, 20..21])));
    for _ in 1..LAST_ROUNDS {
        let (next, decision) = plan.step(copied(1, one(3..4)));
        assert_eq!(decision, Decision::Round(one(3..4)));
        plan = next;
    }
    let (_, decision) = plan.clone().step(copied(1, one(3..4)));
    assert_eq!(
        decision,
        Decision::GiveUp {
            rounds: LAST_ROUNDS,
            left: 1 << 16
        }
    );
    let (plan, decision) = plan.step(copied(1, ExtentSet::default()));
    assert_eq!((decision, plan.pending().count()), (Decision::Over, 0));
}

proptest! {
    /// Whatever is dirty when: when it is over, each extent was in a round that began after it was last noted.
    #[test]
    fn nothing_that_was_noted_is_left_when_it_is_over(
        steps in prop::collection::vec((0_u8..3, prop::collection::vec(0_u64..64, 0..6)), 0..60),
    ) {
        let mut needed: std::collections::BTreeSet<u64> = (0..64).collect();
        let (mut plan, mut decision) = Plan::begin(Policy::default(), one(0..64));
        for (what, noted) in steps {
            let dirty = ExtentSet::of(noted.iter().map(|extent| *extent..extent + 1));
            if let Decision::GiveUp { .. } = decision {
                return Ok(());
            }
            let input = match (what, &decision) {
                (0, Decision::Round(round)) => {
                    round.ranges().iter().cloned().flatten().for_each(|extent| { needed.remove(&extent); });
                    Input::Copied { moved: Moved { bytes: round.bytes(), took: Duration::from_millis(5) }, left: dirty }
                }
                (1, _) => Input::Frozen(dirty),
                _ => Input::Again(dirty),
            };
            needed.extend(noted);
            (plan, decision) = plan.step(input);
            let pending: std::collections::BTreeSet<u64> = plan.pending().ranges().iter().cloned().flatten().collect();
            prop_assert!(needed.is_subset(&pending), "{:?} of {:?}", needed, pending);
            if decision == Decision::Over {
                prop_assert!(needed.is_empty());
            }
        }
    }
}
