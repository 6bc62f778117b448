//! The nodes of a device: frontend, backend and the toolstack's copy.
//!
//! Backends of ours stand under kinds that no dom0 kernel driver claims (`qdisk`, [`NET_BACKEND`]), so that kernel blkback and netback can serve
//! other guests at the same time. Stock tools know `qdisk` in full.

use super::{Mode, Tree, paths};
use parapet_wire::driver::{Medium, offer};
use xen_abi::ids::{DomId, Port};

/// Backend kind of our disks.
pub const DISK_BACKEND: &str = "qdisk";
/// Backend kind of our network interfaces.
pub const NET_BACKEND: &str = "parapet-vif";
/// Backend kind of the primary console.
pub const CONSOLE_BACKEND: &str = "console";
/// Console ring bytes a stock console daemon would keep; kept for tools that read it.
const CONSOLE_LIMIT: u32 = 1_048_576;

/// One device's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The guest.
    pub domid: DomId,
    /// Device number.
    pub devid: u32,
    /// Frontend kind (`vbd`, `vif`, `console`).
    pub front_kind: &'a str,
    /// Backend kind.
    pub back_kind: &'a str,
}

impl Place<'_> {
    /// Frontend directory.
    #[must_use]
    pub fn front(&self) -> String {
        paths::frontend(self.front_kind, self.domid, self.devid)
    }

    /// Backend directory.
    #[must_use]
    pub fn back(&self) -> String {
        paths::backend(self.back_kind, self.domid, self.devid)
    }

    /// The toolstack's copy.
    #[must_use]
    pub fn library(&self) -> String {
        paths::library(self.front_kind, self.domid, self.devid)
    }
}

/// Adds a device: `front` and `back` are the keys beside the common ones; `private` ones go to the backend only.
fn device(
    tree: &mut Tree,
    place: &Place<'_>,
    front_mode: Mode,
    front: &[(&str, String)],
    back: &[(&str, String)],
) {
    let (front_dir, back_dir, library) = (place.front(), place.back(), place.library());
    tree.remove(&front_dir);
    tree.directory(&front_dir, front_mode);
    tree.directory(&back_dir, Mode::GuestReads);
    tree.directory(&library, Mode::Private);
    for (dir, key, value) in [
        (&front_dir, "backend", &back_dir),
        (&back_dir, "frontend", &front_dir),
        (&library, "frontend", &front_dir),
        (&library, "backend", &back_dir),
    ] {
        tree.value(format!("{dir}/{key}"), value.as_str());
    }
    for (key, value) in front {
        tree.value(format!("{front_dir}/{key}"), value.as_str());
    }
    for (key, value) in back {
        tree.value(format!("{back_dir}/{key}"), value.as_str());
        tree.value(format!("{library}/{key}"), value.as_str());
    }
}

/// Facts of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts<'a> {
    /// Name as configured (`xvda`).
    pub vdev: &'a str,
    /// Path of the medium.
    pub target: &'a str,
    /// Guest may write.
    pub writable: bool,
    /// CD drive.
    pub cdrom: bool,
    /// Removable medium.
    pub removable: bool,
    /// Keep discard away from the guest.
    pub discard: bool,
    /// The guest may trust its backend with pages that hold more than the data asked for.
    pub trusted: bool,
    /// What the medium is; the driver opened it.
    pub medium: Medium,
}

