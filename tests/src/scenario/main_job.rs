//! The main job: guests that boot, use their disks and networks, and come to no harm.
//!
//! Runs on a host that somebody else forked. Never prints anything but through the [`Timeline`].

use anyhow::{Result, ensure};

use super::{debian, harm};
use crate::product;
use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind};
use crate::timeline::Timeline;

/// The guests of the story and the last byte of their addresses.
const GUESTS: [(&str, Kind, usize); 2] = [("pv1", Kind::Pv, 11), ("pvh1", Kind::Pvh, 12)];

/// Tells the story with Debian's own tools: the proof that the lab can carry it.
///
/// # Errors
/// When anything is not as it should be.
pub fn with_stock_tools(host: &Host, timeline: &mut Timeline) -> Result<()> {
    let guests: Vec<Guest> = GUESTS
        .iter()
        .map(|&(name, kind, address)| Guest::minimal(name, kind, address))
        .collect();
    for guest in &guests {
        let name = &guest.name;
        timeline.step(&format!("stock xl creates {name}"), || guest.create(host))?;
        timeline.step(&format!("{name} boots"), || host.guest(name).wait_up())?;
        timeline.step(&format!("{name} writes to its disk and reads back"), || {
            disk_keeps_data(host, name)
        })?;
    }
    timeline.step("the guests talk to dom0 and to each other", || {
        network_carries_data(host, &guests)
    })?;
    for guest in &guests {
        timeline.step(&format!("stock xl destroys {}", guest.name), || {
            guest.destroy(host)
        })?;
    }
    Ok(())
}

/// Lines that make a guest one of the monitor's: restarted when it crashes, when its watchdog expires and when its heartbeat stops.
pub const PROTECTED: &str = "protect=\"restart\"\nprotect_heartbeat_timeout=10\n";

/// Tells the story with Parapet: a PV and a PVH guest boot, work, are harmed, and are back by themselves; our own processes are killed
/// under load and nobody notices.
///
/// # Errors
/// When anything is not as it should be.
pub fn with_parapet(host: &Host, timeline: &mut Timeline) -> Result<()> {
    let guests = product::pair();
    timeline.step("agent and monitor start", || product::start(host))?;
    for guest in &guests {
        let name = &guest.name;
        timeline.step(&format!("xl creates {name}"), || {
            product::create(host, guest, PROTECTED)
        })?;
        timeline.step(&format!("{name} boots"), || host.guest(name).wait_up())?;
        timeline.step(&format!("{name} writes to its disk and reads back"), || {
            disk_keeps_data(host, name)
        })?;
    }
    timeline.step("the guests talk to dom0 and to each other", || {
        network_carries_data(host, &guests)
    })?;
    timeline.step(
        "xl creates a Debian guest, its root on a disk of dom0's",
        || debian::create(host),
    )?;
    timeline.step("systemd starts in it", || debian::wait_up(host))?;
    harm::kill_ours_under_load(host, timeline)?;
    for guest in &guests {
        let name = &guest.name;
        timeline.step(&format!("{name} heartbeats"), || {
            host.wait_until(&heartbeats(name), deadline::SETTLE)
        })?;
    }
    let [pv, pvh] = &guests;
    for (guest, injury) in [
        (pv, harm::CRASH),
        (pvh, harm::HANG),
        (pv, harm::HANG),
        (pvh, harm::STARVE),
    ] {
        harm::injure(host, guest, injury, timeline)?;
    }
    Ok(())
}

/// Ends the guests of the story and the services, and removes what they keep.
///
/// # Errors
/// When something is left.
pub fn clean_up(host: &Host) -> Result<()> {
    for guest in &product::pair() {
        product::destroy(host, guest)?;
    }
    debian::destroy(host)?;
    product::clean(host)
}

/// A condition: the guest's heartbeat has been seen.
fn heartbeats(guest: &str) -> String {
    format!(
        "xenstore-read /local/domain/$({} domid {guest})/data/parapet/heartbeat",
        product::XL
    )
}

/// Writes checksummed data to an ext4 on the guest's disk, drops every cache, and checks the sum.
///
/// # Errors
/// When a sum differs or a command fails.
pub fn disk_keeps_data(host: &Host, guest: &str) -> Result<()> {
    let inside = host.guest(guest);
    inside.sh(
        "mke2fs -q /dev/xvda && mount -t ext4 /dev/xvda /mnt && dd if=/dev/urandom of=/mnt/data bs=64k count=64 2>/dev/null && \
         sha256sum /mnt/data > /mnt/sum && umount /mnt",
    )?;
    inside.sh("echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/xvda /mnt && sha256sum -c /mnt/sum && umount /mnt")?;
    Ok(())
}

/// Sends a file by TCP from each guest to dom0 and from the first guest to the second, and compares sums.
///
/// # Errors
/// When one differs or a command fails.
pub fn network_carries_data(host: &Host, guests: &[Guest]) -> Result<()> {
    let make = "dd if=/dev/urandom of=/tmp/out bs=64k count=16 2>/dev/null && sha256sum < /tmp/out";
    for guest in guests {
        let inside = host.guest(&guest.name);
        // The end of the listener is told by a file: a look at the process list would find the looking shell itself.
        host.sh(
            "rm -f /tmp/in /tmp/in.done; (mkfifo /tmp/open; exec 3<>/tmp/open; busybox nc -l -p 7000 > /tmp/in <&3; rm /tmp/open; touch /tmp/in.done) > /dev/null 2>&1 & \
             until busybox netstat -ltn | grep -q ':7000 '; do sleep 0.1; done",
        )?;
        let sent = inside.sh(&format!("{make} && nc -w 5 10.77.0.1 7000 < /tmp/out"))?;
        host.wait_until("test -e /tmp/in.done", deadline::SETTLE)?;
        let received = host.sh("sha256sum < /tmp/in; rm -f /tmp/in /tmp/in.done")?;
        ensure!(
            sent == received,
            "{} sent {sent} and dom0 got {received}",
            guest.name
        );
    }
    if let [first, second, ..] = guests {
        let (from, to) = (host.guest(&first.name), host.guest(&second.name));
        to.sh("(mkfifo /tmp/open; exec 3<>/tmp/open; nc -l -p 7000 > /tmp/in <&3; sha256sum < /tmp/in > /tmp/sum) > /dev/null 2>&1 &")?;
        let sent = from.sh(&format!(
            "{make} && nc -w 5 10.77.0.{} 7000 < /tmp/out",
            second.address
        ))?;
        let received = to.sh("while ! [ -s /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum")?;
        ensure!(
            sent == received,
            "{} sent {sent} and {} got {received}",
            first.name,
            second.name
        );
    }
    Ok(())
}
