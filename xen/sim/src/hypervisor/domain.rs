//! What the simulated hypervisor knows about one domain.

use crate::limits::{DEFAULT_GRANT_FRAMES, INITIAL_POOL_PAGES};
use std::collections::{BTreeMap, BTreeSet};
use xen_abi::domain::{
    CpuMap, CreateDomain, DomainInfo, DomainKind, MemoryRange, ShutdownReason, Trigger,
};
use xen_abi::domctl::TscInfo;
use xen_abi::hvm::params::CALLBACK_IRQ;
use xen_abi::ids::{DomId, Handle, Port, VcpuId};
use xen_host::seam::{CpuPolicy, VcpuPart};
use zerocopy::FromZeros;

/// A run of guest frames and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) mfn: u64,
    pub(crate) count: u64,
}

/// One vcpu.
#[derive(Debug, Clone)]
pub(crate) struct Vcpu {
    pub(crate) online: bool,
    pub(crate) hard: CpuMap,
    pub(crate) soft: CpuMap,
    /// PV: `vcpu_guest_context`; HVM container: the body of the CPU save record.
    pub(crate) context: Option<Vec<u8>>,
    /// PV: what was set besides.
    pub(crate) parts: BTreeMap<VcpuPart, Vec<u8>>,
}

/// One domain.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) domid: DomId,
    pub(crate) kind: DomainKind,
    pub(crate) handle: Handle,
    pub(crate) ssidref: u32,
    pub(crate) cpupool: u32,
    pub(crate) dying: bool,
    pub(crate) shutdown: Option<ShutdownReason>,
    pub(crate) pauses: u32,
    /// Was unpaused down to zero once: policy and the like are fixed from then on.
    pub(crate) finished: bool,
    pub(crate) tot_pages: u64,
    pub(crate) max_pages: u64,
    pub(crate) claim: u64,
    pub(crate) pool_pages: u64,
    /// Tables of the p2m, as (level, index).
    pub(crate) p2m_tables: BTreeSet<(u8, u64)>,
    /// By first gfn.
    pub(crate) pages: BTreeMap<u64, Extent>,
    /// By first mfn: first gfn and count.
    pub(crate) owned: BTreeMap<u64, (u64, u64)>,
    pub(crate) shared_info: u64,
    pub(crate) grant_frames: Vec<u64>,
    pub(crate) max_grant_frames: u32,
    pub(crate) max_event_port: u32,
    pub(crate) max_vcpus: u32,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) weight: u16,
    pub(crate) cap: u16,
    pub(crate) tsc: TscInfo,
    pub(crate) memory_map: Vec<MemoryRange>,
    pub(crate) hvm_params: BTreeMap<u32, u64>,
    pub(crate) policy: CpuPolicy,
    /// PV: level of each frame that is a page table.
    pub(crate) tables: BTreeMap<u64, u8>,
    /// PV: frames that some level-1 table maps writable.
    pub(crate) writable_leaves: BTreeSet<u64>,
    pub(crate) pinned: BTreeSet<u64>,
    pub(crate) triggers: Vec<(Trigger, VcpuId)>,
    pub(crate) cpu_time_ns: u64,
    /// While the dirty log is on.
    pub(crate) dirty_log: Option<super::dirty::DirtyLog>,
    /// Ports of dom0 that hear of its shutdown (a patched hypervisor).
    pub(crate) listeners: Vec<Port>,
}

