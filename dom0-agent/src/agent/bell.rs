//! The bell: shutdowns of guests straight from Xen, where it is patched to tell them (`xen-patches/0002-notify-shutdown.patch`).
//!
//! ```text
//!   listen(domid) ─▶ Xen: this guest, through our port ─▶ (it stops) ─▶ our other port ─▶ rang() ─▶ reap
//! ```
//!
//! It says that some guest stopped, not which: whoever hears it looks at all of them, as after `@releaseDomain`, which comes all the same. Where Xen is not
//! patched the bell hangs there and never rings.

use crate::build::Hypervisor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_host::error::Error;
use xen_host::seam::{Devices, Events, Loopback, Offer};

/// See the module.
#[derive(Debug)]
pub struct Bell {
    xen: Arc<dyn Hypervisor>,
    events: Mutex<Box<dyn Events>>,
    ports: Loopback,
}

impl Bell {
    /// Hangs it up.
    ///
    /// # Errors
    /// Event channels cannot be had.
    pub fn hang(devices: &dyn Devices, xen: Arc<dyn Hypervisor>) -> Result<Self, Error> {
        let events = devices.open_events(None)?;
        let ports = events.loopback()?;
        Ok(Self {
            xen,
            events: Mutex::new(events),
            ports,
        })
    }

    /// From now on it rings when this domain stops, and now if it has stopped already. False where Xen cannot do that.
    ///
    /// # Errors
    /// The domain is gone, or too many listen to it. Nothing depends on it: xenstored tells the same, later.
    pub fn listen(&self, domid: DomId) -> Result<bool, Error> {
        let answer = self.xen.notify_shutdown(domid, self.ports.through)?;
        Ok(answer == Offer::Done(()))
    }

    /// Waits for it. False when it did not ring in time.
    ///
    /// # Errors
    /// The device's.
    pub fn rang(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if !events.wait(timeout)? {
            return Ok(false);
        }
        let mut rang = false;
        for port in events.pending()? {
            // A fresh pair is pending at the other end, once.
            rang |= port == self.ports.at;
            events.unmask(port)?;
        }
        Ok(rang)
    }
}
