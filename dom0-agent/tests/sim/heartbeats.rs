//! Heartbeats of several guests: read together, told once, also while something is being done to a guest.

use crate::support::Host;
use dom0_agent::agent::handle;
use dom0_agent::agent::heartbeats::Heartbeats;
use parapet_wire::agent::{Event, Heartbeat};
use std::cell::Cell;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, StoreOp, StoreReply, TxId};

#[test]
fn all_heartbeats_are_read_at_once_and_told_when_they_move() {
    let mut host = Host::new();
    let [one, two] = ["one", "two"].map(|name| {
        let config = host.config("pvh", name, "protect_heartbeat_timeout=4");
        host.start(config)
    });
    let guests = host.agent.shared_guests();
    let store = &host.agent.seams().store;
    let beat = |domid: DomId, value: &str| {
        let path = format!("/local/domain/{}/data/parapet/heartbeat", domid.0);
        store.write_text(TxId::NONE, &path, value).unwrap();
    };
    let uuids = [one, two].map(|domid| host.uuid(domid));
    let told = |domid, counter| Heartbeat {
        uuid: handle(uuids[usize::from(domid == two)]),
        counter,
    };
    let mut heartbeats = Heartbeats::default();
    let telling = Cell::new(0);
    let mut look = || {
        let nodes = heartbeats.nodes(&guests, telling.get());
        let ops: Vec<_> = nodes.into_iter().map(StoreOp::Read).collect();
        let replies = store.call(TxId::NONE, &ops).unwrap().into_iter();
        let value = |reply| match reply {
            StoreReply::Value(value) => value,
            other => panic!("{other:?} to a read"),
        };
        heartbeats.hear(replies.map(|reply| reply.map(value)).collect())
    };

    assert_eq!(look(), [], "nobody has said anything");
    beat(one, "1");
    beat(two, "lies");
    assert_eq!(look(), [Event::Heartbeats(vec![told(one, 1)])]);
    assert_eq!(look(), [], "a beat is told once");

    beat(one, "2");
    beat(two, "7");
    // Something is being done to the first: where it runs is known.
    let busy = guests.iter().find(|(uuid, _)| *uuid == uuids[0]);
    let busy = busy.unwrap().1.lock().unwrap();
    let mut both = vec![told(one, 2), told(two, 7)];
    both.sort_by_key(|beat| beat.uuid);
    assert_eq!(look(), [Event::Heartbeats(both)]);
    drop(busy);

    beat(two, "stopped");
    let uuid = told(two, 0).uuid;
    let goodbye = Event::HeartbeatStopped { uuid };
    assert_eq!(look(), std::slice::from_ref(&goodbye));
    assert_eq!(look(), []);

    telling.set(1);
    let again = [goodbye, Event::Heartbeats(vec![told(one, 2)])];
    assert_eq!(look(), again, "who begins to listen hears everything");
    assert_eq!(look(), []);
    assert_eq!(heartbeats.pause(), Duration::from_millis(500));
    for domid in [one, two] {
        host.agent.destroy(domid).unwrap();
    }
    host.settle();
    host.assert_clean();
}
