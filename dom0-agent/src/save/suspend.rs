//! Asking a guest to suspend, and waiting until it has.
//!
//! ```text
//!               control/shutdown = suspend        guest empties it             shut down, code suspend
//!   Running ───────────────▶ Asked ────────────────▶ Acknowledged ────────────────▶ Suspended
//!                              │ no answer in time          │ still running in time
//!                              ▼                            ▼
//!                    withdrawn: NotAcknowledged        StillRunning: it may suspend later, and is woken then
//! ```
//!
//! Whatever ends the wait early, the request is withdrawn if the guest has not taken it. Source: Xen
//! `tools/libs/light/libxl_dom_suspend.c`, Linux `drivers/xen/manage.c`.

use super::limits::{ACKNOWLEDGE_TIMEOUT, LOOK_AGAIN, SUSPEND_TIMEOUT};
use crate::build::Hypervisor;
use crate::layout::paths;
use std::time::{Duration, Instant};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;
use xen_host::error::Error;
use xen_host::seam::{Store, StoreExt};
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::TxId;
use xen_host::xenstore::watch::Watch;

/// The word that asks.
const SUSPEND: &str = "suspend";

/// How long a guest is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until it acknowledges.
    pub acknowledge: Duration,
    /// From then on until it has suspended.
    pub suspend: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            acknowledge: ACKNOWLEDGE_TIMEOUT,
            suspend: SUSPEND_TIMEOUT,
        }
    }
}

/// Why a guest did not suspend.
#[derive(Debug, thiserror::Error)]
pub enum SuspendError {
    /// It has something else to do.
    #[error("the guest is busy with `{0}`; try again later")]
    Busy(String),
    /// It has no node to be asked by.
    #[error("the guest has no node control/shutdown, by which guests are asked to suspend")]
    NoNode,
    /// It does not look.
    #[error(
        "the guest did not acknowledge within {0} s that it should suspend; does its kernel have Xen's drivers?"
    )]
    NotAcknowledged(u64),
    /// It looked, and did not do it.
    #[error("the guest acknowledged and did not suspend within {0} s; its own log says why")]
    StillRunning(u64),
    /// It stopped for another reason.
    #[error("the guest stopped while it was to suspend ({0:?})")]
    Stopped(ShutdownReason),
    /// It is gone.
    #[error("the guest was destroyed while it was to suspend")]
    Gone,
    /// Xen or xenstore.
    #[error("asking the guest to suspend: {0}")]
    Xen(#[from] Error),
}

impl From<StoreError> for SuspendError {
    fn from(error: StoreError) -> Self {
        Self::Xen(error.into())
    }
}

/// The seams and the guest.
struct Handshake<'a> {
    xen: &'a dyn Hypervisor,
    store: &'a dyn Store,
    domid: DomId,
    node: String,
}

/// Asks and waits.
///
/// # Errors
/// See [`SuspendError`]; the guest runs then, or stopped for a reason of its own, or may still suspend.
pub fn suspend(
    xen: &dyn Hypervisor,
    store: &dyn Store,
    domid: DomId,
    patience: Patience,
) -> Result<(), SuspendError> {
    let node = format!("{}/control/shutdown", paths::domain(domid));
    let handshake = Handshake {
        xen,
        store,
        domid,
        node,
    };
    let result = handshake.run(patience);
    if result.is_err() {
        // It may have been taken already; that is for whoever looks at the guest next.
        let _ = withdraw(store, domid);
    }
    result
}

/// Takes the request back if the guest has not acknowledged it; true if it was still there.
///
/// # Errors
/// Xenstore does not answer.
pub fn withdraw(store: &dyn Store, domid: DomId) -> Result<bool, StoreError> {
    let node = format!("{}/control/shutdown", paths::domain(domid));
    store.transaction("withdrawing a request to suspend", |store, tx| {
        let waiting = store.read_text(tx, &node)?.as_deref() == Some(SUSPEND);
        if waiting {
            store.write_text(tx, &node, "")?;
        }
        Ok(waiting)
    })
}

impl Handshake<'_> {
    fn run(&self, patience: Patience) -> Result<(), SuspendError> {
        // Watches first: what happens after they stand is not missed.
        let answers = self.store.watch(&self.node)?;
        let releases = self.store.watch("@releaseDomain")?;
        self.ask()?;
        let acknowledged = self.wait(&answers, patience.acknowledge, || {
            let word = self.store.read_text(TxId::NONE, &self.node)?;
            Ok(word.as_deref() != Some(SUSPEND))
        })?;
        if !acknowledged && withdraw(self.store, self.domid)? {
            let seconds = patience.acknowledge.as_secs();
            return Err(SuspendError::NotAcknowledged(seconds));
        }
        if self.wait(&releases, patience.suspend, || self.has_suspended())? {
            return Ok(());
        }
        Err(SuspendError::StillRunning(patience.suspend.as_secs()))
    }

    fn ask(&self) -> Result<(), SuspendError> {
        let before = self.store.transaction("asking to suspend", |store, tx| {
            let before = store.read_text(tx, &self.node)?;
            if before.as_deref() == Some("") {
                store.write_text(tx, &self.node, SUSPEND)?;
            }
            Ok(before)
        })?;
        match before.as_deref() {
            // Asked before by somebody who is gone.
            Some("" | SUSPEND) => Ok(()),
            Some(word) => Err(SuspendError::Busy(word.to_owned())),
            None => Err(SuspendError::NoNode),
        }
    }

    /// Waits for `done`, looking whenever `watch` fires; false when the time is over.
    fn wait(
        &self,
        watch: &Watch,
        most: Duration,
        done: impl Fn() -> Result<bool, SuspendError>,
    ) -> Result<bool, SuspendError> {
        let deadline = Instant::now() + most;
        loop {
            if self.has_suspended()? || done()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let _ = watch.next_timeout(left.min(LOOK_AGAIN));
        }
    }

    fn has_suspended(&self) -> Result<bool, SuspendError> {
        let info = self.xen.domain_info(self.domid)?;
        let info = info.filter(|info| !info.dying).ok_or(SuspendError::Gone)?;
        match info.shutdown {
            None => Ok(false),
            Some(ShutdownReason::Suspend) => Ok(true),
            Some(reason) => Err(SuspendError::Stopped(reason)),
        }
    }
}
