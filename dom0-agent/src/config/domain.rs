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
use super::memory::MemoryConfig;
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