impl Domain {
    pub(crate) fn new(
        domid: DomId,
        create: &CreateDomain,
        shared_info: u64,
        grant_frame: u64,
    ) -> Self {
        Self {
            domid,
            kind: create.kind,
            handle: create.handle,
            ssidref: create.ssidref,
            cpupool: create.cpupool,
            dying: false,
            shutdown: None,
            pauses: 1,
            finished: false,
            tot_pages: 0,
            max_pages: 0,
            claim: 0,
            pool_pages: if create.kind == DomainKind::Pv {
                0
            } else {
                INITIAL_POOL_PAGES
            },
            p2m_tables: BTreeSet::new(),
            pages: BTreeMap::new(),
            owned: BTreeMap::new(),
            shared_info,
            grant_frames: vec![grant_frame],
            max_grant_frames: create.max_grant_frames.unwrap_or(DEFAULT_GRANT_FRAMES),
            max_event_port: create.max_event_port,
            max_vcpus: create.max_vcpus,
            vcpus: Vec::new(),
            weight: 256,
            cap: 0,
            tsc: TscInfo::new_zeroed(),
            memory_map: Vec::new(),
            hvm_params: BTreeMap::new(),
            policy: CpuPolicy::default(),
            tables: BTreeMap::new(),
            writable_leaves: BTreeSet::new(),
            pinned: BTreeSet::new(),
            triggers: Vec::new(),
            cpu_time_ns: 0,
            dirty_log: None,
            listeners: Vec::new(),
        }
    }

    /// The kernel has drivers for Xen and says how it wants its events.
    pub(crate) fn wants_events(&mut self) {
        if !self.is_pv() {
            self.hvm_params.insert(CALLBACK_IRQ, 1);
        }
    }

    /// Paravirtualised: frames are named by mfn.
    pub(crate) fn is_pv(&self) -> bool {
        self.kind == DomainKind::Pv
    }

    /// The machine frame behind a gfn.
    pub(crate) fn mfn_of(&self, gfn: u64) -> Option<u64> {
        let (first, extent) = self.pages.range(..=gfn).next_back()?;
        (gfn - first < extent.count).then(|| extent.mfn + (gfn - first))
    }

    /// The gfn that owns a machine frame.
    pub(crate) fn gfn_of(&self, mfn: u64) -> Option<u64> {
        let (first, (gfn, count)) = self.owned.range(..=mfn).next_back()?;
        (mfn - first < *count).then(|| gfn + (mfn - first))
    }

    /// The machine frame that the control domain means by `frame`: an mfn for PV, a gfn otherwise.
    pub(crate) fn frame(&self, frame: u64) -> Option<u64> {
        if self.is_pv() {
            (frame == self.shared_info || self.gfn_of(frame).is_some()).then_some(frame)
        } else {
            self.mfn_of(frame)
        }
    }

    pub(crate) fn add_extent(&mut self, gfn: u64, mfn: u64, count: u64) {
        self.pages.insert(gfn, Extent { mfn, count });
        self.owned.insert(mfn, (gfn, count));
        self.tot_pages += count;
    }

    /// Whether any gfn of the run is populated already.
    pub(crate) fn overlaps(&self, gfn: u64, count: u64) -> bool {
        self.pages
            .range(..gfn + count)
            .next_back()
            .is_some_and(|(first, e)| first + e.count > gfn)
    }

    /// Pages of the pool in use: the p2m's tables and what each vcpu needs.
    pub(crate) fn pool_needed(&self) -> u64 {
        self.p2m_tables.len() as u64 + 2 + u64::from(self.max_vcpus)
    }

    /// What `getdomaininfo` answers.
    pub(crate) fn info(&self) -> DomainInfo {
        let online = self.vcpus.iter().filter(|vcpu| vcpu.online).count();
        let runs = self.pauses == 0 && self.shutdown.is_none() && !self.dying && online > 0;
        DomainInfo {
            domid: self.domid,
            handle: self.handle,
            dying: self.dying,
            hvm: !self.is_pv(),
            pvh: self.kind == DomainKind::Pvh,
            shutdown: self.shutdown,
            paused: self.pauses > 0,
            blocked: online > 0 && !runs,
            running: runs,
            tot_pages: self.tot_pages,
            max_pages: self.max_pages,
            outstanding_pages: self.claim,
            shr_pages: 0,
            shared_info_frame: self.shared_info,
            cpu_time_ns: self.cpu_time_ns,
            online_vcpus: u32::try_from(online).unwrap_or(u32::MAX),
            max_vcpu_id: self.max_vcpus.saturating_sub(1),
            ssidref: self.ssidref,
            cpupool: self.cpupool,
        }
    }
}
