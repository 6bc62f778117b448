//! One simulated process's way to Xen: every trait of the seam, over a [`World`](crate::world::World).
//!
//! Nothing is decided here. Each method names its operation (that is the name faults and errors use), makes one call into the state, and
//! wraps what it gets so that dropping it undoes it.

use crate::descriptors::{SimEvents, SimGrants};
use crate::grants::MapKind;
use crate::hypervisor::Outcome;
use crate::mover::SimMover;
use crate::state::{ProcessId, Shared, State};
use crate::store::SimStore;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use xen_abi::domain::{
    CpuMap, CreateDomain, DomainInfo, MemoryRange, ShutdownReason, Trigger, TscMode, VcpuInfo,
};
use xen_abi::domctl::{Scheduling, TscInfo};
use xen_abi::host::{CpuPool, CpuTopology, NumaNode, PhysInfo, XenStrings};
use xen_abi::ids::{DomId, Handle, Port, VcpuId};
use xen_abi::pv::page_table::LEVELS;
use xen_abi::version::XenVersion;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;
use xen_host::extras::Found;
use xen_host::region::SharedRegion;
use xen_host::seam::{
    Access, Copied, CpuPolicy, Devices, Dirty, DomainControl, Events, Extras, Grants, HostControl,
    MemoryControl, Mover, Offer, Result, VcpuPart,
};
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{Store, StoreOp, StoreReply, TxId};
use xen_host::xenstore::watch::Watch;

/// The seam for one process. Clones are the same process.
#[derive(Debug, Clone)]
pub struct SimHost {
    shared: Arc<Shared>,
    process: ProcessId,
    store: SimStore,
    extras: Arc<Known>,
}

/// What this process has found out about the hypervisor.
#[derive(Debug, Default)]
struct Known {
    copy: Found,
    notify: Found,
}

/// Ends a mapping's bookkeeping when its region is gone.
struct LetGo {
    shared: Arc<Shared>,
    map: u64,
}

impl Drop for LetGo {
    fn drop(&mut self) {
        self.shared.change(|state| state.let_go(self.map));
    }
}

/// A mapped region that ends its bookkeeping when it is dropped.
pub(crate) fn region(
    shared: &Arc<Shared>,
    map: u64,
    mfns: &[u64],
    writable: bool,
) -> Result<SharedRegion> {
    let keeper = Box::new(LetGo {
        shared: Arc::clone(shared),
        map,
    });
    Ok(shared.memory.map(mfns, writable)?.kept_by(keeper))
}

impl SimHost {
    pub(crate) fn new(shared: Arc<Shared>, process: ProcessId) -> Self {
        let store = SimStore::new(Arc::clone(&shared), process, DomId::DOM0);
        Self {
            shared,
            process,
            store,
            extras: Arc::default(),
        }
    }

    /// The xenstore connection of this process.
    #[must_use]
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    pub(crate) fn process(&self) -> ProcessId {
        self.process
    }

    /// A step of another simulation (a tap, a child process), counted as a call of this process and hit by faults as one. It has no effect itself.
    ///
    /// # Errors
    /// The planned fault.
    pub fn outside(&self, op: &'static str) -> Result<()> {
        self.host(op, |_| Ok(()))
    }

    fn host<T>(&self, op: &'static str, act: impl FnOnce(&mut State) -> Outcome<T>) -> Result<T> {
        self.shared
            .call(self.process, op, |state, _| act(state))
            .map_err(|errno| Error::refused(op, errno))
    }

    fn on<T>(
        &self,
        op: &'static str,
        domid: DomId,
        act: impl FnOnce(&mut State) -> Outcome<T>,
    ) -> Result<T> {
        self.shared
            .call(self.process, op, |state, _| act(state))
            .map_err(|errno| Error::refused_for(op, domid, errno))
    }
}

impl HostControl for SimHost {
    fn version(&self) -> XenVersion {
        self.shared.lock().version
    }

    fn strings(&self) -> Result<XenStrings> {
        self.host("xen_version", |state| Ok(state.strings()))
    }

    fn physinfo(&self) -> Result<PhysInfo> {
        self.host("physinfo", |state| Ok(state.physinfo()))
    }

    fn scheduler_id(&self) -> Result<u32> {
        self.host("sched_id", |_| Ok(6))
    }

    fn cpu_topology(&self) -> Result<Vec<Option<CpuTopology>>> {
        self.host("cputopoinfo", |state| Ok(state.cpu_topology()))
    }

    fn numa(&self) -> Result<Vec<NumaNode>> {
        self.host("numainfo", |state| Ok(state.numa()))
    }

    fn cpupools(&self) -> Result<Vec<CpuPool>> {
        self.host("cpupool_op", |state| Ok(state.cpupools()))
    }

