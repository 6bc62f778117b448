//! The machine: processors, memory, nodes, and what the hypervisor can do with them.

use super::{Call, Command};
use crate::host::{CpuTopology, HostCapabilities, NumaNode, PhysInfo};
use crate::layout;
use crate::layout::{UserPtr, copy_out};
use crate::version::Abi;

crate::constants! {
    table PHYSICAL_CONSTANTS;
    /// HVM guests.
    pub const CAP_HVM: u32 = 1 << 0 => "XEN_SYSCTL_PHYSCAP_hvm";
    /// PV guests.
    pub const CAP_PV: u32 = 1 << 1 => "XEN_SYSCTL_PHYSCAP_pv";
    /// Passthrough.
    pub const CAP_DIRECTIO: u32 = 1 << 2 => "XEN_SYSCTL_PHYSCAP_directio";
    /// Hardware-assisted paging.
    pub const CAP_HAP: u32 = 1 << 3 => "XEN_SYSCTL_PHYSCAP_hap";
    /// Shadow paging.
    pub const CAP_SHADOW: u32 = 1 << 4 => "XEN_SYSCTL_PHYSCAP_shadow";
    /// Shared IOMMU page tables.
    pub const CAP_IOMMU_HAP_PT_SHARE: u32 = 1 << 5 => "XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share";
    /// Processor trace.
    pub const CAP_VMTRACE: u32 = 1 << 6 => "XEN_SYSCTL_PHYSCAP_vmtrace";
    /// Performance counters.
    pub const CAP_VPMU: u32 = 1 << 7 => "XEN_SYSCTL_PHYSCAP_vpmu";
    /// Grant tables version 1.
    pub const CAP_GNTTAB_V1: u32 = 1 << 8 => "XEN_SYSCTL_PHYSCAP_gnttab_v1";
    /// Grant tables version 2.
    pub const CAP_GNTTAB_V2: u32 = 1 << 9 => "XEN_SYSCTL_PHYSCAP_gnttab_v2";
    /// Core of an offline CPU.
    pub const INVALID_CORE_ID: u32 = u32::MAX => "XEN_INVALID_CORE_ID";
    /// Size of an absent node; sign-extended where the field is wider.
    pub const INVALID_MEM_SZ: u32 = u32::MAX => "XEN_INVALID_MEM_SZ";
    /// Distance to an absent node.
    pub const INVALID_NODE_DIST: u32 = u32::MAX => "XEN_INVALID_NODE_DIST";
}

layout! {
    /// `XEN_SYSCTL_physinfo`.
    pub struct PhysInfoLayout: "struct xen_sysctl_physinfo", 112 {
        /// Threads per core.
        pub threads_per_core: u32 = 0 => "threads_per_core",
        /// Cores per socket.
        pub cores_per_socket: u32 = 4 => "cores_per_socket",
        /// CPUs online.
        pub nr_cpus: u32 = 8 => "nr_cpus",
        /// Highest CPU id.
        pub max_cpu_id: u32 = 12 => "max_cpu_id",
        /// Nodes online.
        pub nr_nodes: u32 = 16 => "nr_nodes",
        /// Highest node id.
        pub max_node_id: u32 = 20 => "max_node_id",
        /// Frequency.
        pub cpu_khz: u32 = 24 => "cpu_khz",
        /// `CAP_*`.
        pub capabilities: u32 = 28 => "capabilities",
        /// Of the architecture; none on x86 so far.
        pub arch_capabilities: u32 = 32 => "arch_capabilities",
        /// Padding.
        pub pad: u32 = 36 => "pad",
        /// Pages.
        pub total_pages: u64 = 40 => "total_pages",
        /// Pages free.
        pub free_pages: u64 = 48 => "free_pages",
        /// Pages to be scrubbed.
        pub scrub_pages: u64 = 56 => "scrub_pages",
        /// Pages claimed.
        pub outstanding_pages: u64 = 64 => "outstanding_pages",
        /// Highest machine frame.
        pub max_mfn: u64 = 72 => "max_mfn",
        /// CPUID words.
        pub hw_cap: [u32; 8] = 80 => "hw_cap",
    }
}

impl HostCapabilities {
    /// From the capability word of `physinfo`; bits not known are ignored.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            hvm: bits & CAP_HVM != 0,
            pv: bits & CAP_PV != 0,
            directio: bits & CAP_DIRECTIO != 0,
            hap: bits & CAP_HAP != 0,
            shadow: bits & CAP_SHADOW != 0,
            iommu_hap_pt_share: bits & CAP_IOMMU_HAP_PT_SHARE != 0,
            vmtrace: bits & CAP_VMTRACE != 0,
            vpmu: bits & CAP_VPMU != 0,
            gnttab_v1: bits & CAP_GNTTAB_V1 != 0,
            gnttab_v2: bits & CAP_GNTTAB_V2 != 0,
        }
    }
}

