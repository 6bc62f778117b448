//! Both ways: stock tools work on our guests, our commands work on stock guests.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, nested};
use stack_tests::stock::{self, Guest, Kind};

fn with_parapet(test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        test(host)?;
        product::clean(host)
    })
}

#[test]
fn stock_tools_see_reach_and_end_our_guests() -> Result<()> {
    with_parapet(|host| {
        let guest = Guest::minimal("ours", Kind::Pvh, 21);
        product::create(host, &guest, "")?;
        host.guest("ours").wait_up()?;
        for (ours, theirs) in [(XL, stock::XL)] {
            for arguments in [
                &["domid", "ours"][..],
                &["block-list", "ours"],
                &["network-list", "ours"],
                &["vm-list"],
            ] {
                let argv = |tool| [&[tool][..], arguments].concat();
                ensure!(
                    host.ok(&argv(ours))? == host.ok(&argv(theirs))?,
                    "{arguments:?} differs"
                );
            }
        }
        let long = host.ok(&[stock::XL, "list", "-l", "ours"])?;
        ensure!(
            long.contains("\"name\": \"ours\"") && long.contains("/tmp/ours.raw"),
            "{long}"
        );
        // Stock `xl console` in a pipe: what the guest says arrives.
        let said = host.sh(&format!(
            "(sleep 1; printf 'echo stock-$((40+2))\\n'; sleep 3) | timeout 20 {} console ours | grep -a -m1 stock-42",
            stock::XL
        ))?;
        ensure!(said.contains("stock-42"), "{said}");
        host.ok(&[stock::XL, "shutdown", "-w", "ours"])?;
        product::gone(host, "ours")?;

        product::create(host, &guest, "")?;
        host.guest("ours").wait_up()?;
        host.ok(&[stock::XL, "destroy", "ours"])?;
        product::gone(host, "ours")?;
        host.wait_until(
            "! ls /var/lib/parapet/guests | grep -q .",
            std::time::Duration::from_secs(30),
        )?;
        host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))
            .map(drop)
    })
}

#[test]
fn our_commands_see_reach_and_end_stock_guests() -> Result<()> {
    with_parapet(|host| {
        let guest = Guest::bare("theirs", Kind::Pv);
        guest.create(host)?;
        host.guest("theirs").wait_up()?;
        ensure!(
            host.ok(&[XL, "list", "theirs"])?.contains("theirs"),
            "not in our list"
        );
        let long = host.ok(&[XL, "list", "-l", "theirs"])?;
        ensure!(long.contains("\"name\": \"theirs\""), "{long}");
        host.ok(&[XL, "pause", "theirs"])?;
        ensure!(
            host.ok(&[stock::XL, "list", "theirs"])?.contains("--p---"),
            "not paused"
        );
        host.ok(&[XL, "unpause", "theirs"])?;
        host.ok(&[XL, "rename", "theirs", "renamed"])?;
        host.ok(&[stock::XL, "domid", "renamed"])?;
        host.ok(&[XL, "destroy", "renamed"])?;
        product::gone(host, "renamed")?;
        host.sh(&format!("rm -f {}", guest.config_path())).map(drop)
    })
}

#[test]
fn reading_commands_print_what_stock_prints() -> Result<()> {
    with_parapet(|host| {
        for arguments in [
            &["info"][..],
            &["info", "free"],
            &["info", "-n"],
            &["dmesg"],
            &["domname", "0"],
        ] {
            let argv = |tool| [&[tool][..], arguments].concat();
            let (ours, theirs) = (host.run(&argv(XL))?, host.run(&argv(stock::XL))?);
            ensure!(
                (ours.code, ours.text()) == (theirs.code, theirs.text()),
                "{arguments:?}:\n{}\nstock:\n{}",
                ours.text(),
                theirs.text()
            );
        }
        Ok(())
    })
}
