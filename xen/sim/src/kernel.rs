//! The guest's side of everything: what a kernel does with its own pages, grants, ports and xenstore.
//!
//! [`DomU`] is a handle like a syscall layer for frontends; it keeps the few facts a kernel keeps (free pages, free grant references) in the
//! world, so that several frontends of one guest share them. It does nothing behind anybody's back and never touches another domain.

use crate::grants::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
use crate::limits::{FIRST_FREE_GRANT, GRANTS_PER_FRAME};
use crate::machine::byte_of;
use crate::state::{ProcessId, State};
use crate::store::SimStore;
use crate::world::World;
use nix::errno::Errno;
use std::sync::Arc;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, GrantRef, Port};

/// First gfn that no kernel uses for its own data: the PVH holes begin here.
const RAM_TOP: u64 = 0xF_C000;

/// What a kernel remembers.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) process: ProcessId,
    /// Pages below this gfn are still free.
    next_gfn: u64,
    free_gfns: Vec<u64>,
    next_gref: u32,
    free_grefs: Vec<GrantRef>,
}

impl State {
    pub(crate) fn kernel(&mut self, domid: DomId) -> &mut Kernel {
        if !self.kernels.contains_key(&domid) {
            let process = self.new_process(&format!("guest{domid}"));
            let kernel = Kernel {
                process,
                next_gfn: RAM_TOP,
                free_gfns: Vec::new(),
                next_gref: FIRST_FREE_GRANT,
                free_grefs: Vec::new(),
            };
            self.kernels.insert(domid, kernel);
        }
        self.kernels.get_mut(&domid).expect("inserted just above")
    }

    fn alloc_guest_page(&mut self, domid: DomId) -> Option<u64> {
        if let Some(gfn) = self.kernel(domid).free_gfns.pop() {
            return Some(gfn);
        }
        let below = self.kernel(domid).next_gfn;
        let (first, extent) = self.domains.get(&domid)?.pages.range(..below).next_back()?;
        let gfn = (first + extent.count).min(below) - 1;
        self.kernel(domid).next_gfn = gfn;
        Some(gfn)
    }

    fn alloc_gref(&mut self, domid: DomId) -> Option<GrantRef> {
        if let Some(gref) = self.kernel(domid).free_grefs.pop() {
            return Some(gref);
        }
        let gref = GrantRef(self.kernel(domid).next_gref);
        let frames = gref.0 / GRANTS_PER_FRAME + 1;
        if self.domains.get(&domid)?.grant_frames.len() < frames as usize {
            self.grant_table_frames(domid, frames).ok()?;
        }
        self.kernel(domid).next_gref += 1;
        Some(gref)
    }

    fn write_entry(&mut self, domid: DomId, gref: GrantRef, flags: u16, to: DomId, frame: u32) {
        if let Some(at) = self.entry_at(domid, gref) {
            let word = u32::from(to.0) << 16 | u32::from(flags);
            self.memory.whole().write(at + 4, &frame.to_le_bytes());
            self.memory.whole().store_u32(at, word);
        }
    }
}

/// The backend still has the page in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grant {gref} of domain {domid} is still mapped by the backend")]
pub struct StillMapped {
    /// Granter.
    pub domid: DomId,
    /// The grant.
    pub gref: GrantRef,
}

/// A page of a guest, as its own kernel sees it.
#[derive(Debug, Clone)]
pub struct GuestPage {
    world: World,
    /// Its guest frame.
    pub gfn: u64,
    /// Its machine frame.
    pub mfn: u64,
}

impl GuestPage {
    /// Copies out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.world
            .shared()
            .memory
            .whole()
            .read(byte_of(self.mfn, offset), into);
    }

    /// Copies out.
    #[must_use]
    pub fn read_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        self.world
            .shared()
            .memory
            .whole()
            .read_vec(byte_of(self.mfn, offset), len)
    }

    /// Copies in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.world
            .shared()
            .memory
            .whole()
            .write(byte_of(self.mfn, offset), from);
    }

    /// Fills the whole page.
    pub fn fill(&self, byte: u8) {
        let whole = self.world.shared().memory.whole();
        whole.fill(byte_of(self.mfn, 0), xen_abi::ids::PAGE_SIZE, byte);
    }

    /// Reads an aligned u32.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.world
            .shared()
            .memory
            .whole()
            .load_u32(byte_of(self.mfn, offset))
    }

    /// Writes an aligned u32; what was written before is visible before it.
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.world
            .shared()
            .memory
            .whole()
            .store_u32(byte_of(self.mfn, offset), value);
    }
}

/// A guest's kernel. Clones are the same kernel.
#[derive(Debug, Clone)]
pub struct DomU {
    world: World,
    domid: DomId,
    store: SimStore,
}

impl DomU {
    pub(crate) fn new(world: World, domid: DomId) -> Self {
        let process = world.shared().change(|state| state.kernel(domid).process);
        let store = SimStore::new(Arc::clone(world.shared()), process, domid);
        Self {
            world,
            domid,
            store,
        }
    }

