//! What a domain is, independent of the hypervisor's release: the forms that the seam of `xen-host` speaks.
//!
//! The byte layouts of each release live in [`crate::domctl`]; they encode from and decode into these types.

use crate::ids::{CpuId, DomId, Handle};
use serde::{Deserialize, Serialize};

/// How a domain is virtualised. Not a hypervisor flag: PVH is an HVM container whose only emulated device is the local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// Paravirtualised: the guest's page tables hold machine frames.
    Pv,
    /// Hardware-assisted paging, no device model.
    Pvh,
    /// Hardware-assisted with a device model.
    Hvm,
}

impl DomainKind {
    /// The word xl and xenstore use (`pv`, `pvh`, `hvm`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DomainKind::Pv => "pv",
            DomainKind::Pvh => "pvh",
            DomainKind::Hvm => "hvm",
        }
    }
}

/// Why a domain shut itself down (`sched.h`, `SHUTDOWN_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShutdownReason {
    /// `SHUTDOWN_poweroff` (0).
    Poweroff,
    /// `SHUTDOWN_reboot` (1).
    Reboot,
    /// `SHUTDOWN_suspend` (2).
    Suspend,
    /// `SHUTDOWN_crash` (3).
    Crash,
    /// `SHUTDOWN_watchdog` (4).
    Watchdog,
    /// `SHUTDOWN_soft_reset` (5).
    SoftReset,
    /// A code this release does not know.
    Other(u8),
}

impl ShutdownReason {
    /// From the code in `getdomaininfo`'s flags.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Poweroff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            other => Self::Other(other),
        }
    }

    /// The code of `sched.h`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Poweroff => 0,
            Self::Reboot => 1,
            Self::Suspend => 2,
            Self::Crash => 3,
            Self::Watchdog => 4,
            Self::SoftReset => 5,
            Self::Other(code) => code,
        }
    }
}

/// What `createdomain` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDomain {
    /// Kind; decides flags and the emulation flags.
    pub kind: DomainKind,
    /// The uuid.
    pub handle: Handle,
    /// Most vcpus the domain can ever have, at least 1.
    pub max_vcpus: u32,
    /// Highest event channel port the guest may use (xl's default is 1023).
    pub max_event_port: u32,
    /// Grant table frames, or `None` for the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Maptrack frames, or `None` for the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Highest grant table version the guest may use: 1 or 2.
    pub grant_version: u8,
    /// Cpupool to start in (0 is `Pool-0`).
    pub cpupool: u32,
    /// XSM label id, 0 without XSM.
    pub ssidref: u32,
}

/// One domain as the hypervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    /// Domain id.
    pub domid: DomId,
    /// The uuid given at creation.
    pub handle: Handle,
    /// Being destroyed; its memory may still be held by mappings.
    pub dying: bool,
    /// Runs in an HVM container (PVH or HVM).
    pub hvm: bool,
    /// HVM container whose only emulated device is the local APIC.
    pub pvh: bool,
    /// `Some` once the domain has shut down.
    pub shutdown: Option<ShutdownReason>,
    /// Paused by the control domain.
    pub paused: bool,
    /// All vcpus blocked.
    pub blocked: bool,
    /// A vcpu is running now.
    pub running: bool,
    /// Pages it holds.
    pub tot_pages: u64,
    /// Pages it may hold.
    pub max_pages: u64,
    /// Pages claimed and not yet allocated.
    pub outstanding_pages: u64,
    /// Pages shared with other domains.
    pub shr_pages: u64,
    /// Frame of the shared info page: an mfn for PV, meaningless before creation is finished.
    pub shared_info_frame: u64,
    /// CPU time used, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Vcpus that are online.
    pub online_vcpus: u32,
    /// Highest vcpu id.
    pub max_vcpu_id: u32,
    /// XSM label id.
    pub ssidref: u32,
    /// Cpupool.
    pub cpupool: u32,
}

/// One virtual CPU (`XEN_DOMCTL_getvcpuinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuInfo {
    /// Brought up by the guest.
    pub online: bool,
    /// Waiting for an event.
    pub blocked: bool,
    /// On a CPU now.
    pub running: bool,
    /// CPU time used, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Where it last ran.
    pub cpu: CpuId,
}

/// A set of CPUs, bit `n` of byte `n / 8` for CPU `n`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuMap(pub Vec<u8>);

impl CpuMap {
    /// Whether CPU `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        self.0
            .get(cpu / 8)
            .is_some_and(|byte| byte & (1 << (cpu % 8)) != 0)
    }

    /// Adds CPU `cpu`, growing the map as needed.
    pub fn insert(&mut self, cpu: usize) {
        if self.0.len() <= cpu / 8 {
            self.0.resize(cpu / 8 + 1, 0);
        }
        self.0[cpu / 8] |= 1 << (cpu % 8);
    }
}

/// `xen-access` time stamp modes of `settscinfo` (xl's `tsc_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TscMode {
    /// Emulate only where the host's counter is not safe.
    #[default]
    Default,
    /// Always emulate.
    AlwaysEmulate,
    /// Never emulate.
    Native,
    /// As native, for paravirtual rdtscp users (treated as default by Xen since 4.15).
    NativeParavirt,
}

/// What `sendtrigger` injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Non-maskable interrupt.
    Nmi,
    /// Reset.
    Reset,
    /// INIT.
    Init,
    /// Power button.
    Power,
    /// Sleep button.
    Sleep,
}

/// A range of the guest's physical memory map (`E820`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// The E820 types used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Usable RAM (1).
    Ram,
    /// Reserved (2).
    Reserved,
    /// ACPI tables (3).
    Acpi,
}
