//! What a hypervisor with the patches of `xen-patches/` can do besides; one without them answers as Xen does to a number that it does not know.

use super::Outcome;
use crate::machine::byte_of;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::extras::SHUTDOWN_LISTENERS;
use xen_abi::ids::{DomId, PAGE_SIZE, Port};
use xen_host::region::SharedRegion;
use xen_host::seam::Copied;

/// A page of zeroes; comparing with it is quick without optimisation too.
const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

impl State {
    /// The machine frame of each page, or why it cannot be had.
    fn frames_to_copy(
        &mut self,
        domid: DomId,
        frames: &[u64],
        writable: bool,
    ) -> Outcome<Vec<Outcome<u64>>> {
        if !self.patched {
            return Err(Errno::ENOSYS);
        }
        let domain = self.guest(domid).map_err(|_| Errno::ESRCH)?;
        let frame = |frame: &u64| {
            let mfn = domain.frame(*frame).ok_or(Errno::EINVAL)?;
            match writable && domain.tables.contains_key(&mfn) {
                true => Err(Errno::EBUSY),
                false => Ok(mfn),
            }
        };
        Ok(frames.iter().map(frame).collect())
    }

    pub(crate) fn copy_out(
        &mut self,
        domid: DomId,
        frames: &[u64],
        into: &SharedRegion,
    ) -> Outcome<Vec<Copied>> {
        let found = self.frames_to_copy(domid, frames, false)?;
        if found.len() * PAGE_SIZE > into.len() {
            return Err(Errno::EFAULT);
        }
        let whole = self.memory.whole();
        let copy = |(index, frame): (usize, Outcome<u64>)| match frame {
            Err(errno) => Copied::Refused(errno),
            Ok(mfn) => {
                let page = whole.read_vec(byte_of(mfn, 0), PAGE_SIZE);
                if page == ZEROES {
                    return Copied::Zero;
                }
                into.write(index * PAGE_SIZE, &page);
                Copied::Copied
            }
        };
        Ok(found.into_iter().enumerate().map(copy).collect())
    }

    pub(crate) fn copy_in(
        &mut self,
        domid: DomId,
        frames: &[u64],
        from: &SharedRegion,
    ) -> Outcome<()> {
        let found = self.frames_to_copy(domid, frames, true)?;
        if found.len() * PAGE_SIZE > from.len() {
            return Err(Errno::EFAULT);
        }
        for (index, frame) in found.into_iter().enumerate() {
            let to = byte_of(frame?, 0);
            from.copy_to(index * PAGE_SIZE, self.memory.whole(), to, PAGE_SIZE);
        }
        Ok(())
    }

    pub(crate) fn notify_shutdown(&mut self, domid: DomId, port: Port) -> Outcome<()> {
        self.domain(domid)?;
        if !self.patched {
            return Err(Errno::EOPNOTSUPP);
        }
        if domid == DomId::DOM0 || !self.is_loopback(port) {
            return Err(Errno::EINVAL);
        }
        let mut listeners = std::mem::take(&mut self.domain(domid)?.listeners);
        listeners.retain(|listener| self.is_loopback(*listener));
        let known = listeners.contains(&port);
        let full = !known && listeners.len() >= SHUTDOWN_LISTENERS;
        if !known && !full {
            listeners.push(port);
        }
        let domain = self.domain(domid)?;
        domain.listeners = listeners;
        if full {
            return Err(Errno::ENOSPC);
        }
        if domain.shutdown.is_some() {
            self.send(DomId::DOM0, port)?;
        }
        Ok(())
    }

    /// Those whose ports are gone hear nothing.
    pub(crate) fn tell_shutdown_listeners(&mut self, domid: DomId) {
        let listeners = self
            .domains
            .get(&domid)
            .map(|domain| domain.listeners.clone());
        for port in listeners.into_iter().flatten() {
            if self.is_loopback(port) {
                let _ = self.send(DomId::DOM0, port);
            }
        }
    }
}
