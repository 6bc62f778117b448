//! Every key of xl.cfg(5), in one table: for which guests it counts, what its value looks like, and who obeys it.
//!
//! The table drives three things: the warnings about values of the wrong shape, the map of carried values, and the
//! one warning that names what is not acted on yet. A key that is not here is accepted in silence, as in stock.

use super::domain::DomainKind;
use super::number::c_long;
use super::tree::ValueKind;

/// For which guests a key is read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every guest.
    Any,
    /// PV guests.
    Pv,
    /// PVH guests.
    Pvh,
    /// HVM guests.
    Hvm,
    /// Guests on Arm: never here, but no typing mistake either.
    Arm,
}

impl Scope {
    /// Whether a guest of this kind reads the key.
    #[must_use]
    pub fn covers(self, kind: DomainKind) -> bool {
        match self {
            Self::Any => true,
            Self::Pv => kind == DomainKind::Pv,
            Self::Pvh => kind == DomainKind::Pvh,
            Self::Hvm => kind == DomainKind::Hvm,
            Self::Arm => false,
        }
    }
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A number; booleans are numbers.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// A text or a list.
    TextOrList,
}

/// Who obeys a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// It has a field in [`super::domain::DomainConfig`].
    Acted,
    /// It is kept by its name, and obeyed from there.
    Obeyed,
    /// It is kept and shown, but nothing is done about it yet.
    Carried,
    /// It has no meaning any more; the reader says so where stock does.
    Obsolete,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// For which guests it is read.
    pub scope: Scope,
    /// What its value looks like.
    pub shape: Shape,
    /// Who obeys it.
    pub handling: Handling,
}

/// Numbers that are not 0 unless they are set.
const ANYWAY: [(&str, i64); 5] = [
    ("acpi", 1),
    ("altp2m_count", 10),
    ("hap", 1),
    ("xen_platform_pci_bar_uc", 1),
    ("xenstore_feature_mask", 0xffff_ffff),
];

impl Key {
    /// Whether a value asks for nothing beside what happens anyway, so that nobody needs to hear that it is not obeyed.
    #[must_use]
    pub fn is_idle(&self, value: &ValueKind) -> bool {
        match value {
            ValueKind::Atom(text) => {
                let anyway = ANYWAY.iter().find(|(name, _)| *name == self.name);
                let anyway = anyway.map_or(0, |(_, number)| *number);
                self.shape == Shape::Number && c_long(text) == Some(anyway)
            }
            ValueKind::List(items) => items.is_empty(),
        }
    }
}

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

const fn acted(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        scope: Scope::Any,
        shape,
        handling: Handling::Acted,
    }
}

const fn carried(name: &'static str, scope: Scope, shape: Shape) -> Key {
    Key {
        name,
        scope,
        shape,
        handling: Handling::Carried,
    }
}

const fn obeyed(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        scope: Scope::Any,
        shape,
        handling: Handling::Obeyed,
    }
}

const fn obsolete(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        scope: Scope::Any,
        shape,
        handling: Handling::Obsolete,
    }
}

use Scope::{Any, Arm, Hvm, Pv, Pvh};
use Shape::{List, Number, Text, TextOrList};

