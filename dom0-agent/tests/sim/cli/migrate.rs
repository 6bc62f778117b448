//! migrate and migrate-receive as commands: what they say, how they end, and the line between them.

use crate::support::desk::{Desk, Said, say, say_as};
use crate::support::reflex::Reflex;
use dom0_agent::cli::extras::Program;
use dom0_agent::cli::reach::Wire;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use xen_abi::ids::DomId;
use xen_stream::handshake::Message;

/// Two desks with pipes between them.
struct Line {
    here: Desk,
    there: Desk,
    forth: PathBuf,
    back: PathBuf,
}

fn fifo(path: PathBuf) -> PathBuf {
    let made = nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU);
    made.unwrap();
    path
}

impl Line {
    fn new() -> Self {
        let mut here = Desk::new();
        let domid = here.guest("web1");
        here.host.reflex(domid, Reflex::Suspend);
        Self {
            forth: fifo(here.host.file("forth")),
            back: fifo(here.host.file("back")),
            here,
            there: Desk::new(),
        }
    }

    /// What both commands say; `options` come before the domain.
    fn travel(&self, options: &[&str], receiver: &[&str]) -> (Said, Said) {
        self.travel_as(Program::Xl, options, receiver)
    }

    fn travel_as(&self, program: Program, options: &[&str], receiver: &[&str]) -> (Said, Said) {
        let command = format!(
            "cat {} & cat > {}",
            self.back.display(),
            self.forth.display()
        );
        let line = [&["migrate"], options, &["-s", "", "web1", &command]].concat();
        let (forth, back) = (self.forth.clone(), self.back.clone());
        let reach = self.there.reach();
        thread::scope(|scope| {
            let arrives = scope.spawn(move || {
                let input = File::open(forth).unwrap();
                let output = File::options().write(true).open(back).unwrap();
                *reach.wire.lock().unwrap() = Some(Wire { input, output });
                say_as(program, &reach, receiver)
            });
            let leaves = say_as(program, &self.here.reach(), &line);
            (leaves, arrives.join().unwrap())
        })
    }

