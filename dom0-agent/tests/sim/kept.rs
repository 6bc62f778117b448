//! `rename-restart`: what stopped is kept under another name and bothers nobody, and the guest comes back whatever goes wrong meanwhile.

use crate::support::Host;
use crate::support::desk::Desk;
use crate::support::faults::{with_each_death, with_each_failure};
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::kept::MAX_KEPT;
use parapet_wire::agent::{Event, Guest, GuestState};
use std::time::Duration;
use uuid::Uuid;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;

const FIRST: DomId = DomId(1);
const WHILE_RUNNING: Duration = Duration::from_secs(5);
/// Longer than any pause the agent makes by itself.
const LATER: Duration = Duration::from_secs(60);

/// A guest that has run for a while and crashes.
fn crashed(lines: &str) -> Host {
    let mut host = Host::new();
    let config = host.equipped(
        "pvh",
        "web1",
        &format!("on_crash=\"rename-restart\"\n{lines}"),
    );
    host.start(config);
    host.yard.forget_told();
    crash(&mut host, FIRST);
    host
}

fn crash(host: &mut Host, domid: DomId) {
    host.pass(WHILE_RUNNING);
    host.machine(domid).kernel.crash();
}

fn the_guest(host: &Host) -> Guest {
    let mut all = host.agent.guests();
    all.retain(|guest| guest.name == "web1");
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Names and domains of everything that is no guest's and not dom0.
fn kept(host: &Host) -> Vec<(String, DomId)> {
    let guests = host.agent.guests();
    let theirs = |domid| guests.iter().any(|guest| guest.domid == Some(domid));
    let domids = host.world.domains().into_iter();
    let others = domids.filter(|domid| *domid != DomId::DOM0 && !theirs(*domid));
    let name = |domid: DomId| {
        let name = host.world.xs_read(&format!("/local/domain/{domid}/name"));
        (name.unwrap_or_default(), domid)
    };
    others.map(name).collect()
}

/// It stopped, has names of its own, and no device.
#[track_caller]
fn assert_kept(host: &Host, name: &str, domid: DomId) {
    let info = host.world.domain(domid).unwrap();
    assert_eq!(info.shutdown, Some(ShutdownReason::Crash));
    let uuid = Uuid::from_bytes(info.handle.0);
    assert_ne!(info.handle, the_guest(host).uuid);
    let read = |path: &str| host.world.xs_read(path).unwrap_or_default();
    let root = format!("/local/domain/{domid}");
    assert_eq!(read(&format!("{root}/name")), name);
    assert_eq!(read(&format!("{root}/vm")), format!("/vm/{uuid}"));
    assert_eq!(read(&format!("/vm/{uuid}/name")), name);
    for devices in [
        format!("{root}/device"),
        format!("{root}/console"),
        format!("/libxl/{domid}/device"),
        format!("/local/domain/0/backend/qdisk/{domid}"),
    ] {
        assert_eq!(host.world.xs_tree(&devices), Vec::<String>::new());
    }
    let json = host
        .dirs
        .userdata
        .join(format!("userdata-d.{domid}.{uuid}.libxl-json"));
    assert!(std::fs::read_to_string(json).unwrap().contains(name));
}

/// Everything goes, and nothing stays behind.
fn clean_up(mut host: Host) {
    for (_, domid) in kept(&host) {
        host.agent.destroy(domid).unwrap();
    }
    let domid = the_guest(&host).domid.unwrap();
    host.machine(domid).kernel.power_off();
    host.settle();
    host.assert_clean();
}

#[test]
fn what_stopped_is_kept_and_the_guest_has_its_name_and_its_devices_again() {
    let mut host = crashed("");
    let before = the_guest(&host);
    let handle = host.world.domain(FIRST).unwrap().handle;
    host.settle();
    let guest = the_guest(&host);
    assert_eq!((guest.uuid, &guest.name), (before.uuid, &before.name));
    let domid = guest.domid.unwrap();
    assert_ne!(domid, FIRST);
    assert_eq!(host.world.domain(domid).unwrap().handle, handle);
    assert!(host.machine(domid).is_connected());
    assert_eq!(host.yard.taps(), [format!("vif{domid}.0")]);
    assert_kept(&host, "web1-1", FIRST);
    let events = host.events();
    let gone = events
        .iter()
        .any(|event| matches!(event, Event::Gone { .. }));
    assert!(!gone, "{events:?}");
    clean_up(host);
}

/// Nothing is known of it that an agent could forget, and nothing is done about it.
#[test]
fn nobody_is_concerned_with_what_is_kept() {
    let mut host = crashed("");
    host.settle();
    for _ in 0..3 {
        host.next_agent();
        host.pass(LATER);
        host.settle();
        assert_kept(&host, "web1-1", FIRST);
        assert_eq!(the_guest(&host).state, GuestState::Running);
    }
    let refused = host.agent.attach_net(FIRST, &Default::default());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("kept"), "{refused}");
    clean_up(host);
}

