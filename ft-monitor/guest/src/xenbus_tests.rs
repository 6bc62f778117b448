//! The protocol against a store at the other end of a socket pair.

use super::*;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

type Nodes = BTreeMap<String, Vec<u8>>;

/// What the store does with one request.
enum Behaviour {
    Honest,
    Refuse(&'static str),
    Noise,
    HugeAnswer,
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn connected(behaviour: Behaviour) -> (Xenbus, JoinHandle<Nodes>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let xenbus = Xenbus {
        device: File::from(OwnedFd::from(ours)),
        path: "pair".into(),
        request: 0,
    };
    (
        xenbus,
        std::thread::spawn(move || serve(theirs, &behaviour)),
    )
}

fn serve(mut peer: UnixStream, behaviour: &Behaviour) -> Nodes {
    let mut nodes = Nodes::new();
    let mut head = [0; HEADER_BYTES];
    while peer.read_exact(&mut head).is_ok() {
        let (kind, request, length) = parse_header(&head).unwrap();
        let mut body = vec![0; length];
        peer.read_exact(&mut body).unwrap();
        let mut parts = body.splitn(2, |byte| *byte == 0);
        let node = String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
        let (kind, answer) = match (behaviour, kind) {
            (Behaviour::Refuse(word), _) => (ERROR, [word.as_bytes(), b"\0"].concat()),
            (_, READ) => match nodes.get(&node) {
                Some(value) => (READ, value.clone()),
                None => (ERROR, b"ENOENT\0".to_vec()),
            },
            (_, _) => {
                nodes.insert(node, parts.next().unwrap().to_vec());
                (WRITE, b"OK\0".to_vec())
            }
        };
        match behaviour {
            Behaviour::Noise => {
                // A late answer to somebody else's question, in two pieces.
                let stray = frame(READ, request.wrapping_add(7), b"stray").unwrap();
                peer.write_all(&stray[..5]).unwrap();
                peer.write_all(&stray[5..]).unwrap();
            }
            Behaviour::HugeAnswer => {
                let mut huge = frame(kind, request, b"").unwrap();
                huge[12..].copy_from_slice(&u32::MAX.to_le_bytes());
                if peer.write_all(&huge).is_err() {
                    return nodes;
                }
                continue;
            }
            _ => {}
        }
        peer.write_all(&frame(kind, request, &answer).unwrap())
            .unwrap();
    }
    nodes
}

#[test]
fn what_is_written_is_read_back() {
    for behaviour in [Behaviour::Honest, Behaviour::Noise] {
        let (mut xenbus, store) = connected(behaviour);
        xenbus
            .write("data/parapet/heartbeat", "41", soon(), None)
            .unwrap();
        assert_eq!(
            xenbus.read("data/parapet/heartbeat", soon(), None).unwrap(),
            b"41"
        );
        drop(xenbus);
        assert_eq!(store.join().unwrap()["data/parapet/heartbeat"], b"41");
    }
}

#[test]
fn a_refusal_names_the_node_and_the_word() {
    let (mut xenbus, _store) = connected(Behaviour::Refuse("EACCES"));
    let error = xenbus
        .write("data/parapet/heartbeat", "1", soon(), None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "xenstore node data/parapet/heartbeat: refused with EACCES"
    );
}

#[test]
fn a_forged_length_is_refused_before_it_is_allocated() {
    let (mut xenbus, _store) = connected(Behaviour::HugeAnswer);
    let error = xenbus.write("a", "1", soon(), None).unwrap_err();
    assert!(matches!(error, XenbusError::Garbled(_)), "{error}");
}

#[test]
fn a_missing_device_is_explained() {
    let error = Xenbus::open(Some(Path::new("/nonexistent/xenbus")))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent/xenbus") && error.contains("Xen guest"),
        "{error}"
    );
}
