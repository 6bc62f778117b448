//! A guest stops: what its configuration wants, who decides, and what becomes of it.

use crate::support::Host;
use dom0_agent::agent::create::CreateOptions;
use dom0_agent::agent::reap::MONITOR_GRACE;
use parapet_wire::agent::{Event, GuestState};
use std::time::{Duration, Instant};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;

/// The ways to stop, and the key that says what to do then.
const WAYS: [(ShutdownReason, &str); 4] = [
    (ShutdownReason::Poweroff, "on_poweroff"),
    (ShutdownReason::Reboot, "on_reboot"),
    (ShutdownReason::Crash, "on_crash"),
    (ShutdownReason::Watchdog, "on_watchdog"),
];
const WHILE_RUNNING: Duration = Duration::from_secs(5);

/// A guest that has run for a while and now stops.
fn stopped(lines: &str, reason: ShutdownReason) -> Host {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", lines);
    let domid = host.start(config);
    host.pass(WHILE_RUNNING);
    host.events();
    host.world.shut_down(domid, reason).unwrap();
    host
}

fn clean_up(mut host: Host) {
    for guest in host.agent.guests() {
        host.agent.destroy(guest.domid.unwrap()).unwrap();
    }
    host.settle();
    host.assert_clean();
}

#[test]
fn each_way_to_stop_has_the_action_that_was_configured() {
    for (reason, key) in WAYS {
        for (action, expected) in [
            ("destroy", None),
            ("restart", Some(DomId(2))),
            ("preserve", Some(DomId(1))),
        ] {
            let mut host = stopped(&format!("{key}=\"{action}\""), reason);
            host.settle();
            let domids: Vec<_> = host
                .agent
                .guests()
                .iter()
                .map(|guest| guest.domid)
                .collect();
            let expected: Vec<_> = expected.into_iter().map(Some).collect();
            assert_eq!(domids, expected, "{key}={action}");
            if action == "restart" {
                let machine = host.machine(DomId(2));
                assert!(machine.is_connected());
                assert_eq!(
                    host.world.xs_read("/local/domain/2/name").as_deref(),
                    Some("web1")
                );
            }
            if action == "preserve" {
                assert_eq!(host.agent.guests()[0].state, GuestState::Down(reason));
                assert!(
                    matches!(host.events()[..], [Event::ShutDown { .. }]),
                    "told once"
                );
            }
            clean_up(host);
        }
    }
}

#[test]
fn a_restarted_guest_keeps_its_identity_and_its_addresses() {
    let mut host = Host::new();
    let config = host.equipped("pv", "web1", "vif=['bridge=xenbr0']\non_reboot=\"restart\"");
    let uuid = config.uuid;
    let first = host.start(config);
    let mac = |host: &Host, domid: DomId| {
        host.world
            .xs_read(&format!("/local/domain/{domid}/device/vif/0/mac"))
            .unwrap()
    };
    let before = mac(&host, first);
    host.pass(WHILE_RUNNING);
    host.machine(first).kernel.reboot();
    host.settle();
    let second = host.agent.guests()[0].domid.unwrap();
    assert_ne!(first, second);
    assert_eq!(mac(&host, second), before);
    assert_eq!(
        host.world.domain(second).unwrap().handle.0,
        *uuid.as_bytes()
    );
    assert_eq!(host.yard.taps(), [format!("vif{second}.0")]);
    clean_up(host);
}

#[test]
fn a_guest_that_reboots_at_once_is_held_back() {
    const AHEAD: Duration = Duration::from_secs(600);
    let mut host = Host::new();
    let config = host.config("pvh", "loop", "on_reboot=\"restart\"");
    let domid = host.create(config).unwrap();
    host.settle();
    // A start that lies ahead, so that a slow test does not make the guest old.
    dom0_agent::agent::lock(&host.guests()[0]).started = Some(Instant::now() + AHEAD);
    host.machine(domid).kernel.reboot();
    host.settle();
    assert_eq!(host.agent.guests()[0].domid, Some(domid));
    host.pass(AHEAD + Duration::from_secs(2));
    host.settle();
    assert_ne!(host.agent.guests()[0].domid, Some(domid));
    clean_up(host);
}

#[test]
fn a_protected_guest_that_failed_is_the_monitors() {
    for reason in [ShutdownReason::Crash, ShutdownReason::Watchdog] {
        let mut host = stopped("protect=\"restart\"", reason);
        host.settle();
        assert!(matches!(
            host.events()[..],
            [Event::ShutDown {
                domid: DomId(1),
                ..
            }]
        ));
        let uuid = host.uuid(DomId(1));
        // Decided about another domain than there is now: nothing is done.
        assert_eq!(
            host.agent.restart(uuid, Some(DomId(9)), "late").unwrap(),
            None
        );
        let new = host
            .agent
            .restart(uuid, Some(DomId(1)), "it crashed")
            .unwrap();
        assert_eq!(new, Some(DomId(2)));
        host.settle();
        assert!(host.machine(DomId(2)).is_connected());
        clean_up(host);
    }
}

