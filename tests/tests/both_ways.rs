//! Both ways: stock tools work on our guests, our commands work on stock guests and print what stock prints.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::stock::{self, Guest, Kind};

fn with_parapet(test: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        test(host)?;
        product::clean(host)
    })
}

/// Stock tools know nothing of Parapet: they see our guests as what stands in Xen and xenstore.
#[test]
fn stock_tools_see_reach_and_end_our_guests() -> Result<()> {
    with_parapet(|host| {
        let guests = [
            Guest::minimal("ours-pvh", Kind::Pvh, 21),
            Guest::minimal("ours-pv", Kind::Pv, 22),
        ];
        for guest in &guests {
            product::create(host, guest, "")?;
            host.guest(&guest.name).wait_up()?;
            stock_sees(host, guest)?;
            stock::console_types_and_reads(host, stock::XL, &guest.name)?;
        }
        let [first, second] = &guests;
        host.ok(&[stock::XL, "shutdown", "-w", &first.name])?;
        host.ok(&[stock::XL, "destroy", &second.name])?;
        for guest in &guests {
            product::gone(host, &guest.name)?;
            host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))?;
        }
        host.wait_until("! ls /var/lib/parapet/guests | grep -q .", deadline::SETTLE)
    })
}

/// Every reading command of stock finds the guest; where ours prints the same thing, it is the same.
fn stock_sees(host: &Host, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    for arguments in [
        &["domid", name][..],
        &["block-list", name],
        &["network-list", name],
        &["vm-list"],
    ] {
        let argv = |tool| [&[tool][..], arguments].concat();
        let (ours, theirs) = (host.ok(&argv(XL))?, host.ok(&argv(stock::XL))?);
        ensure!(
            ours == theirs && !theirs.trim().is_empty(),
            "{arguments:?}:\n{ours}\nstock:\n{theirs}"
        );
    }
    for command in ["list", "vcpu-list", "uptime"] {
        let said = host.ok(&[stock::XL, command, name])?;
        ensure!(said.contains(name.as_str()), "{command}: {said}");
    }
    let long = product::json(host, &[stock::XL, "list", "-l", name])?;
    let about = &long[0]["config"];
    ensure!(
        about["c_info"]["name"] == name.as_str()
            && about["disks"][0]["pdev_path"] == guest.disk().as_str(),
        "{long}"
    );
    Ok(())
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
        // A guest that slept at that moment is shown as blocked and paused.
        let state = host.ok(&[stock::XL, "list", "theirs"])?;
        ensure!(
            state.contains("--p---") || state.contains("-bp---"),
            "not paused: {state}"
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
fn a_long_list_is_the_same_as_stocks_for_guests_of_both() -> Result<()> {
    with_parapet(|host| {
        let theirs = Guest::minimal("theirs", Kind::Pv, 21);
        let ours = Guest::minimal("ours", Kind::Pvh, 22);
        // Paused: what is asked for here is there before a guest runs, and guests that boot keep the one CPU from those who ask.
        theirs.prepare(host)?;
        host.ok(&[stock::XL, "create", "-q", "-p", &theirs.config_path()])?;
        ours.prepare(host)?;
        let more = "vcpus=1\nmaxvcpus=2\ncpu_weight=300\ncap=50\n";
        host.write(
            &ours.config_path(),
            product::config(&ours, more).as_bytes(),
            0o644,
        )?;
        host.ok(&[XL, "create", "-q", "-p", &ours.config_path()])?;
        for arguments in [&["list", "-l"][..], &["list", "-l", "ours"]] {
            let argv = |tool| [&[tool][..], arguments].concat();
            let (mine, stocks) = (host.ok(&argv(XL))?, host.ok(&argv(stock::XL))?);
            ensure!(mine == stocks, "{arguments:?}:\n{mine}\nstock:\n{stocks}");
        }
        product::destroy(host, &ours)?;
        theirs.destroy(host)?;
        host.sh(&format!("rm -f {} {}", theirs.disk(), theirs.config_path()))
            .map(drop)
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
