//! The shared client against a xenstored that misbehaves.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod support;

use nix::errno::Errno;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::FakeXenstored;
use xen_abi::ids::{DomId, Port};
use xen_abi::xs_wire::Request;
use xen_host::xenstore::client::Client;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{
    Access, Permission, Store, StoreExt, StoreOp, StoreReply, TRANSACTION_ATTEMPTS, TxId,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn connected() -> (FakeXenstored, Client) {
    let server = FakeXenstored::start();
    let client = Client::connect_to(server.endpoints()).unwrap();
    (server, client)
}

fn write(path: &str, value: &str) -> StoreOp {
    StoreOp::Write(path.into(), value.into())
}

#[test]
fn a_whole_tree_costs_one_write() {
    let (server, client) = connected();
    let before = xen_host::xenstore::round_trips();
    let mut ops: Vec<StoreOp> = (0..200)
        .map(|i| write(&format!("/a/{i}"), &i.to_string()))
        .collect();
    ops.push(StoreOp::Read("/a/7".into()));
    ops.push(StoreOp::Read("/missing".into()));
    ops.push(StoreOp::Remove("/missing".into()));
    ops.push(StoreOp::Read("/not a path".into()));
    let answers = client.call(TxId::NONE, &ops).unwrap();
    assert_eq!(xen_host::xenstore::round_trips() - before, 1);
    assert_eq!(answers.len(), ops.len());
    assert!(
        answers[..200]
            .iter()
            .all(|answer| *answer == Ok(StoreReply::Done))
    );
    assert_eq!(answers[200], Ok(StoreReply::Value(b"7".to_vec())));
    assert!(answers[201].as_ref().unwrap_err().is_missing());
    assert_eq!(
        answers[202],
        Ok(StoreReply::Done),
        "removing nothing is fine"
    );
    assert!(matches!(answers[203], Err(StoreError::Malformed { .. })));
    assert_eq!(server.value("/a/199").as_deref(), Some("199"));
}

#[test]
fn permissions_are_set_and_read_back() {
    let (_server, client) = connected();
    let wanted = vec![
        Permission::new(Access::None, DomId(0)),
        Permission::new(Access::Read, DomId(5)),
    ];
    let ops = [
        write("/p", ""),
        StoreOp::SetPermissions("/p".into(), wanted.clone()),
    ];
    client.commit("permissions", &ops).unwrap();
    let answer = client.one(TxId::NONE, StoreOp::GetPermissions("/p".into()));
    assert_eq!(answer, Ok(StoreReply::Permissions(wanted)));
}

#[test]
fn a_directory_longer_than_a_message_is_read_in_parts() {
    let (server, client) = connected();
    for i in 0..900 {
        server.set(&format!("/big/child-{i}"), "");
    }
    let names: BTreeSet<String> = client
        .list(TxId::NONE, "/big")
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(names.len(), 900);
    assert!(names.contains("child-899"));
    let parts = server
        .requests()
        .iter()
        .filter(|each| matches!(each, Request::DirectoryPart(..)))
        .count();
    assert!(parts >= 2, "{parts}");
}

#[test]
fn a_transaction_is_repeated_until_it_meets_no_conflict_or_gives_up() {
    let (server, client) = connected();
    server.faults(|faults| faults.conflicts = 3);
    let mut runs = 0;
    client
        .transaction("test", |store, tx| {
            runs += 1;
            store.write_text(tx, "/t", &runs.to_string())
        })
        .unwrap();
    assert_eq!((runs, server.value("/t").as_deref()), (4, Some("4")));
    server.faults(|faults| faults.conflicts = 1000);
    let error = client.commit("hopeless", &[write("/t", "x")]).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Conflict {
            attempts: TRANSACTION_ATTEMPTS,
            ..
        }
    ));
    assert_eq!(server.value("/t").as_deref(), Some("4"));
}

#[test]
fn an_aborted_transaction_changes_nothing() {
    let (server, client) = connected();
    let tx = client.begin().unwrap();
    client.write_text(tx, "/t", "inside").unwrap();
    assert_eq!(
        client.read_text(tx, "/t").unwrap().as_deref(),
        Some("inside")
    );
    assert_eq!(client.read_text(TxId::NONE, "/t").unwrap(), None);
    assert!(client.end(tx, false).unwrap());
    assert_eq!(server.value("/t"), None);
    let error = client.write_text(tx, "/t", "late").unwrap_err();
    assert_eq!(
        error.errno(),
        Some(Errno::ENOENT),
        "that transaction is over"
    );
}