    fn end(mut self) {
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
fn disks_go_along_where_parapet_runs_the_command_and_nowhere_else() {
    let line = Line::new();
    // Here the other host sees the same files, so the place is taken.
    let here = |line: &Line, receiver: &[&str]| {
        line.travel_as(Program::Parapet, &["--with-disks"], receiver)
    };
    let (left, _) = here(&line, &["migrate-receive", "--with-disks"]);
    assert_eq!(left.code, 1);
    assert!(left.err.contains("is there and not empty"), "{left:?}");
    // It is the guest's own, even: never replaced.
    let receiver = ["migrate-receive", "--with-disks", "--replace-disks"];
    let (left, arrived) = here(&line, &receiver);
    assert_eq!((left.code, arrived.code), (1, 1), "{left:?} {arrived:?}");
    assert!(left.err.contains("is in use"), "{left:?}");
    let (left, words) = (line.here.reach(), ["migrate", "--with-disks", "web1", "x"]);
    let said = say(&left, &words);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("not supported"), "{said:?}");
    let said = say_as(
        Program::Parapet,
        &left,
        &["migrate", "--replace-disks", "web1", "x"],
    );
    assert!(
        said.err.contains("goes with --with-disks") || said.code == 1,
        "{said:?}"
    );
    let said = say_as(Program::Parapet, &left, &["migrate", "--help"]);
    assert!(
        said.out.starts_with("Usage: parapet [-v] migrate"),
        "{said:?}"
    );
    assert!(said.out.contains("--with-disks"), "{said:?}");
    assert!(!say(&left, &["migrate", "--help"]).out.contains("disks"));
    drop(left);
    line.end();
}

#[test]
fn a_guest_is_moved_in_stocks_words() {
    let mut line = Line::new();
    let (left, arrived) = line.travel(&[], &["migrate-receive"]);
    assert_eq!((left.code, left.out.as_str()), (0, ""), "{left:?}");
    let mut said = left.err.lines();
    let mut next = || said.next().unwrap_or_default();
    assert!(next().starts_with("Saving to migration stream new xl format (info 0x3/0x0/"));
    assert!(next().starts_with("migration sender: round 1: "));
    assert_eq!(
        [next(), next(), next(), next()],
        [
            "migration sender: Target has acknowledged transfer.",
            "migration sender: Giving target permission to start.",
            "migration sender: Target reports successful startup.",
            "Migration successful.",
        ]
    );
    let figures = next();
    for word in ["in all", "rounds", "bytes", "stood still for at most"] {
        assert!(figures.contains(word), "{figures}");
    }
    assert_eq!((arrived.code, arrived.out.as_str()), (0, ""), "{arrived:?}");
    let mut said = arrived.err.lines();
    assert_eq!(
        said.next(),
        Some("migration target: Ready to receive domain.")
    );
    assert!(said.next().unwrap().starts_with(
        "Loading new save file <incoming migration stream> (new xl fmt info 0x3/0x0/"
    ));
    let rest: Vec<&str> = said.collect();
    assert_eq!(
        rest,
        [
            "Parsing config from <saved>",
            "migration target: Transfer complete, requesting permission to start domain.",
            "migration target: Got permission, starting domain.",
            "migration target: Domain started successsfully.",
        ]
    );
    line.there.host.settle();
    let guest = line.there.host.agent.guests()[0].clone();
    assert!(line.there.host.machine(guest.domid.unwrap()).is_connected());
    assert_eq!(line.here.host.agent.guests(), []);
    line.end();
}

#[test]
fn a_guest_may_be_left_paused_there() {
    let line = Line::new();
    let (left, arrived) = line.travel(&["-p"], &["migrate-receive", "-p"]);
    assert_eq!((left.code, arrived.code), (0, 0), "{left:?} {arrived:?}");
    let domid = line.there.host.agent.guests()[0].domid.unwrap();
    assert!(line.there.host.world.domain(domid).unwrap().paused);
    line.end();
}

#[test]
fn a_refusal_there_is_said_at_both_ends_and_the_guest_runs_on() {
    let mut line = Line::new();
    let mut other = line.there.host.config("pvh", "web1", "");
    other.uuid = uuid::Uuid::from_u128(7);
    line.there.host.start(other);
    let (left, arrived) = line.travel(&[], &["migrate-receive"]);
    assert_eq!((left.code, arrived.code), (1, 1), "{left:?} {arrived:?}");
    assert!(
        left.err
            .ends_with("Migration failed, resuming at sender.\n")
    );
    assert!(arrived.err.contains("exists here already"), "{arrived:?}");
    line.here.host.settle();
    let info = line.here.host.world.domain(DomId(1)).unwrap();
    assert!(info.running, "{info:?}");
    line.end();
}

fn to(desk: &Desk, command: &str) -> Said {
    say(&desk.reach(), &["migrate", "-s", "", "web1", command])
}

#[test]
fn a_host_that_does_not_answer_as_it_should_is_quoted() {
    let mut line = Line::new();
    for (command, words) in [
        ("echo sh: xl: not found", "sh: xl: not found"),
        ("true", "went away after 0 of 54 bytes"),
        ("head -c 54 /dev/zero", "the other side said"),
    ] {
        let said = to(&line.here, command);
        assert!(said.code == 1 && said.err.contains(words), "{said:?}");
    }
    let banner = line.here.host.file("banner");
    std::fs::write(&banner, Message::Banner.bytes()).unwrap();
    let gone = format!("sh -c 'cat {}; head -c 2000 > /dev/null'", shown(&banner));
    let said = to(&line.here, &gone);
    assert!(
        said.code == 1 && said.err.contains("resuming at sender"),
        "{said:?}"
    );
    line.here.host.settle();
    assert!(line.here.host.world.domain(DomId(1)).unwrap().running);
    line.end();
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_cannot_be_moved_is_said_before_anybody_is_called() {
    let line = Line::new();
    let mark = line.here.host.file("called");
    let called = format!("touch {}", shown(&mark));
    for (domain, words) in [("Domain-0", "control domain"), ("nobody", "nobody")] {
        let said = say(&line.here.reach(), &["migrate", "-s", "", domain, &called]);
        assert!(said.code != 0 && said.err.contains(words), "{said:?}");
    }
    let said = say(
        &line.here.reach(),
        &["migrate", "-m", "soon", "-s", "", "web1", &called],
    );
    assert!(
        said.code == 1 && said.err.contains("milliseconds"),
        "{said:?}"
    );
    assert!(!mark.exists());
    line.end();
}

#[test]
fn a_lost_answer_is_asked_for_where_the_guest_went() {
    for (listed, code) in [("web1", 0), ("web1--incoming", 1), ("other", 1)] {
        let mut line = Line::new();
        let uuid = line.here.host.agent.guests()[0].uuid;
        let listing = line.here.host.file("listing");
        let uuid = if listed == "other" {
            "none".to_owned()
        } else {
            uuid.to_string()
        };
        std::fs::write(
            &listing,
            format!("Name ID\n{listed} 7 128 1 -b---- 0.1 {uuid} -\n"),
        )
        .unwrap();
        let far = line.here.host.file("far.sh");
        // Banner (54 bytes), answer to the offer (24) and ready (34) come through, the report does not.
        let script = format!(
            "case $3 in migrate-receive) dd bs=1 count=112 status=none if={} & exec cat > {} ;; *) cat {}; rm {} ;; esac\n",
            shown(&line.back),
            shown(&line.forth),
            shown(&listing),
            shown(&listing),
        );
        std::fs::write(&far, script).unwrap();
        let shell = format!("sh {}", shown(&far));
        let (forth, back) = (line.forth.clone(), line.back.clone());
        let reach = line.there.reach();
        let left = thread::scope(|scope| {
            let arrives = scope.spawn(move || {
                let input = File::open(forth).unwrap();
                let output = File::options().write(true).open(back).unwrap();
                *reach.wire.lock().unwrap() = Some(Wire { input, output });
                say(&reach, &["migrate-receive"])
            });
            let left = say(
                &line.here.reach(),
                &["migrate", "-s", &shell, "web1", "far"],
            );
            let arrived = arrives.join().unwrap();
            assert_eq!(arrived.code, 0, "{arrived:?}");
            left
        });
        assert_eq!(left.code, code, "{left:?}");
        if code == 0 {
            assert!(left.err.ends_with("Migration successful.\n"), "{left:?}");
            assert_eq!(line.here.host.agent.guests(), []);
        } else {
            assert!(
                left.err.contains("Domain state is now undefined !"),
                "{left:?}"
            );
            assert!(left.err.contains("parapet settle web1--migratedaway here"));
            // It is there, and suspended.
            let info = line.here.host.world.domain(DomId(1)).unwrap();
            assert!(info.shutdown.is_some());
            line.here.host.settle();
        }
        line.end();
    }
}

#[test]
fn the_shell_is_asked_for_what_scripts_expect() {
    let line = Line::new();
    let (log, reach) = (line.here.host.file("log"), line.here.reach());
    let shell = format!("sh -c 'echo \"$@\" > {}' echo", shown(&log));
    let hidden = format!("{shell} socat - TCP:a:b #");
    for (words, wanted) in [
        (vec!["-s", &shell], "far xl migrate-receive\n"),
        (
            vec!["-s", &shell, "-e", "-p"],
            "far xl migrate-receive -e -p\n",
        ),
        // What scripts for stock's command do.
        (vec!["-s", &hidden], "socat - TCP:a:b\n"),
    ] {
        let line = [&["migrate"], words.as_slice(), &["web1", "far"]].concat();
        let said = say(&reach, &line);
        assert_eq!(said.code, 1, "{said:?}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), wanted);
    }
    line.end();
}
