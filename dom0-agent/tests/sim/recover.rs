//! What the next agent makes of what it finds.

use crate::support::Host;
use dom0_agent::agent::record::{Record, Stage};
use parapet_wire::agent::{GuestState, Protection};
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, TxId};
use xen_sim::GuestSpec;

fn running(lines: &str) -> Host {
    let mut host = Host::new();
    let config = host.equipped("pv", "web1", lines);
    host.start(config);
    host
}

fn record_of(host: &Host, change: impl Fn(&mut serde_json::Value)) {
    let directory = host.dirs.state.join("guests");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut record);
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    }
}

#[test]
fn a_running_guest_is_adopted_and_obeys_as_before() {
    let mut host = running("on_reboot=\"restart\"");
    let before = host.agent.guests();
    host.next_agent();
    host.settle();
    assert_eq!(host.agent.guests(), before);
    host.pass(std::time::Duration::from_secs(5));
    host.machine(DomId(1)).kernel.reboot();
    host.settle();
    assert!(host.machine(DomId(2)).is_connected());
    host.machine(DomId(2)).kernel.power_off();
    host.settle();
    host.assert_clean();
}

#[test]
fn a_guest_that_stopped_while_no_agent_looked_is_dealt_with() {
    for (lines, left) in [("on_crash=\"restart\"", 1), ("on_crash=\"destroy\"", 0)] {
        let mut host = running(lines);
        host.machine(DomId(1)).kernel.crash();
        host.next_agent();
        host.pass(std::time::Duration::from_secs(5));
        host.settle();
        assert_eq!(host.agent.guests().len(), left, "{lines}");
        for guest in host.agent.guests() {
            host.agent.destroy(guest.domid.unwrap()).unwrap();
        }
        host.assert_clean();
    }
}

#[test]
fn a_guest_that_vanished_while_no_agent_looked_is_forgotten() {
    let mut host = running("");
    let stock = host.world.host("stock");
    xen_host::seam::DomainControl::destroy_domain(&stock, DomId(1)).unwrap();
    host.next_agent();
    host.settle();
    host.assert_clean();
}

/// After the host was booted again, or domain numbers wrapped: the number in a record may be anybody's.
#[test]
fn a_domain_of_somebody_else_is_never_touched() {
    for stage in [
        Stage::Building,
        Stage::Running,
        Stage::Waiting,
        Stage::Dying,
    ] {
        let mut host = Host::new();
        let stranger = host.world.spawn(&GuestSpec::pvh("stranger"));
        let before = host.world.xs_tree("/local/domain/1");
        let config = host.equipped("pvh", "web1", "protect=\"restart\"");
        let mut record = Record::new(config, false);
        record.stage = stage;
        record.domid = Some(stranger.domid());
        let path = host.dirs.state.join(format!("guests/{}.json", record.key));
        std::fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
        host.next_agent();
        host.tend();
        let info = host.world.domain(stranger.domid()).unwrap();
        assert!(!info.paused && !info.dying, "{stage:?}");
        assert_eq!(host.world.xs_tree("/local/domain/1"), before, "{stage:?}");
        host.world.destroy_guest(stranger.domid());
        for guest in host.guests() {
            host.agent.give_up(dom0_agent::agent::lock(&guest)).unwrap();
        }
        host.assert_clean();
    }
}

#[test]
fn a_guest_of_a_uuid_that_somebody_else_has_is_refused() {
    let host = Host::new();
    let stranger = host.world.spawn(&GuestSpec::pvh("stranger"));
    let handle = host.world.domain(stranger.domid()).unwrap().handle;
    // It could not even be built: its undoing must not find the stranger.
    let mut config = host.config("pvh", "web1", "");
    config.uuid = uuid::Uuid::from_bytes(handle.0);
    config.boot.kernel = Some("/no/kernel".into());
    let refused = host.create(config).unwrap_err().to_string();
    assert!(
        refused.contains("uuid") && refused.contains("stranger"),
        "{refused}"
    );
    assert!(!host.world.domain(stranger.domid()).unwrap().dying);
    host.world.destroy_guest(stranger.domid());
    host.assert_clean();
}

