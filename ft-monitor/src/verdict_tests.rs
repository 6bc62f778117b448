//! Tables over the thresholds: one row per promise.

use super::*;
use crate::evidence::Hearing;
use crate::evidence::probe::Target;
use crate::policy::Defaults;
use parapet_wire::agent::{Protection, Watching};
use proptest::prelude::*;
use xen_abi::ids::DomId;

const GRACE_MS: u64 = 30_000;
const TIMEOUT_MS: u64 = 10_000;

fn policy() -> Policy {
    let watching = Watching {
        heartbeat_timeout_ms: Some(TIMEOUT_MS),
        probes: vec!["tcp:10.0.0.1:80".into()],
        max_restarts: None,
    };
    Policy::of(Protection::Restart, &watching, &Defaults::default()).0
}

fn running() -> Evidence {
    let targets: Vec<Target> = vec!["tcp:10.0.0.1:80".parse().unwrap()];
    Evidence::new(Some(DomId(3)), Life::Running, &targets, Mono(0))
}

fn alone(evidence: &Evidence, now: u64) -> Verdict {
    verdict(evidence, &policy(), Around::default(), Mono(now))
}

fn beating(last: u64) -> Evidence {
    let mut evidence = running();
    evidence.beats.note(1, Mono(last));
    evidence
}

fn unanswered(since: u64, times: u32) -> Evidence {
    let mut evidence = running();
    evidence.probes[0].answered(Ok(()), Mono(0), Mono(1), Mono(0));
    for n in 0..u64::from(times) {
        let asked = Mono(since + n * 5000);
        evidence.probes[0].answered(Err("timed out".into()), asked, asked, Mono(0));
    }
    evidence
}

#[test]
fn what_the_agent_says_decides_before_anything_else() {
    let at = Mono(50_000);
    for (life, expected) in [
        (Life::Building, Verdict::Starting),
        (Life::Dying, Verdict::Ending),
        (Life::Leaving, Verdict::Leaving),
        (
            Life::Waiting { since: at },
            Verdict::Failed {
                cause: Cause::NoDomain,
                since: at,
            },
        ),
        (
            Life::Down {
                reason: ShutdownReason::Crash,
                at,
            },
            Verdict::Failed {
                cause: Cause::Crash,
                since: at,
            },
        ),
        (
            Life::Down {
                reason: ShutdownReason::Watchdog,
                at,
            },
            Verdict::Failed {
                cause: Cause::Watchdog,
                since: at,
            },
        ),
    ] {
        let evidence = Evidence { life, ..beating(1) };
        assert_eq!(alone(&evidence, 99_000), expected);
        let deaf = Evidence {
            hearing: Hearing::Deaf { since: at },
            ..evidence
        };
        assert_eq!(alone(&deaf, 99_000), Verdict::Unseen);
    }
}

#[test]
fn a_guest_that_goes_on_purpose_never_failed() {
    for code in 0..=255 {
        let reason = ShutdownReason::from_code(code);
        let failed = matches!(reason, ShutdownReason::Crash | ShutdownReason::Watchdog);
        let evidence = Evidence {
            life: Life::Down {
                reason,
                at: Mono(5),
            },
            ..running()
        };
        let verdict = alone(&evidence, 99_000);
        assert_eq!(
            matches!(verdict, Verdict::Failed { .. }),
            failed,
            "{reason:?}"
        );
        assert_eq!(verdict == Verdict::Stopped(reason), !failed, "{reason:?}");
    }
}

#[test]
fn a_heartbeat_is_late_at_half_its_timeout_and_lost_at_the_whole() {
    let last = 40_000;
    let since = Mono(last);
    for (silent, expected) in [
        (0, Verdict::Healthy),
        (TIMEOUT_MS / 2 - 1, Verdict::Healthy),
        (
            TIMEOUT_MS / 2,
            Verdict::Suspect {
                since,
                why: Doubt::HeartbeatLate,
            },
        ),
        (
            TIMEOUT_MS - 1,
            Verdict::Suspect {
                since,
                why: Doubt::HeartbeatLate,
            },
        ),
        (
            TIMEOUT_MS,
            Verdict::Failed {
                cause: Cause::Hang,
                since,
            },
        ),
    ] {
        assert_eq!(
            alone(&beating(last), last + silent),
            expected,
            "{silent} ms"
        );
    }
}

#[test]
fn silence_counts_only_after_a_first_beat_and_before_a_goodbye() {
    assert_eq!(alone(&running(), 1_000_000), Verdict::Healthy);
    let mut gone = beating(40_000);
    gone.beats.stop();
    assert_eq!(alone(&gone, 1_000_000), Verdict::Healthy);
}

#[test]
fn nothing_counts_during_the_grace() {
    assert_eq!(alone(&beating(1), GRACE_MS - 1), Verdict::Healthy);
    assert!(matches!(
        alone(&beating(1), GRACE_MS),
        Verdict::Failed {
            cause: Cause::Hang,
            ..
        }
    ));
}

#[test]
fn silence_counts_only_while_somebody_listens() {
    let last = 40_000;
    let mut evidence = beating(last);
    // 6 s of silence heard, then 50 s in which nobody listened: 4 s are still to come.
    evidence.missed(Duration::from_secs(50), Mono(last + 56_000));
    let hung = |now| {
        matches!(
            alone(&evidence, now),
            Verdict::Failed {
                cause: Cause::Hang,
                ..
            }
        )
    };
    assert!(!hung(last + 60_000 - 1));
    assert!(hung(last + 60_000));
}

