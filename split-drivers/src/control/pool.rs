//! Grant and event channel handles, opened before the sandbox closes and used again and again.
//!
//! An event channel handle is restricted to the guest for good (`IOCTL_EVTCHN_RESTRICT_DOMID`). gntdev knows no such restriction: whoever holds
//! a grant handle may map what any guest has granted to this domain. What stands between a driver taken over by its guest and
//! the grants of other guests is therefore the guess of a domain id and a valid reference, nothing better; see `docs/threat-model.md`.

use crate::limits::MAX_RINGS;
use xen_abi::ids::DomId;
use xen_host::seam::{Devices, Events, Grants, Result};

/// One ring's handles.
#[derive(Debug)]
pub struct Handles {
    /// Grants, nothing mapped.
    pub grants: Box<dyn Grants>,
    /// Event channels, nothing bound.
    pub events: Box<dyn Events>,
}

/// Every handle this process will ever have.
#[derive(Debug)]
pub struct Pool {
    domid: DomId,
    free: Vec<Handles>,
}

impl Pool {
    /// Opens handles for [`MAX_RINGS`] rings of `domid`.
    ///
    /// # Errors
    /// A device cannot be opened.
    pub fn open(devices: &dyn Devices, domid: DomId) -> Result<Self> {
        let one = |_| {
            Ok(Handles {
                grants: devices.open_grants()?,
                events: devices.open_events(Some(domid))?,
            })
        };
        let free = (0..MAX_RINGS).map(one).collect::<Result<_>>()?;
        Ok(Self { domid, free })
    }

    /// The guest.
    #[must_use]
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Handles for one more ring, if there are any left.
    pub fn take(&mut self) -> Option<Handles> {
        self.free.pop()
    }

    /// Takes handles back; nothing may be mapped or bound.
    pub fn give(&mut self, handles: Handles) {
        self.free.push(handles);
    }

    /// Rings that can still be served.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }
}