#[test]
fn half_written_and_damaged_records_harm_nobody() {
    let mut host = running("");
    let guests = host.dirs.state.join("guests");
    std::fs::write(
        guests.join("0d8e8c1c-0000-0000-0000-000000000000.new"),
        b"{",
    )
    .unwrap();
    std::fs::write(
        guests.join("0d8e8c1c-0000-0000-0000-000000000001.json"),
        b"{}",
    )
    .unwrap();
    std::fs::write(
        guests.join("0d8e8c1c-0000-0000-0000-000000000002.json"),
        vec![b' '; 5 << 20],
    )
    .unwrap();
    host.next_agent();
    host.settle();
    assert_eq!(host.agent.guests().len(), 1);
    host.agent.destroy(DomId(1)).unwrap();
    let mut left: Vec<_> = host
        .left_files()
        .iter()
        .map(|path| path.extension().unwrap().to_owned())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["bad", "bad"],
        "damaged ones are kept for a person to look at"
    );
}

#[test]
fn a_record_of_another_version_is_set_aside_and_its_guest_lives() {
    let mut host = running("");
    record_of(&host, |record| record["version"] = 77.into());
    host.next_agent();
    host.settle();
    assert_eq!(host.agent.guests(), []);
    assert!(!host.world.domain(DomId(1)).unwrap().dying);
}

#[test]
fn names_follow_who_changed_them_last() {
    let mut host = running("");
    host.agent.rename(DomId(1), "web2").unwrap();
    assert_eq!(host.agent.guests()[0].name, "web2");
    host.next_agent();
    assert_eq!(host.agent.guests()[0].name, "web2");
    // Stock xl renames in xenstore only.
    let stock = host.world.host("stock");
    stock
        .write_text(TxId::NONE, "/local/domain/1/name", "web3")
        .unwrap();
    host.next_agent();
    assert_eq!(host.agent.guests()[0].name, "web3");
    for (name, word) in [("", "empty"), ("web3", "exists"), ("Domain-0", "exists")] {
        let refused = host.agent.rename(DomId(1), name).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    host.agent.destroy(DomId(1)).unwrap();
    host.assert_clean();
}

#[test]
fn protection_outlives_the_agent() {
    let mut host = running("");
    let uuid = host.uuid(DomId(1));
    let watching = parapet_wire::agent::Watching {
        heartbeat_timeout_ms: Some(4500),
        probes: vec!["tcp:10.0.0.5:80".into(), "ping:[fe80::1]".into()],
        max_restarts: Some(3),
    };
    host.agent
        .protect(uuid, Protection::Restart, Some(&watching))
        .unwrap();
    let before = host.agent.guests();
    host.next_agent();
    assert_eq!(host.agent.guests(), before);
    assert_eq!(before[0].protection, Protection::Restart);
    assert_eq!(
        before[0].watching.heartbeat_timeout_ms,
        Some(5000),
        "whole seconds, rounded up"
    );
    let bad = parapet_wire::agent::Watching {
        probes: vec!["gopher:x".into()],
        ..watching
    };
    let refused = host
        .agent
        .protect(uuid, Protection::None, Some(&bad))
        .unwrap_err();
    assert!(refused.to_string().contains("gopher:x"));
    assert_eq!(host.agent.guests(), before, "nothing of it is done");
    host.agent.destroy(DomId(1)).unwrap();
    host.assert_clean();
}

#[test]
fn a_waiting_protected_guest_waits_on() {
    let mut host = running("protect=\"restart\"");
    let uuid = host.uuid(DomId(1));
    host.world.hog_memory(64);
    host.machine(DomId(1)).kernel.crash();
    host.agent
        .restart(uuid, Some(DomId(1)), "crashed")
        .unwrap_err();
    host.next_agent();
    host.settle();
    let guest = host.agent.guests().remove(0);
    assert_eq!((guest.domid, guest.state), (None, GuestState::Waiting));
    let shared = host.agent.by_uuid(uuid).unwrap();
    host.agent
        .give_up(dom0_agent::agent::lock(&shared))
        .unwrap();
    assert_eq!(host.left_files(), Vec::<std::path::PathBuf>::new());
}
