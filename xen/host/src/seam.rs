//! The seam: everything the programs ask of Xen and of the kernel's Xen devices, as traits.
//!
//! ```text
//!   dom0-agent   split-drivers   tests
//!        \            |           /
//!         ▼           ▼          ▼
//!              traits here
//!         ▲                      ▲
//!   crate::* (ioctls)      xen-sim (memory)
//! ```
//!
//! Methods stand at the level of what a toolstack or a backend needs, not of an ioctl. Two implementations exist: the real one in
//! this crate, and `xen-sim`, which counts what is left open. All calls block; none may be made from an async task directly.

use crate::error::Error;
use crate::region::SharedRegion;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use xen_abi::domain::{
    CpuMap, CreateDomain, DomainInfo, MemoryRange, ShutdownReason, Trigger, TscMode, VcpuInfo,
};
use xen_abi::domctl::{Scheduling, TscInfo};
use xen_abi::host::{CpuPool, CpuTopology, NumaNode, PhysInfo, XenStrings};
use xen_abi::ids::{DomId, GrantRef, Handle, Port, VcpuId};
use xen_abi::version::XenVersion;

/// What every call of the seam answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Host-wide facts and switches (mostly sysctl).
pub trait HostControl: Debug + Send + Sync {
    /// Release, as the hypervisor says it.
    fn version(&self) -> XenVersion;
    /// All of `XENVER_*`.
    fn strings(&self) -> Result<XenStrings>;
    /// Memory, CPUs and capabilities.
    fn physinfo(&self) -> Result<PhysInfo>;
    /// Scheduler of pool 0 (5 credit, 6 credit2 ...).
    fn scheduler_id(&self) -> Result<u32>;
    /// One entry per CPU id; `None` for a CPU that is offline.
    fn cpu_topology(&self) -> Result<Vec<Option<CpuTopology>>>;
    /// One entry per node id.
    fn numa(&self) -> Result<Vec<NumaNode>>;
    /// All cpupools.
    fn cpupools(&self) -> Result<Vec<CpuPool>>;
    /// The hypervisor's log, oldest byte first; `clear` empties it.
    fn console_log(&self, clear: bool) -> Result<Vec<u8>>;
    /// Debug keys, as typed on Xen's serial console.
    fn debug_keys(&self, keys: &str) -> Result<()>;
    /// CPUID leaves and MSRs of a system policy; `index` as `XEN_SYSCTL_cpu_policy_*` (4 = PV default, 5 = HVM default, 1 = host).
    fn cpu_policy(&self, index: u32) -> Result<CpuPolicy>;
}

/// A CPU policy: leaves and MSRs as Xen serialises them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuPolicy {
    /// CPUID leaves.
    pub leaves: Vec<CpuidLeaf>,
    /// MSRs as (index, value).
    pub msrs: Vec<(u32, u64)>,
}

/// One CPUID leaf (`xen_cpuid_leaf_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX on entry.
    pub leaf: u32,
    /// ECX on entry, or `u32::MAX` when the leaf has no subleaves.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX.
    pub regs: [u32; 4],
}

/// What a PV vcpu has besides its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VcpuPart {
    /// Callbacks and machine check state (`get_ext_vcpucontext`).
    Extended,
    /// XSAVE area (`getvcpuextstate`).
    Xsave,
    /// Model specific registers, 16 bytes each (`get_vcpu_msrs`).
    Msrs,
}

