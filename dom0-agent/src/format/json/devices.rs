//! Devices that have a type of their own: disks, interfaces, PCI devices, frame buffers.

use super::Moment;
use super::value::{Json, Map};
use crate::config::disk::{DiskBackend, DiskSpec, DiskSpecification};
use crate::config::domain::{DomainConfig, DomainKind};
use crate::config::graphics::VfbSpec;
use crate::config::pci::{PciAddress, PciSpec, RdmPolicy};
use crate::config::vif::{COLO_PARAMETERS, VifKind, VifSpec};

/// `LIBXL_PCI_FUNC_ALL`
const ALL_FUNCTIONS: u32 = u32::MAX;

/// COLO parameters of a disk, in order.
const DISK_COLO: [&str; 6] = [
    "colo_enable",
    "colo_host",
    "colo_port",
    "colo_export",
    "active_disk",
    "hidden_disk",
];

pub(super) fn put(map: &mut Map, config: &DomainConfig, moment: Moment) {
    let disks = config.disks.iter().map(|d| Json::Map(disk(d, moment)));
    map.put_list("disks", disks.collect());
    let vifs = (0u32..)
        .zip(&config.vifs)
        .map(|(index, v)| Json::Map(vif(v, Some(index), moment)));
    map.put_list("nics", vifs.collect());
    map.put_list(
        "pcidevs",
        config
            .pci
            .iter()
            .map(|p| Json::Map(pci(p, config.kind)))
            .collect(),
    );
}

pub(super) fn disk(disk: &DiskSpec, moment: Moment) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", disk.backend_domain.as_deref());
    map.put_some("pdev_path", disk.target.as_deref());
    map.put("vdev", disk.vdev.as_str());
    if disk.backend != DiskBackend::Auto {
        map.put("backend", disk.backend.as_str());
    }
    map.put("format", disk.format.as_str());
    map.put_some("script", disk.script.as_deref());
    map.put_nonzero("removable", disk.removable);
    map.put_nonzero("readwrite", disk.writable);
    map.put_nonzero("is_cdrom", disk.cdrom);
    if disk.direct_io_safe {
        map.put("direct_io_safe", true);
    }
    map.put_tristate("discard_enable", disk.discard);
    if disk.specification != DiskSpecification::Unknown {
        map.put("specification", disk.specification.as_str());
    }
    for key in DISK_COLO {
        match disk.colo.get(key) {
            Some(port) if key == "colo_port" => map.put_some(key, port.parse::<i64>().ok()),
            value => map.put_some(key, value.map(String::as_str)),
        }
        if key == "colo_enable" && moment == Moment::Created {
            map.put_tristate("colo_restore_enable", Some(false));
        }
    }
    map.put_tristate("trusted", disk.trusted);
    map.put_tristate("grant_usage", disk.grant_usage);
    map
}

/// An interface; `index` is its place in the configuration, which is its number unless it says otherwise.
pub(super) fn vif(vif: &VifSpec, index: Option<u32>, moment: Moment) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", vif.backend_domain.as_deref());
    map.put_some("devid", vif.devid.or(index));
    map.put_nonzero("mtu", vif.mtu.unwrap_or(0));
    map.put_some("vlan", vif.vlan.as_deref());
    map.put_some("model", vif.model.as_deref());
    map.put_some("mac", vif.mac.map(|mac| mac.to_string()));
    map.put_some("ip", vif.ip.as_deref());
    map.put_some("bridge", vif.bridge.as_deref());
    map.put_some("ifname", vif.ifname.as_deref());
    map.put_some("script", vif.script.as_deref());
    let kind = match (vif.kind, moment) {
        (VifKind::Unknown, Moment::Parsed) => None,
        (VifKind::Unknown, Moment::Created) | (VifKind::Vif, _) => Some("vif"),
        (VifKind::Ioemu, _) => Some("vif_ioemu"),
    };
    map.put_some("nictype", kind);
    if let Some(rate) = vif.rate {
        map.put_nonzero("rate_bytes_per_interval", rate.bytes_per_interval);
        map.put_nonzero("rate_interval_usecs", rate.interval_us);
    }
    map.put_some("gatewaydev", vif.gatewaydev.as_deref());
    let colo = ["coloft_forwarddev"].into_iter().chain(COLO_PARAMETERS);
    for key in colo.chain(["colo_checkpoint_host", "colo_checkpoint_port"]) {
        map.put_some(key, vif.colo.get(key).map(String::as_str));
    }
    map.put_tristate("trusted", vif.trusted);
    map
}

