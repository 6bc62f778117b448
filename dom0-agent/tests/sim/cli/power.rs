//! The commands that stop guests, and the one that stays with a guest until it has stopped for good.

use crate::support::Host;
use crate::support::desk::{Desk, SimReach, check, say};
use dom0_agent::cli::dispatch;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xen_abi::domain::{DomainKind, Trigger};
use xen_abi::hvm::params::CALLBACK_IRQ;
use xen_abi::ids::{DomId, VcpuId};
use xen_host::seam::DomainControl;
use xen_sim::GuestSpec;

/// Until a command has done its part; it looks itself about once a second.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn shutdown_waits_for_what_the_guest_does() {
    let mut desk = Desk::new();
    let domid = desk.guest("web1");
    check(
        &desk,
        &[
            ("shutdown", 2, "", "require -a or a domain"),
            ("shutdown -a web1", 1, "", "either -a or a domain"),
            ("shutdown nosuch", 1, "", "nosuch is an invalid"),
            ("shutdown 99", 1, "", "99"),
            ("shutdown Domain-0", 1, "", "dom0"),
        ],
    );
    let reach = desk.reach();
    let world = desk.host.world.clone();
    let said = std::thread::scope(|scope| {
        let command = scope.spawn(|| say(&reach, &["shutdown", "web1", "-F", "-ww"]));
        let host = &mut desk.host;
        let done = world.wait_until(Duration::from_secs(30), || {
            host.settle();
            command.is_finished()
        });
        assert!(done);
        command.join().unwrap()
    });
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains(&format!("Shutting down domain {domid}")),
        "{said:?}"
    );
    assert!(
        said.err.contains("Waiting for 1 domains") && said.err.contains("has been destroyed"),
        "{said:?}"
    );
    assert_eq!(said.out, "");
    desk.host.assert_clean();
}

/// What a guest of another system is like, and one that has not booted: nobody says how it wants its events.
fn deafen(desk: &Desk, domid: DomId) {
    let tool = desk.host.world.host("tool");
    tool.set_hvm_param(domid, CALLBACK_IRQ, 0).unwrap();
    desk.host.world.kill(&tool);
}

#[test]
fn a_guest_without_pv_drivers_has_its_button_pressed_if_that_is_wished() {
    let mut desk = Desk::new();
    let spec = GuestSpec {
        kind: DomainKind::Hvm,
        ..GuestSpec::pvh("windows")
    };
    let stock = desk.host.world.spawn(&spec);
    let ours = desk.guest("web1");
    deafen(&desk, stock.domid());
    deafen(&desk, ours);
    check(
        &desk,
        &[
            (
                "shutdown windows",
                1,
                "",
                "PV control interface not available: external graceful shutdown not possible.\nUse \"-F\" to fallback to ACPI power event.\nshutdown failed (rc=-10)\n",
            ),
            (
                "reboot windows",
                1,
                "",
                "external graceful reboot not possible.\nUse \"-F\" to fallback to ACPI reset event.\nreboot failed (rc=-10)\n",
            ),
            (
                "shutdown windows -F",
                0,
                "",
                "sending ACPI power button event.\n",
            ),
            (
                "reboot -F windows",
                0,
                "",
                "sending ACPI reset button event.\n",
            ),
            // A PVH guest has no such button, and Xen says so.
            ("shutdown -F web1", 1, "", "shutdown failed (rc=-3): "),
        ],
    );
    let world = &desk.host.world;
    assert_eq!(
        world.triggers(stock.domid()),
        [(Trigger::Power, VcpuId(0)), (Trigger::Reset, VcpuId(0))]
    );
    for domid in [stock.domid(), ours] {
        let word = world.xs_read(&format!("/local/domain/{domid}/control/shutdown"));
        assert_eq!(word.unwrap_or_default(), "", "domain {domid}");
    }
    // With drivers it is asked, `-F` or not.
    let hearing = desk.guest("web2");
    let said = desk.xl("shutdown -F web2");
    assert_eq!(
        (said.code, said.err),
        (0, format!("Shutting down domain {hearing}\n"))
    );
    desk.host.settle();
    for domid in [stock.domid(), ours] {
        desk.host.agent.destroy(domid).unwrap();
    }
    desk.host.settle();
    desk.host.assert_clean();
}

/// What a command that still runs has said.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(reach: &SimReach, line: &str, heard: &Heard) -> u8 {
    let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    dispatch(reach, &arguments, &mut Vec::new(), &mut heard.clone())
}

/// The running domain of the only guest.
fn runs(host: &Host) -> Option<DomId> {
    let domid = host.agent.guests().first()?.domid?;
    host.machines.contains_key(&domid).then_some(domid)
}

/// `xl create -F` of a guest with these lines, while `story` happens to it.
fn in_the_foreground(lines: &str, story: impl FnOnce(&mut Host, &Heard)) -> (u8, String) {
    let mut desk = Desk::new();
    let line = format!("create -q -F {}", desk.config("web1", lines).display());
    let (reach, heard) = (desk.reach(), Heard::default());
    let code = std::thread::scope(|scope| {
        let command = scope.spawn(|| run(&reach, &line, &heard));
        story(&mut desk.host, &heard);
        let (world, host) = (desk.host.world.clone(), &mut desk.host);
        assert!(world.wait_until(PATIENCE, || {
            host.settle();
            command.is_finished()
        }));
        command.join().unwrap()
    });
    for guest in desk.host.agent.guests() {
        desk.host.agent.destroy(guest.domid.unwrap()).unwrap();
    }
    desk.host.settle();
    desk.host.assert_clean();
    (code, heard.text())
}

/// Waits until the guest runs in another domain than `not`.
fn until_it_runs(host: &mut Host, not: Option<DomId>) -> DomId {
    let world = host.world.clone();
    assert!(world.wait_until(PATIENCE, || {
        host.settle();
        runs(host).is_some_and(|domid| Some(domid) != not)
    }));
    runs(host).unwrap()
}

#[test]
fn create_in_the_foreground_follows_its_guest_through_reboots() {
    let mut ids = Vec::new();
    let (code, said) = in_the_foreground("", |host, heard| {
        let mut now = until_it_runs(host, None);
        for _ in 0..2 {
            ids.push(now);
            host.pass(Duration::from_secs(5));
            host.machine(now).kernel.reboot();
            let next = until_it_runs(host, Some(now));
            let told = format!("Domain {now} was restarted as domain {next}\n");
            let world = host.world.clone();
            assert!(
                world.wait_until(PATIENCE, || heard.text().contains(&told)),
                "{}",
                heard.text()
            );
            now = next;
        }
        host.pass(Duration::from_secs(5));
        host.machine(now).kernel.power_off();
    });
    assert_eq!(code, 0, "{said}");
    let begin = format!("Waiting for domain {} to die [pid ", ids[0]);
    assert!(said.starts_with(&begin), "{said}");
    assert_eq!(said.matches("was restarted as").count(), 2, "{said}");
}

#[test]
fn create_in_the_foreground_ends_where_a_guest_is_kept_for_its_operator() {
    let (code, said) = in_the_foreground("on_crash=\"preserve\"", |host, _| {
        let now = until_it_runs(host, None);
        host.pass(Duration::from_secs(5));
        host.machine(now).kernel.crash();
    });
    assert_eq!(code, 0, "{said}");
    assert!(
        said.ends_with("reason code 3, and is preserved\n"),
        "{said}"
    );
}
