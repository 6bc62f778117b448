//! What one guest is: the typed form of an xl configuration, and the contract between its readers.
//!
//! The builder, the device code, the daemon and the JSON writer all take a [`DomainConfig`]; none of them ever sees
//! configuration text. A value here has been checked by itself (ranges, spelling), not against the host: a kernel
//! that is named may not exist, a bridge may be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::boot::BootConfig;
use super::cpu::CpuConfig;
use super::disk::DiskSpec;
use super::events::EventActions;
use super::graphics::VfbSpec;
use super::memory::MemoryConfig;
use super::number::c_long;
use super::pci::PciSpec;
use super::protect::ProtectConfig;
use super::vif::VifSpec;

/// The three kinds of guest that Xen runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DomainKind {
    /// Paravirtualised: no hardware virtualisation, page tables checked by Xen.
    Pv,
    /// Hardware virtualised without a device model.
    Pvh,
    /// Hardware virtualised with a device model.
    Hvm,
}

impl DomainKind {
    /// The word that xl, xenstore (`/libxl/<domid>/type`) and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        }
    }

    /// The kind for a whole word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pv, Self::Pvh, Self::Hvm]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// One guest, completely described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// Name shown by `xl list`; unique on a host, never empty.
    pub name: String,
    /// Identity that survives reboot, save and migration.
    pub uuid: Uuid,
    /// Kind of guest.
    pub kind: DomainKind,
    /// Memory sizes, in KiB.
    pub memory: MemoryConfig,
    /// Virtual CPUs, their placement and their share.
    pub cpu: CpuConfig,
    /// What is booted and with which command line.
    pub boot: BootConfig,
    /// What happens when the guest stops.
    pub events: EventActions,
    /// Disks in the order of the configuration.
    pub disks: Vec<DiskSpec>,
    /// Network interfaces in the order of the configuration; the index is the device id unless `devid=` says otherwise.
    pub vifs: Vec<VifSpec>,
    /// Frame buffers; no backend of ours serves them yet.
    pub vfbs: Vec<VfbSpec>,
    /// Devices passed through; nothing passes them through yet.
    pub pci: Vec<PciSpec>,
    /// What the fault-tolerance monitor promises for this guest.
    pub protect: ProtectConfig,
    /// Every other known key, by its xl.cfg name, as it was written.
    pub carried: BTreeMap<String, CarriedValue>,
}

/// A configuration value that is understood and kept, but has no field of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarriedValue {
    /// A number or a string; xl.cfg does not tell them apart.
    Atom(String),
    /// A list, possibly nested.
    List(Vec<CarriedValue>),
}

impl DomainConfig {
    /// The text of a carried key.
    #[must_use]
    pub fn carried_text(&self, key: &str) -> Option<&str> {
        match self.carried.get(key)? {
            CarriedValue::Atom(text) => Some(text),
            CarriedValue::List(_) => None,
        }
    }

    /// The number of a carried key.
    #[must_use]
    pub fn carried_number(&self, key: &str) -> Option<i64> {
        c_long(self.carried_text(key)?)
    }

    /// A carried key as a switch: `None` if it is absent.
    #[must_use]
    pub fn carried_flag(&self, key: &str) -> Option<bool> {
        self.carried_number(key).map(|number| number != 0)
    }

    /// The texts of a carried list; empty if it is absent.
    pub fn carried_list(&self, key: &str) -> impl Iterator<Item = &str> {
        let items = match self.carried.get(key) {
            Some(CarriedValue::List(items)) => items.as_slice(),
            _ => &[],
        };
        items.iter().filter_map(|item| match item {
            CarriedValue::Atom(text) => Some(text.as_str()),
            CarriedValue::List(_) => None,
        })
    }
}