    /// Its id.
    #[must_use]
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// The world it lives in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Its xenstore connection; works once the guest was introduced. Relative paths start at its home.
    #[must_use]
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.world.shared().change(act)
    }

    /// A free page of its memory, from the top of RAM, zeroed.
    ///
    /// # Panics
    /// When the guest has no memory left: the test gave it too little.
    #[must_use]
    pub fn page(&self) -> GuestPage {
        let domid = self.domid;
        let found = self.change(|state| {
            let gfn = state.alloc_guest_page(domid)?;
            let mfn = state.domains.get(&domid)?.mfn_of(gfn)?;
            Some((gfn, mfn))
        });
        let Some((gfn, mfn)) = found else {
            panic!("domain {domid} has no free page")
        };
        let page = GuestPage {
            world: self.world.clone(),
            gfn,
            mfn,
        };
        page.fill(0);
        page
    }

    /// The page at a guest frame, whoever uses it.
    #[must_use]
    pub fn page_at(&self, gfn: u64) -> Option<GuestPage> {
        let mfn = self.world.mfn_of(self.domid, gfn)?;
        Some(GuestPage {
            world: self.world.clone(),
            gfn,
            mfn,
        })
    }

    /// The page behind one of the entries that the builder wrote (console, xenstore).
    #[must_use]
    pub fn reserved_page(&self, gref: u32) -> Option<GuestPage> {
        let (mfn, gfn) = {
            let state = self.world.shared().lock();
            let entry = state.entry(self.domid, GrantRef(gref))?;
            let domain = state.domains.get(&self.domid)?;
            let mfn = domain.frame(u64::from(entry.frame))?;
            (mfn, domain.gfn_of(mfn)?)
        };
        Some(GuestPage {
            world: self.world.clone(),
            gfn,
            mfn,
        })
    }

    /// Gives a page back to its own allocator.
    pub fn free(&self, page: GuestPage) {
        self.change(|state| state.kernel(self.domid).free_gfns.push(page.gfn));
    }

    /// What stands for a page in a grant entry: the mfn of a PV guest, the gfn otherwise.
    #[must_use]
    pub fn frame_name(&self, page: &GuestPage) -> u32 {
        let pv = {
            let state = self.world.shared().lock();
            state
                .domains
                .get(&self.domid)
                .is_some_and(|domain| domain.is_pv())
        };
        u32::try_from(if pv { page.mfn } else { page.gfn }).unwrap_or(u32::MAX)
    }

    /// Grants a page to dom0.
    ///
    /// # Panics
    /// When the grant table is full.
    #[must_use]
    pub fn grant(&self, page: &GuestPage, readonly: bool) -> GrantRef {
        let gref = self.reserve_grant();
        let readonly = if readonly { GTF_READONLY } else { 0 };
        self.write_grant(
            gref,
            GTF_PERMIT_ACCESS | readonly,
            DomId::DOM0,
            self.frame_name(page),
        );
        gref
    }

    /// Takes a free grant reference without writing its entry.
    ///
    /// # Panics
    /// When the grant table is full.
    #[must_use]
    pub fn reserve_grant(&self) -> GrantRef {
        let domid = self.domid;
        match self.change(|state| state.alloc_gref(domid)) {
            Some(gref) => gref,
            None => panic!("the grant table of domain {domid} is full"),
        }
    }

    /// Writes any grant entry, right or wrong.
    pub fn write_grant(&self, gref: GrantRef, flags: u16, to: DomId, frame: u32) {
        self.change(|state| state.write_entry(self.domid, gref, flags, to, frame));
    }

    /// Whether a backend has the page mapped (the reading or writing flag stands in the entry).
    #[must_use]
    pub fn is_mapped(&self, gref: GrantRef) -> bool {
        let state = self.world.shared().lock();
        let entry = state.entry(self.domid, gref);
        entry.is_some_and(|entry| entry.flags & (GTF_READING | GTF_WRITING) != 0)
    }

    /// Takes a grant back, as `gnttab_end_foreign_access_ref` does.
    ///
    /// # Errors
    /// The backend still maps it; the entry stays.
    pub fn end_access(&self, gref: GrantRef) -> Result<(), StillMapped> {
        let domid = self.domid;
        self.change(|state| {
            let entry = state.entry(domid, gref);
            if entry.is_some_and(|entry| entry.flags & (GTF_READING | GTF_WRITING) != 0) {
                return Err(StillMapped { domid, gref });
            }
            state.write_entry(domid, gref, 0, DomId::DOM0, 0);
            state.kernel(domid).free_grefs.push(gref);
            Ok(())
        })
    }

    /// Clears a grant entry whatever the backend does with it, as a hostile guest may. The reference is not used again.
    pub fn revoke(&self, gref: GrantRef) {
        self.change(|state| state.write_entry(self.domid, gref, 0, DomId::DOM0, 0));
    }

    /// A new port for dom0 to bind.
    ///
    /// # Errors
    /// No port is free, or the guest is gone.
    pub fn alloc_port(&self) -> Result<Port, Errno> {
        self.change(|state| state.alloc_unbound(self.domid, DomId::DOM0))
    }

    /// Closes a port.
    pub fn close_port(&self, port: Port) {
        self.change(|state| state.events.close(self.domid, port));
    }

    /// Sends; a peer that is gone is no error.
    pub fn send(&self, port: Port) {
        let _ = self.change(|state| state.send(self.domid, port));
    }

    /// Whether the port was hit since the last look.
    #[must_use]
    pub fn take_pending(&self, port: Port) -> bool {
        self.change(|state| state.take_pending(self.domid, port))
    }

    /// Whether dom0 has bound the port.
    #[must_use]
    pub fn is_bound(&self, port: Port) -> bool {
        use crate::events::End;
        let state = self.world.shared().lock();
        let channel = state.events.channel(self.domid, port);
        channel.is_some_and(|channel| matches!(channel.end, End::Interdomain { .. }))
    }

    /// `SCHEDOP_shutdown`.
    pub fn shut_down(&self, reason: ShutdownReason) {
        let _ = self.world.shut_down(self.domid, reason);
    }
}
