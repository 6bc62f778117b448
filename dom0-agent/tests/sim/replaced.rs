//! Drivers that die or are replaced on purpose, under a running guest.

use crate::devices::{DISK_BACK, GUEST, NET_BACK, end, running, second_disk};
use crate::support::Host;
use parapet_wire::agent::Event;
use parapet_wire::driver::OrderBody;
use xen_abi::ids::DomId;
use xen_sim::frontend::net::NetState;

/// States that both ends of a device go through, watched from outside.
fn states(host: &Host, back: &str) -> xen_host::xenstore::watch::Watch {
    let judge = host.world.host("judge");
    let watch = xen_host::seam::Store::watch(&judge, &format!("{back}/state")).unwrap();
    assert!(watch.try_next().is_some());
    watch
}

#[test]
fn a_driver_that_dies_is_replaced_without_a_word_to_the_guest() {
    let mut host = running("");
    let uuid = host.uuid(GUEST);
    let watches = [DISK_BACK, NET_BACK].map(|back| states(&host, back));
    host.events();
    for _ in 0..3 {
        host.yard.forget_told();
        host.yard.kill_driver(uuid);
        host.settle();
        let resumed = host
            .yard
            .told()
            .into_iter()
            .filter(|told| match &told.body {
                OrderBody::ConnectDisk(order) => order.resume,
                OrderBody::ConnectNet(order) => order.resume,
                _ => false,
            });
        assert_eq!(resumed.count(), 2);
        assert!(host.machine(GUEST).is_connected());
        assert!(matches!(host.events()[..], [Event::DriverReplaced { .. }]));
    }
    assert!(
        watches.iter().all(|watch| watch.try_next().is_none()),
        "a state was written"
    );
    drop(watches);
    end(host);
}

#[test]
fn a_disk_whose_medium_is_away_keeps_no_other_device_waiting() {
    let mut host = running("");
    host.agent.attach_disk(GUEST, &second_disk(&host)).unwrap();
    host.settle();
    let uuid = host.uuid(GUEST);
    let resumed = |host: &Host| -> Vec<u32> {
        let told = host.yard.told().into_iter();
        let disks = told.filter_map(|told| match told.body {
            OrderBody::ConnectDisk(order) => order.resume.then_some(order.devid),
            _ => None,
        });
        disks.collect()
    };
    let (medium, elsewhere) = (host.file("web1.img"), host.file("elsewhere"));
    std::fs::rename(&medium, &elsewhere).unwrap();
    host.yard.forget_told();
    host.yard.kill_driver(uuid);
    host.settle();
    assert_eq!(resumed(&host), [51728]);
    // As often as it looks and finds nothing.
    for _ in 0..2 {
        let again = host.agent.reap().unwrap();
        assert!(again.is_some(), "nobody would look again");
    }
    assert_eq!(resumed(&host), [51728]);
    std::fs::rename(&elsewhere, &medium).unwrap();
    host.agent.reap().unwrap();
    host.settle();
    assert_eq!(resumed(&host), [51728, 51712]);
    assert!(host.machine(GUEST).is_connected());
    assert_eq!(host.agent.reap().unwrap(), None);
    end(host);
}

#[test]
fn drivers_can_be_replaced_on_purpose() {
    let mut host = running("");
    let watch = states(&host, DISK_BACK);
    let before = host.yard.pid_of(host.uuid(GUEST));
    assert_eq!(host.agent.replace_drivers(None).unwrap(), 1);
    assert_eq!(host.agent.replace_drivers(Some(DomId(9))).unwrap(), 0);
    host.settle();
    assert_ne!(host.yard.pid_of(host.uuid(GUEST)), before);
    assert!(
        host.yard
            .told()
            .iter()
            .any(|told| told.body == OrderBody::Quiesce)
    );
    assert!(host.machine(GUEST).is_connected() && watch.try_next().is_none());
    drop(watch);
    end(host);
}

#[test]
fn a_driver_that_dies_while_nobody_looks_is_replaced_by_the_next_agent() {
    let mut host = running("");
    let uuid = host.uuid(GUEST);
    host.world.kill(&host.process);
    host.yard.disconnect_all();
    host.yard.kill_driver(uuid);
    host.next_agent();
    host.settle();
    assert!(host.machine(GUEST).is_connected());
    end(host);
}

#[test]
fn a_driver_that_lives_is_kept_by_the_next_agent() {
    let mut host = running("");
    let uuid = host.uuid(GUEST);
    let before = host.yard.pid_of(uuid);
    host.next_agent();
    host.settle();
    assert_eq!(host.yard.pid_of(uuid), before);
    let connects = host.yard.told().into_iter().filter(|told| {
        matches!(
            told.body,
            OrderBody::ConnectDisk(_) | OrderBody::ConnectNet(_) | OrderBody::OpenDisk(_)
        )
    });
    assert_eq!(connects.count(), 0, "what is served is left alone");
    host.yard.kill_driver(uuid);
    host.settle();
    assert!(host.machine(GUEST).is_connected());
    end(host);
}

#[test]
fn a_driver_that_refuses_is_quoted_and_only_its_device_suffers() {
    let mut host = Host::new();
    host.yard.refuse("OpenDisk", "the disk is cursed");
    let config = host.equipped("pvh", "web1", "");
    let refused = host.create(config).unwrap_err().to_string();
    assert!(refused.contains("the disk is cursed"), "{refused}");
    host.assert_clean();

    host.yard.refuse_nothing();
    host.yard.refuse("ConnectDisk", "no such ring");
    let config = host.equipped("pvh", "web1", "");
    let domid = host.create(config).unwrap();
    host.settle();
    let back = format!("/local/domain/0/backend/qdisk/{domid}/51712");
    let error = host.world.xs_read(&format!("{back}/error")).unwrap();
    assert!(error.contains("no such ring"), "{error}");
    assert_eq!(
        host.world.xs_read(&format!("{back}/state")).as_deref(),
        Some("6")
    );
    assert_eq!(host.machine(domid).nets[&0].state(), NetState::Connected);
    host.agent.destroy(domid).unwrap();
    host.assert_clean();
}
