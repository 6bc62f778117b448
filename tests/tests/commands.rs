//! What an operator does to guests that run: a PVH guest with two CPUs, and a guest of stock's beside it.
//!
//! Both boot together, and each is used for as much as it can show.

use anyhow::{Context, Result, ensure};
use stack_tests::product::{self, PARAPET, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::scenario::main_job;
use stack_tests::stock::{self, Guest, Kind};
use stack_tests::timeline::Timeline;

/// Numbered lines that a guest sends to dom0 while its driver is replaced.
const LINES: u32 = 400;
/// Pause between two of them, in microseconds: replaced within these lines, not after them.
const LINE_PAUSE_US: u32 = 30_000;

#[test]
fn a_long_day_of_commands() -> Result<()> {
    nested(&Shape::default(), |host| {
        let mut timeline = Timeline::default();
        product::start(host)?;
        let told = day(host, &mut timeline);
        timeline.print();
        told?;
        product::clean(host)
    })
}

fn day(host: &Host, timeline: &mut Timeline) -> Result<()> {
    let smp = Guest::minimal("smp", Kind::Pvh, 31);
    let theirs = Guest::bare("theirs", Kind::Pv);
    timeline.step("two guests are created", || {
        // Paused: guests that boot keep the one CPU from those who create.
        theirs.prepare(host)?;
        host.ok(&[stock::XL, "create", "-q", "-p", &theirs.config_path()])?;
        smp.prepare(host)?;
        let config = product::config(&smp, "vcpus=2\n");
        host.write(&smp.config_path(), config.as_bytes(), 0o644)?;
        host.ok(&[XL, "create", "-q", "-p", &smp.config_path()])
            .map(drop)
    })?;
    timeline.step("they boot together", || {
        host.sh(&format!("{XL} unpause smp; {XL} unpause theirs"))?;
        host.guest(&smp.name).wait_up()?;
        host.guest(&theirs.name).wait_up()
    })?;
    timeline.step(
        "a PVH guest starts its second CPU and a queue for each",
        || two_of_everything(host, &smp.name),
    )?;
    timeline.step("its driver holds no right that it does not need", || {
        driver_is_confined(host, &smp.name)
    })?;
    for name in [&smp.name, &theirs.name] {
        timeline.step(&format!("xl console types into {name} and reads"), || {
            stock::console_types_and_reads(host, XL, name)
        })?;
    }
    timeline.step("a disk and an interface come, work and go", || {
        devices_come_and_go(host, &smp.name)
    })?;
    timeline.step("the frontends had nothing to complain about", || {
        frontends_are_content(host, &smp.name)
    })?;
    timeline.step(
        "upgrade-drivers and kill -9, under a stream and disk writes",
        || driver_changes_under_io(host, &smp),
    )?;
    timeline.step("a stranger may not destroy it", || {
        stranger_is_refused(host, &smp.name)
    })?;
    timeline.step("our sysrq and trigger reach stock's guest", || {
        stock_guest_obeys(host, &theirs.name)
    })?;
    timeline.step("xl shutdown -a -w ends both", || {
        let said = host.run(&[XL, "shutdown", "-a", "-w"])?;
        let (code, said) = (said.code, said.errors());
        ensure!(
            code == 0 && said.contains("Waiting for 2 domains"),
            "{code}: {said}"
        );
        for guest in [&smp, &theirs] {
            product::gone(host, &guest.name)?;
            host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))?;
        }
        host.wait_until("! ls /var/lib/parapet/guests | grep -q .", deadline::SETTLE)
    })
}

fn xs(host: &Host, path: &str) -> Result<String> {
    Ok(host.ok(&["xenstore-read", path])?.trim().to_owned())
}

