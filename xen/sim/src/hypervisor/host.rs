//! Host-wide answers: version strings, memory, CPUs, policies, the log.

use super::Outcome;
use crate::limits::HOST_CPUS;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domain::CpuMap;
use xen_abi::host::{CpuPool, CpuTopology, HostCapabilities, NumaNode, PhysInfo, XenStrings};
use xen_abi::ids::PAGE_SIZE;
use xen_host::seam::{CpuPolicy, CpuidLeaf};

/// Bytes Xen keeps of its log.
const LOG_BYTES: usize = 16 << 10;

/// A host with everything the stack wants: the Debian 13 build (no shadow paging).
pub(crate) fn default_capabilities() -> HostCapabilities {
    HostCapabilities {
        hvm: true,
        pv: true,
        directio: false,
        hap: true,
        shadow: false,
        iommu_hap_pt_share: false,
        vmtrace: false,
        vpmu: true,
        gnttab_v1: true,
        gnttab_v2: true,
    }
}

fn leaf(leaf: u32, subleaf: u32, regs: [u32; 4]) -> CpuidLeaf {
    CpuidLeaf {
        leaf,
        subleaf,
        regs,
    }
}

/// The system policies by index: raw, host, PV max, HVM max, PV default, HVM default.
pub(crate) fn policy(index: u32) -> Option<CpuPolicy> {
    const NO_SUBLEAF: u32 = u32::MAX;
    if index > 5 {
        return None;
    }
    let hypervisor_bit = if index >= 2 { 1 << 31 } else { 0 };
    let vendor = [0xD, 0x6874_7541, 0x444D_4163, 0x6974_6E65];
    let leaves = vec![
        leaf(0, NO_SUBLEAF, vendor),
        leaf(
            1,
            NO_SUBLEAF,
            [
                0x0080_0F12,
                0x0001_0800,
                0x7698_3203 | hypervisor_bit,
                0x178B_FBFF,
            ],
        ),
        leaf(7, 0, [0, 0x209C_01A9, 0, 0]),
        leaf(0xD, 0, [7, 0x340, 0x340, 0]),
        leaf(0xD, 1, [0xF, 0, 0, 0]),
        leaf(
            0x8000_0000,
            NO_SUBLEAF,
            [0x8000_0008, vendor[1], vendor[2], vendor[3]],
        ),
        leaf(
            0x8000_0001,
            NO_SUBLEAF,
            [0x0080_0F12, 0, 0x0000_03F7, 0x2FD3_FBFF],
        ),
        leaf(0x8000_0008, NO_SUBLEAF, [0x3030, 0, 0x4003, 0]),
    ];
    Some(CpuPolicy {
        leaves,
        msrs: vec![(0xCE, 0), (0x10A, 0)],
    })
}

impl State {
    pub(crate) fn log_xen(&mut self, line: &str) {
        self.console
            .extend_from_slice(format!("(XEN) {line}\n").as_bytes());
        let excess = self.console.len().saturating_sub(LOG_BYTES);
        self.console.drain(..excess);
    }

    pub(crate) fn strings(&self) -> XenStrings {
        XenStrings {
            major: u32::from(self.version.major),
            minor: u32::from(self.version.minor),
            extra_version: ".3".into(),
            capabilities: "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ".into(),
            changeset: String::new(),
            command_line: "placeholder dom0_mem=512M".into(),
            virt_start: 0xFFFF_8000_0000_0000,
            page_size: 4096,
            compiler: "x86_64-linux-gnu-gcc (Debian 14.2.0-19) 14.2.0".into(),
            compile_by: "pkg-xen-devel".into(),
            compile_domain: "lists.alioth.debian.org".into(),
            compile_date: "Sun Jan  4 12:00:00 UTC 2026".into(),
            build_id: "5e1ec7ed5e1ec7ed5e1ec7ed5e1ec7ed5e1ec7ed".into(),
        }
    }

    pub(crate) fn physinfo(&self) -> PhysInfo {
        PhysInfo {
            threads_per_core: 1,
            cores_per_socket: HOST_CPUS,
            nr_cpus: HOST_CPUS,
            max_cpu_id: HOST_CPUS - 1,
            nr_nodes: 1,
            max_node_id: 0,
            cpu_khz: 2_000_000,
            capabilities: self.capabilities,
            total_pages: self.total_pages(),
            free_pages: self.free_pages(),
            scrub_pages: 0,
            outstanding_pages: self.outstanding_pages(),
            max_mfn: crate::limits::FIRST_GUEST_MFN + self.frames.total() - 1,
            hw_cap: [
                0x178B_FBFF,
                0x7698_3203,
                0x2FD3_FBFF,
                0x0000_03F7,
                0xF,
                0x209C_01A9,
                0,
                0x500,
            ],
        }
    }

    pub(crate) fn cpu_topology(&self) -> Vec<Option<CpuTopology>> {
        (0..HOST_CPUS)
            .map(|core| {
                Some(CpuTopology {
                    core,
                    socket: 0,
                    node: 0,
                })
            })
            .collect()
    }

    pub(crate) fn numa(&self) -> Vec<NumaNode> {
        let page = PAGE_SIZE as u64;
        vec![NumaNode {
            memory_bytes: self.total_pages() * page,
            free_bytes: self.free_pages() * page,
            distances: vec![10],
        }]
    }

    pub(crate) fn cpupools(&self) -> Vec<CpuPool> {
        let mut cpus = CpuMap::default();
        for cpu in 0..HOST_CPUS as usize {
            cpus.insert(cpu);
        }
        let domains = u32::try_from(self.domains.len()).unwrap_or(u32::MAX);
        vec![CpuPool {
            id: 0,
            scheduler: 6,
            domains,
            cpus,
        }]
    }

    pub(crate) fn cpu_policy(&self, index: u32) -> Outcome<CpuPolicy> {
        policy(index).ok_or(Errno::EINVAL)
    }

    pub(crate) fn console_log(&mut self, clear: bool) -> Vec<u8> {
        let log = self.console.clone();
        if clear {
            self.console.clear();
        }
        log
    }
}
