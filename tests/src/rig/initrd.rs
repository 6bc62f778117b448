//! The small initial file systems: dom0's, which carries the lab's own files, and the minimal guest's.

use std::fs;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::image::Base;
use super::{dirs, hang};

/// A module of the guest's kernel that takes spin locks with interrupts off.
const SPINNING: &str = "watchdog.ko";

/// The minimal guest: busybox, the frontends, and an init that reads its orders from the command line.
///
/// # Errors
/// When a file of the image or of the recipes cannot be read.
pub fn guest(base: &Base) -> Result<Vec<u8>> {
    let mut archive = common(base, "guest", &["proc", "sys", "mnt", "tmp", "run"])?;
    archive.file("init", true, &recipe("guest/init")?);
    // Not in the load order: somebody has to ask for it.
    let stock = base.dir.join("modules").join(SPINNING);
    let stock = fs::read(&stock).with_context(|| format!("cannot read {}", stock.display()))?;
    let hang =
        hang::module(&stock).with_context(|| format!("cannot make hang.ko from {SPINNING}"))?;
    archive.file("modules/hang.ko", false, &hang);
    Ok(archive.finish())
}

/// The Debian guest's: mounts its root and hands over to systemd.
///
/// # Errors
/// As [`guest`].
pub fn guest_debian(base: &Base) -> Result<Vec<u8>> {
    let mut archive = common(base, "guest", &["proc", "root"])?;
    archive.file("init", true, &recipe("guest-debian/init")?);
    Ok(archive.finish())
}

/// dom0's: mounts the root and puts the delegate, the start-up script and the guest's files into its `/lab`.
///
/// # Errors
/// As [`guest`].
pub fn dom0(base: &Base, delegate: &[u8]) -> Result<Vec<u8>> {
    let mut archive = common(base, "dom0", &["root", "lab", "lab/guest"])?;
    archive.file("init", true, &recipe("dom0/init")?);
    for name in ["start", "rc"] {
        archive.file(
            &format!("lab/{name}"),
            true,
            &recipe(&format!("dom0/{name}"))?,
        );
    }
    archive.file(
        "lab/delegate.service",
        false,
        &recipe("dom0/delegate.service")?,
    );
    archive.file("lab/delegate", true, delegate);
    archive.file("lab/guest/initrd", false, &guest(base)?);
    archive.file("lab/guest/initrd-debian", false, &guest_debian(base)?);
    let kernel = fs::read(base.kernel()).context("cannot read the image's kernel")?;
    archive.file("lab/guest/vmlinuz", false, &kernel);
    Ok(archive.finish())
}

fn common(base: &Base, role: &str, dirs: &[&str]) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "modules"].iter().chain(dirs) {
        archive.dir(dir);
    }
    let busybox = fs::read(base.dir.join("busybox")).context("cannot read the image's busybox")?;
    archive.file("bin/busybox", true, &busybox);
    archive.link("bin/sh", "busybox");
    let order = fs::read_to_string(base.dir.join(format!("{role}.modules")))
        .with_context(|| format!("cannot read the image's list of {role} modules"))?;
    archive.file("modules/order", false, order.as_bytes());
    for name in order.lines() {
        let module = fs::read(base.dir.join("modules").join(name));
        archive.file(
            &format!("modules/{name}"),
            false,
            &module.with_context(|| format!("cannot read module {name}"))?,
        );
    }
    Ok(archive)
}

fn recipe(name: &str) -> Result<Vec<u8>> {
    fs::read(dirs::recipes().join(name))
        .with_context(|| format!("cannot read the recipe images/{name}"))
}