#[test]
fn the_first_free_name_is_taken_and_nobody_else_gets_it() {
    let mut host = crashed("");
    let other = host.config("pvh", "web1-1", "");
    let other = host.create(other).unwrap();
    host.settle();
    assert_kept(&host, "web1-2", FIRST);
    let late = host.config("pvh", "web1-2", "");
    let refused = host.create(late).unwrap_err();
    assert!(matches!(refused, AgentError::NameInUse { .. }), "{refused}");
    host.agent.destroy(other).unwrap();
    crash(&mut host, DomId(3));
    host.settle();
    assert_kept(&host, "web1-1", DomId(3));
    clean_up(host);
}

#[test]
fn there_are_never_more_copies_than_the_limit() {
    let mut host = crashed("");
    host.settle();
    for _ in 1..MAX_KEPT {
        let domid = the_guest(&host).domid.unwrap();
        crash(&mut host, domid);
        host.settle();
    }
    let all = kept(&host);
    assert_eq!(all.len(), MAX_KEPT, "{all:?}");
    let last = the_guest(&host).domid.unwrap();
    crash(&mut host, last);
    host.settle();
    assert_eq!(kept(&host), all, "as with restart");
    assert_eq!(host.world.domain(last), None);
    host.agent.destroy(all[1].1).unwrap();
    let last = the_guest(&host).domid.unwrap();
    crash(&mut host, last);
    host.settle();
    assert_kept(&host, &all[1].0, last);
    clean_up(host);
}

#[test]
fn only_what_stopped_in_that_way_is_kept() {
    // The monitor restarts a guest that hangs: it did not stop.
    let mut host = Host::new();
    let config = host.equipped(
        "pv",
        "web1",
        "on_crash=\"rename-restart\"\non_reboot=\"restart\"\nprotect=\"restart\"",
    );
    let uuid = config.uuid;
    host.start(config);
    host.agent.restart(uuid, Some(FIRST), "it hangs").unwrap();
    host.settle();
    assert_eq!(kept(&host), []);
    let domid = the_guest(&host).domid.unwrap();
    host.pass(WHILE_RUNNING);
    host.machine(domid).kernel.reboot();
    host.settle();
    assert_eq!(kept(&host), []);
    // It crashes, and the monitor restarts it.
    host.watch(true);
    let domid = the_guest(&host).domid.unwrap();
    crash(&mut host, domid);
    host.settle();
    assert_eq!(the_guest(&host).domid, Some(domid));
    host.agent.restart(uuid, Some(domid), "it crashed").unwrap();
    host.settle();
    assert_kept(&host, "web1-1", domid);
    host.watch(false);
    clean_up(host);
}

// ---- memory ----

/// Pages that are too few for the guest.
const TOO_FEW: u64 = 2048;

#[test]
fn what_is_kept_goes_when_its_guest_needs_the_memory() {
    let mut host = crashed("");
    host.settle();
    let domid = the_guest(&host).domid.unwrap();
    crash(&mut host, domid);
    host.world.hog_memory(TOO_FEW);
    host.settle();
    let last = the_guest(&host);
    assert_eq!(last.state, GuestState::Running);
    assert_kept(&host, "web1-1", FIRST);
    assert_eq!(kept(&host).len(), 1, "the newest went");
    clean_up(host);
}

