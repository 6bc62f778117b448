//! What a backend says of itself in xenstore: its state, and why it was closed.

use super::Agent;
use super::error::AgentError;
use super::guest::Guest;
use super::settle::place;
use crate::xenbus::machine::state;
use parapet_wire::driver::DeviceKind;
use xen_abi::ids::DomId;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{Store, StoreExt, TxId};

impl Agent {
    /// Its state; a device that works has no error any more.
    pub(super) fn publish(
        &self,
        guest: &Guest,
        domid: DomId,
        key: (DeviceKind, u32),
        to: u32,
    ) -> Result<(), AgentError> {
        let Some(device) = guest.devices.get(&key) else {
            return Ok(());
        };
        let back = place(domid, key.1, &device.body).back();
        let cured = to == state::CONNECTED;
        self.write_beside_state("a backend's state", &back, |store, tx| {
            if cured {
                store.remove(tx, &format!("{back}/error"))?;
            }
            store.write_text(tx, &format!("{back}/state"), &to.to_string())
        })
    }

    /// Writes in a backend's directory only where it still is: a toolstack that removed it must not find it again.
    fn write_beside_state(
        &self,
        what: &str,
        back: &str,
        write: impl Fn(&dyn Store, TxId) -> Result<(), StoreError>,
    ) -> Result<(), AgentError> {
        let state = format!("{back}/state");
        let written =
            self.seams
                .store
                .transaction(what, |store, tx| match store.read_text(tx, &state)? {
                    Some(_) => write(store, tx),
                    None => Ok(()),
                });
        Ok(written?)
    }

    /// Why it was closed.
    pub(super) fn publish_error(
        &self,
        guest: &mut Guest,
        domid: DomId,
        key: (DeviceKind, u32),
        text: &str,
    ) {
        let Some(device) = guest.devices.get(&key) else {
            return;
        };
        let back = place(domid, key.1, &device.body).back();
        let written = self.write_beside_state("a backend's error", &back, |store, tx| {
            store.write_text(tx, &format!("{back}/error"), text)
        });
        if let Err(error) = written
            && guest.speak()
        {
            tracing::warn!(%error, "cannot publish a device's error");
        }
    }
}
