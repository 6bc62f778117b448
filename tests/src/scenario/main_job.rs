//! The main job: guests that boot, use their disks and networks, and come to no harm.
//!
//! Runs on a host that somebody else forked. Never prints anything but through the [`Timeline`].

use anyhow::{Result, ensure};

use crate::rig::Host;
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
        host.sh("busybox nc -l -p 7000 > /tmp/in < /dev/null 2>/dev/null & sleep 0.2")?;
        let sent = inside.sh(&format!("{make} && nc -w 5 10.77.0.1 7000 < /tmp/out"))?;
        let received = host.sh(
            "while pgrep -f 'nc -l -p 7000' > /dev/null; do sleep 0.1; done; sha256sum < /tmp/in",
        )?;
        ensure!(
            sent == received,
            "{} sent {sent} and dom0 got {received}",
            guest.name
        );
    }
    if let [first, second, ..] = guests {
        let (from, to) = (host.guest(&first.name), host.guest(&second.name));
        to.sh("(nc -l -p 7000 > /tmp/in < /dev/null; sha256sum < /tmp/in > /tmp/sum) > /dev/null 2>&1 &")?;
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
