//! Carried keys and their places in libxl's structures: one table, written from and read into.
//!
//! Members stand in libxl's order between the ones that have fields of their own; [`super::create`], [`super::build`]
//! and [`super::hvm`] pick the groups up in that order.

use super::value::{Json, Map};
use crate::config::domain::{CarriedValue, DomainConfig};

/// How a carried value looks in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A tri-state.
    Flag,
    /// A number, left out if it is 0.
    Number,
    /// A number, always there if it was said.
    AnyNumber,
    /// MiB in the configuration, KiB here.
    Mib,
    /// A text.
    Text,
    /// A word, in lower case with `_` for `-`; left out if it is the default.
    Word {
        /// The word that is left out, or nothing.
        default: &'static str,
    },
    /// A list of texts.
    List,
}

/// One member: its name in JSON, its key in xl.cfg, and how it is written.
pub type Field = (&'static str, &'static str, How);

use How::{AnyNumber, Flag, List, Mib, Number, Text, Word};

/// `c_info`, behind the type.
pub const CREATE_HEAD: &[Field] = &[("hap", "hap", Flag), ("oos", "oos", Flag)];
/// `c_info`, behind the UUID.
pub const CREATE_POOL: &[Field] = &[("pool_name", "pool", Text)];
/// `c_info`, at its end.
pub const CREATE_TAIL: &[Field] = &[
    ("driver_domain", "driver_domain", Flag),
    ("passthrough", "passthrough", Word { default: "default" }),
    (
        "xend_suspend_evtchn_compat",
        "xend_suspend_evtchn_compat",
        Flag,
    ),
];
/// `b_info`, behind the shadow memory.
pub const BUILD_TIME: &[Field] = &[("rtc_timeoffset", "rtc_timeoffset", Number)];
/// `b_info`, behind the security label.
pub const BUILD_CLOCK: &[Field] = &[
    ("localtime", "localtime", Flag),
    ("disable_migrate", "nomigrate", Flag),
];
/// `b_info`, behind the grant limits.
pub const BUILD_MODEL: &[Field] = &[
    (
        "device_model_version",
        "device_model_version",
        Word { default: "unknown" },
    ),
    (
        "device_model_stubdomain",
        "device_model_stubdomain_override",
        Flag,
    ),
    ("stubdomain_memkb", "stubdomain_memory", Mib),
    ("stubdomain_kernel", "stubdomain_kernel", Text),
    ("stubdomain_cmdline", "stubdomain_cmdline", Text),
    ("stubdomain_ramdisk", "stubdomain_ramdisk", Text),
    ("device_model", "device_model_override", Text),
    (
        "device_model_ssid_label",
        "device_model_stubdomain_seclabel",
        Text,
    ),
    ("device_model_user", "device_model_user", Text),
    ("extra", "device_model_args", List),
    ("extra_pv", "device_model_args_pv", List),
    ("extra_hvm", "device_model_args_hvm", List),
];
/// `sched_params`, behind weight and cap.
pub const SCHEDULER: &[Field] = &[
    ("period", "period", AnyNumber),
    ("extratime", "extratime", AnyNumber),
    ("slice", "slice", AnyNumber),
    ("latency", "latency", AnyNumber),
];
/// `b_info`, behind the claim mode.
pub const BUILD_EVENTS: &[Field] = &[("event_channels", "max_event_channels", Number)];
/// `b_info`, behind the ramdisk.
pub const BUILD_FIRMWARE: &[Field] =
    &[("device_tree", "device_tree", Text), ("acpi", "acpi", Flag)];
