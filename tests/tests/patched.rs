//! On a hypervisor with the patches of `xen-patches/`: what they add does what it says, and the product uses it.
//!
//! Left out unless asked for, since it takes a build of Xen: `cargo xtask xen --test`.

use anyhow::{Context, Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::stock::{Guest, Kind};
use stack_tests::{probe, stock};

const LOG: &str = "/var/log/dom0-agent.log";

fn with_parapet(test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    nested(&Shape::patched(), |host| {
        product::start(host)?;
        probe::put(host)?;
        test(host)?;
        host.sh("rm -f /run/lab-probe")?;
        product::clean(host)
    })
}

#[test]
#[ignore = "takes a build of Xen: cargo xtask xen --test"]
fn pages_that_xen_copies_are_those_that_are_mapped() -> Result<()> {
    with_parapet(|host| {
        for guest in [Guest::bare("pvh", Kind::Pvh), Guest::bare("pv", Kind::Pv)] {
            guest.create(host)?;
            host.guest(&guest.name).wait_up()?;
            let said = probe::copy(host, host.guest(&guest.name).domid()?)?;
            ensure!(said.starts_with("same "), "{said}");
            println!("{}: {said}", guest.name);
            guest.destroy(host)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "takes a build of Xen: cargo xtask xen --test"]
fn guests_are_saved_and_restored_by_copies_and_stock_takes_the_files() -> Result<()> {
    with_parapet(|host| {
        for guest in [Guest::bare("pvh", Kind::Pvh), Guest::bare("pv", Kind::Pv)] {
            let (name, file) = (guest.name.as_str(), format!("/tmp/{}.save", guest.name));
            product::create(host, &guest, "")?;
            let inside = host.guest(name);
            inside.wait_up()?;
            inside.sh("dd if=/dev/urandom of=/run/random bs=64k count=8 2>/dev/null; md5sum /run/random > /run/sum")?;
            host.ok(&[XL, "save", name, &file])?;
            let size: u64 = host.ok(&["stat", "-c", "%s", &file])?.trim().parse()?;
            let memory: u64 = 128 << 20;
            ensure!(size < memory * 3 / 4, "zeroes are stored: {size} bytes");
            host.ok(&[XL, "restore", &file])?;
            inside.wait_up()?;
            inside.sh("md5sum -c /run/sum")?;
            host.ok(&[XL, "save", name, &file])?;
            product::gone(host, name)?;
            host.ok(&[stock::XL, "restore", &file])?;
            inside.wait_up()?;
            inside.sh("md5sum -c /run/sum")?;
            host.ok(&[stock::XL, "destroy", name])?;
            host.sh(&format!("rm -f {file} {}", guest.config_path()))?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "takes a build of Xen: cargo xtask xen --test"]
fn a_crash_is_noticed_while_xenstored_is_stopped() -> Result<()> {
    with_parapet(|host| {
        let guest = Guest::bare("crashes", Kind::Pvh);
        product::create(host, &guest, "on_crash=\"preserve\"")?;
        host.guest(&guest.name).wait_up()?;
        let domid = host.guest(&guest.name).domid()?;
        host.sh("kill -STOP $(pidof xenstored)")?;
        probe::stop(host, domid)?;
        let heard = host.wait_until(
            &format!("grep -q 'Xen says that a guest stopped' {LOG}"),
            deadline::SETTLE,
        );
        host.sh("kill -CONT $(pidof xenstored)")?;
        heard.context("the agent does not hear of it")?;
        product::destroy(host, &guest)?;
        for kind in [Kind::Pvh, Kind::Pv] {
            let guest = Guest::bare("told", kind);
            guest.create(host)?;
            host.guest(&guest.name).wait_up()?;
            let told = probe::crash(host, host.guest(&guest.name).domid()?)?;
            ensure!(told.xen.is_some() && told.xenstored.is_some(), "{told:?}");
            host.sh(&format!("xl destroy {} 2>/dev/null || true", guest.name))?;
            product::gone(host, &guest.name)?;
            host.sh(&format!("rm -f {}", guest.config_path()))?;
        }
        Ok(())
    })
}
