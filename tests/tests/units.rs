//! The services as systemd runs them, put on the host the way `docs/getting-started.md` says.

use anyhow::{Result, ensure};
use stack_tests::product::BIN;
use stack_tests::rig::{Host, Shape, deadline, nested};
use stack_tests::stock::{Guest, Kind};

/// Where the programs are installed.
const XL: &str = "/usr/local/sbin/xl";
const UNITS: &str = "dom0-agent.socket dom0-agent ft-monitor";

fn install(host: &Host) -> Result<()> {
    host.mount_product()?;
    host.sh(&format!(
        "cd {BIN}/.. && install -m 755 bin/xl bin/parapet bin/dom0-agent bin/split-driver bin/ft-monitor /usr/local/sbin/ && \
         install -m 644 units/dom0-agent.service units/dom0-agent.socket units/ft-monitor.service /etc/systemd/system/ && \
         install -m 644 units/parapet.sysusers /usr/lib/sysusers.d/parapet.conf && \
         install -m 644 units/parapet.tmpfiles /usr/lib/tmpfiles.d/parapet.conf && \
         systemd-sysusers && systemd-tmpfiles --create parapet.conf && systemctl daemon-reload && \
         install -D -t /etc/parapet -m 644 etc/agent.toml etc/ft-monitor.toml && \
         systemctl enable --now {UNITS} && ip link add xenbr0 type bridge && ip link set xenbr0 up"
    ))?;
    host.wait_until(&format!("systemctl is-active {UNITS}"), deadline::SETTLE)
}

fn remove(host: &Host) -> Result<()> {
    host.sh(&format!(
        "systemctl disable --now {UNITS} && ip link del xenbr0 && rm -r /etc/parapet && cd /usr/local/sbin && rm xl parapet dom0-agent split-driver ft-monitor && \
         cd /etc/systemd/system && rm dom0-agent.service dom0-agent.socket ft-monitor.service && \
         rm /usr/lib/sysusers.d/parapet.conf /usr/lib/tmpfiles.d/parapet.conf && systemctl daemon-reload && \
         rm -rf /run/parapet /var/lib/parapet /var/cache/parapet /var/log/parapet && umount /lab/dist"
    ))
    .map(drop)
}

/// The process that serves the guest's devices.
fn driver(host: &Host) -> Result<String> {
    host.ok(&["pgrep", "-x", "split-driver"])
}

#[test]
fn under_systemd_services_come_back_and_guests_do_not_notice() -> Result<()> {
    nested(&Shape::systemd(), |host| {
        install(host)?;
        let guest = Guest::minimal("unit1", Kind::Pv, 51);
        guest.prepare(host)?;
        host.ok(&[XL, "create", "-q", &guest.config_path()])?;
        let inside = host.guest(&guest.name);
        inside.wait_up()?;
        let before = (driver(host)?, inside.domid()?);

        // Whoever calls while the agent is restarted waits in systemd's socket.
        host.sh("systemctl restart dom0-agent & /usr/local/sbin/parapet guests; code=$?; wait; exit $code")?;
        for unit in ["dom0-agent", "ft-monitor"] {
            let main = format!("systemctl show --value -p MainPID {unit}");
            let killed = host.sh(&main)?;
            host.sh(&format!("systemctl kill --kill-whom=main -s KILL {unit}"))?;
            host.wait_until(
                &format!(
                    "systemctl is-active {unit} && [ $({main}) != {} ] && /usr/local/sbin/parapet status",
                    killed.trim()
                ),
                deadline::SETTLE,
            )?;
        }
        inside.sh("dd if=/dev/urandom of=/dev/xvda bs=64k count=16 2>/dev/null && sync")?;
        let after = (driver(host)?, inside.domid()?);
        ensure!(before == after, "{before:?} became {after:?}");

        host.ok(&[XL, "destroy", &guest.name])?;
        host.sh(&format!("rm {} {}", guest.disk(), guest.config_path()))?;
        remove(host)
    })
}
