//! Broken monitors, each of which must be caught.

use crate::faults::Faults;
use crate::world::World;
use ft_monitor::evidence::guest::Life;
use ft_monitor::evidence::{Evidence, Hearing};
use ft_monitor::monitor::Rules;
use ft_monitor::plan::{History, Plan, plan};
use ft_monitor::policy::Policy;
use ft_monitor::time::Mono;
use ft_monitor::verdict::{Around, Cause, Verdict, verdict};
use parapet_wire::agent::Protection;
use std::time::Duration;
use xen_abi::domain::ShutdownReason;

fn caught(rules: Rules, faults: Faults, what: &str) {
    let trips = |seed| {
        World::new(seed, faults, rules)
            .run(6000)
            .err()
            .map(|v| (seed, v.0))
    };
    let Some((seed, violation)) = (0..20).find_map(trips) else {
        panic!("nobody noticed a monitor that {what}");
    };
    eprintln!("a monitor that {what}: caught with seed {seed}: {violation}");
}

fn with_verdict(verdict: fn(&Evidence, &Policy, Around, Mono) -> Verdict) -> Rules {
    Rules {
        verdict,
        ..Rules::default()
    }
}

fn with_plan(plan: fn(&Verdict, History<'_>, &Policy, Mono) -> Plan) -> Rules {
    Rules {
        plan,
        ..Rules::default()
    }
}

#[test]
fn one_that_takes_a_poweroff_for_a_crash() {
    let rules = with_verdict(|evidence, policy, around, now| match evidence.life {
        Life::Down {
            reason: ShutdownReason::Poweroff,
            at,
        } => Verdict::Failed {
            cause: Cause::Crash,
            since: at,
        },
        _ => verdict(evidence, policy, around, now),
    });
    caught(rules, Faults::ALL, "takes a poweroff for a crash");
}

#[test]
fn one_that_takes_its_own_deafness_for_silence() {
    let rules = with_verdict(|evidence, policy, around, now| {
        let mut deaf = evidence.clone();
        deaf.hearing = Hearing::Listening { since: Mono(0) };
        deaf.deaf = Duration::ZERO;
        verdict(&deaf, policy, around, now)
    });
    caught(
        rules,
        Faults {
            guest: 0,
            ..Faults::ALL
        },
        "takes its own deafness for silence",
    );
}

#[test]
fn one_that_expects_a_beat_before_the_first() {
    let rules = with_verdict(|evidence, policy, around, now| {
        let mut eager = evidence.clone();
        eager.beats.armed = true;
        let mut policy = policy.clone();
        policy.times.grace = Duration::ZERO;
        policy.heartbeat_timeout = policy.heartbeat_timeout.map(|_| Duration::from_secs(4));
        verdict(&eager, &policy, around, now)
    });
    caught(
        rules,
        Faults {
            guest: 0,
            ..Faults::ALL
        },
        "expects a beat before the first",
    );
}

#[test]
fn one_that_does_not_know_a_goodbye() {
    let rules = with_verdict(|evidence, policy, around, now| {
        let mut rude = evidence.clone();
        rude.beats.stopped = false;
        verdict(&rude, policy, around, now)
    });
    caught(rules, Faults::ALL, "does not know a goodbye");
}

#[test]
fn one_that_never_sees_a_hang() {
    let rules = with_verdict(|evidence, policy, around, now| {
        match verdict(evidence, policy, around, now) {
            Verdict::Failed {
                cause: Cause::Hang | Cause::Unreachable,
                ..
            } => Verdict::Healthy,
            other => other,
        }
    });
    caught(rules, Faults::GUESTS, "never sees a hang");
}

#[test]
fn one_that_believes_a_single_lost_answer() {
    let rules = with_verdict(|evidence, policy, around, now| {
        let mut policy = policy.clone();
        policy.times.probe_failures = 1;
        policy.times.common_cause_hold = Duration::ZERO;
        verdict(evidence, &policy, around, now)
    });
    caught(
        rules,
        Faults {
            guest: 0,
            ..Faults::ALL
        },
        "believes a single lost answer",
    );
}

#[test]
fn one_that_never_blames_its_own_side() {
    let rules =
        with_verdict(|evidence, policy, _, now| verdict(evidence, policy, Around::default(), now));
    let faults = Faults {
        guest: 0,
        network_loss: 100,
        ..Faults::ALL
    };
    caught(rules, faults, "never blames its own side of the network");
}

#[test]
fn one_that_knows_no_limit() {
    let rules = with_plan(|verdict, history, policy, now| {
        let mut policy = policy.clone();
        policy.restarts_per_hour = 1000;
        plan(verdict, history, &policy, now)
    });
    caught(
        rules,
        Faults {
            flapping: true,
            ..Faults::ALL
        },
        "knows no limit",
    );
}

#[test]
fn one_that_does_two_things_at_once() {
    let rules = with_plan(|verdict, history, policy, now| {
        plan(
            verdict,
            History {
                busy: false,
                in_a_row: 0,
                ..history
            },
            policy,
            now,
        )
    });
    caught(rules, Faults::ALL, "does two things at once");
}

#[test]
fn one_that_cares_for_everybody() {
    let rules = with_plan(|verdict, history, policy, now| {
        let policy = Policy {
            protection: Protection::Restart,
            ..policy.clone()
        };
        plan(verdict, history, &policy, now)
    });
    caught(
        rules,
        Faults::ALL,
        "cares for guests that nobody asked it to",
    );
}

#[test]
fn one_that_only_watches() {
    caught(
        with_plan(|_, _, _, _| Plan::Nothing),
        Faults::GUESTS,
        "only watches",
    );
}