#[test]
fn without_a_monitor_a_protected_guest_is_started_again_by_the_agent() {
    let mut host = stopped(
        "protect=\"restart\"\non_crash=\"destroy\"",
        ShutdownReason::Crash,
    );
    host.settle();
    host.pass(MONITOR_GRACE / 2);
    host.settle();
    assert_eq!(host.agent.guests()[0].domid, Some(DomId(1)));
    host.pass(MONITOR_GRACE / 2);
    host.settle();
    assert_eq!(host.agent.guests()[0].domid, Some(DomId(2)));
    clean_up(host);
}

#[test]
fn a_monitor_may_take_its_time_but_not_go_away() {
    let mut host = stopped("protect=\"restart\"", ShutdownReason::Crash);
    host.watch(true);
    for _ in 0..20 {
        host.settle();
        host.pass(MONITOR_GRACE);
    }
    assert_eq!(host.agent.guests()[0].domid, Some(DomId(1)));
    host.watch(false);
    host.settle();
    host.pass(MONITOR_GRACE);
    host.settle();
    assert_eq!(host.agent.guests()[0].domid, Some(DomId(2)));
    clean_up(host);
}

/// Its restart failed, and the monitor that was to try again went away.
#[test]
fn a_waiting_guest_without_a_monitor_is_started_again() {
    let mut host = stopped("protect=\"restart\"", ShutdownReason::Crash);
    let uuid = host.uuid(DomId(1));
    let fault = xen_sim::Fault::at(0, xen_sim::FaultKind::Fail(nix::errno::Errno::ENOMEM));
    host.world
        .inject(fault.of(xen_sim::Filter::process("agent").ops(&["createdomain"])));
    host.agent
        .restart(uuid, Some(DomId(1)), "crashed")
        .unwrap_err();
    assert_eq!(host.agent.guests()[0].state, GuestState::Waiting);
    host.settle();
    host.pass(MONITOR_GRACE);
    host.settle();
    assert_eq!(host.agent.guests()[0].state, GuestState::Running);
    clean_up(host);
}

#[test]
fn a_protected_guest_obeys_its_own_power_button() {
    let mut host = stopped("protect=\"restart\"", ShutdownReason::Poweroff);
    host.settle();
    host.assert_clean();
}

#[test]
fn a_shutdown_that_is_asked_for_goes_through_the_guest() {
    for (word, left) in [("poweroff", 0), ("reboot", 1)] {
        let mut host = Host::new();
        let config = host.equipped("pvh", "web1", "on_reboot=\"restart\"");
        let domid = host.start(config);
        host.pass(WHILE_RUNNING);
        let path = format!("/local/domain/{domid}/control/shutdown");
        let judge = host.world.host("xl");
        xen_host::xenstore::store::StoreExt::write_text(
            &judge,
            xen_host::xenstore::store::TxId::NONE,
            &path,
            word,
        )
        .unwrap();
        host.settle();
        assert_eq!(host.agent.guests().len(), left, "{word}");
        clean_up(host);
    }
}

#[test]
fn a_domain_that_somebody_else_destroyed_is_cleaned_up_after() {
    let mut host = Host::new();
    let config = host.equipped("pv", "web1", "on_poweroff=\"restart\"");
    let domid = host.start(config);
    let stock = host.world.host("stock");
    xen_host::seam::DomainControl::destroy_domain(&stock, domid).unwrap();
    host.settle();
    assert_eq!(
        host.events().last(),
        Some(&Event::Gone {
            uuid: handle_of("web1", &host)
        })
    );
    host.assert_clean();
}

fn handle_of(name: &str, host: &Host) -> xen_abi::ids::Handle {
    xen_abi::ids::Handle(*host.config("pv", name, "").uuid.as_bytes())
}

#[test]
fn nobody_acts_on_the_events_of_an_unmanaged_guest() {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", "on_crash=\"restart\"");
    let options = CreateOptions {
        unmanaged: true,
        ..CreateOptions::default()
    };
    let domid = host.agent.create(config, options).unwrap();
    host.settle();
    host.machine(domid).kernel.crash();
    host.pass(Duration::from_secs(60));
    host.settle();
    assert!(
        host.world
            .domain(domid)
            .is_some_and(|info| info.shutdown == Some(ShutdownReason::Crash))
    );
    clean_up(host);
}

#[test]
fn a_restart_that_finds_no_memory_is_told_and_leaves_nothing() {
    let mut host = stopped("on_reboot=\"restart\"", ShutdownReason::Reboot);
    host.world.hog_memory(100);
    host.settle();
    assert!(matches!(host.events().last(), Some(Event::Gone { .. })));
    assert_eq!(host.agent.guests(), []);
    assert_eq!(host.left_files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(host.world.ledger().lines(), Vec::<String>::new());
}