    fn console_log(&self, clear: bool) -> Result<Vec<u8>> {
        self.host("readconsole", |state| Ok(state.console_log(clear)))
    }

    fn debug_keys(&self, keys: &str) -> Result<()> {
        self.host("debug_keys", |state| {
            state.debug_keys.push_str(keys);
            Ok(())
        })
    }

    fn cpu_policy(&self, index: u32) -> Result<CpuPolicy> {
        self.host("get_cpu_policy", |state| state.cpu_policy(index))
    }
}

impl DomainControl for SimHost {
    fn domain_info(&self, domid: DomId) -> Result<Option<DomainInfo>> {
        self.on("getdomaininfo", domid, |state| Ok(state.domain_info(domid)))
    }

    fn domain_list(&self, first: DomId) -> Result<Vec<DomainInfo>> {
        self.host("getdomaininfolist", |state| {
            Ok(state
                .domains
                .range(first..)
                .map(|(_, domain)| domain.info())
                .collect())
        })
    }

    fn create_domain(&self, create: &CreateDomain) -> Result<DomId> {
        self.host("createdomain", |state| state.create_domain(create))
    }

    fn destroy_domain(&self, domid: DomId) -> Result<()> {
        self.on("destroydomain", domid, |state| state.destroy(domid))
    }

    fn pause(&self, domid: DomId) -> Result<()> {
        self.on("pausedomain", domid, |state| state.pause(domid))
    }

    fn unpause(&self, domid: DomId) -> Result<()> {
        self.on("unpausedomain", domid, |state| state.unpause(domid))
    }

    fn set_handle(&self, domid: DomId, handle: Handle) -> Result<()> {
        self.on("setdomainhandle", domid, |state| {
            state.set_handle(domid, handle)
        })
    }

    fn remote_shutdown(&self, domid: DomId, reason: ShutdownReason) -> Result<()> {
        self.on("remote_shutdown", domid, |state| {
            state.shut_down(domid, reason)
        })
    }

    fn send_trigger(&self, domid: DomId, trigger: Trigger, vcpu: VcpuId) -> Result<()> {
        self.on("sendtrigger", domid, |state| {
            state.send_trigger(domid, trigger, vcpu)
        })
    }

    fn max_vcpus(&self, domid: DomId, count: u32) -> Result<()> {
        self.on("max_vcpus", domid, |state| state.max_vcpus(domid, count))
    }

    fn vcpu_info(&self, domid: DomId, vcpu: VcpuId) -> Result<VcpuInfo> {
        self.on("getvcpuinfo", domid, |state| state.vcpu_info(domid, vcpu))
    }

    fn vcpu_affinity(&self, domid: DomId, vcpu: VcpuId) -> Result<(CpuMap, CpuMap)> {
        self.on("getvcpuaffinity", domid, |state| {
            state.vcpu_affinity(domid, vcpu)
        })
    }

