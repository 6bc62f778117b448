//! Shutdowns straight from Xen: a guest that stops is dealt with although xenstored says nothing, and where Xen cannot tell, xenstored still does.

use crate::support::{Host, Setup};
use dom0_agent::agent::bell::Bell;
use dom0_agent::daemon::alive::Pulse;
use dom0_agent::daemon::{Shared, watcher};
use parapet_wire::agent::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;
use xen_sim::{Fault, FaultKind, Filter};

const GUEST: DomId = DomId(1);
/// Longest wait for something that happens within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn host(patched: bool) -> Host {
    let mut host = Host::with(Setup {
        patched,
        ..Setup::default()
    });
    let config = host.equipped("pvh", "web1", "protect=\"restart\"");
    assert_eq!(host.start(config), GUEST);
    host.watch(true);
    host.events();
    host
}

fn bell(host: &Host) -> Bell {
    let bell = Bell::hang(&host.process, Arc::new(host.process.clone())).unwrap();
    // A fresh pair of ports is no ring.
    assert!(!bell.rang(Some(Duration::ZERO)).unwrap());
    bell
}

fn end(mut host: Host) {
    for guest in host.agent.guests() {
        host.agent.destroy(guest.domid.unwrap()).unwrap();
    }
    host.settle();
    host.assert_clean();
}

/// The daemon's own loops around the agent of `host`, until `done`.
fn with_loops(
    host: &Host,
    bell: Option<Bell>,
    begun: impl FnOnce(),
    done: impl Fn() -> bool,
) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let shared = Shared {
        look: Arc::default(),
        agent: Arc::clone(&host.agent),
        events: tokio::sync::broadcast::channel(1).0,
        xen: "4.20".into(),
        bell: bell.map(Arc::new),
    };
    let pulse = Pulse::default();
    let (news, heard) = mpsc::unbounded_channel();
    runtime.spawn(watcher::news(shared.clone(), heard, pulse.clone()));
    let uuid = host.uuid(GUEST);
    let started = dom0_agent::agent::News::Started { uuid, domid: GUEST };
    news.send(started).unwrap();
    runtime.spawn(watcher::releases(shared, pulse));
    begun();
    let deadline = Instant::now() + PATIENCE;
    while !done() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    drop(runtime);
    done()
}

#[test]
fn it_rings_for_every_way_to_stop_and_for_nothing_else() {
    for reason in [
        ShutdownReason::Poweroff,
        ShutdownReason::Reboot,
        ShutdownReason::Crash,
        ShutdownReason::Watchdog,
    ] {
        let host = host(true);
        let bell = bell(&host);
        assert!(bell.listen(GUEST).unwrap());
        assert!(bell.listen(GUEST).unwrap(), "asking again is harmless");
        assert!(!bell.rang(Some(Duration::ZERO)).unwrap());
        host.world.shut_down(GUEST, reason).unwrap();
        assert!(bell.rang(Some(Duration::ZERO)).unwrap(), "{reason:?}");
        assert!(!bell.rang(Some(Duration::ZERO)).unwrap(), "once");
        // A successor that comes too late is told at once.
        let next = self::bell(&host);
        assert!(next.listen(GUEST).unwrap());
        assert!(next.rang(Some(Duration::ZERO)).unwrap());
        assert!(next.listen(DomId(77)).is_err(), "no such domain");
        drop((bell, next));
        end(host);
    }
}

#[test]
fn where_xen_cannot_tell_it_hangs_there_and_never_rings() {
    let host = host(false);
    let bell = bell(&host);
    assert!(!bell.listen(GUEST).unwrap());
    host.world.shut_down(GUEST, ShutdownReason::Crash).unwrap();
    assert!(!bell.rang(Some(Duration::ZERO)).unwrap());
    drop(bell);
    end(host);
}

#[test]
fn a_crash_is_reported_although_xenstored_says_nothing() {
    let host = host(true);
    let silent = Fault::at(0, FaultKind::LoseWatch).of(Filter::process("agent").ops(&["xs.event"]));
    let bell = bell(&host);
    // Whether the daemon listens before or after the crash is the same.
    let crash = || {
        host.world.inject(silent.times(u64::MAX));
        host.world.shut_down(GUEST, ShutdownReason::Crash).unwrap();
    };
    let told = std::cell::Cell::new(false);
    let seen = || {
        told.set(told.get() || host.events().iter().any(is_shutdown));
        told.get()
    };
    assert!(with_loops(&host, Some(bell), crash, seen));
    host.world.clear_faults();
    // The thread at the bell ends with its process.
    let mut host = host;
    host.next_agent();
    end(host);
}

#[test]
fn without_the_patch_xenstored_is_enough() {
    let mut host = host(false);
    let bell = bell(&host);
    let crash = || host.world.shut_down(GUEST, ShutdownReason::Crash).unwrap();
    let told = std::cell::Cell::new(false);
    let seen = || {
        told.set(told.get() || host.events().iter().any(is_shutdown));
        told.get()
    };
    assert!(with_loops(&host, Some(bell), crash, seen));
    host.next_agent();
    end(host);
}

fn is_shutdown(event: &Event) -> bool {
    matches!(
        event,
        Event::ShutDown {
            domid: GUEST,
            reason: ShutdownReason::Crash,
            ..
        }
    )
}
