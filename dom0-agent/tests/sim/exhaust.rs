//! Every call of an operation fails, or is the last one of the agent's life: then either it is done, or nothing is left of it.
//!
//! A call is any call of the seam, and any step with a driver process or a tap. It fails without effect, or has its effect and its answer is
//! lost; the agent dies before it, after it, or (in a xenstore call of several operations) in the middle of it.

use crate::support::Host;
use crate::support::faults::{
    DEATHS, FAILURES, explain, mortal_calls, with_each_death, with_each_failure,
};
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::record::Stage;
use parapet_wire::driver::DeviceKind;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::{FaultKind, Filter, exhaust};

/// Longer than any pause the agent makes by itself.
const LATER: Duration = Duration::from_secs(60);

/// The domain of the only guest there is.
fn the_guest(host: &Host) -> Option<DomId> {
    match host.agent.guests().as_slice() {
        [] => None,
        [guest] => Some(guest.domid.expect("a guest without a domain")),
        more => panic!("more guests than were made: {more:?}"),
    }
}

/// The guest runs with all its devices, and obeys: its driver is replaced when it dies, and it goes when it powers itself off.
#[track_caller]
fn assert_managed(host: &mut Host, domid: DomId) {
    let uuid = host.uuid(domid);
    assert!(host.machine(domid).is_connected(), "devices are not in use");
    let pid = host.yard.pid_of(uuid);
    host.yard.kill_driver(uuid);
    host.settle();
    assert_ne!(host.yard.pid_of(uuid), pid);
    assert!(
        host.machine(domid).is_connected(),
        "lost a device with its driver"
    );
    host.machine(domid).kernel.power_off();
    host.settle();
    host.assert_clean();
}

/// After whatever happened, everything is over and time has passed: the guest runs, or nothing is left.
#[track_caller]
fn assert_done_or_undone(host: &mut Host) {
    host.world.clear_faults();
    host.settle();
    host.pass(LATER);
    host.settle();
    match the_guest(host) {
        Some(domid) => assert_managed(host, domid),
        None => host.assert_clean(),
    }
}

// ---- create ----

fn create(kind: &'static str) -> impl Fn(&mut Host) -> Result<(), AgentError> {
    move |host| {
        let config = host.equipped(kind, "web1", "");
        host.create(config).map(drop)
    }
}

fn create_and_connect(kind: &'static str) -> impl Fn(&mut Host) -> Result<(), AgentError> {
    move |host| {
        create(kind)(host)?;
        host.settle();
        Ok(())
    }
}

fn failed_creations(kind: &'static str, who: &str) {
    with_each_failure(who, Host::new, create(kind), |host, result| {
        if result.is_err() {
            host.assert_clean();
        } else {
            host.settle();
            let domid = the_guest(host).unwrap();
            assert_managed(host, domid);
        }
    });
}

#[test]
fn a_pv_guest_that_cannot_be_created_leaves_nothing() {
    failed_creations("pv", "agent");
}

#[test]
fn a_pvh_guest_that_cannot_be_created_leaves_nothing() {
    failed_creations("pvh", "agent");
}

#[test]
fn a_driver_that_fails_while_a_guest_is_created_leaves_nothing() {
    failed_creations("pvh", "driver");
}

#[test]
fn an_agent_that_dies_while_it_creates_a_pv_guest_finishes_or_undoes_it() {
    with_each_death(Host::new, create_and_connect("pv"), assert_done_or_undone);
}

#[test]
fn an_agent_that_dies_while_it_creates_a_pvh_guest_finishes_or_undoes_it() {
    with_each_death(Host::new, create_and_connect("pvh"), assert_done_or_undone);
}

/// From the n-th call on nothing works: the failed creation cannot be undone either. The next agent does it.
#[test]
fn what_a_failed_creation_could_not_undo_the_next_agent_does() {
    for kind in FAILURES {
        exhaust(kind, &Filter::process("agent"), |fault| {
            let mut host = Host::new();
            host.world.inject(fault.times(u64::MAX));
            let result = create("pvh")(&mut host);
            let fired = host.world.faults_fired() > 0;
            assert!(result.is_err() || !fired);
            host.next_agent_raw();
            host.world.clear_faults();
            host.agent.recover().unwrap();
            if fired {
                host.settle();
                host.assert_clean();
            }
            host.world
        });
    }
}

// ---- destroy ----

fn running(kind: &'static str, lines: &'static str) -> impl Fn() -> Host {
    move || {
        let mut host = Host::new();
        let config = host.equipped(kind, "web1", lines);
        host.start(config);
        host.yard.forget_told();
        host
    }
}

fn destroy(host: &mut Host) -> Result<(), AgentError> {
    host.agent.destroy(DomId(1))
}