/// Both CPUs run, and disk and network serve one queue for each.
fn two_of_everything(host: &Host, name: &str) -> Result<()> {
    let online = host
        .guest(name)
        .sh("grep -c ^processor /proc/cpuinfo; taskset 2 true && echo second")?;
    ensure!(
        online.split_whitespace().eq(["2", "second"]),
        "CPUs: {online}"
    );
    let domid = host.guest(name).domid()?;
    for device in ["vbd/51712", "vif/0"] {
        let front = format!("/local/domain/{domid}/device/{device}");
        let queues = xs(host, &format!("{front}/multi-queue-num-queues"))?;
        let last = host.ok(&["xenstore-list", &format!("{front}/queue-1")])?;
        ensure!(
            queues == "2" && last.contains("event-channel"),
            "{device}: {queues} queues, the last: {last}"
        );
    }
    Ok(())
}

/// Process id of a guest's driver.
fn driver(host: &Host, name: &str) -> Result<String> {
    let domid = host.guest(name).domid()?;
    // The pattern starts with a class, or the shell that holds it in its own command line would be found.
    let found = host.sh(&format!(
        "pgrep -f '[s]plit-driver --domid {domid} ' | head -1"
    ))?;
    ensure!(!found.trim().is_empty(), "{name} has no driver");
    Ok(found.trim().to_owned())
}

fn driver_is_confined(host: &Host, name: &str) -> Result<()> {
    let status = host.sh(&format!("cat /proc/{}/status", driver(host, name)?))?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
            .with_context(|| format!("no {key} in {status}"))
    };
    let uids = field("Uid:")?;
    let own = uids.split(' ').next().unwrap_or_default();
    ensure!(
        own != "0" && uids.split(' ').all(|uid| uid == own),
        "it runs as {uids}"
    );
    for (key, value) in [
        ("Seccomp:", "2"),
        ("NoNewPrivs:", "1"),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
    ] {
        ensure!(
            field(key)? == value,
            "{key} {} instead of {value}",
            field(key)?
        );
    }
    // Nobody else runs as this user.
    let sharing = host.sh(&format!(
        "grep -l '^Uid:[[:space:]]*{own}[[:space:]]' /proc/[0-9]*/status 2>/dev/null | wc -l"
    ))?;
    ensure!(sharing.trim() == "1", "{sharing} processes run as {own}");
    Ok(())
}

fn devices_come_and_go(host: &Host, name: &str) -> Result<()> {
    let inside = host.guest(name);
    host.ok(&["truncate", "-s", "8M", "/tmp/more.raw"])?;
    host.ok(&[XL, "block-attach", name, "/tmp/more.raw,raw,xvdb,rw"])?;
    host.ok(&[XL, "network-attach", name, "bridge=xenbr0"])?;
    inside.sh(
        "until [ -b /dev/xvdb ] && [ -e /sys/class/net/eth1 ]; do sleep 0.2; done; \
         dd if=/dev/urandom of=/tmp/x bs=64k count=8 2>/dev/null && dd if=/tmp/x of=/dev/xvdb bs=64k conv=fsync 2>/dev/null && \
         echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/xvdb bs=64k count=8 2>/dev/null | cmp - /tmp/x && \
         ip link set eth1 up && ip addr add 10.77.0.131/32 dev eth1 && ping -q -c 2 -W 20 -I eth1 10.77.0.1",
    )?;
    let written = host.sh("cmp /tmp/more.raw /dev/zero 2>&1 | grep -c differ")?;
    ensure!(written.trim() == "1", "nothing reached the image");
    host.ok(&[XL, "block-detach", name, "xvdb"])?;
    host.ok(&[XL, "network-detach", name, "1"])?;
    inside.sh("while [ -b /dev/xvdb ] || [ -e /sys/class/net/eth1 ]; do sleep 0.2; done")?;
    let left = host.sh(&format!(
        "{XL} block-list {name} | grep 51728; {XL} network-list {name} | grep 'vif/.*/1$'; rm /tmp/more.raw"
    ))?;
    ensure!(left.trim().is_empty(), "still listed: {left}");
    Ok(())
}