/// Somebody else's creation does not cost a guest its copies.
#[test]
fn what_is_kept_stays_when_another_guest_needs_memory() {
    let mut host = crashed("");
    host.settle();
    let large = host.config("pvh", "large", "memory=230");
    host.create(large).unwrap_err();
    assert_kept(&host, "web1-1", FIRST);
    clean_up(host);
}

// ---- whatever goes wrong ----

/// The agent notices the end, and starts the guest again.
fn let_it_come_back(host: &mut Host) -> Result<(), AgentError> {
    host.tend();
    Ok(())
}

/// One guest, at work, and at most one copy, whole.
#[track_caller]
fn assert_back(host: &mut Host) {
    host.settle();
    host.pass(LATER);
    host.settle();
    let domid = the_guest(host).domid.expect("the guest is lost");
    assert_ne!(domid, FIRST);
    assert!(host.machine(domid).is_connected());
    match kept(host).as_slice() {
        [] => assert_eq!(host.world.domain(FIRST), None),
        [(name, FIRST)] if name == "web1-1" => assert_kept(host, name, FIRST),
        other => panic!("{other:?}"),
    }
    for (_, domid) in kept(host) {
        host.agent.destroy(domid).unwrap();
    }
    host.machine(domid).kernel.power_off();
    host.settle();
    host.assert_clean();
}

#[test]
fn an_agent_that_dies_while_it_keeps_what_stopped_brings_the_guest_back() {
    with_each_death(
        || crashed(""),
        let_it_come_back,
        |host| {
            host.settle();
            // A death is no failure: what was to be kept is.
            assert_kept(host, "web1-1", FIRST);
            assert_back(host);
        },
    );
}

#[test]
fn a_protected_guest_comes_back_whatever_fails() {
    let prepare = || {
        let mut host = crashed("protect=\"restart\"");
        host.settle();
        host.pass(LATER);
        host
    };
    with_each_failure("agent", prepare, let_it_come_back, |host, _| {
        assert_back(host)
    });
}

/// As with `restart`: a guest that nobody protects is given up when it cannot be started again. What is kept of it stays.
#[test]
fn whatever_fails_nothing_is_left_but_a_guest_or_a_copy() {
    with_each_failure(
        "agent",
        || crashed(""),
        let_it_come_back,
        |host, _| {
            host.settle();
            host.pass(LATER);
            host.settle();
            if host.agent.guests().is_empty() {
                for domid in host.world.domains() {
                    if domid != DomId::DOM0 {
                        assert_eq!(domid, FIRST);
                        host.agent.destroy(domid).unwrap();
                    }
                }
                host.assert_clean();
            } else {
                assert_back(host);
            }
        },
    );
}

// ---- the commands ----

#[test]
fn the_commands_see_it_by_its_name_and_destroy_it() {
    let mut desk = Desk::new();
    let config = desk
        .host
        .equipped("pvh", "web1", "on_crash=\"rename-restart\"");
    desk.host.start(config);
    crash(&mut desk.host, FIRST);
    desk.host.settle();
    let listed = desk.xl("list");
    assert!(
        listed.out.contains("web1-1 ") && listed.out.contains("web1 "),
        "{listed:?}"
    );
    let path = desk.host.file("core");
    let dumped = desk.xl(&format!("dump-core web1-1 {}", path.display()));
    assert_eq!(dumped.code, 0, "{dumped:?}");
    let destroyed = desk.xl("destroy web1-1");
    assert_eq!(destroyed.code, 0, "{destroyed:?}");
    assert_eq!(kept(&desk.host), []);
    let domid = the_guest(&desk.host).domid.unwrap();
    desk.host.agent.destroy(domid).unwrap();
    desk.stop_agent();
    desk.host.settle();
    desk.host.assert_clean();
}