/// All keys, in the order in which stock reads them.
pub const KEYS: &[Key] = &[
    carried("init_seclabel", Any, Text),
    carried("seclabel", Any, Text),
    acted("type", Text),
    acted("builder", Text),
    carried("hap", Any, Number),
    acted("name", Text),
    acted("uuid", Text),
    carried("oos", Any, Number),
    carried("pool", Any, Text),
    carried("xenstore_feature_mask", Any, Number),
    carried("xenstore_quota", Any, List),
    carried("pvshim", Pvh, Number),
    carried("pvshim_path", Pvh, Text),
    carried("pvshim_cmdline", Pvh, Text),
    carried("pvshim_extra", Pvh, Text),
    acted("cpu_weight", Number),
    acted("cap", Number),
    carried("period", Any, Number),
    carried("slice", Any, Number),
    carried("latency", Any, Number),
    carried("extratime", Any, Number),
    acted("memory", Number),
    acted("maxmem", Number),
    carried("llc_colors", Any, List),
    acted("vcpus", Number),
    acted("maxvcpus", Number),
    carried("vuart", Arm, Text),
    carried("vnuma", Any, List),
    acted("cpus", TextOrList),
    acted("cpus_soft", TextOrList),
    obeyed("max_grant_frames", Number),
    obeyed("max_maptrack_frames", Number),
    obeyed("max_grant_version", Number),
    acted("on_poweroff", Text),
    acted("on_reboot", Text),
    acted("on_watchdog", Text),
    acted("on_crash", Text),
    acted("on_soft_reset", Text),
    carried("e820_host", Pv, Number),
    carried("pci_msitranslate", Any, Number),
    carried("pci_power_mgmt", Any, Number),
    carried("pci_permissive", Any, Number),
    carried("pci_seize", Any, Number),
    carried("rdm", Hvm, Text),
    carried("pci", Any, List),
    carried("dtdev", Any, List),
    carried("passthrough", Any, Text),
    carried("shadow_memory", Any, Number),
    carried("nomigrate", Any, Number),
    acted("tsc_mode", Text),
    carried("rtc_timeoffset", Any, Number),
    obsolete("vncviewer", Number),
    carried("localtime", Any, Number),
    carried("videoram", Any, Number),
    obeyed("max_event_channels", Number),
    acted("kernel", Text),
    acted("ramdisk", Text),
    carried("device_tree", Any, Text),
    acted("cmdline", Text),
    acted("root", Text),
    acted("extra", Text),
    carried("driver_domain", Any, Number),
    carried("acpi", Any, Number),
    carried("bootloader", Any, Text),
    carried("bootloader_restrict", Any, Number),
    carried("bootloader_user", Any, Text),
    carried("bootloader_args", Any, TextOrList),
    carried("timer_mode", Any, Text),
    carried("nestedhvm", Any, Number),
    carried("firmware_override", Hvm, Text),
    carried("bios_path_override", Hvm, Text),
    carried("bios", Hvm, Text),
    carried("pae", Hvm, Number),
    carried("acpi_s3", Hvm, Number),
    carried("acpi_s4", Hvm, Number),
    carried("acpi_laptop_slate", Hvm, Number),
    carried("nx", Hvm, Number),
    carried("hpet", Hvm, Number),
    carried("vpt_align", Hvm, Number),
    carried("apic", Hvm, Number),
    carried("hvm_pirq", Hvm, Number),
    carried("viridian", Hvm, TextOrList),
    carried("mmio_hole", Hvm, Number),
    carried("altp2mhvm", Hvm, Number),
    carried("smbios_firmware", Hvm, Text),
    carried("acpi_firmware", Hvm, Text),
    carried("smbios", Hvm, List),
    carried("ms_vm_genid", Hvm, Text),
    carried("rdm_mem_boundary", Hvm, Number),
    carried("mca_caps", Hvm, List),
    carried("firmware", Hvm, Text),
    carried("altp2m", Any, Text),
    carried("altp2m_count", Any, Number),
    carried("vmtrace_buf_kb", Any, Number),
    carried("ioports", Any, List),
    carried("irqs", Any, List),
    carried("iomem", Any, List),
    acted("disk", List),
    carried("p9", Any, List),
    carried("vtpm", Any, List),
    carried("vdispl", Any, List),
    carried("pvcalls", Any, List),
    carried("vsnd", Any, List),
    carried("channel", Any, List),
    acted("vif", List),
    obsolete("vif2", List),
    carried("vfb", Any, List),
    carried("usbctrl", Any, List),
    carried("usbdev", Any, List),
    carried("cpuid", Any, TextOrList),
    obsolete("device_model", Text),
    carried("device_model_override", Any, Text),
    carried("device_model_version", Any, Text),
    carried("device_model_stubdomain_override", Any, Number),
    carried("device_model_stubdomain_seclabel", Any, Text),
    carried("device_model_user", Any, Text),
    carried("stubdomain_kernel", Any, Text),
    carried("stubdomain_cmdline", Any, Text),
    carried("stubdomain_ramdisk", Any, Text),
    carried("stubdomain_memory", Any, Number),
    carried("device_model_args", Any, List),
    carried("device_model_args_pv", Any, List),
    carried("device_model_args_hvm", Any, List),
    carried("vnc", Any, Number),
    carried("vnclisten", Any, Text),
    carried("vncpasswd", Any, Text),
    carried("vncdisplay", Any, Number),
    carried("vncunused", Any, Number),
    carried("sdl", Any, Number),
    carried("opengl", Any, Number),
    carried("display", Any, Text),
    carried("xauthority", Any, Text),
    carried("keymap", Any, Text),
    carried("dm_restrict", Any, Number),
    carried("vga", Hvm, Text),
    carried("stdvga", Hvm, Number),
    carried("hdtype", Hvm, Text),
    carried("spice", Hvm, Number),
    carried("spiceport", Hvm, Number),
    carried("spicetls_port", Hvm, Number),
    carried("spicehost", Hvm, Text),
    carried("spicedisable_ticketing", Hvm, Number),
    carried("spicepasswd", Hvm, Text),
    carried("spiceagent_mouse", Hvm, Number),
    carried("spicevdagent", Hvm, Number),
    carried("spice_clipboard_sharing", Hvm, Number),
    carried("spiceusbredirection", Hvm, Number),
    carried("spice_image_compression", Hvm, Text),
    carried("spice_streaming_video", Hvm, Text),
    carried("nographic", Hvm, Number),
    carried("gfx_passthru", Hvm, Text),
    carried("serial", Hvm, TextOrList),
    carried("boot", Hvm, Text),
    carried("usb", Hvm, Number),
    carried("usbversion", Hvm, Number),
    carried("usbdevice", Hvm, TextOrList),
    carried("vkb_device", Hvm, Number),
    carried("soundhw", Hvm, Text),
    carried("xen_platform_pci", Hvm, Number),
    carried("xen_platform_pci_bar_uc", Hvm, Number),
    carried("vendor_device", Hvm, Text),
    carried("gic_version", Arm, Text),
    carried("tee", Arm, Text),
    carried("sve", Arm, Text),
    carried("nr_spis", Arm, Number),
    carried("trap_unmapped_accesses", Any, Number),
    carried("arm_sci", Arm, Text),
    carried("vkb", Any, List),
    carried("virtio", Any, List),
    carried("xend_suspend_evtchn_compat", Any, Number),
    carried("msr_relaxed", Any, Number),
    carried("vpmu", Any, Number),
    acted("protect", Text),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(
                KEYS[..index].iter().all(|k| k.name != key.name),
                "{}",
                key.name
            );
        }
    }
}