fn pci(device: &PciSpec, kind: DomainKind) -> Map {
    let mut map = Map::default();
    if let PciAddress::Bdf {
        segment,
        bus,
        device,
        function,
    } = device.address
    {
        map.put_nonzero("func", function.unwrap_or(0));
        map.put_nonzero("dev", device);
        map.put_nonzero("bus", bus);
        map.put_nonzero("domain", segment);
    }
    map.put_nonzero("vdevfn", u32::from(device.slot.unwrap_or(0)) << 3);
    match device.address {
        PciAddress::Bdf { function: None, .. } => map.put("vfunc_mask", ALL_FUNCTIONS),
        PciAddress::Bdf { .. } => map.put("vfunc_mask", 1),
        PciAddress::Name(_) => {}
    }
    let switches = [
        ("msitranslate", device.msi_translate),
        ("power_mgmt", device.power_management),
        ("permissive", device.permissive),
        ("seize", device.seize),
    ];
    for (key, _) in switches.into_iter().filter(|(_, on)| *on) {
        map.put(key, true);
    }
    // The guest-wide policy lives in the HVM part; for the other kinds stock reads zeros there, which mean strict.
    let policy = match (device.rdm_policy, kind) {
        (Some(RdmPolicy::Relaxed), _) => Some("relaxed"),
        (Some(RdmPolicy::Strict), _) | (None, DomainKind::Pv | DomainKind::Pvh) => Some("strict"),
        (None, DomainKind::Hvm) => None,
    };
    map.put_some("rdm_policy", policy);
    if let PciAddress::Name(name) = &device.address {
        map.put("name", name.as_str());
    }
    map
}

/// Frame buffers and the keyboards that stock puts beside them.
pub(super) fn put_graphics(map: &mut Map, vfbs: &[VfbSpec], more_keyboards: Vec<Map>) {
    let buffers = (0u32..)
        .zip(vfbs)
        .map(|(index, buffer)| Json::Map(vfb(index, buffer)));
    map.put_list("vfbs", buffers.collect());
    let paired = vfbs.iter().map(|_| Map::default());
    let keyboards = (0u32..)
        .zip(paired.chain(more_keyboards))
        .map(|(index, mut keyboard)| {
            keyboard.set("devid", index, &["backend_type", "unique_id"]);
            Json::Map(keyboard)
        });
    map.put_list("vkbs", keyboards.collect());
}

fn vfb(index: u32, buffer: &VfbSpec) -> Map {
    let mut vnc = Map::default();
    vnc.put_tristate("enable", buffer.vnc);
    vnc.put_some("listen", buffer.vnc_listen.as_deref());
    vnc.put_some("passwd", buffer.vnc_password.as_deref());
    vnc.put_nonzero("display", buffer.vnc_display);
    vnc.put_tristate("findunused", buffer.vnc_find_unused);
    let mut sdl = Map::default();
    sdl.put_tristate("enable", buffer.sdl);
    sdl.put_tristate("opengl", buffer.opengl);
    sdl.put_some("display", buffer.display.as_deref());
    sdl.put_some("xauthority", buffer.xauthority.as_deref());
    let mut map = Map::default();
    map.put("devid", index);
    map.put("vnc", vnc);
    map.put("sdl", sdl);
    map.put_some("keymap", buffer.keymap.as_deref());
    map
}