#[test]
fn a_silent_xenstored_costs_the_deadline_and_not_more() {
    let (server, client) = connected();
    server.set("/ok", "1");
    server.faults(|faults| faults.silent.push("/hole".into()));
    client.set_deadline(Duration::from_millis(50));
    let started = Instant::now();
    let ops = [StoreOp::Read("/ok".into()), StoreOp::Read("/hole".into())];
    let answers = client.call(TxId::NONE, &ops).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(
        answers[0],
        Ok(StoreReply::Value(b"1".to_vec())),
        "what did come is given"
    );
    let error = answers[1].as_ref().unwrap_err();
    assert!(
        matches!(error, StoreError::Deadline { millis: 50, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("/hole"), "{error}");
    client.set_deadline(PATIENCE);
    assert_eq!(
        client.read_text(TxId::NONE, "/ok").unwrap().as_deref(),
        Some("1")
    );
}

#[test]
fn a_lost_connection_fails_what_waits_and_serves_the_next_call() {
    let (server, client) = connected();
    server.set("/ok", "1");
    server.faults(|faults| faults.drop_after = Some(1));
    let ops = [
        StoreOp::Read("/ok".into()),
        StoreOp::Read("/ok".into()),
        StoreOp::Read("/ok".into()),
    ];
    let answers = client.call(TxId::NONE, &ops).unwrap();
    let lost = answers
        .iter()
        .filter(|each| matches!(each, Err(StoreError::Lost { .. })))
        .count();
    assert!(lost >= 2, "{answers:?}");
    assert_eq!(
        client.read_text(TxId::NONE, "/ok").unwrap().as_deref(),
        Some("1")
    );
}

#[test]
fn a_transaction_that_outlived_its_connection_is_to_be_done_again() {
    let (server, client) = connected();
    let mut runs = 0;
    client
        .transaction("test", |store, tx| {
            runs += 1;
            store.write_text(tx, "/t/a", &runs.to_string())?;
            if runs == 1 {
                server.drop_connections();
                server.wait_until(|server| server.connections() == 1);
            }
            store.write_text(tx, "/t/b", &runs.to_string())
        })
        .unwrap();
    assert_eq!(runs, 2);
    assert_eq!(server.value("/t/b").as_deref(), Some("2"));
    let stale = client.begin().unwrap();
    server.drop_connections();
    server.wait_until(|server| server.connections() == 1);
    client.read_text(TxId::NONE, "/t/b").unwrap();
    assert!(
        !client.end(stale, true).unwrap(),
        "a dead transaction never commits"
    );
}

#[test]
fn watches_fire_at_once_on_change_and_again_after_a_reconnect() {
    let (server, client) = connected();
    let watch = client.watch("/w").unwrap();
    assert_eq!(watch.next_timeout(PATIENCE).as_deref(), Some("/w"));
    server.set("/w/state", "4");
    assert_eq!(watch.next_timeout(PATIENCE).as_deref(), Some("/w/state"));
    server.drop_connections();
    assert_eq!(
        watch.next_timeout(PATIENCE).as_deref(),
        Some("/w"),
        "look again at everything"
    );
    server.set("/w/state", "5");
    assert_eq!(watch.next_timeout(PATIENCE).as_deref(), Some("/w/state"));
    assert_eq!(server.watches(), 1);
    drop(watch);
    server.wait_until(|server| server.watches() == 0);
}

#[test]
fn a_consumer_that_sleeps_blocks_nobody() {
    let (server, client) = connected();
    let watch = client.watch("/flood").unwrap();
    for i in 0..5000 {
        server.set(&format!("/flood/{}", i % 10), &i.to_string());
    }
    assert_eq!(
        client.read_text(TxId::NONE, "/flood/9").unwrap().as_deref(),
        Some("4999")
    );
    let mut seen = BTreeSet::new();
    while let Some(path) = watch.try_next() {
        assert!(seen.insert(path), "each path waits once");
    }
    assert_eq!(seen.len(), 11);
}

#[test]
fn dropping_the_last_handle_ends_connection_and_watches() {
    let (server, client) = connected();
    let watch = client.watch("/w").unwrap();
    assert!(watch.next_timeout(PATIENCE).is_some());
    let other = client.clone();
    drop(client);
    assert!(other.read_text(TxId::NONE, "/none").unwrap().is_none());
    drop(other);
    assert_eq!(watch.next_timeout(PATIENCE), None, "the watch has ended");
    server.wait_until(|server| server.connections() == 0);
}

#[test]
fn calls_wait_for_a_xenstored_that_comes_back_but_only_so_long() {
    let (server, client) = connected();
    server.set("/ok", "1");
    server.faults(|faults| faults.away = true);
    server.drop_connections();
    client.set_deadline(Duration::from_millis(100));
    let error = client.read_text(TxId::NONE, "/ok").unwrap_err();
    let expected = matches!(
        error,
        StoreError::Unreachable { .. } | StoreError::Lost { .. } | StoreError::Deadline { .. }
    );
    assert!(expected, "{error}");
    client.set_deadline(PATIENCE);
    let reader = std::thread::spawn(move || {
        loop {
            match client.read_text(TxId::NONE, "/ok") {
                Ok(value) => return value,
                Err(StoreError::Lost { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    server.faults(|faults| faults.away = false);
    assert_eq!(reader.join().unwrap().as_deref(), Some("1"));
}

#[test]
fn domains_are_introduced_and_released() {
    let (_server, client) = connected();
    let releases = client.watch("@releaseDomain").unwrap();
    assert!(releases.next_timeout(PATIENCE).is_some());
    client.introduce(DomId(7), 0xfeff, Port(3)).unwrap();
    assert!(client.is_introduced(DomId(7)).unwrap());
    client.resume(DomId(7)).unwrap();
    client.release(DomId(7)).unwrap();
    assert!(!client.is_introduced(DomId(7)).unwrap());
    assert_eq!(
        releases.next_timeout(PATIENCE).as_deref(),
        Some("@releaseDomain")
    );
}

#[test]
fn many_threads_share_one_connection() {
    let (server, client) = connected();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for i in 0..50 {
                    let path = format!("/threads/{thread}");
                    client
                        .write_text(TxId::NONE, &path, &i.to_string())
                        .unwrap();
                    let back = client.read_text(TxId::NONE, &path).unwrap();
                    assert_eq!(back, Some(i.to_string()));
                }
            });
        }
    });
    assert_eq!(server.connections(), 1);
}
