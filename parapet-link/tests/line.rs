//! Two hosts over loopback: who is let in, what the one who is not is told, and lines that are cut wherever it may be. There is no agent here: where one is
//! needed, that is said at both ends. Whole moves are in `dom0-agent/tests/sim/linked.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use parapet_link::book::{Book, Host};
use parapet_link::dial::{Line, dial};
use parapet_link::error::LinkError;
use parapet_link::identity::Identity;
use parapet_link::limits::{MAX_LINES, MAX_STRANGERS_OF_ONE};
use parapet_link::request::{Receive, Request};
use parapet_link::serve::Listener;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longest time for anything here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Any address on this machine.
const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
/// Bytes of a short test.
const FEW: u64 = 100_000;

/// One host: its folder, and its listener.
struct End {
    dir: TempDir,
    address: SocketAddr,
}

impl End {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_make(dir.path()).unwrap();
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = Self { dir, address };
        let agent = end.dir.path().join("agent.sock");
        let serving = Listener::new(end.identity(), end.book(), agent).serve(listener);
        tokio::spawn(serving);
        end
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn identity(&self) -> Identity {
        Identity::load(self.path()).unwrap()
    }

    fn book(&self) -> Book {
        Book::of(self.path())
    }

    fn as_host(&self, name: &str) -> Host {
        Host {
            name: name.to_owned(),
            fingerprint: self.identity().fingerprint(),
            address: None,
        }
    }

    fn trusts(&self, name: &str, other: &Self) {
        self.book().trust(&other.as_host(name)).unwrap();
    }

    async fn calls(&self, other: &Self, request: Request) -> Result<Line, LinkError> {
        self.calls_at(other, other.address, request).await
    }