/// Asks about the machine; see [`physinfo_answer`].
#[must_use]
pub fn physinfo(abi: Abi) -> Call {
    Call::bare(abi, Command::PhysInfo)
}

/// The machine.
#[must_use]
pub fn physinfo_answer(answer: &Call) -> PhysInfo {
    let raw: PhysInfoLayout = answer.payload();
    PhysInfo {
        threads_per_core: raw.threads_per_core,
        cores_per_socket: raw.cores_per_socket,
        nr_cpus: raw.nr_cpus,
        max_cpu_id: raw.max_cpu_id,
        nr_nodes: raw.nr_nodes,
        max_node_id: raw.max_node_id,
        cpu_khz: raw.cpu_khz,
        capabilities: HostCapabilities::from_bits(raw.capabilities),
        total_pages: raw.total_pages,
        free_pages: raw.free_pages,
        scrub_pages: raw.scrub_pages,
        outstanding_pages: raw.outstanding_pages,
        max_mfn: raw.max_mfn,
        hw_cap: raw.hw_cap,
    }
}

layout! {
    /// `XEN_SYSCTL_cputopoinfo`.
    pub struct CpuTopoInfo: "struct xen_sysctl_cputopoinfo", 16 {
        /// In: entries that fit; out: entries written, or with a null pointer needed.
        pub num_cpus: u32 = 0 => "num_cpus",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of [`CpuTopo`].
        pub cputopo: UserPtr = 8 => "cputopo",
    }
}

layout! {
    /// Where one CPU is.
    pub struct CpuTopo: "xen_sysctl_cputopo_t", 12 {
        /// Core, or [`INVALID_CORE_ID`].
        pub core: u32 = 0 => "core",
        /// Socket.
        pub socket: u32 = 4 => "socket",
        /// Node.
        pub node: u32 = 8 => "node",
    }
}

/// Reads where each CPU is, or with a null buffer how many there may be.
#[must_use]
pub fn cpu_topology(abi: Abi, buffer: UserPtr, entries: u32) -> Call {
    let raw = CpuTopoInfo {
        num_cpus: entries,
        pad: 0,
        cputopo: buffer,
    };
    Call::with(abi, Command::CpuTopoInfo, &raw)
}

/// Entries written or needed.
#[must_use]
pub fn cpu_topology_count(answer: &Call) -> u32 {
    answer.payload::<CpuTopoInfo>().num_cpus
}

/// Decodes the buffer: index is the CPU, `None` an offline one.
#[must_use]
pub fn decode_cpu_topology(bytes: &[u8]) -> Vec<Option<CpuTopology>> {
    let entries = bytes
        .chunks_exact(size_of::<CpuTopo>())
        .filter_map(copy_out::<CpuTopo>);
    entries
        .map(|raw| {
            let CpuTopo { core, socket, node } = raw;
            (core != INVALID_CORE_ID).then_some(CpuTopology { core, socket, node })
        })
        .collect()
}

layout! {
    /// `XEN_SYSCTL_numainfo`.
    pub struct NumaInfo: "struct xen_sysctl_numainfo", 24 {
        /// In: nodes that fit; out: nodes written, or with null pointers needed.
        pub num_nodes: u32 = 0 => "num_nodes",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of [`MemInfo`].
        pub meminfo: UserPtr = 8 => "meminfo",
        /// Square array of u32, as wide as the nodes *written*.
        pub distance: UserPtr = 16 => "distance",
    }
}

layout! {
    /// Memory of one node.
    pub struct MemInfo: "xen_sysctl_meminfo_t", 16 {
        /// Bytes.
        pub memsize: u64 = 0 => "memsize",
        /// Bytes free.
        pub memfree: u64 = 8 => "memfree",
    }
}

/// Reads memory and distances of the nodes, or with null buffers how many there are.
#[must_use]
pub fn numa_info(abi: Abi, memory: UserPtr, distances: UserPtr, nodes: u32) -> Call {
    let raw = NumaInfo {
        num_nodes: nodes,
        pad: 0,
        meminfo: memory,
        distance: distances,
    };
    Call::with(abi, Command::NumaInfo, &raw)
}

/// Nodes written or needed.
#[must_use]
pub fn numa_info_count(answer: &Call) -> u32 {
    answer.payload::<NumaInfo>().num_nodes
}

