//! The real programs, `ft-monitor` and `parapet`, against an agent on a socket: what the simulation cannot show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod agent;

use agent::FakeAgent;
use parapet_wire::agent::{Protection, Request, Watching};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xen_abi::ids::DomId;

/// Longest wait for anything; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host: directories, an agent, and a monitor that can be killed.
struct Host {
    dir: TempDir,
    monitor: Option<Child>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/ft-monitor.toml"), "grace_s = 0\n").unwrap();
        Self { dir, monitor: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn agent(&self) -> FakeAgent {
        let watching = Watching {
            heartbeat_timeout_ms: Some(3000),
            ..Watching::default()
        };
        FakeAgent::start(&self.path("agent.sock"), watching)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ft-monitor"));
        command
            .arg("--agent")
            .arg(self.path("agent.sock"))
            .arg("--socket")
            .arg(self.path("monitor.sock"))
            .arg("--state")
            .arg(self.path("state"))
            .arg("--config")
            .arg(self.path("etc"))
            .args(["--log", "debug"])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    fn start_monitor(&mut self) {
        self.monitor = Some(self.command().spawn().unwrap());
        self.until("the monitor answers", || {
            self.parapet("status").status.success()
        });
    }

    fn kill_monitor(&mut self) {
        let mut child = self.monitor.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn parapet(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_parapet"))
            .args(line.split_whitespace())
            .env("PARAPET_MONITOR_SOCKET", self.path("monitor.sock"))
            .env("PARAPET_AGENT_SOCKET", self.path("agent.sock"))
            .output()
            .unwrap()
    }

    fn says(&self, line: &str) -> String {
        let output = self.parapet(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.says(&format!("{line} --json"))).unwrap()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "waited for: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.monitor.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_crashed_guest_is_restarted_and_the_outage_told() {
    let mut host = Host::new();
    let agent = host.agent();
    host.start_monitor();
    host.until("the agent is heard", || agent.is_heard());
    agent.crash();
    host.until("the restart", || agent.restarts() == 1);
    host.until("the end of the outage", || {
        host.json("availability")[0]["outages"][0]["end"] == "restored"
    });
    let status = host.json("status");
    assert_eq!(status["guests"][0]["state"], "healthy", "{status}");
    assert_eq!(status["guests"][0]["domid"], 4);
    let line = &host.json("availability")[0];
    assert_eq!(line["outages"][0]["cause"], "crash");
    assert_eq!(line["failures"], 1);
    let story = host.says("events --guest web1");
    for part in [
        "shut down: crash",
        "restarting domain 3 (crash)",
        "done: domain 4",
        "serves again",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert_eq!(agent.restarts(), 1);
}

#[test]
fn a_silent_guest_is_restarted_and_one_that_never_beat_is_not() {
    let mut host = Host::new();
    let agent = host.agent();
    host.start_monitor();
    host.until("the agent is heard", || agent.is_heard());
    agent.beat(1);
    host.until("the restart", || agent.restarts() == 1);
    let line = &host.json("availability")[0]["outages"][0];
    assert_eq!(line["cause"], "hang");
    assert!(line["detect_ms"].as_u64().unwrap() >= 3000, "{line}");
    // It runs again but has not shown that it serves: the outage goes on, and it is not restarted for a beat that never came.
    assert!(line["end"].is_null(), "{line}");
    agent.beat(1);
    host.until("the end of the outage", || {
        host.json("availability")[0]["outages"][0]["end"] == "restored"
    });
    assert_eq!(agent.restarts(), 1);
}

#[test]
fn a_monitor_killed_in_the_middle_of_a_restart_does_not_restart_twice() {
    let mut host = Host::new();
    let agent = host.agent();
    host.start_monitor();
    host.until("the agent is heard", || agent.is_heard());
    agent.hold();
    agent.crash();
    host.until("the request", || !agent.asked().is_empty());
    host.kill_monitor();
    agent.hang_up();
    // The agent had begun and goes on; the new monitor asks again for the same domain, or finds it done.
    host.start_monitor();
    agent.release();
    host.until("the restart", || agent.restarts() == 1);
    host.until("all is well", || {
        host.json("availability")[0]["outages"][0]["end"] == "restored"
    });
    assert_eq!((agent.restarts(), agent.domid()), (1, Some(DomId(4))));
    host.until("the intent is settled", || {
        host.json("status")["guests"][0]["action"].is_null()
    });
}

#[test]
fn a_restart_that_the_agent_refuses_is_tried_again() {
    let mut host = Host::new();
    let agent = host.agent();
    agent.refuse(Some("not enough memory"));
    host.start_monitor();
    host.until("the agent is heard", || agent.is_heard());
    agent.crash();
    host.until("the refusal", || {
        host.says("events").contains("failed: not enough memory")
    });
    agent.refuse(None);
    host.until("the restart", || agent.restarts() == 1);
}

#[test]
fn protection_is_changed_while_the_guest_runs() {
    let mut host = Host::new();
    let agent = host.agent();
    host.start_monitor();
    host.says("protect web1 none --heartbeat 0");
    host.until("the monitor knows", || {
        host.json("status")["guests"][0]["protection"] == "none"
    });
    agent.crash();
    host.until("the monitor saw it", || {
        host.json("status")["guests"][0]["state"] == "failed"
    });
    let [
        Request::Protect {
            protection: Protection::None,
            watching: Some(watching),
            ..
        },
    ] = &agent.asked()[..]
    else {
        panic!("{:?}", agent.asked());
    };
    assert_eq!(watching.heartbeat_timeout_ms, None);
    assert_eq!(host.says("upgrade-drivers 3"), "drivers replaced: 1\n");
    assert!(host.says("guests").contains("down (crash)"));
    let unknown = host.parapet("protect web9 none");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no guest web9"));
}

#[test]
fn where_a_guest_runs_that_was_given_away_is_for_the_operator_to_say() {
    let host = Host::new();
    let agent = host.agent();
    let refused = host.parapet("settle web1 here");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was not given"));
    agent.give_away();
    assert!(host.says("guests").contains("leaving"));
    assert_eq!(host.says("settle web1 here"), "web1: goes on here\n");
    assert_eq!(
        host.says("settle web1 there"),
        "web1: what was left of it here is gone\n"
    );
    let settled = |here| Request::SettleMove {
        domid: DomId(3),
        here,
    };
    assert_eq!(agent.asked(), [settled(true), settled(false)]);
}

#[test]
fn what_is_not_running_is_named() {
    let mut host = Host::new();
    for (line, who) in [
        ("status", "ft-monitor"),
        ("events", "ft-monitor"),
        ("guests", "dom0-agent"),
    ] {
        let output = host.parapet(line);
        assert_eq!(output.status.code(), Some(3), "{line}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&format!("{who} is not running")), "{text}");
        assert!(text.contains(&format!("systemctl start {who}")), "{text}");
    }
    host.start_monitor();
    let status = host.says("status");
    assert!(
        status.contains("not heard") && status.contains("no guests"),
        "{status}"
    );
    assert_eq!(host.says("availability"), "no guests seen yet\n");
    let second = host.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another ft-monitor answers there"), "{text}");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let host = Host::new();
    std::fs::write(
        host.path("etc/ft-monitor.toml"),
        "grace_s = 0\nprobe_evry_s = 1\n",
    )
    .unwrap();
    let output = host.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in ["ft-monitor.toml", "line 2", "probe_evry_s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn events_are_followed_as_they_happen() {
    use std::io::{BufRead, BufReader};
    let mut host = Host::new();
    let agent = host.agent();
    host.start_monitor();
    host.until("the agent is heard", || agent.is_heard());
    let mut follower = Command::new(env!("CARGO_BIN_EXE_parapet"))
        .args(["events", "--follow", "--json", "--guest", "web1", "-n", "0"])
        .env("PARAPET_MONITOR_SOCKET", host.path("monitor.sock"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // Beats until the follower hears something: it may not listen yet.
    let heard = std::thread::spawn(move || lines.next().unwrap().unwrap());
    let mut round = 0_u64;
    host.until("the follower hears", || {
        round += 1;
        let class = if round.is_multiple_of(2) {
            "none"
        } else {
            "restart"
        };
        host.says(&format!("protect web1 {class}"));
        heard.is_finished()
    });
    let line: serde_json::Value = serde_json::from_str(&heard.join().unwrap()).unwrap();
    assert_eq!(line["guest"], "web1", "{line}");
    assert_eq!(line["kind"], "known", "{line}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}
