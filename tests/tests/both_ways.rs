//! Our commands beside stock ones: they work on stock guests, and print what stock prints.

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
