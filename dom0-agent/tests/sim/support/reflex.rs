//! Guests that answer a request to suspend at once, so that an agent that waits for one needs no other thread.
//!
//! The agent's xenstore, and after each of its calls the guests that have a reflex look at their `control/shutdown`.

use super::Machine;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Port};
use xen_host::seam::{Store, StoreExt};
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{StoreOp, StoreReply, TxId};
use xen_host::xenstore::watch::Watch;
use xen_sim::{SimHost, World};

/// What a guest does as soon as it is asked to suspend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflex {
    /// It suspends.
    Suspend,
    /// It acknowledges, and goes on.
    Acknowledge,
    /// It crashes.
    Crash,
}

/// Which guests have which reflex.
pub type Reflexes = Arc<Mutex<BTreeMap<DomId, Reflex>>>;

/// See the module.
#[derive(Debug)]
pub struct ReflexStore {
    pub inner: SimHost,
    pub world: World,
    pub reflexes: Reflexes,
}

impl ReflexStore {
    fn react<T>(&self, answer: T) -> T {
        for (domid, reflex) in self.reflexes.lock().unwrap().iter() {
            let node = format!("/local/domain/{domid}/control/shutdown");
            let asked = self.world.xs_read(&node).as_deref() == Some("suspend");
            if !asked || !Machine::runs(&self.world, *domid) {
                continue;
            }
            let domu = self.world.domu(*domid);
            domu.store()
                .write_text(TxId::NONE, "control/shutdown", "")
                .unwrap();
            let reason = match reflex {
                Reflex::Suspend => ShutdownReason::Suspend,
                Reflex::Crash => ShutdownReason::Crash,
                Reflex::Acknowledge => continue,
            };
            self.world.shut_down(*domid, reason).unwrap();
        }
        answer
    }
}

type StoreResult<T> = Result<T, StoreError>;

impl Store for ReflexStore {
    fn call(&self, tx: TxId, ops: &[StoreOp]) -> StoreResult<Vec<StoreResult<StoreReply>>> {
        let answer = self.inner.call(tx, ops);
        self.react(answer)
    }

    fn begin(&self) -> StoreResult<TxId> {
        self.inner.begin()
    }

    fn end(&self, tx: TxId, commit: bool) -> StoreResult<bool> {
        let answer = self.inner.end(tx, commit);
        self.react(answer)
    }

    fn watch(&self, path: &str) -> StoreResult<Watch> {
        self.inner.watch(path)
    }

    fn introduce(&self, domid: DomId, gfn: u64, port: Port) -> StoreResult<()> {
        self.inner.introduce(domid, gfn, port)
    }

    fn resume(&self, domid: DomId) -> StoreResult<()> {
        Store::resume(&self.inner, domid)
    }

    fn release(&self, domid: DomId) -> StoreResult<()> {
        self.inner.release(domid)
    }
}
