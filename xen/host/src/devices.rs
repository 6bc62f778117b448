//! The real [`Devices`]: event channel and grant handles of this domain.

use crate::evtchn::EvtChn;
use crate::gntdev::GntDev;
use crate::seam::{Devices, Events, Grants, Result};
use xen_abi::ids::DomId;

/// Opens the kernel's devices.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDevices;

impl Devices for HostDevices {
    fn open_events(&self, only: Option<DomId>) -> Result<Box<dyn Events>> {
        let events = EvtChn::open()?;
        if let Some(domid) = only {
            events.restrict(domid)?;
        }
        Ok(Box::new(events))
    }

    fn open_grants(&self) -> Result<Box<dyn Grants>> {
        Ok(Box::new(GntDev::open()?))
    }
}