#[test]
fn a_destruction_that_fails_can_be_repeated() {
    for kind in ["pv", "pvh"] {
        with_each_failure("agent", running(kind, ""), destroy, |host, result| {
            match (result, host.agent.destroy(DomId(1))) {
                (Ok(()), Err(AgentError::NoDomain(_))) | (Err(_), Ok(())) => {}
                // The domain is gone already; what else was left goes by itself.
                (Err(_), Err(AgentError::NoDomain(_))) => {
                    host.pass(LATER);
                    host.settle();
                }
                (first, second) => panic!("{first:?}, then {second:?}"),
            }
            host.assert_clean();
        });
    }
}

#[test]
fn a_destruction_that_fails_is_finished_without_being_asked_again() {
    with_each_failure("agent", running("pvh", ""), destroy, |host, result| {
        host.pass(LATER);
        host.settle();
        match result {
            Err(_) if !host.agent.guests().is_empty() => {
                // Nothing was begun.
                assert_managed(host, DomId(1));
            }
            _ => host.assert_clean(),
        }
    });
}

#[test]
fn an_agent_that_dies_while_it_destroys_a_guest_finishes_it_or_never_began() {
    with_each_death(running("pvh", ""), destroy, |host| {
        if the_guest(host).is_some() {
            // It died before it had written down what it was about to do.
            assert_eq!(
                dom0_agent::agent::lock(&host.guests()[0]).record.stage,
                Stage::Running
            );
        }
        assert_done_or_undone(host);
    });
}

// ---- restart ----

fn rebooting(kind: &'static str) -> impl Fn() -> Host {
    move || {
        let mut host = running(kind, "on_reboot=\"restart\"")();
        host.machine(DomId(1)).kernel.reboot();
        host.pass(Duration::from_secs(5));
        host
    }
}

fn let_it_restart(host: &mut Host) -> Result<(), AgentError> {
    host.settle();
    Ok(())
}

#[test]
fn a_restart_that_fails_is_done_or_leaves_nothing() {
    with_each_failure("agent", rebooting("pv"), let_it_restart, |host, _| {
        assert_done_or_undone(host);
    });
}

#[test]
fn an_agent_that_dies_while_it_restarts_a_guest_brings_it_back() {
    with_each_death(rebooting("pvh"), let_it_restart, |host| {
        host.settle();
        let domid = the_guest(host).expect("the guest is lost");
        assert_ne!(domid, DomId(1));
        assert_managed(host, domid);
    });
}

/// The monitor's restart of a protected guest, repeated as the monitor does until it is confirmed.
#[test]
fn a_protected_guest_is_never_lost_by_a_restart_that_fails() {
    let prepare = || {
        let mut host = running("pvh", "protect=\"restart\"")();
        host.machine(DomId(1)).kernel.crash();
        host
    };
    let act = |host: &mut Host| {
        let uuid = host.agent.guests()[0].uuid.0;
        let uuid = uuid::Uuid::from_bytes(uuid);
        host.agent
            .restart(uuid, Some(DomId(1)), "crashed")
            .map(drop)
    };
    let then = |host: &mut Host| {
        let guest = host.agent.guests().pop().expect("the guest is lost");
        if guest.domid.is_none_or(|domid| {
            host.world
                .domain(domid)
                .is_none_or(|info| info.shutdown.is_some())
        }) {
            let uuid = uuid::Uuid::from_bytes(guest.uuid.0);
            host.agent.restart(uuid, guest.domid, "again").unwrap();
        }
        host.settle();
        let domid = the_guest(host).unwrap();
        assert_managed(host, domid);
    };
    with_each_failure("agent", prepare, act, |host, _| then(host));
    with_each_death(prepare, act, then);
}

// ---- devices come and go ----

fn attach(host: &mut Host) -> Result<(), AgentError> {
    let image = host.image("second.img", 64);
    let spec = dom0_agent::config::disk::parse_disk(
        "test",
        &[&format!("{},raw,xvdb,rw", image.display())],
    );
    host.agent.attach_disk(DomId(1), &spec.unwrap())?;
    let vif = dom0_agent::config::vif::VifSpec::default();
    host.agent.attach_net(DomId(1), &vif).map(drop)
}

fn detach(host: &mut Host) -> Result<(), AgentError> {
    host.agent.detach(DomId(1), DeviceKind::Disk, 51712, true)?;
    host.agent.detach(DomId(1), DeviceKind::Net, 0, true)
}

#[test]
fn a_device_that_cannot_be_attached_leaves_nothing_and_the_guest_alone() {
    with_each_failure("agent", running("pvh", ""), attach, |host, _| {
        assert_done_or_undone(host);
    });
}

#[test]
fn an_agent_that_dies_while_it_attaches_leaves_the_guest_alone() {
    with_each_death(running("pvh", ""), attach, |host| {
        host.settle();
        let domid = the_guest(host).expect("the guest is lost");
        // Whatever is there works, and everything that is there is known.
        assert_managed(host, domid);
    });
}