/// Domain life cycle (domctl).
pub trait DomainControl: Debug + Send + Sync {
    /// One domain, `None` if there is none of that id. (Xen 4.17 answers with the next one; implementations compare ids.)
    fn domain_info(&self, domid: DomId) -> Result<Option<DomainInfo>>;
    /// Every domain with `domid >= first`, ascending.
    fn domain_list(&self, first: DomId) -> Result<Vec<DomainInfo>>;
    /// A new domain, paused, without memory and vcpus.
    fn create_domain(&self, create: &CreateDomain) -> Result<DomId>;
    /// Destroys; returns when the hypervisor has let go of all it can.
    fn destroy_domain(&self, domid: DomId) -> Result<()>;
    /// One more controller pause (counted by Xen).
    fn pause(&self, domid: DomId) -> Result<()>;
    /// One less controller pause.
    fn unpause(&self, domid: DomId) -> Result<()>;
    /// Changes the uuid.
    fn set_handle(&self, domid: DomId, handle: Handle) -> Result<()>;
    /// Makes the domain shut down with this reason, as if by itself (`SCHEDOP_remote_shutdown`).
    fn remote_shutdown(&self, domid: DomId, reason: ShutdownReason) -> Result<()>;
    /// Injects an event.
    fn send_trigger(&self, domid: DomId, trigger: Trigger, vcpu: VcpuId) -> Result<()>;
    /// Allocates the vcpus; before any other vcpu call.
    fn max_vcpus(&self, domid: DomId, count: u32) -> Result<()>;
    /// Facts of one vcpu.
    fn vcpu_info(&self, domid: DomId, vcpu: VcpuId) -> Result<VcpuInfo>;
    /// Hard and soft affinity.
    fn vcpu_affinity(&self, domid: DomId, vcpu: VcpuId) -> Result<(CpuMap, CpuMap)>;
    /// Sets hard or soft affinity; answers what is in effect.
    fn set_vcpu_affinity(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Result<()>;
    /// Under which scheduler the domain runs, and its share there.
    fn scheduling(&self, domid: DomId) -> Result<Scheduling>;
    /// Scheduler weight and cap (credit and credit2).
    fn set_sched_credit(&self, domid: DomId, weight: Option<u16>, cap: Option<u16>) -> Result<()>;
    /// Most memory the domain may hold, in KiB.
    fn set_max_mem(&self, domid: DomId, kib: u64) -> Result<()>;
    /// Time stamp counter mode.
    fn set_tsc_mode(&self, domid: DomId, mode: TscMode) -> Result<()>;
    /// 64 for a 64-bit PV guest.
    fn set_address_size(&self, domid: DomId, bits: u32) -> Result<()>;
    /// Size of the HAP/shadow pool in bytes; outside of max_mem.
    fn set_paging_pool(&self, domid: DomId, bytes: u64) -> Result<()>;
    /// Whole register state of one vcpu (`vcpu_guest_context`, 5168 bytes); for PVH and HVM the general registers of a vcpu that runs
    /// already, as [`DomainControl::vcpu_context`] gave them.
    fn set_vcpu_context(&self, domid: DomId, vcpu: VcpuId, context: &[u8]) -> Result<()>;
    /// PV: makes `gmfn` the hypercall page.
    fn init_hypercall_page(&self, domid: DomId, gmfn: u64) -> Result<()>;
    /// Lets a domain that shut down with code suspend run on.
    fn resume(&self, domid: DomId) -> Result<()>;
    /// Mode and state of the time stamp counter.
    fn tsc_info(&self, domid: DomId) -> Result<TscInfo>;
    /// Sets what [`DomainControl::tsc_info`] answered, here or on another host.
    fn set_tsc_info(&self, domid: DomId, info: &TscInfo) -> Result<()>;
    /// Register state of one vcpu (`vcpu_guest_context`, 5168 bytes); general registers only for PVH and HVM.
    fn vcpu_context(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>>;
    /// PV: what a vcpu has besides its registers; empty if it has nothing of the kind.
    fn vcpu_part(&self, domid: DomId, vcpu: VcpuId, part: VcpuPart) -> Result<Vec<u8>>;
    /// PV: sets what [`DomainControl::vcpu_part`] answered.
    fn set_vcpu_part(&self, domid: DomId, vcpu: VcpuId, part: VcpuPart, state: &[u8])
    -> Result<()>;
    /// PVH/HVM: the whole save blob.
    fn hvm_context(&self, domid: DomId) -> Result<Vec<u8>>;
    /// PVH/HVM: loads a save blob.
    fn set_hvm_context(&self, domid: DomId, blob: &[u8]) -> Result<()>;
    /// PVH/HVM parameter (`HVM_PARAM_*`).
    fn set_hvm_param(&self, domid: DomId, index: u32, value: u64) -> Result<()>;
    /// PVH/HVM parameter.
    fn hvm_param(&self, domid: DomId, index: u32) -> Result<u64>;
    /// The CPU policy in force.
    fn domain_cpu_policy(&self, domid: DomId) -> Result<CpuPolicy>;
    /// Replaces the CPU policy; after `max_vcpus`, before a vcpu runs.
    fn set_cpu_policy(&self, domid: DomId, policy: &CpuPolicy) -> Result<()>;
    /// From now on Xen notes which pages the guest writes; all count as clean. Refused with `EOPNOTSUPP` or `EINVAL` for a PV guest where Xen has no
    /// shadow paging.
    fn log_dirty_on(&self, domid: DomId) -> Result<()>;
    /// Ends that. No error if it was not begun.
    fn log_dirty_off(&self, domid: DomId) -> Result<()>;
    /// The pages below `end` that were written since they were last taken: one bit each, the first in the lowest bit of the first word.
    fn dirty_pages(&self, domid: DomId, end: u64, how: Dirty) -> Result<Vec<u64>>;
    /// Port in `domid`, unbound, for `remote` to bind (`EVTCHNOP_alloc_unbound`).
    fn alloc_unbound(&self, domid: DomId, remote: DomId) -> Result<Port>;
}

/// How the dirty log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dirty {
    /// It stays as it is.
    Peek,
    /// What is answered counts as clean again.
    Take,
    /// As [`Dirty::Take`], of a guest that is stopped: pages that Xen itself writes to are named too.
    TakeLast,
}

/// Guest memory: how much, and where (memory_op, mmuext_op).
pub trait MemoryControl: Debug + Send + Sync {
    /// Allocates one extent of `1 << order` pages per entry of `frames`.
    ///
    /// In: the first pfn/gfn of each extent. Out, for PV: the first mfn of each. Answers how many were done; fewer than asked is
    /// not an error (the host is short of memory or of contiguous memory).
    fn populate(&self, domid: DomId, frames: &mut [u64], order: u32) -> Result<usize>;
    /// The E820 map the guest sees.
    fn set_memory_map(&self, domid: DomId, map: &[MemoryRange]) -> Result<()>;
    /// Reserves `pages` for the domain; 0 gives back what is left of the claim.
    fn claim(&self, domid: DomId, pages: u64) -> Result<()>;
    /// What each frame is: a `PFINFO_*` word each (mfns for PV, gfns for PVH and HVM). A frame that is not there is `PFINFO_XTAB`.
    fn page_types(&self, domid: DomId, frames: &[u64]) -> Result<Vec<u32>>;
    /// PV: pins page tables, each of the level 1 to 4 that stands with it.
    fn pin_tables(&self, domid: DomId, tables: &[(u8, u64)]) -> Result<()>;
    /// PV: pins a level-4 page table.
    fn pin_l4(&self, domid: DomId, mfn: u64) -> Result<()>;
    /// Maps frames of a domain (mfns for PV, gfns for PVH and HVM), in this order, as one region. All or nothing.
    fn map_foreign(&self, domid: DomId, frames: &[u64], writable: bool) -> Result<SharedRegion>;
    /// Somebody who moves many pages between the domain and this regular file, for less than mapping them here costs. `None` where there is nobody:
    /// whoever asks then maps them.
    fn mover(&self, domid: DomId, access: Access, file: BorrowedFd<'_>) -> Option<Box<dyn Mover>>;
    /// Maps the first `frames` frames of the domain's shared grant table.
    fn map_grant_table(&self, domid: DomId, frames: u32) -> Result<SharedRegion>;
}

/// Grant mapping and copying (gntdev). One instance is one gntdev descriptor: one per ring, since its list of maps is linear.
pub trait Grants: Debug + Send + Sync {
    /// Maps pages of one granter, in this order, as one region. All or nothing.
    fn map(&self, domid: DomId, refs: &[GrantRef], writable: bool) -> Result<SharedRegion>;
    /// Copies between granted pages and `local`. Each segment gets its own status: a bad one never hides or spoils another.
    fn copy(&self, local: &SharedRegion, segments: &mut [GrantCopy]) -> Result<()>;
}

/// One segment of [`Grants::copy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantCopy {
    /// To or from the guest.
    pub direction: Direction,
    /// Granter.
    pub domid: DomId,
    /// Granted page.
    pub gref: GrantRef,
    /// Offset in the granted page; `offset + len <= 4096` is the caller's to check, or the whole call fails.
    pub offset: u16,
    /// Offset in the local region.
    pub local_offset: usize,
    /// Bytes, at most a page.
    pub len: u16,
    /// Out: `GNTST_*`, 0 is okay.
    pub status: i16,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the guest's page into ours.
    FromGuest,
    /// From ours into the guest's page.
    ToGuest,
}

/// Event channels of this domain (one evtchn descriptor). Ports are unbound when it is dropped.
pub trait Events: Debug + Send {
    /// Two ports of ours, bound to each other.
    fn loopback(&self) -> Result<Loopback>;
    /// Binds to a remote domain's unbound port; answers the local port. The new port is pending at once.
    fn bind_interdomain(&self, domid: DomId, remote: Port) -> Result<Port>;
    /// Unbinds a local port.
    fn unbind(&self, port: Port) -> Result<()>;
    /// Sends.
    fn notify(&self, port: Port) -> Result<()>;
    /// Ports that fired and are now masked; empty when none did. Never blocks.
    fn pending(&self) -> Result<Vec<Port>>;
    /// Lets the port fire again. Call it after the work was done, so that a storm costs the sender.
    fn unmask(&self, port: Port) -> Result<()>;
    /// Readable when [`Events::pending`] would not be empty.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Waits until the descriptor is readable; false on timeout.
    fn wait(&self, timeout: Option<Duration>) -> Result<bool>;
}

/// Two ports of this domain, bound to each other: what is sent through one arrives at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback {
    /// For whoever is to send.
    pub through: Port,
    /// Where it arrives.
    pub at: Port,
}

/// Opens event channel and grant handles.
pub trait Devices: Debug + Send + Sync {
    /// A new event channel handle; `only` restricts it for good to one remote domain.
    fn open_events(&self, only: Option<DomId>) -> Result<Box<dyn Events>>;
    /// A new grant handle.
    fn open_grants(&self) -> Result<Box<dyn Grants>>;
}

pub use crate::extras::{Copied, Extras, Offer};
pub use crate::mover::{Access, Look, Mover};
pub use crate::xenstore::store::{Store, StoreExt};
