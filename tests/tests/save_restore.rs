//! Save files of ours and of stock's: each toolstack restores the other's, and what ran in the guest runs on.

use anyhow::{Context, Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::scenario::continuity::{begin, goes_on};
use stack_tests::stock::{self, Guest, Kind};

/// Debian's own reader of save files, which judges every record.
const JUDGE: &str = "/usr/lib/xen-*/bin/verify-stream-v2";

fn with_parapet(test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        test(host)?;
        product::clean(host)
    })
}

fn file(guest: &Guest) -> String {
    format!("/tmp/{}.save", guest.name)
}

fn judge(host: &Host, path: &str) -> Result<()> {
    host.sh(&format!(
        "PYTHONPATH=$(echo /usr/lib/xen-*/lib/python) python3 {JUDGE} --format xl --in {path} 2>&1"
    ))
    .with_context(|| format!("Debian's judge does not accept {path}"))
    .map(drop)
}

fn clean_up(host: &Host, guest: &Guest) -> Result<()> {
    product::gone(host, &guest.name)?;
    host.sh(&format!(
        "rm -f {} {} {}",
        file(guest),
        guest.disk(),
        guest.config_path()
    ))
    .map(drop)
}

#[test]
fn guests_come_back_from_our_files_and_run_on_beside_a_copy() -> Result<()> {
    with_parapet(|host| {
        for guest in [
            Guest::minimal("pvh", Kind::Pvh, 31),
            Guest::minimal("pv", Kind::Pv, 32),
        ] {
            product::create(host, &guest, "")?;
            begin(host, &guest)?;
            let before = host.guest(&guest.name).domid()?;
            host.ok(&[XL, "save", "-c", &guest.name, &file(&guest)])?;
            judge(host, &file(&guest))?;
            goes_on(host, &guest)?;
            ensure!(host.guest(&guest.name).domid()? == before, "another domain");

            host.ok(&[XL, "save", &guest.name, &file(&guest)])?;
            judge(host, &file(&guest))?;
            product::gone(host, &guest.name)?;
            host.ok(&[XL, "restore", &file(&guest)])?;
            goes_on(host, &guest)?;
            // A guest that was restored is a guest as any other: saved again, and ended.
            host.ok(&[XL, "save", &guest.name, &file(&guest)])?;
            host.ok(&[XL, "restore", &file(&guest)])?;
            goes_on(host, &guest)?;
            host.ok(&[XL, "shutdown", "-w", &guest.name])?;
            clean_up(host, &guest)?;
        }
        host.wait_until("! ls /var/lib/parapet/guests | grep -q .", deadline::SETTLE)
    })
}

#[test]
fn stock_restores_our_files_and_we_restore_stocks() -> Result<()> {
    with_parapet(|host| {
        for guest in [
            Guest::minimal("pvh", Kind::Pvh, 33),
            Guest::minimal("pv", Kind::Pv, 34),
        ] {
            product::create(host, &guest, "")?;
            begin(host, &guest)?;
            host.ok(&[XL, "save", &guest.name, &file(&guest)])?;
            product::gone(host, &guest.name)?;
            host.ok(&[stock::XL, "restore", &file(&guest)])?;
            goes_on(host, &guest)?;
            host.ok(&[stock::XL, "save", &guest.name, &file(&guest)])?;
            host.ok(&[XL, "restore", &file(&guest)])?;
            goes_on(host, &guest)?;
            host.ok(&[XL, "destroy", &guest.name])?;
            clean_up(host, &guest)?;
        }
        host.wait_until("! ls /var/lib/parapet/guests | grep -q .", deadline::SETTLE)
    })
}

#[test]
fn a_guest_runs_on_when_the_agent_is_killed_while_it_saves() -> Result<()> {
    with_parapet(|host| {
        let guest = Guest::minimal("pvh", Kind::Pvh, 35);
        product::create(host, &guest, "")?;
        begin(host, &guest)?;
        let before = host.guest(&guest.name).domid()?;
        let path = file(&guest);
        // The file is beside the one that is meant until it is complete.
        let outcome = host.sh(&format!(
            "{XL} save {name} {path} > /tmp/said 2>&1 & \
             until [ $(stat -c %s /tmp/.{name}.save.*.partial 2> /dev/null || echo 0) -gt 16000000 ]; do kill -0 $! || break; done; \
             pkill -KILL -x dom0-agent; wait $!; echo $?; cat /tmp/said; rm /tmp/said",
            name = guest.name
        ))?;
        ensure!(outcome.starts_with("1\n"), "{outcome}");
        host.sh(&format!("! ls -A /tmp | grep {}.save", guest.name))?;
        product::start_agent(host)?;
        goes_on(host, &guest)?;
        ensure!(host.guest(&guest.name).domid()? == before, "another domain");
        product::destroy(host, &guest)
    })
}
