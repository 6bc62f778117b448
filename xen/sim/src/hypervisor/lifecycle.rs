//! Birth, pause, shutdown and death of domains.

use super::domain::Domain;
use super::release::{is_wildcard, wildcard_of};
use super::{Outcome, release};
use crate::limits::{MAX_GRANT_FRAMES, MAX_HVM_VCPUS, MAX_PAUSES, MAX_PV_VCPUS};
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domain::{CreateDomain, DomainInfo, DomainKind, ShutdownReason};
use xen_abi::ids::{DomId, Handle};

impl State {
    /// A domain that is there, dying or not.
    pub(crate) fn domain(&mut self, domid: DomId) -> Outcome<&mut Domain> {
        self.domains.get_mut(&domid).ok_or(Errno::ESRCH)
    }

    /// A domain that is alive.
    pub(crate) fn living(&mut self, domid: DomId) -> Outcome<&mut Domain> {
        let domain = self.domain(domid)?;
        if domain.dying {
            Err(Errno::EINVAL)
        } else {
            Ok(domain)
        }
    }

    /// A guest: not dom0, which Xen never lets a domctl of this kind touch.
    pub(crate) fn guest(&mut self, domid: DomId) -> Outcome<&mut Domain> {
        if domid == DomId::DOM0 {
            return Err(Errno::EINVAL);
        }
        self.living(domid)
    }

    /// `None` when there is none of that id; copes with 4.17's answer like every caller must.
    pub(crate) fn domain_info(&self, domid: DomId) -> Option<DomainInfo> {
        release::getdomaininfo(self, domid)
            .ok()
            .filter(|info| info.domid == domid)
    }

    pub(crate) fn create_domain(&mut self, create: &CreateDomain) -> Outcome<DomId> {
        self.create_domain_as(wildcard_of(self.abi), create)
    }

    /// `createdomain` with the id that stands in the request.
    pub(crate) fn create_domain_as(
        &mut self,
        wanted: u16,
        create: &CreateDomain,
    ) -> Outcome<DomId> {
        let domid = if is_wildcard(self.abi, wanted) {
            self.next_domid()?
        } else if wanted >= DomId::FIRST_RESERVED.0 || wanted == 0 {
            return Err(Errno::EINVAL);
        } else {
            DomId(wanted)
        };
        if self.domains.contains_key(&domid) {
            return Err(Errno::EEXIST);
        }
        self.check_creation(create)?;
        let pool = if create.kind == DomainKind::Pv {
            0
        } else {
            crate::limits::INITIAL_POOL_PAGES
        };
        if self.unclaimed_pages() < pool + 2 {
            return Err(Errno::ENOMEM);
        }
        let shared_info = self.frames.alloc(0).ok_or(Errno::ENOMEM)?;
        let grant_frame = self.frames.alloc(0).ok_or(Errno::ENOMEM)?;
        self.take_pool(pool)?;
        let mut domain = Domain::new(domid, create, shared_info, grant_frame);
        let index = if create.kind == DomainKind::Pv { 4 } else { 5 };
        domain.policy = super::host::policy(index).unwrap_or_default();
        self.domains.insert(domid, domain);
        Ok(domid)
    }

    fn check_creation(&mut self, create: &CreateDomain) -> Outcome<()> {
        let hvm = create.kind != DomainKind::Pv;
        let most = if hvm { MAX_HVM_VCPUS } else { MAX_PV_VCPUS };
        let refused = if create.max_vcpus == 0 || create.max_vcpus > most {
            Some(format!(
                "Requested vCPUs ({}) exceeds max {most}",
                create.max_vcpus
            ))
        } else if hvm && !(self.capabilities.hvm && self.capabilities.hap) {
            Some("HVM requested but not available".to_owned())
        } else if !hvm && !self.capabilities.pv {
            Some("PV requested but not available".to_owned())
        } else if create.grant_version == 0 || create.grant_version > 2 {
            Some(format!(
                "invalid grant table version {} requested",
                create.grant_version
            ))
        } else if create
            .max_grant_frames
            .is_some_and(|n| n == 0 || n > MAX_GRANT_FRAMES)
        {
            Some("bad number of grant frames".to_owned())
        } else {
            None
        };
        if let Some(why) = refused {
            self.log_xen(&why);
            return Err(Errno::EINVAL);
        }
        if create.cpupool != 0 {
            return Err(Errno::ENODEV);
        }
        Ok(())
    }

