//! Looking at a world without taking part in it: nothing here is a counted call, and nothing can be hit by a fault.

use crate::hypervisor::release::getdomaininfo;
use crate::machine::byte_of;
use crate::store::tree::is_within;
use crate::world::World;
use nix::errno::Errno;
use xen_abi::domain::{CreateDomain, DomainInfo, MemoryRange, ShutdownReason, Trigger};
use xen_abi::domctl::TscInfo;
use xen_abi::ids::{DomId, PAGE_SIZE, Port, VcpuId};
use xen_host::seam::CpuPolicy;

impl World {
    /// A domain as Xen reports it, without a counted call.
    #[must_use]
    pub fn domain(&self, domid: DomId) -> Option<DomainInfo> {
        self.shared().lock().domain_info(domid)
    }

    /// The raw answer of `getdomaininfo`, which up to 4.17 may be another domain's.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn raw_domain_info(&self, domid: DomId) -> Result<DomainInfo, Errno> {
        getdomaininfo(&self.shared().lock(), domid)
    }

    /// `createdomain` with this id in the request, wildcard rules of the release applied.
    ///
    /// # Errors
    /// As Xen refuses.
    pub fn raw_create(&self, wanted: u16, create: &CreateDomain) -> Result<DomId, Errno> {
        self.shared()
            .change(|state| state.create_domain_as(wanted, create))
    }

    /// All domains with dom0, the dying ones too.
    #[must_use]
    pub fn domains(&self) -> Vec<DomId> {
        self.shared().lock().domains.keys().copied().collect()
    }

    /// Pages nobody has.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.shared().lock().free_pages()
    }

    /// Takes almost all free memory away, so that `left` pages remain. Gone for good.
    pub fn hog_memory(&self, left: u64) {
        self.shared().change(|state| {
            let take = state.free_pages().saturating_sub(left);
            state.pool_pages += take;
        });
    }

    /// What was written into a vcpu: `vcpu_guest_context` of a PV guest, the CPU save record of an HVM container.
    #[must_use]
    pub fn vcpu_state(&self, domid: DomId, vcpu: VcpuId) -> Option<Vec<u8>> {
        let state = self.shared().lock();
        state
            .domains
            .get(&domid)?
            .vcpus
            .get(vcpu.0 as usize)?
            .context
            .clone()
    }

    /// The time stamp counter's mode and state.
    #[must_use]
    pub fn tsc_info(&self, domid: DomId) -> Option<TscInfo> {
        self.shared().change(|state| state.tsc_info(domid).ok())
    }

    /// Sets the time stamp counter's state, as the passing of time would.
    ///
    /// # Errors
    /// No such guest, or no such mode.
    pub fn set_tsc_info(&self, domid: DomId, info: &TscInfo) -> Result<(), Errno> {
        self.shared()
            .change(|state| state.set_tsc_info(domid, info))
    }

    /// An HVM parameter, 0 if it was never set.
    #[must_use]
    pub fn hvm_param(&self, domid: DomId, index: u32) -> u64 {
        self.shared()
            .change(|state| state.hvm_param(domid, index).unwrap_or(0))
    }

    /// The memory map given to a domain.
    #[must_use]
    pub fn memory_map(&self, domid: DomId) -> Vec<MemoryRange> {
        let state = self.shared().lock();
        state
            .domains
            .get(&domid)
            .map_or_else(Vec::new, |domain| domain.memory_map.clone())
    }

    /// The CPU policy in force in a domain.
    #[must_use]
    pub fn cpu_policy(&self, domid: DomId) -> CpuPolicy {
        let state = self.shared().lock();
        state
            .domains
            .get(&domid)
            .map_or_else(CpuPolicy::default, |domain| domain.policy.clone())
    }

    /// Triggers that were injected.
    #[must_use]
    pub fn triggers(&self, domid: DomId) -> Vec<(Trigger, VcpuId)> {
        let state = self.shared().lock();
        state
            .domains
            .get(&domid)
            .map_or_else(Vec::new, |domain| domain.triggers.clone())
    }

    /// Pinned level-4 tables of a PV guest.
    #[must_use]
    pub fn pinned(&self, domid: DomId) -> Vec<u64> {
        let state = self.shared().lock();
        state
            .domains
            .get(&domid)
            .map_or_else(Vec::new, |domain| domain.pinned.iter().copied().collect())
    }

    /// The machine frame behind a guest frame.
    #[must_use]
    pub fn mfn_of(&self, domid: DomId, gfn: u64) -> Option<u64> {
        self.shared().lock().domains.get(&domid)?.mfn_of(gfn)
    }

    /// Bytes of a guest's memory, by guest frame; `None` when that frame is not populated. May cross frames.
    #[must_use]
    pub fn read_guest(&self, domid: DomId, gfn: u64, offset: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        let mut at = gfn * PAGE_SIZE as u64 + offset as u64;
        while bytes.len() < len {
            let mfn = self.mfn_of(domid, at / PAGE_SIZE as u64)?;
            let within = usize::try_from(at % PAGE_SIZE as u64).unwrap_or(0);
            let part = (PAGE_SIZE - within).min(len - bytes.len());
            let from = byte_of(mfn, within);
            bytes.extend_from_slice(&self.shared().memory.whole().read_vec(from, part));
            at += part as u64;
        }
        Some(bytes)
    }

    /// A xenstore value, without a counted call.
    #[must_use]
    pub fn xs_read(&self, path: &str) -> Option<String> {
        let state = self.shared().lock();
        let node = state.store.node(path)?;
        Some(String::from_utf8_lossy(&node.value).into_owned())
    }

    /// All xenstore paths at and below `root`, in order.
    #[must_use]
    pub fn xs_tree(&self, root: &str) -> Vec<String> {
        let state = self.shared().lock();
        let paths = state.store.paths();
        paths
            .filter(|path| is_within(path, root))
            .cloned()
            .collect()
    }

    /// How often somebody sent to a guest's port.
    #[must_use]
    pub fn notifications(&self, domid: DomId, port: Port) -> u64 {
        self.shared()
            .lock()
            .events
            .channel(domid, port)
            .map_or(0, |channel| channel.received)
    }

    /// A guest shuts down by itself.
    ///
    /// # Errors
    /// No such guest.
    pub fn shut_down(&self, domid: DomId, reason: ShutdownReason) -> Result<(), Errno> {
        self.shared().change(|state| state.shut_down(domid, reason))
    }
}