    async fn calls_at(
        &self,
        other: &Self,
        address: SocketAddr,
        request: Request,
    ) -> Result<Line, LinkError> {
        let host = other.as_host("other");
        soon(dial(&self.identity(), &host, address, request)).await
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.unwrap()
}

/// Two hosts that trust each other.
async fn pair() -> (End, End) {
    let (one, two) = (End::new().await, End::new().await);
    one.trusts("two", &two);
    two.trusts("one", &one);
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_that_trust_each_other_have_a_line() {
    let (one, two) = pair().await;
    let line = one.calls(&two, Request::Test).await.unwrap();
    assert_eq!(line.release, env!("CARGO_PKG_VERSION"));
    let measured = soon(line.test(3 << 20)).await.unwrap();
    assert_eq!(measured.bytes, 3 << 20);
    let remark = measured.remarks.first().unwrap();
    assert!(remark.contains("the agent is not running"), "{remark}");
    // A host may be linked with itself.
    one.trusts("me", &one);
    let line = one.calls(&one, Request::Test).await.unwrap();
    soon(line.test(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_receiver_says_and_how_it_ends_come_back() {
    let (one, two) = pair().await;
    for request in [Request::Receive(Receive::default()), Request::Guests] {
        let line = one.calls(&two, request).await.unwrap();
        // Far more than fits on the way: nobody takes it there.
        let input = tokio::io::repeat(7);
        let mut said = Vec::new();
        let mut tell = |text: &str| said.push(text.to_owned());
        let mut output = Vec::new();
        let code = soon(line.carry(input, &mut output, &mut tell)).await;
        assert_eq!((code.unwrap(), output), (1, Vec::new()));
        assert!(
            said.iter()
                .any(|line| line.contains("the agent is not running")),
            "{said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_not_expected_is_told_with_the_one_that_was() {
    let (one, two) = pair().await;
    let other = End::new().await;
    other.trusts("one", &one);
    // Its address leads to another host.
    let error = one
        .calls_at(&two, other.address, Request::Test)
        .await
        .unwrap_err();
    let (expected, got) = (two.identity().fingerprint(), other.identity().fingerprint());
    assert!(
        matches!(&error, LinkError::WrongCertificate { .. }),
        "{error}"
    );
    let text = error.to_string();
    for word in [expected.to_string(), got.to_string(), "forget other".into()] {
        assert!(text.contains(&word), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_trusted_there_is_told_what_to_do_about_it() {
    let (one, two) = (End::new().await, End::new().await);
    one.trusts("two", &two);
    let own = one.identity().fingerprint().to_string();
    for _ in 0..2 * MAX_STRANGERS_OF_ONE {
        let error = one.calls(&two, Request::Test).await.unwrap_err();
        assert!(matches!(&error, LinkError::NotTrusted { .. }), "{error}");
        assert!(error.to_string().contains(&own), "{error}");
    }
    // Without a restart: trusted, and forgotten again.
    two.trusts("one", &one);
    one.calls(&two, Request::Test).await.unwrap();
    two.book().forget("one").unwrap();
    let error = one.calls(&two, Request::Test).await.unwrap_err();
    assert!(matches!(error, LinkError::NotTrusted { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_and_something_else_at_the_port_are_told_apart() {
    let (one, two) = pair().await;
    let free = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = one
        .calls_at(&two, address, Request::Test)
        .await
        .unwrap_err();
    assert!(matches!(error, LinkError::NothingListens { .. }), "{error}");
    let other = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = other.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = one
        .calls_at(&two, address, Request::Test)
        .await
        .unwrap_err();
    assert!(matches!(error, LinkError::Tls { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_keep_linked_hosts_out_for_long_and_are_bounded() {
    let (one, two) = pair().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_STRANGERS_OF_ONE {
        idle.push(TcpStream::connect(two.address).await.unwrap());
    }
    // All of one address, as this one: one more is closed without a word.
    let mut more = TcpStream::connect(two.address).await.unwrap();
    let mut nothing = Vec::new();
    let closed = soon(more.read_to_end(&mut nothing)).await;
    assert!(closed.is_err() || nothing.is_empty());
    one.calls(&two, Request::Test).await.unwrap_err();
    idle.pop();
    // As soon as the listener has noticed.
    let mut line = one.calls(&two, Request::Test).await;
    for _ in 0..1000 {
        if line.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
        line = one.calls(&two, Request::Test).await;
    }
    line.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_bounded_and_the_one_too_many_is_told() {
    let (one, two) = pair().await;
    let mut lines = Vec::new();
    for _ in 0..MAX_LINES {
        lines.push(one.calls(&two, Request::Test).await.unwrap());
    }
    let error = one.calls(&two, Request::Test).await.unwrap_err();
    assert!(error.to_string().contains("lines are open"), "{error}");
    for line in lines {
        soon(line.test(1)).await.unwrap();
    }
}

/// A way to `to` that breaks after so many bytes in one direction.
async fn fragile(to: SocketAddr, forth: u64, back: u64) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let (near_in, mut near_out) = near.split();
        let (far_in, mut far_out) = far.split();
        let (mut near_in, mut far_in) = (near_in.take(forth), far_in.take(back));
        tokio::select! {
            _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
            _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_anywhere_is_an_error_here_and_harms_nobody_there() {
    let (one, two) = pair().await;
    // Within the handshake, the greetings, and the frames behind them.
    let mut cuts: Vec<u64> = (0..2600).step_by(97).collect();
    cuts.extend([5_000, 50_000, 99_999]);
    for at in cuts {
        for (forth, back) in [(at, u64::MAX), (u64::MAX, at)] {
            let address = fragile(two.address, forth, back).await;
            let done = match one.calls_at(&two, address, Request::Test).await {
                Ok(line) => soon(line.test(FEW)).await.map(drop),
                Err(error) => Err(error),
            };
            // What comes back of a test is short.
            if forth != u64::MAX || at < 1000 {
                assert!(done.is_err(), "cut at {forth} and {back}");
            }
        }
    }
    let line = one.calls(&two, Request::Test).await.unwrap();
    soon(line.test(FEW)).await.unwrap();
}
