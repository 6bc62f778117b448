//! Many reads at once: by somebody in no hurry, and by commands; what single nodes and a xenstored out of order do to them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use support::FakeXenstored;
use xen_abi::xs_wire::{Message, Op};
use xen_host::xenstore::endpoint::Endpoints;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::gather::{Asked, Collected, Idle, Values};
use xen_host::xenstore::quick::{MAX_IN_FLIGHT, Quick};

/// Longest wait for a server in this process.
const PATIENCE: Duration = Duration::from_secs(20);

fn idle(endpoints: &Endpoints) -> Idle {
    Idle::connect(endpoints).unwrap().unwrap()
}

/// Collects until everything is there.
fn all(mut asked: Asked) -> Result<(Idle, Values), StoreError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match asked.collect()? {
            Collected::All(idle, values) => return Ok((idle, values)),
            Collected::NotYet(still) => asked = still,
        }
        assert!(Instant::now() < give_up, "it never got there");
        std::thread::yield_now();
    }
}

fn paths(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("/d/{i}/beat")).collect()
}

#[test]
fn a_look_at_many_nodes_is_one_write_and_each_has_its_own_answer() {
    let server = FakeXenstored::start();
    for i in (0..100).filter(|i| i % 10 != 0) {
        server.set(&format!("/d/{i}/beat"), &i.to_string());
    }
    let mut wanted = paths(100);
    wanted[55] = "/not a path".to_owned();
    let mut connection = idle(&server.endpoints());
    for round in 1..=2 {
        let before = xen_host::xenstore::round_trips();
        let asked = connection.ask(&wanted).unwrap();
        assert_eq!(xen_host::xenstore::round_trips() - before, 1);
        let (again, values) = all(asked).unwrap();
        assert_eq!(values.len(), wanted.len());
        for (i, value) in values.into_iter().enumerate() {
            match i {
                55 => assert!(
                    matches!(value, Err(StoreError::Malformed { .. })),
                    "{value:?}"
                ),
                i if i % 10 == 0 => assert!(value.unwrap_err().is_missing()),
                i => assert_eq!(value.unwrap(), i.to_string().into_bytes(), "round {round}"),
            }
        }
        connection = again;
    }
    let too_many = connection.ask(&paths(MAX_IN_FLIGHT + 1)).unwrap();
    assert_eq!(all(too_many).unwrap().1.len(), MAX_IN_FLIGHT, "the bound");
}

#[test]
fn what_has_not_come_is_not_waited_for() {
    let server = FakeXenstored::start();
    server.faults(|faults| faults.silent.push("/d/1/beat".into()));
    let asked = idle(&server.endpoints()).ask(&paths(2)).unwrap();
    server.wait_until(|server| server.requests().len() == 2);
    let Collected::NotYet(asked) = asked.collect().unwrap() else {
        panic!("one answer is missing");
    };
    let Collected::NotYet(asked) = asked.collect().unwrap() else {
        panic!("and stays so");
    };
    server.drop_connections();
    assert!(matches!(all(asked), Err(StoreError::Lost { .. })));
}

/// A server that answers `requests` reads of one connection in the order that `order` says.
fn disorderly(requests: usize, order: fn(&mut Vec<Message>)) -> (tempfile::TempDir, Endpoints) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut bytes, mut answers) = (Vec::new(), Vec::new());
        let mut chunk = [0; 4096];
        while answers.len() < requests {
            let count = stream.read(&mut chunk).unwrap();
            bytes.extend_from_slice(&chunk[..count]);
            while let Some((message, used)) = Message::decode(&bytes).unwrap() {
                bytes.drain(..used);
                let payload = b"x".to_vec();
                answers.push(Message { payload, ..message });
            }
        }
        order(&mut answers);
        for answer in answers {
            // The other side may have hung up at the first wrong one.
            let _ = stream.write_all(&answer.encode().unwrap());
        }
        let _ = stream.read(&mut chunk);
    });
    (dir, Endpoints::only(path))
}

#[test]
fn answers_out_of_order_end_the_connection_instead_of_naming_the_wrong_guest() {
    let swap = |answers: &mut Vec<Message>| answers.swap(3, 4);
    let (_dir, endpoints) = disorderly(10, swap);
    let error = all(idle(&endpoints).ask(&paths(10)).unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error}");

    let (_dir, endpoints) = disorderly(10, swap);
    let mut quick = Quick::connect_to(&endpoints).unwrap();
    let error = quick.read_many(&paths(10)).unwrap_err();
    assert!(
        error.to_string().contains("answer 5 instead of 4"),
        "{error}"
    );
    let again = quick.read_many(&paths(10)).unwrap_err();
    assert!(
        matches!(again, StoreError::Lost { .. }),
        "and stays so: {again}"
    );
}

#[test]
fn an_event_between_answers_is_no_answer() {
    let event = |answers: &mut Vec<Message>| {
        let payload = b"/a\0token\0".to_vec();
        answers.insert(
            2,
            Message {
                op: Op::WatchEvent,
                req_id: 0,
                tx_id: 0,
                payload,
            },
        );
    };
    let (_dir, endpoints) = disorderly(4, event);
    let (_, values) = all(idle(&endpoints).ask(&paths(4)).unwrap()).unwrap();
    assert!(values.iter().all(Result::is_ok), "{values:?}");
}
