//! What a command says when something it stands on is not there, or not known.

use crate::support::desk::{Desk, SimReach, say};
use dom0_agent::cli::reach::Failure;
use xen_abi::version::XenVersion;
use xen_sim::World;

#[test]
fn an_unsupported_release_is_named_together_with_what_is_supported() {
    for (major, minor) in [(4, 16), (4, 99), (5, 0)] {
        let world = World::builder(1)
            .version(XenVersion { major, minor })
            .build();
        let error = world.open("xl").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("{major}.{minor}")), "{text}");
        assert!(text.contains("4.17") && text.contains("4.22"), "{text}");
        let reach = SimReach {
            wire: std::sync::Mutex::default(),
            link: None,
            xen: Err(Failure::new(format!("cannot init xl context: {error}"))),
            socket: "/nonexistent/agent.sock".into(),
            userdata: "/nonexistent".into(),
        };
        for command in [&["list"][..], &["info"], &["destroy", "x"], &["vcpu-list"]] {
            let said = say(&reach, command);
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{command:?}");
            assert_eq!(said.err.lines().count(), 1, "{said:?}");
            assert!(said.err.contains(&text));
        }
        // Help needs nothing.
        assert_eq!(say(&reach, &["help"]).code, 0);
    }
}

#[test]
fn a_stopped_xenstored_is_named() {
    let mut desk = Desk::new();
    desk.guest("web1");
    desk.host.world.set_xenstored_down(true);
    for line in [
        "list",
        "domid web1",
        "destroy 1",
        "shutdown 1",
        "rename 1 x",
    ] {
        let said = desk.xl(line);
        assert_eq!(said.code, 1, "{line}: {said:?}");
        assert!(said.err.contains("xenstored"), "{line}: {said:?}");
    }
    desk.host.world.set_xenstored_down(false);
    assert_eq!(desk.xl("destroy 1").code, 0);
    desk.host.assert_clean();
}

/// The program itself, on the machine that builds it.
#[test]
fn a_machine_without_xen_is_told_in_one_line() {
    let xen = std::fs::read_to_string("/sys/hypervisor/type").unwrap_or_default();
    if xen.trim() == "xen" {
        return test_skips::skipped("not on Xen", "this machine runs on Xen");
    }
    for command in [
        &["list"][..],
        &["info"],
        &["destroy", "1"],
        &["create", "/dev/null", "name=\"x\""],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_xl"))
            .args(command)
            .env("PARAPET_AGENT_SOCKET", "/nonexistent/agent.sock")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(output.stdout.is_empty(), "{command:?}");
        let chatter = |line: &&str| !line.starts_with("Parsing config from");
        let lines: Vec<&str> = said.lines().filter(chatter).collect();
        let [line] = lines[..] else {
            panic!("{command:?}: {said}")
        };
        let named = if command[0] == "list" || command[0] == "info" {
            line.starts_with("cannot init xl context: ")
        } else {
            line.contains("cannot init xl context: ") || line.contains("the agent is not running")
        };
        assert!(named, "{command:?}: {line}");
    }
}
