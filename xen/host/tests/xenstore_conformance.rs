//! One suite for everything that implements the traits of `xenstore-rs`: our clients, and its own, on the same server.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod support;

use futures_util::StreamExt;
use std::io;
use std::time::Duration;
use support::FakeXenstored;
use xen_host::xenstore::client::Client;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::quick::{Quick, QuickStore};
use xen_host::xenstore::store::{StoreExt, StoreOp, TxId};
use xenstore_rs::{AsyncWatch, AsyncXs, Xs};

fn blocking(server: &FakeXenstored, client: &impl Xs) {
    client.write("/a/b", "value").unwrap();
    assert_eq!(&*client.read("/a/b").unwrap(), "value");
    assert_eq!(server.value("/a/b").as_deref(), Some("value"));
    client.write("/a/b", "").unwrap();
    assert_eq!(&*client.read("/a/b").unwrap(), "");
    client.write("/a/c", "x").unwrap();
    let mut names = client.directory("/a").unwrap();
    names.sort_unstable();
    assert_eq!(names, [Box::from("b"), Box::from("c")]);
    assert_eq!(
        client.read("/missing").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        client.directory("/missing").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    client.rm("/a").unwrap();
    assert_eq!(server.value("/a/b"), None);
}

async fn asynchronous(server: &FakeXenstored, client: &(impl AsyncXs + AsyncWatch)) {
    AsyncXs::write(client, "/a/b", "value").await.unwrap();
    assert_eq!(&*AsyncXs::read(client, "/a/b").await.unwrap(), "value");
    assert_eq!(server.value("/a/b").as_deref(), Some("value"));
    assert_eq!(
        AsyncXs::directory(client, "/a").await.unwrap(),
        [Box::from("b")]
    );
    let error = AsyncXs::read(client, "/missing").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let mut watch = AsyncWatch::watch(client, "/w").await.unwrap();
    server.set("/w/state", "1");
    let mut seen = Vec::new();
    while !seen.contains(&Box::from("/w/state")) {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        seen.push(next.unwrap().unwrap());
    }
    AsyncXs::rm(client, "/a").await.unwrap();
    assert_eq!(server.value("/a/b"), None);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn our_clients_keep_the_blocking_contract() {
    let server = FakeXenstored::start();
    blocking(&server, &Client::connect_to(server.endpoints()).unwrap());
    blocking(
        &server,
        &QuickStore::from(Quick::connect_to(&server.endpoints()).unwrap()),
    );
}

/// The crate finds its xenstored by the environment alone, so the test runs itself again with the variable set.
#[test]
fn the_clients_of_xenstore_rs_keep_the_same_contract() {
    const CHILD: &str = "XEN_HOST_TEST_PEER";
    if std::env::var_os(CHILD).is_none() {
        let directory = tempfile::tempdir().unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "the_clients_of_xenstore_rs_keep_the_same_contract",
            ])
            .env(CHILD, "1")
            .env("XENSTORED_PATH", directory.path().join("socket"))
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let socket = std::env::var_os("XENSTORED_PATH").unwrap();
    let server = FakeXenstored::start_at(socket.as_ref());
    blocking(&server, &xenstore_rs::unix::XsUnix::new().unwrap());
    runtime().block_on(async {
        let theirs = xenstore_rs::tokio::XsTokio::new().await.unwrap();
        asynchronous(&server, &theirs).await;
    });
    // Ours finds it by the same variable.
    blocking(&server, &Client::connect().unwrap());
}

#[test]
fn our_client_keeps_the_asynchronous_contract() {
    let server = FakeXenstored::start();
    let client = Client::connect_to(server.endpoints()).unwrap();
    runtime().block_on(asynchronous(&server, &client));
    server.wait_until(|server| server.watches() == 0);
    for i in 0..900 {
        server.set(&format!("/big/child-{i}"), "");
    }
    let names = runtime()
        .block_on(AsyncXs::directory(&client, "/big"))
        .unwrap();
    assert_eq!(names.len(), 900);
}

#[test]
fn an_asynchronous_call_ends_when_xenstored_dies_or_is_silent() {
    let server = FakeXenstored::start();
    let client = Client::connect_to(server.endpoints()).unwrap();
    server.faults(|faults| faults.silent.push("/hole".into()));
    client.set_deadline(Duration::from_millis(50));
    let error = runtime()
        .block_on(AsyncXs::read(&client, "/hole"))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    client.set_deadline(Duration::from_secs(10));
    server.faults(|faults| faults.drop_after = Some(0));
    let error = runtime()
        .block_on(AsyncXs::read(&client, "/a"))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    server.set("/a", "1");
    assert_eq!(
        &*runtime().block_on(AsyncXs::read(&client, "/a")).unwrap(),
        "1"
    );
}

#[test]
fn a_quick_connection_reads_many_nodes_in_one_round_trip() {
    let server = FakeXenstored::start();
    for i in 0..100 {
        server.set(&format!("/local/domain/{i}/name"), &format!("guest{i}"));
        server.set(
            &format!("/big/child-with-a-long-name-{i}-{}", "x".repeat(40)),
            "",
        );
    }
    let mut quick = Quick::connect_to(&server.endpoints()).unwrap();
    let paths: Vec<String> = (0..110)
        .map(|i| format!("/local/domain/{i}/name"))
        .collect();
    let before = xen_host::xenstore::round_trips();
    let names = quick.read_many(&paths).unwrap();
    assert_eq!(xen_host::xenstore::round_trips() - before, 1);
    assert_eq!(names[99].as_deref(), Some(b"guest99".as_slice()));
    assert_eq!(names[100], None);
    let store = QuickStore::from(quick);
    assert_eq!(store.directory("/big").unwrap().len(), 100);
    store
        .commit("test", &[StoreOp::Write("/q".into(), b"1".to_vec())])
        .unwrap();
    assert_eq!(server.value("/q").as_deref(), Some("1"));
    server.drop_connections();
    assert!(matches!(
        store.read_text(TxId::NONE, "/q"),
        Err(StoreError::Lost { .. })
    ));
    assert!(
        matches!(
            store.read_text(TxId::NONE, "/q"),
            Err(StoreError::Lost { .. })
        ),
        "and stays so"
    );
}
