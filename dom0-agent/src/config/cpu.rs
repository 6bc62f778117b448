//! Virtual CPUs: how many, where they may run, their share of the host, and how they see time.

use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

/// The CPU section of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfig {
    /// Virtual CPUs that are online when the guest starts (`vcpus=`), 1 or more.
    pub online: u32,
    /// Virtual CPUs that can ever be online (`maxvcpus=`), `online` or more.
    pub max: u32,
    /// Physical CPUs each virtual CPU may run on (`cpus=`). Entry N is for vCPU N; a missing entry means any.
    pub hard_affinity: Vec<CpuSet>,
    /// Physical CPUs each virtual CPU prefers (`cpus_soft=`). Entry N is for vCPU N; a missing entry means any.
    pub soft_affinity: Vec<CpuSet>,
    /// Scheduler weight (`cpu_weight=`); `None` leaves the scheduler's default of 256.
    pub weight: Option<u32>,
    /// Upper limit in percent of one CPU (`cap=`); `None` and 0 mean unlimited.
    pub cap: Option<u32>,
    /// How the guest's time stamp counter behaves (`tsc_mode=`).
    pub tsc_mode: TscMode,
}

/// A set of physical CPU numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSet(pub BTreeSet<u32>);

/// How the time stamp counter of a guest behaves. Numbers are Xen's (`XEN_CPUID_TSC_MODE`, `xen/domctl.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TscMode {
    /// Native when that is safe, emulated otherwise (0).
    #[default]
    Default,
    /// Every read is emulated (1).
    AlwaysEmulate,
    /// Never emulated (2).
    Native,
    /// Native, with the guest told how to correct it (3). Xen treats it like the default since 4.15.
    NativeParavirt,
}

impl TscMode {
    /// The number that `XEN_DOMCTL_settscinfo` takes.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::AlwaysEmulate => 1,
            Self::Native => 2,
            Self::NativeParavirt => 3,
        }
    }

    /// The word that xl.cfg and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AlwaysEmulate => "always_emulate",
            Self::Native => "native",
            Self::NativeParavirt => "native_paravirt",
        }
    }
}
