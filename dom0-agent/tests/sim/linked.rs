//! Guests that are moved over a link: two simulated hosts, their agents and commands, TLS between them.

use crate::support::desk::{Desk, Said, say};
use crate::support::reflex::Reflex;
use parapet_link::book::{Book, Host};
use parapet_link::dial::dial;
use parapet_link::identity::Identity;
use parapet_link::request::Request;
use parapet_link::serve::Listener;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::runtime::{Builder, Runtime};
use xen_abi::ids::DomId;

/// Two desks, a link between their hosts, and a command that leads over it: as `parapet link connect`, but within this process.
struct Linked {
    here: Desk,
    there: Desk,
    address: SocketAddr,
    runtime: Runtime,
}

fn fifo(path: PathBuf) -> PathBuf {
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn folder(desk: &Desk) -> PathBuf {
    desk.host.file("link")
}

fn trust(at: &Desk, name: &str, other: &Desk) {
    let (identity, _) = Identity::load_or_make(&folder(other)).unwrap();
    let host = Host {
        name: name.to_owned(),
        fingerprint: identity.fingerprint(),
        address: None,
    };
    Book::of(&folder(at)).trust(&host).unwrap();
}

impl Linked {
    fn new() -> Self {
        let mut here = Desk::new();
        let domid = here.guest("web1");
        here.host.reflex(domid, Reflex::Suspend);
        let there = Desk::new();
        trust(&here, "far", &there);
        trust(&there, "near", &here);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity::load(&folder(&there)).unwrap();
        let agent = there.host.file("agent.sock");
        let listening = Listener::new(identity, Book::of(&folder(&there)), agent);
        runtime.spawn(listening.serve(listener));
        Self {
            here,
            there,
            address,
            runtime,
        }
    }

    /// `xl migrate OPTIONS web1 far`; answers what it said, and what came over the link to be said.
    fn travel(&self, options: &[&str]) -> (Said, Vec<String>) {
        let file = |name: &str| self.here.host.file(name);
        let (words, forth, back) = (fifo(file("words")), fifo(file("forth")), fifo(file("back")));
        let shown = |path: &Path| path.display().to_string();
        // Its words go to whoever connects; its input and output follow.
        let script = format!(
            "echo \"$@\" > {}; cat {} & cat > {}\n",
            shown(&words),
            shown(&back),
            shown(&forth)
        );
        let command = file("connect.sh");
        std::fs::write(&command, script).unwrap();
        let mut reach = self.here.reach();
        reach.link = Some(("far".into(), format!("sh {}", shown(&command))));
        let line = [&["migrate"], options, &["web1", "far"]].concat();
        thread::scope(|scope| {
            let connects = scope.spawn(|| self.connect(&words, &forth, &back));
            let left = say(&reach, &line);
            let heard = connects.join().unwrap();
            for path in [words.as_path(), &forth, &back] {
                std::fs::remove_file(path).unwrap();
            }
            (left, heard)
        })
    }

    fn connect(&self, words: &Path, forth: &Path, back: &Path) -> Vec<String> {
        let words = std::fs::read_to_string(words).unwrap();
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.first().map(String::as_str), Some("far"));
        let request = Request::of_words(&words[1..]).unwrap();
        let folder = folder(&self.here);
        let identity = Identity::load(&folder).unwrap();
        let host = Book::of(&folder).host("far").unwrap();
        // Opening waits for the other end, as the shell's does.
        let (input, output) = (
            std::fs::File::open(forth).unwrap(),
            std::fs::File::options().write(true).open(back),
        );
        let output = output.unwrap();
        self.runtime.block_on(async {
            let input = pipe::Receiver::from_file(input).unwrap();
            let output = pipe::Sender::from_file(output).unwrap();
            let line = dial(&identity, &host, self.address, request).await.unwrap();
            let mut heard = Vec::new();
            let mut tell = |text: &str| heard.push(text.to_owned());
            line.carry(input, output, &mut tell).await.unwrap();
            heard
        })
    }

    fn end(mut self) {
        self.runtime.shutdown_background();
        for desk in [&mut self.here, &mut self.there] {
            for guest in desk.host.agent.guests() {
                desk.host.agent.destroy(guest.domid.unwrap()).unwrap();
            }
            desk.stop_agent();
            desk.host.settle();
            desk.host.assert_clean();
        }
    }
}

#[test]
fn a_guest_is_moved_to_a_linked_host_by_its_name_alone() {
    let mut line = Linked::new();
    let (left, heard) = line.travel(&[]);
    assert_eq!(left.code, 0, "{left:?} {heard:?}");
    // What the receiver would have said on this terminal by ssh.
    for words in [
        "migration target: Ready to receive domain.",
        "migration target: Domain started successsfully.",
    ] {
        assert!(heard.iter().any(|line| line == words), "{heard:?}");
    }
    line.there.host.settle();
    let guest = line.there.host.agent.guests()[0].clone();
    assert_eq!(guest.name, "web1");
    assert!(line.there.host.machine(guest.domid.unwrap()).is_connected());
    assert_eq!(line.here.host.agent.guests(), []);
    line.end();
}

#[test]
fn options_reach_the_receiver() {
    let line = Linked::new();
    let (left, heard) = line.travel(&["-p", "-e"]);
    assert_eq!(left.code, 0, "{left:?} {heard:?}");
    let domid = line.there.host.agent.guests()[0].domid.unwrap();
    assert!(line.there.host.world.domain(domid).unwrap().paused);
    line.end();
}

#[test]
fn a_refusal_there_is_read_here_and_the_guest_runs_on() {
    let mut line = Linked::new();
    let mut other = line.there.host.config("pvh", "web1", "");
    other.uuid = uuid::Uuid::from_u128(7);
    line.there.host.start(other);
    let (left, heard) = line.travel(&[]);
    assert_eq!(left.code, 1, "{left:?}");
    assert!(
        left.err
            .ends_with("Migration failed, resuming at sender.\n")
    );
    assert!(
        heard
            .iter()
            .any(|line| line.contains("exists here already")),
        "{heard:?}"
    );
    line.here.host.settle();
    let info = line.here.host.world.domain(DomId(1)).unwrap();
    assert!(info.running, "{info:?}");
    line.end();
}

#[test]
fn another_shell_goes_before_the_link_and_other_hosts_go_by_ssh() {
    let line = Linked::new();
    let log = line.here.host.file("log");
    let mut reach = line.here.reach();
    let said_by = |who: &str| format!("sh -c 'echo {who} \"$@\" > {}' {who}", log.display());
    reach.link = Some(("far".into(), said_by("link")));
    let other = said_by("other");
    for (words, wanted) in [
        (vec!["web1", "far"], "link far xl migrate-receive\n"),
        (
            vec!["-e", "web1", "far"],
            "link far xl migrate-receive -e\n",
        ),
        (
            vec!["-s", &other, "web1", "far"],
            "other far xl migrate-receive\n",
        ),
    ] {
        let said = say(&reach, &[&["migrate"], words.as_slice()].concat());
        assert_eq!(said.code, 1, "{said:?}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), wanted);
    }
    std::fs::remove_file(&log).unwrap();
    let said = say(&reach, &["migrate", "web1", "no-such-host.invalid"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!log.exists());
    line.end();
}