/// Adds a disk whose medium is open. Everything a frontend may read is there before state 2, since GRUB does not wait for it.
pub fn disk(tree: &mut Tree, domid: DomId, devid: u32, facts: &DiskFacts<'_>) {
    let place = Place {
        domid,
        devid,
        front_kind: "vbd",
        back_kind: DISK_BACKEND,
    };
    let kind = if facts.cdrom { "cdrom" } else { "disk" };
    let info = u32::from(facts.cdrom)
        | (u32::from(facts.removable) << 1)
        | (u32::from(!facts.writable) << 2);
    let front = [
        ("backend-id", "0".to_owned()),
        ("state", "1".to_owned()),
        ("virtual-device", devid.to_string()),
        ("device-type", kind.to_owned()),
        ("trusted", u8::from(facts.trusted).to_string()),
        ("protocol", "x86_64-abi".to_owned()),
    ];
    let mut back = vec![
        ("frontend-id", domid.to_string()),
        ("online", "1".to_owned()),
        ("removable", u8::from(facts.removable).to_string()),
        ("bootable", "1".to_owned()),
        ("dev", facts.vdev.to_owned()),
        ("type", "qdisk".to_owned()),
        ("mode", if facts.writable { "w" } else { "r" }.to_owned()),
        ("device-type", kind.to_owned()),
        ("discard-enable", u8::from(facts.discard).to_string()),
        ("specification", "xen".to_owned()),
        ("params", format!("aio:{}", facts.target)),
        ("sectors", facts.medium.sectors.to_string()),
        ("sector-size", facts.medium.sector_size.to_string()),
        (
            "physical-sector-size",
            facts.medium.physical_sector_size.to_string(),
        ),
        ("info", info.to_string()),
        ("feature-flush-cache", "1".to_owned()),
        ("feature-persistent", "1".to_owned()),
        (
            "feature-max-indirect-segments",
            offer::DISK_MAX_INDIRECT_SEGMENTS.to_string(),
        ),
        (
            "max-ring-page-order",
            offer::DISK_MAX_RING_PAGE_ORDER.to_string(),
        ),
        (
            "max-ring-pages",
            (1_u32 << offer::DISK_MAX_RING_PAGE_ORDER).to_string(),
        ),
        ("multi-queue-max-queues", offer::DISK_MAX_QUEUES.to_string()),
        ("hotplug-status", "connected".to_owned()),
    ];
    if let Some(granularity) = facts.medium.discard_granularity.filter(|_| facts.discard) {
        back.push(("feature-discard", "1".to_owned()));
        back.push(("discard-granularity", granularity.to_string()));
        back.push(("discard-alignment", "0".to_owned()));
    }
    back.push(("state", "2".to_owned()));
    device(tree, &place, Mode::Frontend, &front, &back);
}

/// Facts of a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetFacts<'a> {
    /// MAC address as text.
    pub mac: &'a str,
    /// Bridge.
    pub bridge: &'a str,
    /// Name of the tap in dom0.
    pub ifname: &'a str,
    /// MTU to tell the guest, where it differs from 1500.
    pub mtu: Option<u32>,
    /// `rate=` as `bytes,microseconds`.
    pub rate: Option<String>,
    /// As for a disk.
    pub trusted: bool,
    /// Queues offered.
    pub max_queues: u32,
}

/// Adds a network interface whose tap is in its bridge.
pub fn net(tree: &mut Tree, domid: DomId, devid: u32, facts: &NetFacts<'_>) {
    let place = Place {
        domid,
        devid,
        front_kind: "vif",
        back_kind: NET_BACKEND,
    };
    let mut front = vec![
        ("backend-id", "0".to_owned()),
        ("state", "1".to_owned()),
        ("handle", devid.to_string()),
        ("mac", facts.mac.to_owned()),
        ("trusted", u8::from(facts.trusted).to_string()),
    ];
    let mut back = vec![
        ("frontend-id", domid.to_string()),
        ("online", "1".to_owned()),
        ("mac", facts.mac.to_owned()),
        ("bridge", facts.bridge.to_owned()),
        ("vifname", facts.ifname.to_owned()),
        ("handle", devid.to_string()),
        ("type", "vif".to_owned()),
        ("multi-queue-max-queues", facts.max_queues.to_string()),
        ("hotplug-status", "connected".to_owned()),
    ];
    for feature in [
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
        "feature-rx-copy",
        "feature-split-event-channels",
    ] {
        back.push((feature, "1".to_owned()));
    }
    back.push(("feature-rx-flip", "0".to_owned()));
    if let Some(mtu) = facts.mtu {
        front.push(("mtu", mtu.to_string()));
        back.push(("mtu", mtu.to_string()));
    }
    if let Some(rate) = &facts.rate {
        back.push(("rate", rate.clone()));
    }
    back.push(("state", "2".to_owned()));
    device(tree, &place, Mode::Frontend, &front, &back);
}