    fn next_domid(&mut self) -> Outcome<DomId> {
        let count = DomId::FIRST_RESERVED.0 - 1;
        for step in 1..=count {
            let candidate = DomId((self.rover + step - 1) % count + 1);
            if !self.domains.contains_key(&candidate) {
                self.rover = candidate.0;
                return Ok(candidate);
            }
        }
        Err(Errno::ENOMEM)
    }

    pub(crate) fn pause(&mut self, domid: DomId) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.pauses >= MAX_PAUSES {
            return Err(Errno::EOVERFLOW);
        }
        domain.pauses += 1;
        Ok(())
    }

    pub(crate) fn unpause(&mut self, domid: DomId) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.pauses == 0 {
            return Err(Errno::EINVAL);
        }
        domain.pauses -= 1;
        domain.finished |= domain.pauses == 0;
        Ok(())
    }

    pub(crate) fn set_handle(&mut self, domid: DomId, handle: Handle) -> Outcome<()> {
        self.domain(domid)?.handle = handle;
        Ok(())
    }

    /// The domain shuts down, by itself or because it was told to. The first reason stays.
    pub(crate) fn shut_down(&mut self, domid: DomId, reason: ShutdownReason) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.shutdown.is_none() {
            domain.shutdown = Some(reason);
            self.check_domains();
            self.tell_shutdown_listeners(domid);
        }
        Ok(())
    }

    /// `destroydomain`: everything goes but the frames that others still map.
    pub(crate) fn destroy(&mut self, domid: DomId) -> Outcome<()> {
        if domid == DomId::DOM0 {
            return Err(Errno::EINVAL);
        }
        if self.domain(domid)?.dying {
            return Ok(());
        }
        let pool = {
            let domain = self.domain(domid)?;
            domain.dying = true;
            domain.claim = 0;
            domain.pinned.clear();
            domain.tables.clear();
            domain.writable_leaves.clear();
            std::mem::take(&mut domain.pool_pages)
        };
        self.pool_pages -= pool;
        self.close_ports_of(domid);
        self.release_frames(domid);
        self.check_domains();
        self.reap(domid);
        Ok(())
    }

    /// Frees every frame of a dying domain that nobody maps.
    fn release_frames(&mut self, domid: DomId) {
        let Some(domain) = self.domains.get_mut(&domid) else {
            return;
        };
        domain.pages.clear();
        let owned = std::mem::take(&mut domain.owned);
        let mut kept = std::collections::BTreeMap::new();
        for (mfn, (gfn, count)) in owned {
            let mut start = mfn;
            let held: Vec<u64> = self.maps.held_within(mfn, count);
            for frame in held {
                if frame > start {
                    self.memory.scrub(start, frame - start);
                    self.frames.release(start, frame - start);
                }
                kept.insert(frame, (gfn + (frame - mfn), 1));
                start = frame + 1;
            }
            if mfn + count > start {
                self.memory.scrub(start, mfn + count - start);
                self.frames.release(start, mfn + count - start);
            }
        }
        if let Some(domain) = self.domains.get_mut(&domid) {
            domain.tot_pages = kept.len() as u64;
            domain.owned = kept;
        }
    }

    /// Ends a dying domain for good once nobody maps anything of it.
    pub(crate) fn reap(&mut self, domid: DomId) {
        let Some(domain) = self.domains.get(&domid) else {
            return;
        };
        if !domain.dying {
            return;
        }
        self.release_frames(domid);
        if self.maps.any_of(domid) {
            return;
        }
        let Some(domain) = self.domains.remove(&domid) else {
            return;
        };
        for frame in domain
            .grant_frames
            .iter()
            .copied()
            .chain([domain.shared_info])
        {
            self.memory.scrub(frame, 1);
            self.frames.release(frame, 1);
        }
        self.kernels.remove(&domid);
    }
}