    fn set_vcpu_affinity(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Result<()> {
        self.on("setvcpuaffinity", domid, |state| {
            state.set_vcpu_affinity(domid, vcpu, hard, soft)
        })
    }

    fn scheduling(&self, domid: DomId) -> Result<Scheduling> {
        self.on("scheduler_op", domid, |state| state.scheduling(domid))
    }

    fn set_sched_credit(&self, domid: DomId, weight: Option<u16>, cap: Option<u16>) -> Result<()> {
        self.on("scheduler_op", domid, |state| {
            state.set_sched_credit(domid, weight, cap)
        })
    }

    fn set_max_mem(&self, domid: DomId, kib: u64) -> Result<()> {
        self.on("max_mem", domid, |state| state.set_max_mem(domid, kib))
    }

    fn set_tsc_mode(&self, domid: DomId, mode: TscMode) -> Result<()> {
        self.on("settscinfo", domid, |state| state.set_tsc_mode(domid, mode))
    }

    fn set_address_size(&self, domid: DomId, bits: u32) -> Result<()> {
        self.on("set_address_size", domid, |state| {
            state.set_address_size(domid, bits)
        })
    }

    fn set_paging_pool(&self, domid: DomId, bytes: u64) -> Result<()> {
        self.on("set_paging_mempool_size", domid, |state| {
            state.set_paging_pool(domid, bytes)
        })
    }

    fn set_vcpu_context(&self, domid: DomId, vcpu: VcpuId, context: &[u8]) -> Result<()> {
        self.on("setvcpucontext", domid, |state| {
            state.set_vcpu_context(domid, vcpu, context)
        })
    }

    fn init_hypercall_page(&self, domid: DomId, gmfn: u64) -> Result<()> {
        self.on("hypercall_init", domid, |state| {
            state.init_hypercall_page(domid, gmfn)
        })
    }

    fn resume(&self, domid: DomId) -> Result<()> {
        self.on("resumedomain", domid, |state| state.resume(domid))
    }

    fn tsc_info(&self, domid: DomId) -> Result<TscInfo> {
        self.on("gettscinfo", domid, |state| state.tsc_info(domid))
    }

    fn set_tsc_info(&self, domid: DomId, info: &TscInfo) -> Result<()> {
        self.on("settscinfo", domid, |state| state.set_tsc_info(domid, info))
    }

    fn vcpu_context(&self, domid: DomId, vcpu: VcpuId) -> Result<Vec<u8>> {
        self.on("getvcpucontext", domid, |state| {
            state.vcpu_context(domid, vcpu)
        })
    }

    fn vcpu_part(&self, domid: DomId, vcpu: VcpuId, part: VcpuPart) -> Result<Vec<u8>> {
        self.on("get_vcpu_part", domid, |state| {
            state.vcpu_part(domid, vcpu, part)
        })
    }

    fn set_vcpu_part(
        &self,
        domid: DomId,
        vcpu: VcpuId,
        part: VcpuPart,
        bytes: &[u8],
    ) -> Result<()> {
        self.on("set_vcpu_part", domid, |state| {
            state.set_vcpu_part(domid, vcpu, part, bytes)
        })
    }

    fn hvm_context(&self, domid: DomId) -> Result<Vec<u8>> {
        self.on("gethvmcontext", domid, |state| state.hvm_context(domid))
    }

    fn set_hvm_context(&self, domid: DomId, blob: &[u8]) -> Result<()> {
        self.on("sethvmcontext", domid, |state| {
            state.set_hvm_context(domid, blob)
        })
    }

    fn set_hvm_param(&self, domid: DomId, index: u32, value: u64) -> Result<()> {
        self.on("hvm_set_param", domid, |state| {
            state.set_hvm_param(domid, index, value)
        })
    }

    fn hvm_param(&self, domid: DomId, index: u32) -> Result<u64> {
        self.on("hvm_get_param", domid, |state| {
            state.hvm_param(domid, index)
        })
    }

    fn domain_cpu_policy(&self, domid: DomId) -> Result<CpuPolicy> {
        self.on("get_cpu_policy", domid, |state| {
            state.domain_cpu_policy(domid)
        })
    }

    fn set_cpu_policy(&self, domid: DomId, policy: &CpuPolicy) -> Result<()> {
        self.on("set_cpu_policy", domid, |state| {
            state.set_cpu_policy(domid, policy)
        })
    }

    fn log_dirty_on(&self, domid: DomId) -> Result<()> {
        self.on("shadow_op", domid, |state| state.log_dirty_on(domid))
    }

    fn log_dirty_off(&self, domid: DomId) -> Result<()> {
        self.on("shadow_op", domid, |state| state.log_dirty_off(domid))
    }

    fn dirty_pages(&self, domid: DomId, end: u64, how: Dirty) -> Result<Vec<u64>> {
        self.on("shadow_op", domid, |state| {
            state.dirty_pages(domid, end, how)
        })
    }

    fn alloc_unbound(&self, domid: DomId, remote: DomId) -> Result<Port> {
        self.on("evtchn_alloc_unbound", domid, |state| {
            state.alloc_unbound(domid, remote)
        })
    }
}

impl MemoryControl for SimHost {
    fn populate(&self, domid: DomId, frames: &mut [u64], order: u32) -> Result<usize> {
        use crate::fault::FaultKind;
        const OP: &str = "populate_physmap";
        self.shared
            .call(self.process, OP, |state, fault| {
                let most = if let Some(FaultKind::Short(most)) = fault {
                    most
                } else {
                    usize::MAX
                };
                state.populate(domid, frames, order, most)
            })
            .map_err(|errno| Error::refused_for(OP, domid, errno))
    }

    fn set_memory_map(&self, domid: DomId, map: &[MemoryRange]) -> Result<()> {
        self.on("set_memory_map", domid, |state| {
            state.set_memory_map(domid, map)
        })
    }

    fn claim(&self, domid: DomId, pages: u64) -> Result<()> {
        self.on("claim_pages", domid, |state| state.claim(domid, pages))
    }

    fn page_types(&self, domid: DomId, frames: &[u64]) -> Result<Vec<u32>> {
        self.on("getpageframeinfo3", domid, |state| {
            state.page_types(domid, frames)
        })
    }

    fn pin_tables(&self, domid: DomId, tables: &[(u8, u64)]) -> Result<()> {
        self.on("mmuext_op", domid, |state| {
            tables
                .iter()
                .try_for_each(|(level, mfn)| state.pin_table(domid, *level, *mfn))
        })
    }