/// Adds the primary console. Its type is not `xenconsoled`, so that a running xenconsoled leaves the ring to us.
pub fn console(tree: &mut Tree, domid: DomId, tty: &str) {
    let place = Place {
        domid,
        devid: 0,
        front_kind: "console",
        back_kind: CONSOLE_BACKEND,
    };
    let front = [
        ("backend-id", "0".to_owned()),
        ("limit", CONSOLE_LIMIT.to_string()),
        ("type", "ioemu".to_owned()),
        ("output", "pty".to_owned()),
        ("tty", tty.to_owned()),
    ];
    let back = [
        ("frontend-id", domid.to_string()),
        ("online", "1".to_owned()),
        ("protocol", "vt100".to_owned()),
        ("state", "1".to_owned()),
    ];
    device(tree, &place, Mode::GuestReads, &front, &back);
}

/// Adds where the primary console's ring is, and its port.
pub fn console_ring(tree: &mut Tree, domid: DomId, frame: u64, port: Port) {
    let front = paths::frontend("console", domid, 0);
    tree.value(format!("{front}/port"), port.to_string());
    tree.value(format!("{front}/ring-ref"), frame.to_string());
}

/// Operations that remove every trace of a device.
pub fn removal(tree: &mut Tree, place: &Place<'_>) {
    tree.remove(&place.front());
    tree.remove(&place.back());
    tree.remove(&place.library());
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_host::xenstore::store::StoreOp;

    fn value<'a>(ops: &'a [StoreOp], wanted: &str) -> Option<&'a [u8]> {
        ops.iter().find_map(|op| match op {
            StoreOp::Write(path, value) if path == wanted => Some(value.as_slice()),
            _ => None,
        })
    }

    #[test]
    fn a_read_only_cdrom_says_so_to_guest_and_backend() {
        let mut tree = Tree::new(DomId(3));
        let medium = Medium {
            sectors: 8,
            sector_size: 512,
            physical_sector_size: 4096,
            discard_granularity: Some(4096),
        };
        let facts = DiskFacts {
            vdev: "hdc",
            target: "/a.iso",
            writable: false,
            cdrom: true,
            removable: true,
            discard: false,
            trusted: false,
            medium,
        };
        disk(&mut tree, DomId(3), 5632, &facts);
        let ops = tree.into_ops();
        assert_eq!(
            value(&ops, "/local/domain/0/backend/qdisk/3/5632/info"),
            Some(&b"7"[..])
        );
        assert_eq!(
            value(&ops, "/local/domain/0/backend/qdisk/3/5632/mode"),
            Some(&b"r"[..])
        );
        assert_eq!(
            value(&ops, "/local/domain/0/backend/qdisk/3/5632/feature-discard"),
            None
        );
        assert_eq!(
            value(&ops, "/local/domain/3/device/vbd/5632/device-type"),
            Some(&b"cdrom"[..])
        );
        assert_eq!(
            value(&ops, "/local/domain/3/device/vbd/5632/trusted"),
            Some(&b"0"[..])
        );
    }

    #[test]
    fn the_backend_is_ready_before_anything_says_so() {
        let mut tree = Tree::new(DomId(1));
        let facts = NetFacts {
            mac: "00:16:3e:00:00:01",
            bridge: "xenbr0",
            ifname: "vif1.0",
            mtu: None,
            rate: None,
            trusted: true,
            max_queues: 2,
        };
        net(&mut tree, DomId(1), 0, &facts);
        let ops = tree.into_ops();
        let last_back = ops
            .iter()
            .rposition(|op| op.path() == "/local/domain/0/backend/parapet-vif/1/0/state");
        let feature = ops
            .iter()
            .rposition(|op| op.path() == "/local/domain/0/backend/parapet-vif/1/0/feature-sg");
        assert!(feature < last_back);
    }

    #[test]
    fn the_console_is_not_offered_to_xenconsoled() {
        let mut tree = Tree::new(DomId(1));
        console(&mut tree, DomId(1), "/dev/pts/3");
        console_ring(&mut tree, DomId(1), 77, Port(2));
        let ops = tree.into_ops();
        assert_eq!(
            value(&ops, "/local/domain/1/console/type"),
            Some(&b"ioemu"[..])
        );
        assert_eq!(
            value(&ops, "/local/domain/1/console/tty"),
            Some(&b"/dev/pts/3"[..])
        );
    }
}