/// Decodes both buffers; an absent node is 0 bytes.
#[must_use]
pub fn decode_numa_info(memory: &[u8], distances: &[u8]) -> Vec<NumaNode> {
    let nodes: Vec<MemInfo> = memory
        .chunks_exact(size_of::<MemInfo>())
        .filter_map(copy_out)
        .collect();
    let distances: Vec<u32> = distances.chunks_exact(4).filter_map(copy_out).collect();
    let width = nodes.len().max(1);
    let mut rows = distances.chunks(width);
    nodes
        .iter()
        .map(|raw| {
            let present = raw.memsize != u64::from(INVALID_MEM_SZ) && raw.memsize != u64::MAX;
            NumaNode {
                memory_bytes: if present { raw.memsize } else { 0 },
                free_bytes: if present { raw.memfree } else { 0 },
                distances: rows.next().unwrap_or_default().to_vec(),
            }
        })
        .collect()
}

layout! {
    /// `XEN_SYSCTL_getcpuinfo`.
    pub struct GetCpuInfo: "struct xen_sysctl_getcpuinfo", 24 {
        /// In: entries that fit.
        pub max_cpus: u32 = 0 => "max_cpus",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Array of u64: nanoseconds idle.
        pub info: UserPtr = 8 => "info",
        /// Out: entries written.
        pub nr_cpus: u32 = 16 => "nr_cpus",
        /// Padding, zero.
        pub pad2: u32 = 20,
    }
}

/// Reads how long each CPU has been idle: an array of u64 nanoseconds.
#[must_use]
pub fn cpu_idle_times(abi: Abi, buffer: UserPtr, entries: u32) -> Call {
    let raw = GetCpuInfo {
        max_cpus: entries,
        pad: 0,
        info: buffer,
        nr_cpus: 0,
        pad2: 0,
    };
    Call::with(abi, Command::GetCpuInfo, &raw)
}

/// Entries written by [`cpu_idle_times`].
#[must_use]
pub fn cpu_idle_times_count(answer: &Call) -> u32 {
    answer.payload::<GetCpuInfo>().nr_cpus
}

layout! {
    /// `XEN_SYSCTL_availheap`.
    pub struct AvailHeap: "struct xen_sysctl_availheap", 24 {
        /// Narrowest address, 0 for any.
        pub min_bitwidth: u32 = 0 => "min_bitwidth",
        /// Widest address, 0 for any.
        pub max_bitwidth: u32 = 4 => "max_bitwidth",
        /// Node, -1 for all.
        pub node: i32 = 8 => "node",
        /// Padding, zero.
        pub pad: u32 = 12,
        /// Out: bytes.
        pub avail_bytes: u64 = 16 => "avail_bytes",
    }
}

/// Asks for free memory, of one node or of all; see [`available_heap_answer`].
#[must_use]
pub fn available_heap(abi: Abi, node: Option<u16>) -> Call {
    let node = node.map_or(-1, i32::from);
    let raw = AvailHeap {
        min_bitwidth: 0,
        max_bitwidth: 0,
        node,
        pad: 0,
        avail_bytes: 0,
    };
    Call::with(abi, Command::AvailHeap, &raw)
}

/// Bytes free.
#[must_use]
pub fn available_heap_answer(answer: &Call) -> u64 {
    answer.payload::<AvailHeap>().avail_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn physinfo_is_read_by_offset() {
        for abi in Abi::ALL {
            let mut call = physinfo(abi);
            call.payload[8] = 4;
            call.payload[28] = 0x18;
            call.payload[29] = 2;
            call.payload[40] = 11;
            call.payload[72] = 12;
            call.payload[108] = 13;
            let info = physinfo_answer(&call);
            assert_eq!(
                (info.nr_cpus, info.total_pages, info.max_mfn, info.hw_cap[7]),
                (4, 11, 12, 13)
            );
            let caps = info.capabilities;
            assert!(caps.hap && caps.shadow && caps.gnttab_v2 && !caps.hvm && !caps.gnttab_v1);
        }
    }

    #[test]
    fn an_offline_cpu_has_no_place() {
        let entries = [[0u32, 1, 0], [u32::MAX, u32::MAX, u32::MAX]];
        let topology = decode_cpu_topology(entries.as_bytes());
        assert_eq!(
            topology,
            [
                Some(CpuTopology {
                    core: 0,
                    socket: 1,
                    node: 0
                }),
                None
            ]
        );
    }

    #[test]
    fn nodes_get_their_row_of_distances() {
        let memory = [[100u64, 40], [u64::MAX, 0]];
        let distances = [10u32, 20, 20, 10];
        let nodes = decode_numa_info(memory.as_bytes(), distances.as_bytes());
        assert_eq!((nodes[0].memory_bytes, nodes[0].free_bytes), (100, 40));
        assert_eq!(nodes[0].distances, [10, 20]);
        assert_eq!(
            (nodes[1].memory_bytes, &nodes[1].distances[..]),
            (0, &[20, 10][..])
        );
        assert_eq!(decode_numa_info(&[], &[]), []);
    }
}