#[test]
fn a_device_that_cannot_be_detached_leaves_the_guest_alone() {
    with_each_failure("agent", running("pvh", ""), detach, |host, result| {
        host.settle();
        if result.is_ok() {
            assert!(host.machine(DomId(1)).disks.is_empty());
            assert_eq!(host.yard.taps(), Vec::<String>::new());
        }
        assert_done_or_undone(host);
    });
}

#[test]
fn an_agent_that_dies_while_it_detaches_leaves_the_guest_alone() {
    with_each_death(running("pvh", ""), detach, |host| {
        host.settle();
        let domid = the_guest(host).expect("the guest is lost");
        assert_managed(host, domid);
    });
}

// ---- drivers come and go ----

fn driver_dies(host: &mut Host) -> Result<(), AgentError> {
    let uuid = host.uuid(DomId(1));
    if host.yard.pid_of(uuid).is_some() {
        host.yard.kill_driver(uuid);
    }
    host.settle();
    Ok(())
}

fn upgrade(host: &mut Host) -> Result<(), AgentError> {
    host.agent.replace_drivers(None).map(drop)
}

#[test]
fn a_driver_that_cannot_be_replaced_at_once_is_replaced_later() {
    for act in [driver_dies, upgrade] {
        with_each_failure("agent", running("pvh", ""), act, |host, _| {
            host.settle();
            assert_managed(host, DomId(1));
        });
    }
}

#[test]
fn an_agent_that_dies_while_it_replaces_a_driver_goes_on_with_it() {
    for act in [driver_dies, upgrade] {
        with_each_death(running("pv", ""), act, |host| {
            host.settle();
            assert_managed(host, DomId(1));
        });
    }
}

/// The driver dies at each of its own calls while a guest is made and connects: the creation fails and leaves nothing, or a successor goes on.
#[test]
fn a_driver_that_dies_at_any_call_is_replaced_or_nothing_was_promised() {
    for kind in [FaultKind::Crash, FaultKind::CrashAfter] {
        exhaust(kind, &Filter::process("driver"), |fault| {
            let mut host = Host::new();
            let place = format!("driver {kind:?} at {}", fault.at);
            host.world.inject(fault);
            let made = create("pvh")(&mut host);
            explain(&place, || {
                host.settle();
                match made {
                    Ok(()) => assert_managed(&mut host, DomId(1)),
                    Err(_) => host.assert_clean(),
                }
            });
            host.world
        });
    }
}

// ---- names ----

fn rename(host: &mut Host) -> Result<(), AgentError> {
    host.agent.rename(DomId(1), "web2")
}

/// Everybody calls the guest by the same name.
#[track_caller]
fn assert_one_name(host: &mut Host) {
    let shown = host.world.xs_read("/local/domain/1/name");
    assert_eq!(Some(&host.agent.guests()[0].name), shown.as_ref());
    host.settle();
    assert_managed(host, DomId(1));
}

#[test]
fn a_rename_is_done_or_not_whatever_fails() {
    with_each_failure("agent", running("pvh", ""), rename, |host, result| {
        if result.is_err() {
            // The answer may be lost; asking again settles it.
            host.agent.rename(DomId(1), "web3").unwrap();
        }
        assert_one_name(host);
    });
    with_each_death(running("pvh", ""), rename, assert_one_name);
}

// ---- recovery itself ----

/// An agent dies in the middle of a creation, and its successor dies at every call of its recovery.
#[test]
fn a_recovery_that_dies_is_recovered_by_the_next() {
    for first in [10, 25, 40, 55, 70] {
        for kind in [FaultKind::Crash, FaultKind::CrashAfter] {
            exhaust_recovery(kind, || {
                let mut host = Host::new();
                host.mortal_agent();
                let early = xen_sim::Fault::at(first, FaultKind::Crash);
                host.world.inject(early.of(Filter::process("agent")));
                let died = host.unless_it_dies(|host| create_and_connect("pvh")(host));
                host.world.clear_faults();
                assert!(died.is_none(), "call {first} is behind the end");
                host
            });
        }
    }
}

/// A running guest, and its agent's successor dies at every call of its recovery.
#[test]
fn an_adoption_that_dies_is_finished_by_the_next() {
    for kind in DEATHS {
        exhaust_recovery(kind, running("pvh", ""));
    }
}

fn exhaust_recovery(kind: FaultKind, prepare: impl Fn() -> Host) {
    // Not `exhaust`: the first death has been counted already.
    for at in 0.. {
        let mut host = prepare();
        host.next_agent_raw();
        host.mortal_agent();
        let before = host.world.faults_fired();
        host.world
            .inject(xen_sim::Fault::at(at, kind).of(mortal_calls(kind)));
        let survived = host.unless_it_dies(|host| {
            host.agent.recover().unwrap();
            host.settle();
        });
        host.world.clear_faults();
        explain(&format!("{kind:?} of the second agent at {at}"), || {
            if survived.is_none() {
                host.next_agent();
            }
            assert_done_or_undone(&mut host);
        });
        if host.world.faults_fired() == before {
            assert!(at > 0);
            return;
        }
    }
}
