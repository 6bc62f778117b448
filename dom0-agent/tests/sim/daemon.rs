//! Parts of the daemon that need no Xen: what systemd's watchdog is told.

use crate::support::Host;
use dom0_agent::daemon::alive::{Pulses, prove};
use dom0_agent::daemon::{Shared, server};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for something that happens within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn wait(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !done() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    done()
}

/// What the daemon's tasks share, around a simulated host's agent.
fn shared(host: &Host) -> Shared {
    Shared {
        agent: Arc::clone(&host.agent),
        events: tokio::sync::broadcast::channel(1).0,
        xen: "4.20".into(),
        bell: None,
        look: Arc::default(),
    }
}

#[test]
fn the_watchdog_is_petted_only_while_the_agent_can_work() {
    let host = Host::new();
    // One thread for all work: whoever holds it, holds the agent up.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let shared = shared(&host);
    let (let_go, held) = mpsc::channel::<()>();
    let blocked = runtime.spawn_blocking(move || {
        let _ = held.recv();
    });
    let pets = Arc::new(AtomicUsize::new(0));
    let (petted, period) = (Arc::clone(&pets), Duration::from_millis(20));
    let looks = Arc::new(AtomicUsize::new(0));
    runtime.spawn(prove(shared, Pulses::default(), period, move || {
        petted.fetch_add(1, Ordering::Relaxed);
    }));
    // Several periods go by for the timer of the same runtime.
    let turns = Arc::clone(&looks);
    runtime.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            turns.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(wait(|| looks.load(Ordering::Relaxed) > 5));
    assert_eq!(pets.load(Ordering::Relaxed), 0, "petted while it was stuck");
    let_go.send(()).unwrap();
    assert!(
        wait(|| pets.load(Ordering::Relaxed) > 2),
        "not petted again"
    );
    runtime.block_on(blocked).unwrap();
    runtime.shutdown_background();
    host.assert_clean();
}

#[test]
fn callers_wait_in_a_passed_socket_until_there_is_an_agent() {
    let host = Host::new();
    let path = host.file("agent.sock");
    let passed = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // Nobody accepts yet, and yet the caller is in.
    let reach = dom0_agent::cli::agent::AgentClient::connect_to(&path);
    let caller = std::thread::spawn(move || {
        let request = parapet_wire::agent::Request::Guests;
        reach.map(|mut client| client.ask(&request).is_ok())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let shared = shared(&host);
    let listener = runtime.block_on(async { server::adopt(passed) }).unwrap();
    runtime.spawn(server::accept(shared, listener));
    assert!(caller.join().unwrap().is_ok_and(|answered| answered));
    runtime.shutdown_background();
    let _ = std::fs::remove_file(&path);
    host.assert_clean();
}

#[test]
fn a_greeting_takes_no_thread_of_those_that_work() {
    use parapet_wire::agent::{Reply, Request};
    let host = Host::new();
    let path = host.file("agent.sock");
    let bound = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (let_go, held) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || {
        let _ = held.recv();
    });
    let listener = runtime.block_on(async { server::adopt(bound) }).unwrap();
    runtime.spawn(server::accept(shared(&host), listener));
    let (told, answer) = mpsc::channel();
    let place = path.clone();
    std::thread::spawn(move || {
        let client = "test".to_owned();
        let client = dom0_agent::cli::agent::AgentClient::connect_to(&place)
            .map(|mut agent| agent.ask(&Request::Hello { client }));
        let _ = told.send(client);
    });
    let answer = answer.recv_timeout(PATIENCE);
    let_go.send(()).unwrap();
    let greeted = answer.expect("it waits for a thread").unwrap();
    assert!(matches!(greeted, Ok(Reply::Hello { .. })), "{greeted:?}");
    runtime.shutdown_background();
    let _ = std::fs::remove_file(&path);
    host.assert_clean();
}