    fn pin_l4(&self, domid: DomId, mfn: u64) -> Result<()> {
        self.on("mmuext_op", domid, |state| {
            state.pin_table(domid, LEVELS, mfn)
        })
    }

    fn map_foreign(&self, domid: DomId, frames: &[u64], writable: bool) -> Result<SharedRegion> {
        let process = self.process;
        let (map, mfns) = self.on("map_foreign", domid, |state| {
            let mfns = state.foreign_frames(domid, frames, writable)?;
            Ok((
                state.hold(process, domid, MapKind::Foreign, mfns.clone(), writable),
                mfns,
            ))
        })?;
        region(&self.shared, map, &mfns, writable)
    }

    fn mover(&self, domid: DomId, access: Access, file: BorrowedFd<'_>) -> Option<Box<dyn Mover>> {
        // One that cannot be started is one that is not there.
        self.on("mover", domid, |_| Ok(())).ok()?;
        Some(Box::new(SimMover {
            host: self.clone(),
            domid,
            access,
            file: file.try_clone_to_owned().ok()?,
            window: None,
        }))
    }

    fn map_grant_table(&self, domid: DomId, frames: u32) -> Result<SharedRegion> {
        let process = self.process;
        let (map, mfns) = self.on("map_grant_table", domid, |state| {
            let mfns = state.grant_table_frames(domid, frames)?;
            Ok((
                state.hold(process, domid, MapKind::GrantTable, mfns.clone(), true),
                mfns,
            ))
        })?;
        region(&self.shared, map, &mfns, true)
    }
}

impl Extras for SimHost {
    fn offers_copies(&self, domid: DomId) -> Result<bool> {
        let none = SharedRegion::anonymous(1)?;
        let answer = self.copy_out(domid, &[], &none)?;
        Ok(answer != Offer::NotThere)
    }

    fn copy_buffer(&self, pages: usize) -> Result<SharedRegion> {
        SharedRegion::anonymous(pages)
    }

    fn copy_out(
        &self,
        domid: DomId,
        frames: &[u64],
        into: &SharedRegion,
    ) -> Result<Offer<Vec<Copied>>> {
        self.extras.copy.try_it(|| {
            self.on("foreign_copy", domid, |state| {
                state.copy_out(domid, frames, into)
            })
        })
    }

    fn copy_in(&self, domid: DomId, frames: &[u64], from: &SharedRegion) -> Result<Offer<()>> {
        self.extras.copy.try_it(|| {
            self.on("foreign_copy", domid, |state| {
                state.copy_in(domid, frames, from)
            })
        })
    }

    fn notify_shutdown(&self, domid: DomId, port: Port) -> Result<Offer<()>> {
        self.extras.notify.try_it(|| {
            self.on("notify_shutdown", domid, |state| {
                state.notify_shutdown(domid, port)
            })
        })
    }
}

impl Devices for SimHost {
    fn open_events(&self, only: Option<DomId>) -> Result<Box<dyn Events>> {
        let fd = Arc::new(EventFd::new()?);
        let process = self.process;
        let handle = self.host("open_events", |state| {
            Ok(state.events.open(process, only, Arc::clone(&fd)))
        })?;
        Ok(Box::new(SimEvents {
            shared: Arc::clone(&self.shared),
            process,
            handle,
            fd,
        }))
    }

    fn open_grants(&self) -> Result<Box<dyn Grants>> {
        self.host("open_grants", |_| Ok(()))?;
        Ok(Box::new(SimGrants {
            shared: Arc::clone(&self.shared),
            process: self.process,
        }))
    }
}

type StoreResult<T> = std::result::Result<T, StoreError>;

impl Store for SimHost {
    fn call(&self, tx: TxId, ops: &[StoreOp]) -> StoreResult<Vec<StoreResult<StoreReply>>> {
        self.store.call(tx, ops)
    }

    fn begin(&self) -> StoreResult<TxId> {
        self.store.begin()
    }

    fn end(&self, tx: TxId, commit: bool) -> StoreResult<bool> {
        self.store.end(tx, commit)
    }

    fn watch(&self, path: &str) -> StoreResult<Watch> {
        self.store.watch(path)
    }

    fn introduce(&self, domid: DomId, gfn: u64, port: Port) -> StoreResult<()> {
        self.store.introduce(domid, gfn, port)
    }

    fn resume(&self, domid: DomId) -> StoreResult<()> {
        self.store.resume(domid)
    }

    fn release(&self, domid: DomId) -> StoreResult<()> {
        self.store.release(domid)
    }
}
