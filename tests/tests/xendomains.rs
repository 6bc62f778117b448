//! Debian's own `xendomains` starts, saves, restores and stops our guests, unmodified.

use anyhow::{Result, ensure};
use stack_tests::product::{self, XL};
use stack_tests::rig::{Host, Shape, nested};
use stack_tests::stock::{Guest, Kind};

/// The init script finds `xl` through PATH, so ours goes first.
const SCRIPT: &str = "PATH=/lab/dist/bin:$PATH bash /etc/init.d/xendomains";
const GUESTS: [(&str, Kind); 2] = [("auto1", Kind::Pv), ("auto2", Kind::Pvh)];

#[test]
fn xendomains_starts_saves_restores_and_stops_what_is_in_its_directory() -> Result<()> {
    nested(&Shape::default(), |host| {
        product::start(host)?;
        host.sh("cp /etc/default/xendomains /tmp/xendomains.orig; mkdir -p /etc/xen/auto /var/lib/xen/save")?;
        for (name, kind) in GUESTS {
            let guest = Guest::bare(name, kind);
            host.write(
                &format!("/etc/xen/auto/{name}"),
                product::config(&guest, "").as_bytes(),
                0o644,
            )?;
        }
        start(host)?;
        for (name, _) in GUESTS {
            host.guest(name).wait_up()?;
            host.guest(name).sh("touch /run/mark")?;
        }
        stop(host)?;
        for (name, _) in GUESTS {
            host.ok(&["test", "-s", &format!("/var/lib/xen/save/{name}")])?;
        }
        start(host)?;
        for (name, _) in GUESTS {
            host.guest(name).wait_up()?;
            host.guest(name).sh("test -e /run/mark")?;
        }
        host.sh("sed -i 's/^XENDOMAINS_SAVE=.*/XENDOMAINS_SAVE=/' /etc/default/xendomains")?;
        stop(host)?;
        host.sh("! ls /var/lib/xen/save | grep .")?;
        host.sh("rm -f /etc/xen/auto/auto1 /etc/xen/auto/auto2; mv /tmp/xendomains.orig /etc/default/xendomains")?;
        product::clean(host)
    })
}

fn start(host: &Host) -> Result<()> {
    let said = host.sh(&format!("{SCRIPT} start 2>&1"))?;
    for (name, _) in GUESTS {
        host.ok(&[XL, "domid", name])?;
    }
    ensure!(!said.contains("failed"), "{said}");
    Ok(())
}

fn stop(host: &Host) -> Result<()> {
    let said = host.sh(&format!("{SCRIPT} stop 2>&1"))?;
    for (name, _) in GUESTS {
        ensure!(
            host.run(&[XL, "domid", name])?.code != 0,
            "{name} still runs: {said}"
        );
    }
    Ok(())
}
