//! Tables over back-off and limit.

use super::*;
use crate::policy::Defaults;
use crate::verdict::Doubt;
use parapet_wire::agent::{Protection, Watching};
use proptest::prelude::*;
use xen_abi::domain::ShutdownReason;

const FAILED: Verdict = Verdict::Failed {
    cause: Cause::Crash,
    since: Mono(1_000_000),
};

fn policy(protection: Protection) -> Policy {
    Policy::of(protection, &Watching::default(), &Defaults::default()).0
}

fn fresh() -> History<'static> {
    History {
        restarts: &[],
        in_a_row: 0,
        last_attempt: None,
        busy: false,
        given_up: false,
    }
}

fn planned(verdict: &Verdict, history: History<'_>, now: u64) -> Plan {
    plan(verdict, history, &policy(Protection::Restart), Mono(now))
}

#[test]
fn only_a_failed_guest_is_restarted() {
    for verdict in [
        Verdict::Unseen,
        Verdict::Starting,
        Verdict::Healthy,
        Verdict::Ending,
        Verdict::Leaving,
        Verdict::Suspect {
            since: Mono(0),
            why: Doubt::HeartbeatLate,
        },
        Verdict::Stopped(ShutdownReason::Poweroff),
        Verdict::Stopped(ShutdownReason::Reboot),
    ] {
        assert_eq!(
            planned(&verdict, fresh(), 2_000_000),
            Plan::Nothing,
            "{verdict:?}"
        );
    }
    assert_eq!(
        planned(&FAILED, fresh(), 1_000_000),
        Plan::Restart {
            after: Duration::ZERO
        }
    );
}

#[test]
fn every_class_but_none_is_restarted_in_place() {
    for (class, acts) in [
        (Protection::None, false),
        (Protection::Restart, true),
        (Protection::Failover, true),
        (Protection::Continuous, true),
    ] {
        let plan = plan(&FAILED, fresh(), &policy(class), Mono(1_000_000));
        assert_eq!(plan != Plan::Nothing, acts, "{class:?}");
    }
}

#[test]
fn never_two_actions_and_never_one_after_giving_up() {
    assert_eq!(
        planned(
            &FAILED,
            History {
                busy: true,
                ..fresh()
            },
            1_000_000
        ),
        Plan::Nothing
    );
    assert_eq!(
        planned(
            &FAILED,
            History {
                given_up: true,
                ..fresh()
            },
            1_000_000
        ),
        Plan::Nothing
    );
}

#[test]
fn the_delay_doubles_up_to_its_cap_and_starts_again_after_a_long_life() {
    for (in_a_row, seconds) in [(0, 0), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (50, 60)] {
        let history = History {
            in_a_row,
            last_attempt: Some(Mono(1_000_000)),
            ..fresh()
        };
        let after = Duration::from_secs(seconds);
        assert_eq!(
            planned(&FAILED, history, 1_000_000),
            Plan::Restart { after },
            "{in_a_row}"
        );
    }
    let lived = History {
        in_a_row: 7,
        last_attempt: Some(Mono(400_000)),
        ..fresh()
    };
    assert_eq!(
        planned(&FAILED, lived, 1_000_000),
        Plan::Restart {
            after: Duration::ZERO
        }
    );
    let short = History {
        in_a_row: 7,
        last_attempt: Some(Mono(400_001)),
        ..fresh()
    };
    // Not long enough for a new row, but the delay has passed by now.
    assert_eq!(
        planned(&FAILED, short, 1_000_000),
        Plan::Restart {
            after: Duration::ZERO
        }
    );
    assert!(lived_long(
        lived,
        &policy(Protection::Restart),
        Mono(1_000_000)
    ));
    assert!(!lived_long(
        short,
        &policy(Protection::Restart),
        Mono(1_000_000)
    ));
}

#[test]
fn at_the_limit_the_monitor_gives_up_and_spares_what_still_runs() {
    let times: Vec<Mono> = (0..5).map(|n| Mono(900_000 + n)).collect();
    let history = History {
        restarts: &times,
        ..fresh()
    };
    for (cause, expected) in [
        (Cause::Crash, Remains::Destroy),
        (Cause::Watchdog, Remains::Destroy),
        (Cause::NoDomain, Remains::Destroy),
        (Cause::Hang, Remains::Leave),
        (Cause::Unreachable, Remains::Leave),
    ] {
        let verdict = Verdict::Failed {
            cause,
            since: Mono(1_000_000),
        };
        let Plan::GiveUp { why, remains } = planned(&verdict, history, 1_000_000) else {
            panic!("{cause}")
        };
        assert_eq!(remains, expected, "{cause}");
        assert!(why.contains("5 restarts within an hour"), "{why}");
    }
    // An hour later they count no more.
    let later = planned(&FAILED, history, 900_005 + 3_600_000);
    assert_eq!(
        later,
        Plan::Restart {
            after: Duration::ZERO
        }
    );
}

proptest! {
    #[test]
    fn a_delay_is_never_longer_than_the_cap(in_a_row: u32, last: u32, now: u32, since: u32) {
        let history = History { in_a_row, last_attempt: Some(Mono(last.into())), ..fresh() };
        let verdict = Verdict::Failed { cause: Cause::Hang, since: Mono(since.into()) };
        if let Plan::Restart { after } = planned(&verdict, history, now.into()) {
            prop_assert!(after <= Defaults::default().backoff_cap);
        }
    }

    #[test]
    fn the_limit_holds_whatever_the_past(times in prop::collection::vec(0_u64..8_000_000, 0..40), now in 4_000_000_u64..8_000_000) {
        let mut times: Vec<Mono> = times.into_iter().map(|ms| Mono(ms.min(now))).collect();
        times.sort();
        let recent = times.iter().filter(|at| now - at.0 < 3_600_000).count();
        let history = History { restarts: &times, ..fresh() };
        let restart = matches!(planned(&FAILED, history, now), Plan::Restart { .. });
        prop_assert_eq!(restart, recent < 5);
    }
}