/// The driver is upgraded, then killed, while the guest writes to its disk and sends numbered lines to dom0 over one TCP connection.
fn driver_changes_under_io(host: &Host, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    let inside = host.guest(name);
    host.sh(
        "rm -f /tmp/lines /tmp/lines.done; (mkfifo /tmp/open; exec 3<>/tmp/open; busybox nc -l -p 7001 > /tmp/lines <&3; rm /tmp/open; touch /tmp/lines.done) > /dev/null 2>&1 & \
         until busybox netstat -ltn | grep -q ':7001 '; do sleep 0.1; done",
    )?;
    inside.sh(&format!(
        "(i=0; while [ $i -lt {LINES} ]; do echo $i; usleep {LINE_PAUSE_US}; i=$((i+1)); done | nc -w 5 10.77.0.1 7001) > /dev/null 2>&1 & \
         (until [ -e /tmp/enough ]; do dd if=/dev/urandom of=/dev/xvda bs=64k count=16 conv=fsync 2>> /tmp/dd || echo wrong > /tmp/wrong; done) > /dev/null 2>&1 &"
    ))?;
    let mut before = driver(host, name)?;
    for (what, act) in [
        ("upgrade", format!("{PARAPET} upgrade-drivers {name}")),
        ("kill -9", "kill -9 $old".to_owned()),
    ] {
        // Something is on its way.
        host.wait_until("[ -s /tmp/lines ]", deadline::SETTLE)?;
        ensure!(
            host.run(&["test", "-e", "/tmp/lines.done"])?.code != 0,
            "the stream was over before the {what}"
        );
        host.sh(&format!("old={before}; {act}"))?;
        let domid = inside.domid()?;
        host.wait_until(
            &format!("p=$(pgrep -f '[s]plit-driver --domid {domid} ' | head -1) && [ -n \"$p\" ] && [ \"$p\" != {before} ]"),
            deadline::SETTLE,
        )?;
        before = driver(host, name)?;
    }
    host.wait_until("test -e /tmp/lines.done", deadline::GUEST_COMMAND)?;
    let lines = host.sh("cat /tmp/lines; rm -f /tmp/lines /tmp/lines.done")?;
    ensure!(
        lines.lines().eq((0..LINES).map(|n| n.to_string()).by_ref()),
        "of {LINES} lines came: {}",
        lines.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    let wrong = inside.sh(
        "touch /tmp/enough; ping -q -c 2 -W 20 10.77.0.1 > /dev/null || echo no answer to ping; cat /tmp/wrong 2>/dev/null; true",
    )?;
    ensure!(wrong.trim().is_empty(), "{wrong}");
    main_job::network_carries_data(host, std::slice::from_ref(guest))
}

fn stranger_is_refused(host: &Host, name: &str) -> Result<()> {
    let domid = host.guest(name).domid()?;
    let command = format!("{XL} destroy {domid}");
    let output = host.run(&["busybox", "su", "-s", "/bin/sh", "nobody", "-c", &command])?;
    let said = output.errors();
    ensure!(
        output.code == 1 && said.contains("may not do this; it needs root"),
        "{}: {said}",
        output.code
    );
    ensure!(host.guest(name).domid()? == domid, "it was destroyed");
    Ok(())
}

/// Nothing of the disk, the network or the bus is in the guest's log at level warning or worse.
fn frontends_are_content(host: &Host, name: &str) -> Result<()> {
    let said = host.guest(name).sh(
        "dmesg -r | grep -E '^<[0-4]>' | grep -iE 'blkfront|netfront|vbd|vif|xvd|eth[01]|xenbus|hvc' ; true",
    )?;
    ensure!(said.trim().is_empty(), "{said}");
    Ok(())
}

fn stock_guest_obeys(host: &Host, name: &str) -> Result<()> {
    host.ok(&[XL, "sysrq", name, "m"])?;
    host.guest(name)
        .sh("until dmesg | grep -q 'sysrq: Show Memory'; do sleep 0.2; done")?;
    let output = host.run(&[XL, "trigger", name, "nmi"])?;
    ensure!(output.code == 0, "trigger: {}", output.errors());
    host.guest(name).sh("true").map(drop)
}
