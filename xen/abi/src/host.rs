//! What the host is, independent of the hypervisor's release. The byte layouts live in [`crate::sysctl`].

use serde::{Deserialize, Serialize};

/// `XEN_SYSCTL_physinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysInfo {
    /// Threads per core.
    pub threads_per_core: u32,
    /// Cores per socket.
    pub cores_per_socket: u32,
    /// CPUs online.
    pub nr_cpus: u32,
    /// Highest CPU id.
    pub max_cpu_id: u32,
    /// NUMA nodes.
    pub nr_nodes: u32,
    /// Highest node id.
    pub max_node_id: u32,
    /// CPU frequency in kHz.
    pub cpu_khz: u32,
    /// What the hypervisor can do.
    pub capabilities: HostCapabilities,
    /// Pages in the machine.
    pub total_pages: u64,
    /// Pages free.
    pub free_pages: u64,
    /// Pages waiting for the scrubber; they count as free for allocation.
    pub scrub_pages: u64,
    /// Pages claimed by domains under construction.
    pub outstanding_pages: u64,
    /// Highest machine frame.
    pub max_mfn: u64,
    /// CPU feature words, as `xl info` prints them.
    pub hw_cap: [u32; 8],
}

/// The capability bits of `physinfo`, named. Probe these, never the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "a set of independent facts, read by name"
)]
pub struct HostCapabilities {
    /// HVM (and so PVH) guests.
    pub hvm: bool,
    /// PV guests.
    pub pv: bool,
    /// Device passthrough (an IOMMU).
    pub directio: bool,
    /// Hardware-assisted paging.
    pub hap: bool,
    /// Shadow paging; without it PV guests have no dirty log.
    pub shadow: bool,
    /// IOMMU shares the HAP page tables.
    pub iommu_hap_pt_share: bool,
    /// Processor trace for guests.
    pub vmtrace: bool,
    /// Virtual performance counters.
    pub vpmu: bool,
    /// Grant table version 1.
    pub gnttab_v1: bool,
    /// Grant table version 2.
    pub gnttab_v2: bool,
}

/// Where a physical CPU sits (`cputopoinfo`). `None` entries are offline CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTopology {
    /// Core within the socket.
    pub core: u32,
    /// Socket.
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
}

/// Memory and distances of a NUMA node (`numainfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// Bytes in the node.
    pub memory_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Distance to each node.
    pub distances: Vec<u32>,
}

/// A cpupool (`CPUPOOL_OP_INFO`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuPool {
    /// Pool id.
    pub id: u32,
    /// Scheduler of the pool (5 credit, 6 credit2 ...).
    pub scheduler: u32,
    /// Domains in it.
    pub domains: u32,
    /// Its CPUs.
    pub cpus: crate::domain::CpuMap,
}

/// What `XENVER_*` answers; every string exactly as Xen gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct XenStrings {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// For example `.3` or `.4-pre`.
    pub extra_version: String,
    /// Guest types, with the trailing space Xen writes.
    pub capabilities: String,
    /// Source changeset.
    pub changeset: String,
    /// The hypervisor's command line.
    pub command_line: String,
    /// Lowest virtual address of the hypervisor.
    pub virt_start: u64,
    /// Page size in bytes.
    pub page_size: u32,
    /// Compiler.
    pub compiler: String,
    /// Who compiled it.
    pub compile_by: String,
    /// Where.
    pub compile_domain: String,
    /// When.
    pub compile_date: String,
    /// Build id in hex.
    pub build_id: String,
}
