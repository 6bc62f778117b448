//! Shells, and every call that fails or is the agent's last: the guest gets one, is built, or leaves nothing. And a thousand guests in a row.

use crate::shells::{LATER, assert_clean_without_shells, assert_managed, keep, pool_of, the_guest};
use crate::support::Host;
use crate::support::faults::{DEATHS, explain, mortal_calls, with_each_death, with_each_failure};
use dom0_agent::agent::error::AgentError;
use xen_sim::{Fault, FaultKind, Filter, exhaust};

/// After whatever happened: the guest runs or is not there, the pool is as it is to be, and nothing else is left.
#[track_caller]
fn assert_over(host: &mut Host) {
    host.world.clear_faults();
    host.settle();
    host.pass(LATER);
    host.settle();
    if let Some(domid) = the_guest(host) {
        assert_managed(host, domid);
    }
    if let Some(kept) = host.agent.list_shells().first() {
        assert_eq!(kept.ready.len(), kept.count as usize, "{kept:?}");
    }
    assert_clean_without_shells(host);
}

fn create(kind: &'static str) -> impl Fn(&mut Host) -> Result<(), AgentError> {
    move |host| {
        let config = host.equipped(kind, "web1", "");
        host.create(config).map(drop)
    }
}

fn fill(host: &mut Host) -> Result<(), AgentError> {
    host.agent.add_shells(host.config("pvh", "small", ""), 2)?;
    host.settle();
    Ok(())
}

fn take_and_refill(host: &mut Host) -> Result<(), AgentError> {
    create("pvh")(host)?;
    host.settle();
    Ok(())
}

#[test]
fn a_guest_gets_its_shell_or_is_built_or_leaves_nothing_whatever_fails() {
    for kind in ["pv", "pvh"] {
        let prepare = || pool_of(kind, 1);
        with_each_failure("agent", prepare, create(kind), |host, result| {
            if result.is_err() {
                assert_eq!(the_guest(host), None);
            }
            assert_over(host);
        });
    }
    let prepare = || pool_of("pvh", 1);
    with_each_failure("driver", prepare, create("pvh"), |host, _| {
        assert_over(host)
    });
}

#[test]
fn shells_that_cannot_be_built_leave_nothing_and_are_built_later() {
    with_each_failure("agent", Host::new, fill, |host, _| assert_over(host));
}

#[test]
fn shells_that_cannot_be_removed_are_removed_later() {
    let drop_all = |host: &mut Host| host.agent.drop_shells(None);
    let prepare = || pool_of("pvh", 1);
    with_each_failure("agent", prepare, drop_all, |host, _| assert_over(host));
}

#[test]
fn an_agent_that_dies_while_shells_are_built_keeps_or_removes_them() {
    with_each_death(Host::new, fill, assert_over);
}

#[test]
fn an_agent_that_dies_while_a_guest_takes_a_shell_finishes_or_undoes_it() {
    for kind in ["pv", "pvh"] {
        with_each_death(|| pool_of(kind, 1), create(kind), assert_over);
    }
    with_each_death(|| pool_of("pvh", 2), take_and_refill, assert_over);
}

#[test]
fn an_agent_that_dies_while_shells_are_dropped_leaves_none_behind() {
    let drop_all = |host: &mut Host| host.agent.drop_shells(None);
    with_each_death(|| pool_of("pvh", 1), drop_all, assert_over);
}

/// An agent died while a guest took a shell, and its successor dies at every call of its recovery.
#[test]
fn a_recovery_that_dies_among_shells_is_recovered_by_the_next() {
    for first in [4, 8, 12] {
        for kind in DEATHS {
            for at in 0.. {
                let mut host = pool_of("pvh", 1);
                host.mortal_agent();
                let early = Fault::at(first, FaultKind::Crash);
                host.world.inject(early.of(Filter::process("agent")));
                let died = host.unless_it_dies(|host| create("pvh")(host));
                host.world.clear_faults();
                assert!(died.is_none(), "call {first} is behind the end");
                host.next_agent_raw();
                host.mortal_agent();
                let before = host.world.faults_fired();
                let fault = Fault::at(at, kind).of(mortal_calls(kind));
                host.world.inject(fault);
                let survived = host.unless_it_dies(|host| {
                    host.agent.recover().unwrap();
                    host.settle();
                });
                host.world.clear_faults();
                explain(&format!("{first}: {kind:?} of the second at {at}"), || {
                    if survived.is_none() {
                        host.next_agent();
                    }
                    assert_over(&mut host);
                });
                if host.world.faults_fired() == before {
                    break;
                }
            }
        }
    }
}

/// The driver of a shell dies at each of its own calls while a guest takes it: the guest gets another one.
#[test]
fn a_driver_that_dies_while_a_shell_is_taken_costs_no_guest() {
    for kind in [FaultKind::Crash, FaultKind::CrashAfter] {
        exhaust(kind, &Filter::process("driver"), |fault| {
            let mut host = pool_of("pvh", 1);
            let place = format!("driver {kind:?} at {}", fault.at);
            host.world.inject(fault);
            let made = create("pvh")(&mut host);
            explain(&place, || {
                host.settle();
                assert!(made.is_err() == the_guest(&host).is_none());
                assert_over(&mut host);
            });
            host.world
        });
    }
}

// ---- again and again ----

/// What one round costs: calls of the agent, round trips to xenstored.
fn round(host: &mut Host, kind: &str) -> (u64, u64) {
    let before = (host.world.calls(), host.world.xenstore_round_trips());
    let config = host.config(kind, "web1", "");
    let domid = host.create(config).unwrap();
    host.agent.destroy(domid).unwrap();
    host.tend();
    let after = (host.world.calls(), host.world.xenstore_round_trips());
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_thousand_guests_in_a_row_leak_nothing_and_the_last_costs_what_the_first_did() {
    for shells in [0, 1] {
        let mut host = Host::new();
        if shells > 0 {
            keep(&mut host, "pvh", shells);
        }
        round(&mut host, "pvh");
        let ledger = host.world.ledger();
        let free = host.world.free_pages();
        let costs: Vec<_> = (0..1000).map(|_| round(&mut host, "pvh")).collect();
        assert_eq!(costs[..10], costs[990..], "{shells} shells");
        assert_eq!(host.world.free_pages(), free);
        if shells == 0 {
            host.world.ledger().assert_same_as(&ledger);
        }
        assert_clean_without_shells(&mut host);
    }
}
