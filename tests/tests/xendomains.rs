//! Debian's own `xendomains` starts and stops our guests, unmodified; saving is switched off in its settings.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Shape, nested};
use stack_tests::stock::{Guest, Kind};

/// The init script finds `xl` through PATH, so ours goes first.
const SCRIPT: &str = "PATH=/lab/dist/bin:$PATH bash /etc/init.d/xendomains";

#[test]
fn xendomains_starts_and_stops_what_is_in_its_directory() -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        host.sh("cp /etc/default/xendomains /tmp/xendomains.orig; sed -i 's/^XENDOMAINS_SAVE=.*/XENDOMAINS_SAVE=/' /etc/default/xendomains")?;
        host.sh("mkdir -p /etc/xen/auto")?;
        for (name, kind) in [("auto1", Kind::Pv), ("auto2", Kind::Pvh)] {
            let guest = Guest::bare(name, kind);
            host.write(
                &format!("/etc/xen/auto/{name}"),
                product::config(&guest, "").as_bytes(),
                0o644,
            )?;
        }
        let said = host.sh(&format!("{SCRIPT} start 2>&1"))?;
        for name in ["auto1", "auto2"] {
            host.ok(&[XL, "domid", name])?;
            host.guest(name).wait_up()?;
        }
        ensure!(!said.contains("failed"), "{said}");
        let said = host.sh(&format!("{SCRIPT} stop 2>&1"))?;
        for name in ["auto1", "auto2"] {
            ensure!(
                host.run(&[XL, "domid", name])?.code != 0,
                "{name} still runs: {said}"
            );
        }
        host.sh("rm -f /etc/xen/auto/auto1 /etc/xen/auto/auto2; mv /tmp/xendomains.orig /etc/default/xendomains")?;
        product::clean(host)
    })
}
