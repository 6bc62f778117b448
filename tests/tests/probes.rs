//! A guest that a monitor asks from outside, and that watches itself: what stops answering is found while the heartbeat goes on, and what stops
//! petting the watchdog is shut down by Xen.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack_tests::product::{self, BIN, PARAPET};
use stack_tests::rig::cpio::Archive;
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::scenario::harm::{self, Injury};
use stack_tests::stock::{Guest, Kind};
use stack_tests::timeline::Timeline;

/// The guest's name, and the last byte of its address.
const NAME: &str = "served";
const ADDRESS: usize = 41;
const TCP: &str = "tcp:10.77.0.41:7002";
const HTTP: &str = "http://10.77.0.41/index.html";
const PING: &str = "ping:10.77.0.41";
/// A ramdisk with the guest's services.
const RAMDISK: &str = "/run/initrd-served";
/// The monitor's configuration: a short grace, so that no time is spent on waiting for it.
const POLICY: &str = "/etc/parapet/ft-monitor.toml";
const POLICY_TEXT: &str =
    "grace_s = 5\nprobe_every_s = 4\nprobe_timeout_s = 3\nprobe_failures = 3\n";
/// Seconds without a pet after which Xen shuts the guest down.
const WATCHDOG_S: u32 = 8;

/// Starts with the guest: a web server, a port that accepts, and our program with the watchdog, whose driver it loads itself. busybox' modprobe
/// wants its module where a distribution has it.
fn services() -> String {
    format!(
        "#!/bin/sh
mkdir -p /tmp/www && echo well > /tmp/www/index.html
httpd -p 80 -h /tmp/www
nc -ll -p 7002 -e true &
rmmod xen_wdt
modules=/lib/modules/$(uname -r)
mkdir -p $modules && cp /modules/xen_wdt.ko $modules && depmod
exec /bin/parapet-guest --watchdog {WATCHDOG_S}
"
    )
}

/// The web server accepts, and says nothing.
const DUMB: Injury = Injury {
    what: "its web server stands still",
    cause: "unreachable",
    inflict: |host, guest| suffer(host, guest, "kill -STOP $(pidof httpd)", HTTP, "no answer"),
};
/// The port is closed.
const CLOSED: Injury = Injury {
    what: "its service ends",
    cause: "unreachable",
    inflict: |host, guest| suffer(host, guest, "kill -9 $(pidof nc)", TCP, "refused"),
};
/// Everything else is answered.
const DEAF: Injury = Injury {
    what: "it answers no ping",
    cause: "unreachable",
    inflict: |host, guest| {
        let order = "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all";
        suffer(host, guest, order, PING, "no answer")
    },
};
/// The kernel goes on, and so do all other programs.
const UNPETTED: Injury = Injury {
    what: "parapet-guest is killed, and no longer pets the watchdog",
    cause: "watchdog",
    inflict: |host, guest| {
        let inside = host.guest(&guest.name);
        let timeout = inside.sh("cat /sys/class/watchdog/watchdog0/timeout")?;
        ensure!(
            timeout.trim() == WATCHDOG_S.to_string(),
            "the program did not load the driver with its own timeout: {timeout}"
        );
        inside.sh("kill -9 $(pidof parapet-guest)").map(drop)
    },
};

#[test]
fn what_answers_no_more_is_found_from_outside_and_a_starved_watchdog_from_inside() -> Result<()> {
    nested(&Shape::default(), |host| {
        let mut timeline = Timeline::default();
        host.sh("mkdir -p /etc/parapet")?;
        host.write(POLICY, POLICY_TEXT.as_bytes(), 0o644)?;
        product::start(host)?;
        let guest = Guest::minimal(NAME, Kind::Pvh, ADDRESS);
        let told = story(host, &guest, &mut timeline);
        timeline.print();
        told?;
        product::destroy(host, &guest)?;
        host.sh(&format!("rm -r {RAMDISK} /etc/parapet"))?;
        product::clean(host)
    })
}

fn story(host: &Host, guest: &Guest, timeline: &mut Timeline) -> Result<()> {
    timeline.step("a guest with three services and a watchdog boots", || {
        create(host, guest)?;
        host.guest(NAME).wait_up()?;
        all_well(host)
    })?;
    for injury in [DUMB, CLOSED, DEAF, UNPETTED] {
        harm::injure(host, guest, injury, timeline)?;
        all_well(host)?;
    }
    Ok(())
}

fn create(host: &Host, guest: &Guest) -> Result<()> {
    let mut extra = Archive::default();
    let program = host.read(&format!("{BIN}/parapet-guest"))?;
    extra.file("bin/parapet-guest", true, &program);
    extra.dir("start");
    extra.file("start/services", true, services().as_bytes());
    host.write("/run/extra.cpio", &extra.finish(), 0o644)?;
    host.sh(&format!(
        "cat /lab/guest/initrd /run/extra.cpio > {RAMDISK}; rm /run/extra.cpio"
    ))?;
    guest.prepare(host)?;
    let config = format!(
        "{}protect=\"restart\"\nprotect_heartbeat_timeout=30\nprotect_probe=[\"{HTTP}\", \"{TCP}\", \"{PING}\"]\n",
        guest.config().replace("/lab/guest/initrd", RAMDISK)
    );
    host.write(&guest.config_path(), config.as_bytes(), 0o644)?;
    host.ok(&[product::XL, "create", &guest.config_path()])
        .map(drop)
}

/// What the monitor shows of the guest.
fn shown(host: &Host) -> Result<Value> {
    let status = product::json(host, &[PARAPET, "status", "--json"])?;
    let guests = status.get("guests").and_then(Value::as_array);
    let guest = guests.and_then(|all| all.first());
    guest
        .cloned()
        .with_context(|| format!("no guest in {status}"))
}

/// Waits until the monitor has heard heartbeats and an answer to each probe, and has no doubt.
fn all_well(host: &Host) -> Result<()> {
    until(host, |guest| {
        let probes = guest["probes"].as_array().map_or(&[][..], Vec::as_slice);
        guest["state"] == "healthy"
            && guest["heartbeat_ago_ms"].is_u64()
            && probes.len() == 3
            && probes
                .iter()
                .all(|probe| probe["answered_ago_ms"].is_u64() && probe["failures"] == 0)
    })
}

/// Does something to the guest, and sees that one probe fails by it, for the reason that it should, while the others are answered and the heart beats.
fn suffer(host: &Host, guest: &Guest, order: &str, target: &str, why: &str) -> Result<()> {
    host.guest(&guest.name).sh(order)?;
    until(host, |guest| {
        let probes = guest["probes"].as_array().map_or(&[][..], Vec::as_slice);
        let beats = guest["heartbeat_ago_ms"].as_u64();
        beats.is_some_and(|ago| ago < 5000)
            && probes.iter().all(|probe| {
                let hit = probe["target"] == target;
                let failed = probe["failures"].as_u64().is_some_and(|times| times > 0);
                let error = probe["error"].as_str().unwrap_or_default();
                hit == failed && (!hit || error.contains(why))
            })
    })
}

fn until(host: &Host, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let give_up = std::time::Instant::now() + deadline::scaled(deadline::SETTLE);
    loop {
        let guest = shown(host)?;
        if is_so(&guest) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < give_up, "it stays so: {guest}");
    }
}
