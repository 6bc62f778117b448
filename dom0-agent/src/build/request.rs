//! What the builders are asked for: numbers only. Names, xenstore and devices are somebody else's.

use super::error::BuildError;
use super::limits::{MAX_MEMORY_KIB, MAX_PV_VCPUS, MAX_PVH_VCPUS, MIN_MEMORY_KIB};
use xen_abi::domain::{CpuMap, DomainKind, TscMode};
use xen_abi::ids::{DomId, Handle, Port};

/// Affinity of one vcpu.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VcpuAffinity {
    /// Where it may run; `None`: anywhere.
    pub hard: Option<CpuMap>,
    /// Where it would rather run; `None`: anywhere.
    pub soft: Option<CpuMap>,
}

/// A domain to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// PV or PVH.
    pub kind: DomainKind,
    /// The uuid.
    pub handle: Handle,
    /// Memory at start, in KiB; at least 1 MiB.
    pub memory_kib: u64,
    /// Memory it may ever have, in KiB; at least `memory_kib`. A PVH guest is given all of it and balloons down.
    pub max_memory_kib: u64,
    /// Vcpus online at start, at least 1.
    pub vcpus: u32,
    /// Vcpus it may ever have, at least `vcpus`.
    pub max_vcpus: u32,
    /// Affinity by vcpu number; vcpus beyond its end run anywhere.
    pub affinity: Vec<VcpuAffinity>,
    /// Time stamp counter.
    pub tsc_mode: TscMode,
    /// Scheduler weight; `None`: the scheduler's default.
    pub weight: Option<u16>,
    /// Scheduler cap in percent of one CPU; `None`: none.
    pub cap: Option<u16>,
    /// Kernel command line.
    pub command_line: String,
    /// Grant table frames; `None`: the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Maptrack frames; `None`: the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Highest grant table version; `None`: the highest that the host offers.
    pub grant_version: Option<u8>,
    /// Highest event channel port.
    pub max_event_port: u32,
    /// Cpupool.
    pub cpupool: u32,
    /// XSM label id.
    pub ssidref: u32,
    /// Domain that serves xenstore.
    pub store_backend: DomId,
    /// Domain that serves the console.
    pub console_backend: DomId,
}

impl BuildRequest {
    /// A request with stock defaults for all that does not shape the guest.
    #[must_use]
    pub fn new(kind: DomainKind, handle: Handle, memory_kib: u64, vcpus: u32) -> Self {
        Self {
            kind,
            handle,
            memory_kib,
            max_memory_kib: memory_kib,
            vcpus,
            max_vcpus: vcpus,
            affinity: Vec::new(),
            tsc_mode: TscMode::Default,
            weight: None,
            cap: None,
            command_line: String::new(),
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: None,
            max_event_port: 1023,
            cpupool: 0,
            ssidref: 0,
            store_backend: DomId::DOM0,
            console_backend: DomId::DOM0,
        }
    }

    /// The bounds that no host can change.
    ///
    /// # Errors
    /// [`BuildError::Request`] names the key.
    pub fn check(&self) -> Result<(), BuildError> {
        let refuse = |key, value: u64, why: String| {
            Err(BuildError::Request {
                key,
                value: value.to_string(),
                why,
            })
        };
        let most_vcpus = match self.kind {
            DomainKind::Pv => MAX_PV_VCPUS,
            DomainKind::Pvh | DomainKind::Hvm => MAX_PVH_VCPUS,
        };
        if !(1..=self.max_vcpus).contains(&self.vcpus) {
            return refuse(
                "vcpus",
                self.vcpus.into(),
                format!("it must be 1 to maxvcpus ({})", self.max_vcpus),
            );
        }
        if self.max_vcpus > most_vcpus {
            return refuse(
                "maxvcpus",
                self.max_vcpus.into(),
                format!("a {} guest can have {most_vcpus}", self.kind.as_str()),
            );
        }
        if self.memory_kib < MIN_MEMORY_KIB {
            return refuse(
                "memory",
                self.memory_kib / 1024,
                "it is less than 1 MiB".to_owned(),
            );
        }
        if self.max_memory_kib < self.memory_kib {
            return refuse(
                "maxmem",
                self.max_memory_kib / 1024,
                "it is less than `memory`".to_owned(),
            );
        }
        if self.max_memory_kib > MAX_MEMORY_KIB {
            return refuse(
                "maxmem",
                self.max_memory_kib / 1024,
                format!("more than {} GiB", MAX_MEMORY_KIB >> 20),
            );
        }
        Ok(())
    }
}

/// A ring page and event channel shared with a backend before the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Frame of the ring page, as xenstore's `ring-ref` has it: mfn for PV, gfn for PVH.
    pub frame: u64,
    /// The guest's port.
    pub port: Port,
}

/// A domain that is complete but for its devices, paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub domid: DomId,
    /// Xenstore.
    pub store: Channel,
    /// Console.
    pub console: Channel,
}
