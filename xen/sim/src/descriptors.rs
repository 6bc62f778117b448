//! Open device descriptors of a process: gntdev and evtchn. Dropping one is closing it.

use crate::grants::segment_fits;
use crate::hypervisor::Outcome;
use crate::limits::MAX_MAP_GRANTS;
use crate::simhost::region;
use crate::state::{ProcessId, Shared, State};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;
use xen_abi::ids::{DomId, GrantRef, Port};
use xen_host::error::Error;
use xen_host::eventfd::EventFd;
use xen_host::region::SharedRegion;
use xen_host::seam::{Events, GrantCopy, Grants, Loopback, Result};

/// A simulated gntdev descriptor.
#[derive(Debug)]
pub struct SimGrants {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: ProcessId,
}

impl Grants for SimGrants {
    fn map(&self, domid: DomId, refs: &[GrantRef], writable: bool) -> Result<SharedRegion> {
        const OP: &str = "gnttab.map";
        let process = self.process;
        let (map, mfns) = self
            .shared
            .call(process, OP, |state, _| {
                if refs.is_empty() || refs.len() > MAX_MAP_GRANTS {
                    return Err(Errno::EINVAL);
                }
                state
                    .map_grants(process, domid, refs, writable)
                    .map_err(|_| Errno::EINVAL)
            })
            .map_err(|errno| Error::refused_for(OP, domid, errno))?;
        region(&self.shared, map, &mfns, writable)
    }

    fn copy(&self, local: &SharedRegion, segments: &mut [GrantCopy]) -> Result<()> {
        const OP: &str = "gnttab.copy";
        self.shared
            .call(self.process, OP, |state, _| {
                if !segments.iter().all(|segment| segment_fits(local, segment)) {
                    return Err(Errno::EINVAL);
                }
                for segment in segments.iter_mut() {
                    segment.status = state.copy_segment(local, segment);
                }
                Ok(())
            })
            .map_err(|errno| Error::refused(OP, errno))
    }
}

/// A simulated evtchn descriptor.
#[derive(Debug)]
pub struct SimEvents {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: ProcessId,
    pub(crate) handle: u64,
    pub(crate) fd: Arc<EventFd>,
}

impl SimEvents {
    fn port<T>(&self, op: &'static str, act: impl FnOnce(&mut State) -> Outcome<T>) -> Result<T> {
        self.shared
            .call(self.process, op, |state, _| act(state))
            .map_err(|errno| Error::refused(op, errno))
    }
}

impl Events for SimEvents {
    fn loopback(&self) -> Result<Loopback> {
        self.port("evtchn.loopback", |state| state.loopback(self.handle))
    }

    fn bind_interdomain(&self, domid: DomId, remote: Port) -> Result<Port> {
        self.shared
            .call(self.process, "evtchn.bind", |state, _| {
                state.bind_interdomain(Some(self.handle), domid, remote)
            })
            .map_err(|errno| Error::refused_for("evtchn.bind", domid, errno))
    }

    fn unbind(&self, port: Port) -> Result<()> {
        self.port("evtchn.unbind", |state| state.unbind(self.handle, port))
    }

    fn notify(&self, port: Port) -> Result<()> {
        self.port("evtchn.notify", |state| state.notify(self.handle, port))
    }

    fn pending(&self) -> Result<Vec<Port>> {
        self.port("evtchn.pending", |state| {
            Ok(state.events.pending(self.handle))
        })
    }

    fn unmask(&self, port: Port) -> Result<()> {
        self.port("evtchn.unmask", |state| {
            state.events.unmask(self.handle, port);
            Ok(())
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        self.fd.wait(timeout)
    }
}

impl Drop for SimEvents {
    fn drop(&mut self) {
        self.shared
            .change(|state| state.events.close_handle(self.handle));
    }
}
