//! What xenstored knows of domains: whom it was introduced to, and when it tells the world that one is gone.
//!
//! xenstored maps a guest's xenstore page by grant and binds its port like any process, so it keeps a dying domain from vanishing until it
//! has looked. It announces only domains that were introduced; the watch carries no id.

use super::Caller;
use crate::grants::{Map, MapKind};
use crate::hypervisor::Outcome;
use crate::limits::GRANT_XENSTORE;
use crate::state::{ProcessId, State};
use nix::errno::Errno;
use xen_abi::ids::{DomId, GrantRef, Port};

/// One introduced domain.
#[derive(Debug)]
pub(crate) struct Introduced {
    map: u64,
    port: Port,
    shutdown_seen: bool,
}

impl State {
    /// `XS_INTRODUCE`: the page comes from the reserved grant, `gfn` is ignored as xenstored ignores it.
    pub(crate) fn introduce(&mut self, caller: Caller, domid: DomId, port: Port) -> Outcome<()> {
        if !caller.is_privileged() {
            return Err(Errno::EACCES);
        }
        if !self.domains.contains_key(&domid) || domid == DomId::DOM0 {
            return Err(Errno::ENOENT);
        }
        if let Some(known) = self.store.introduced.remove(&domid) {
            self.events.close(DomId::DOM0, known.port);
            let port = self.bind_interdomain(None, domid, port);
            let port = port.unwrap_or(Port(0));
            self.store
                .introduced
                .insert(domid, Introduced { port, ..known });
            return Ok(());
        }
        let refs = [GrantRef(GRANT_XENSTORE)];
        let (map, _) = self
            .map_grants(ProcessId::XENSTORED, domid, &refs, true)
            .map_err(|_| Errno::EINVAL)?;
        match self.bind_interdomain(None, domid, port) {
            Ok(port) => {
                let introduced = Introduced {
                    map,
                    port,
                    shutdown_seen: false,
                };
                self.store.introduced.insert(domid, introduced);
                self.store.announce_special("@introduceDomain");
                Ok(())
            }
            Err(errno) => {
                self.let_go(map);
                Err(errno)
            }
        }
    }

    /// `XS_RESUME`: its next shutdown is news again.
    pub(crate) fn resume_domain(&mut self, caller: Caller, domid: DomId) -> Outcome<()> {
        if !caller.is_privileged() {
            return Err(Errno::EACCES);
        }
        let known = self.store.introduced.get_mut(&domid);
        known.ok_or(Errno::ENOENT)?.shutdown_seen = false;
        Ok(())
    }

    /// `XS_RELEASE`.
    pub(crate) fn release_domain(&mut self, caller: Caller, domid: DomId) -> Outcome<()> {
        if !caller.is_privileged() {
            return Err(Errno::EACCES);
        }
        if !self.store.introduced.contains_key(&domid) {
            return Err(Errno::ENOENT);
        }
        self.forget(domid);
        Ok(())
    }

    fn forget(&mut self, domid: DomId) {
        let Some(known) = self.store.introduced.remove(&domid) else {
            return;
        };
        self.events.close(DomId::DOM0, known.port);
        if let Some(process) = self.kernels.get(&domid).map(|kernel| kernel.process) {
            self.store.disconnect(process);
        }
        self.let_go(known.map);
        self.store.announce_special("@releaseDomain");
    }

    /// What xenstored does when Xen says that some domain changed (`VIRQ_DOM_EXC`).
    pub(crate) fn check_domains(&mut self) {
        let known: Vec<DomId> = self.store.introduced.keys().copied().collect();
        for domid in known {
            let (gone, down) = self.domains.get(&domid).map_or((true, false), |domain| {
                (domain.dying, domain.shutdown.is_some())
            });
            if gone {
                self.forget(domid);
            } else if let Some(known) = self.store.introduced.get_mut(&domid)
                && down
                && !known.shutdown_seen
            {
                known.shutdown_seen = true;
                self.store.announce_special("@releaseDomain");
            }
        }
    }

    /// Registers a mapping of a process; see [`crate::grants`].
    pub(crate) fn hold(
        &mut self,
        process: ProcessId,
        domid: DomId,
        kind: MapKind,
        mfns: Vec<u64>,
        writable: bool,
    ) -> u64 {
        self.add_map(Map {
            process,
            domid,
            kind,
            mfns,
            writable,
        })
    }
}