#[test]
fn after_a_gap_a_beat_has_time_to_arrive() {
    let last = 40_000;
    let mut evidence = beating(last);
    evidence.missed(Duration::from_secs(5), Mono(last + 14_900));
    // The silence is full at 15 000, but the queue of what was missed may not be read yet.
    assert!(matches!(
        alone(&evidence, last + 16_899),
        Verdict::Suspect { .. }
    ));
    assert!(matches!(
        alone(&evidence, last + 16_900),
        Verdict::Failed {
            cause: Cause::Hang,
            ..
        }
    ));
}

#[test]
fn the_hold_for_a_common_cause_counts_only_what_was_listened() {
    let all = Crowd {
        watched: 2,
        failing: 2,
    };
    let around = Around {
        heartbeats: all,
        probes: all,
    };
    let mut evidence = unanswered(60_000, 3);
    evidence.missed(Duration::from_secs(40), Mono(110_000));
    let held = |now| verdict(&evidence, &policy(), around, Mono(now));
    assert!(matches!(held(144_999), Verdict::Suspect { .. }));
    assert!(matches!(
        held(145_000),
        Verdict::Failed {
            cause: Cause::Unreachable,
            ..
        }
    ));
}

#[test]
fn nothing_from_before_a_new_start_counts() {
    let mut evidence = unanswered(60_000, 3);
    evidence.beat(1, Mono(40_000));
    evidence.start_over(Mono(100_000));
    assert_eq!(
        alone(&evidence, 100_000 + TIMEOUT_MS / 2 - 1),
        Verdict::Healthy
    );
    let hung = alone(&evidence, 100_000 + TIMEOUT_MS);
    assert!(matches!(
        hung,
        Verdict::Failed {
            cause: Cause::Hang,
            ..
        }
    ));
}

#[test]
fn an_unanswered_probe_counts_after_enough_failures_and_a_first_answer() {
    for (times, expected) in [
        (0, Verdict::Healthy),
        (
            1,
            Verdict::Suspect {
                since: Mono(60_000),
                why: Doubt::ProbeFails { index: 0, times: 1 },
            },
        ),
        (
            2,
            Verdict::Suspect {
                since: Mono(60_000),
                why: Doubt::ProbeFails { index: 0, times: 2 },
            },
        ),
        (
            3,
            Verdict::Failed {
                cause: Cause::Unreachable,
                since: Mono(60_000),
            },
        ),
    ] {
        assert_eq!(
            alone(&unanswered(60_000, times), 75_000),
            expected,
            "{times}"
        );
    }
    let mut never = unanswered(60_000, 9);
    never.probes[0].armed = false;
    assert_eq!(alone(&never, 110_000), Verdict::Healthy);
}

#[test]
fn when_everybody_fails_the_verdict_waits_and_then_stands() {
    let all = Crowd {
        watched: 2,
        failing: 2,
    };
    let around = Around {
        heartbeats: all,
        probes: all,
    };
    let held = |evidence: &Evidence, now| verdict(evidence, &policy(), around, Mono(now));
    let (silent, dead) = (beating(40_000), unanswered(60_000, 3));
    let doubt = |since, cause| Verdict::Suspect {
        since: Mono(since),
        why: Doubt::CommonCause(cause),
    };
    assert_eq!(held(&silent, 79_999), doubt(40_000, Cause::Hang));
    assert!(matches!(
        held(&silent, 80_000),
        Verdict::Failed {
            cause: Cause::Hang,
            ..
        }
    ));
    assert_eq!(held(&dead, 104_999), doubt(60_000, Cause::Unreachable));
    assert!(matches!(
        held(&dead, 105_000),
        Verdict::Failed {
            cause: Cause::Unreachable,
            ..
        }
    ));
    let one_lives = Around {
        heartbeats: Crowd {
            watched: 2,
            failing: 1,
        },
        ..Around::default()
    };
    let alone_in_trouble = verdict(&silent, &policy(), one_lives, Mono(50_000));
    assert!(matches!(
        alone_in_trouble,
        Verdict::Failed {
            cause: Cause::Hang,
            ..
        }
    ));
}

proptest! {
    /// The shell sleeps until `next_change`: no verdict may change before that without news.
    #[test]
    fn no_verdict_changes_unannounced(
        last in 0_u64..60_000,
        failing in prop::option::of((20_000_u64..60_000, 1_u32..5)),
        crowd in 0_u32..3,
        now in 0_u64..200_000,
        step in 1_u64..60_000,
    ) {
        let mut evidence = match failing {
            Some((since, times)) => unanswered(since, times),
            None => running(),
        };
        evidence.beats.note(1, Mono(last));
        let crowd = Crowd { watched: crowd, failing: crowd };
        let around = Around { heartbeats: crowd, probes: crowd };
        let policy = policy();
        let next = next_change(&evidence, &policy, Mono(now)).map_or(u64::MAX, |next| next.0);
        let later = (now + step).min(next.saturating_sub(1)).max(now);
        prop_assert_eq!(
            verdict(&evidence, &policy, around, Mono(now)),
            verdict(&evidence, &policy, around, Mono(later))
        );
    }
}