/// `b_info`, behind the boot loader.
pub const BUILD_LOADER: &[Field] = &[("bootloader_user", "bootloader_user", Text)];
/// `b_info`, in front of the union.
pub const BUILD_PLATFORM: &[Field] = &[
    ("timer_mode", "timer_mode", Word { default: "" }),
    ("nested_hvm", "nestedhvm", Flag),
];
/// `b_info`, behind the HVM switch `apic`.
pub const BUILD_RESTRICT: &[Field] = &[("dm_restrict", "dm_restrict", Flag)];
/// `type.pvh`
pub const PVH: &[Field] = &[
    ("pvshim", "pvshim", Flag),
    ("pvshim_path", "pvshim_path", Text),
    ("pvshim_cmdline", "pvshim_cmdline", Text),
    ("pvshim_extra", "pvshim_extra", Text),
];
/// `b_info`, at its end.
pub const BUILD_TAIL: &[Field] = &[
    ("vmtrace_buf_kb", "vmtrace_buf_kb", Number),
    ("vpmu", "vpmu", Flag),
];
/// `type.hvm`, behind the firmware.
pub const HVM_SWITCHES: &[Field] = &[
    ("pae", "pae", Flag),
    ("acpi_s3", "acpi_s3", Flag),
    ("acpi_s4", "acpi_s4", Flag),
    ("acpi_laptop_slate", "acpi_laptop_slate", Flag),
    ("nx", "nx", Flag),
];
/// `type.hvm`, behind viridian.
pub const HVM_TIMERS: &[Field] = &[
    ("hpet", "hpet", Flag),
    ("vpt_align", "vpt_align", Flag),
    ("mmio_hole_memkb", "mmio_hole", Mib),
    ("altp2m", "altp2mhvm", Flag),
    ("system_firmware", "bios_path_override", Text),
    ("smbios_firmware", "smbios_firmware", Text),
    ("acpi_firmware", "acpi_firmware", Text),
    ("hdtype", "hdtype", Word { default: "ide" }),
    ("nographic", "nographic", Flag),
];
/// `vnc`
pub const VNC: &[Field] = &[
    ("enable", "vnc", Flag),
    ("listen", "vnclisten", Text),
    ("passwd", "vncpasswd", Text),
    ("display", "vncdisplay", Number),
    ("findunused", "vncunused", Flag),
];
/// `keymap`, between `vnc` and `sdl`.
pub const KEYMAP: &[Field] = &[("keymap", "keymap", Text)];
/// `sdl`
pub const SDL: &[Field] = &[
    ("enable", "sdl", Flag),
    ("opengl", "opengl", Flag),
    ("display", "display", Text),
    ("xauthority", "xauthority", Text),
];
/// `spice`
pub const SPICE: &[Field] = &[
    ("enable", "spice", Flag),
    ("port", "spiceport", Number),
    ("tls_port", "spicetls_port", Number),
    ("host", "spicehost", Text),
    ("disable_ticketing", "spicedisable_ticketing", Flag),
    ("passwd", "spicepasswd", Text),
    ("agent_mouse", "spiceagent_mouse", Flag),
    ("vdagent", "spicevdagent", Flag),
    ("clipboard_sharing", "spice_clipboard_sharing", Flag),
    ("usbredirection", "spiceusbredirection", Number),
    ("image_compression", "spice_image_compression", Text),
    ("streaming_video", "spice_streaming_video", Text),
];
/// `type.hvm`, behind the pass-through of graphics.
pub const HVM_PORTS: &[Field] = &[
    ("serial", "serial", Text),
    ("boot", "boot", Text),
    ("usb", "usb", Flag),
    ("usbversion", "usbversion", Number),
    ("usbdevice", "usbdevice", Text),
    ("vkb_device", "vkb_device", Flag),
    ("soundhw", "soundhw", Text),
    ("xen_platform_pci", "xen_platform_pci", Flag),
    ("usbdevice_list", "usbdevice", List),
    ("vendor_device", "vendor_device", Word { default: "none" }),
    ("serial_list", "serial", List),
];
/// `type.hvm`, at its end.
pub const HVM_TAIL: &[Field] = &[
    ("rdm_mem_boundary_memkb", "rdm_mem_boundary", Mib),
    ("pirq", "hvm_pirq", Flag),
];

/// Writes the members of a group that the configuration has.
pub fn put(map: &mut Map, config: &DomainConfig, group: &[Field]) {
    for &(member, key, how) in group {
        match how {
            Flag => map.put_tristate(member, config.carried_flag(key)),
            Number => map.put_nonzero(member, config.carried_number(key).unwrap_or(0)),
            AnyNumber => map.put_some(member, config.carried_number(key)),
            Mib => map.put_some(
                member,
                config
                    .carried_number(key)
                    .map(|mib| mib.saturating_mul(1024)),
            ),
            Text => map.put_some(member, config.carried_text(key)),
            Word { default } => {
                let word = config.carried_text(key).map(json_word);
                map.put_some(member, word.filter(|word| word != default));
            }
            List => {
                map.put_list(member, config.carried_list(key).map(Json::from).collect());
            }
        }
    }
}

/// Reads the members of a group back.
pub fn take(map: &Map, config: &mut DomainConfig, group: &[Field]) {
    for &(member, key, how) in group {
        let Some(value) = map.get(member) else {
            continue;
        };
        let atom = match how {
            Flag => value.as_flag().map(|on| u8::from(on).to_string()),
            Number | AnyNumber => value.as_number().map(|n| n.to_string()),
            Mib => value.as_number().map(|kib| (kib >> 10).to_string()),
            Text | Word { .. } => value.as_text().map(str::to_owned),
            List => None,
        };
        let carried = match (how, atom) {
            (List, _) => {
                let items = value
                    .as_list()
                    .unwrap_or(&[])
                    .iter()
                    .filter_map(Json::as_text);
                CarriedValue::List(items.map(|t| CarriedValue::Atom(t.into())).collect())
            }
            (Word { .. }, Some(word)) if key == "device_model_version" => {
                CarriedValue::Atom(word.replace('_', "-"))
            }
            (_, Some(text)) => CarriedValue::Atom(text),
            (_, None) => continue,
        };
        config.carried.insert(key.into(), carried);
    }
}

fn json_word(word: &str) -> String {
    word.to_ascii_lowercase().replace('-', "_")
}
