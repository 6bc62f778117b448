//! One thing after the other goes wrong: every call of an operation fails, or is the last one of the agent's life.

use super::Host;
use dom0_agent::agent::error::AgentError;
use nix::errno::Errno;
use xen_sim::{FaultKind, Filter, exhaust};

/// How a call fails: without effect, or with its answer lost.
pub const FAILURES: [FaultKind; 2] = [
    FaultKind::Fail(Errno::EIO),
    FaultKind::FailAfter(Errno::EIO),
];
/// How a call is the last one: before it, after it, in the middle of it.
pub const DEATHS: [FaultKind; 3] = [
    FaultKind::Crash,
    FaultKind::CrashAfter,
    FaultKind::CrashTorn,
];

/// The calls of the agent that a death can befall in this way: only xenstore calls of several operations can be torn.
pub fn mortal_calls(kind: FaultKind) -> Filter {
    let all = Filter::process("agent");
    if kind == FaultKind::CrashTorn {
        all.ops(&["xs.call"])
    } else {
        all
    }
}

/// Fails every call of `act`, one at a time.
pub fn with_each_failure(
    who: &str,
    prepare: impl Fn() -> Host,
    act: impl Fn(&mut Host) -> Result<(), AgentError>,
    then: impl Fn(&mut Host, Result<(), AgentError>),
) {
    for kind in FAILURES {
        exhaust(kind, &Filter::process(who), |fault| {
            let mut host = prepare();
            let place = format!("{who} {kind:?} at {}", fault.at);
            host.world.inject(fault);
            let result = act(&mut host);
            host.world.clear_faults();
            if let Err(error) = &result {
                assert!(!error.to_string().is_empty(), "{place}");
            }
            explain(&place, || then(&mut host, result));
            host.world
        });
    }
}

/// Lets the agent die at every call of `act`; its successor recovers.
pub fn with_each_death(
    prepare: impl Fn() -> Host,
    act: impl Fn(&mut Host) -> Result<(), AgentError>,
    then: impl Fn(&mut Host),
) {
    for kind in DEATHS {
        exhaust(kind, &mortal_calls(kind), |fault| {
            let mut host = prepare();
            let place = format!("{kind:?} at {}", fault.at);
            host.mortal_agent();
            host.world.inject(fault);
            let survived = host.unless_it_dies(|host| act(host));
            host.world.clear_faults();
            explain(&place, || {
                if survived.is_none() {
                    host.next_agent();
                }
                then(&mut host);
            });
            host.world
        });
    }
}

/// Names the place before a panic goes on.
pub fn explain(place: &str, check: impl FnOnce()) {
    struct Name<'a>(&'a str);
    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the fault was: {}", self.0);
            }
        }
    }
    let name = Name(place);
    check();
    drop(name);
}
