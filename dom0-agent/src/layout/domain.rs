//! The nodes of a domain itself: everything that stands before its first device.

use super::{Mode, Tree, paths};
use xen_abi::domain::DomainKind;
use xen_abi::ids::{DomId, Handle, Port};

/// Whose a domain is: all that changes when a domain that was built in advance becomes a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Domain id.
    pub domid: DomId,
    /// Uuid.
    pub uuid: Handle,
    /// Name.
    pub name: &'a str,
    /// When it was created, in seconds since the epoch with hundredths.
    pub start_time: String,
    /// Kernel, for `/vm/<uuid>/image`.
    pub kernel: &'a str,
    /// Initial ramdisk.
    pub ramdisk: Option<&'a str>,
    /// Kernel command line.
    pub cmdline: &'a str,
}

/// Facts of a domain that xenstore shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts<'a> {
    /// Whose it is.
    pub identity: Identity<'a>,
    /// Kind.
    pub kind: DomainKind,
    /// Memory now, in KiB.
    pub target_kib: u64,
    /// Most memory, in KiB.
    pub static_max_kib: u64,
    /// Vcpus online at start.
    pub vcpus_online: u32,
    /// Vcpus there can be.
    pub vcpus_max: u32,
    /// Xenstore page (mfn for PV, gfn otherwise) and port.
    pub store: (u64, Port),
}

/// Nodes the guest owns, below its directory. Each must be writable, or the guest cannot acknowledge a shutdown or publish what it offers.
const GUEST_OWNED: [&str; 12] = [
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
    "data/parapet",
];

/// Adds the nodes that say whose the domain is, in place of those that said it before.
pub fn identity(tree: &mut Tree, facts: &Identity<'_>) {
    let root = paths::domain(facts.domid);
    let vm = paths::vm(facts.uuid);
    tree.remove(&vm);
    tree.directory(&vm, Mode::GuestReads);
    tree.value(format!("{vm}/uuid"), facts.uuid.to_string());
    tree.value(format!("{vm}/name"), facts.name);
    tree.value(format!("{vm}/start_time"), facts.start_time.as_str());
    tree.value(format!("{vm}/image/ostype"), "linux");
    tree.value(format!("{vm}/image/kernel"), facts.kernel);
    if let Some(ramdisk) = facts.ramdisk {
        tree.value(format!("{vm}/image/ramdisk"), ramdisk);
    }
    tree.value(format!("{vm}/image/cmdline"), facts.cmdline);
    tree.value(format!("{root}/vm"), vm.as_str());
    tree.value(format!("{root}/name"), facts.name);
}

/// Adds the domain's nodes. What was left under the same domid by somebody else is removed first.
pub fn skeleton(tree: &mut Tree, facts: &DomainFacts<'_>) {
    let domid = facts.identity.domid;
    let root = paths::domain(domid);
    let libxl = paths::libxl(domid);
    for stale in [&root, &libxl] {
        tree.remove(stale);
    }
    tree.directory(&root, Mode::GuestReads);
    identity(tree, &facts.identity);
    tree.directory(&libxl, Mode::Private);
    tree.directory(&format!("{libxl}/device"), Mode::Private);
    tree.value(format!("{libxl}/type"), facts.kind.as_str());
    tree.value(format!("{libxl}/dm-version"), "qemu_xen");

    for directory in ["cpu", "memory", "device", "control"] {
        tree.directory(&format!("{root}/{directory}"), Mode::GuestReads);
    }
    for owned in GUEST_OWNED {
        tree.value_as(format!("{root}/{owned}"), "", Mode::GuestOwns);
    }
    tree.value(
        format!("{root}/control/platform-feature-multiprocessor-suspend"),
        "1",
    );
    tree.value(
        format!("{root}/control/platform-feature-xs_reset_watches"),
        "1",
    );
    tree.value(
        format!("{root}/memory/static-max"),
        facts.static_max_kib.to_string(),
    );
    tree.value(
        format!("{root}/memory/target"),
        facts.target_kib.to_string(),
    );
    tree.value(format!("{root}/memory/videoram"), "0");
    tree.value(format!("{root}/domid"), domid.to_string());
    tree.value(format!("{root}/store/port"), facts.store.1.to_string());
    tree.value(format!("{root}/store/ring-ref"), facts.store.0.to_string());
    for vcpu in 0..facts.vcpus_max {
        let state = if vcpu < facts.vcpus_online {
            "online"
        } else {
            "offline"
        };
        tree.value(format!("{root}/cpu/{vcpu}/availability"), state);
    }
}
