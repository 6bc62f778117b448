//! The frontend half of the handshake, and the toolstack's part of it: two directories, two states.
//!
//! [`World::plug`] writes what a toolstack writes; [`FrontDevice`] is what every driver in the guest has: its own directory, the backend's,
//! and a watch on the backend's state. It acts only when asked.

use crate::kernel::DomU;
use crate::world::World;
use std::fmt;
use xen_abi::ids::DomId;
use xen_abi::io::xenbus::XenbusState;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{Access, Permission, Store, StoreExt, StoreOp, TxId};
use xen_host::xenstore::watch::Watch;

/// Which device of which guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceAddress {
    /// The guest.
    pub domid: DomId,
    /// `vbd`, `vif`, `console` ...
    pub kind: String,
    /// Number within the kind.
    pub devid: u32,
}

impl DeviceAddress {
    /// A device.
    #[must_use]
    pub fn new(domid: DomId, kind: &str, devid: u32) -> Self {
        Self {
            domid,
            kind: kind.to_owned(),
            devid,
        }
    }

    /// The guest's directory.
    #[must_use]
    pub fn frontend(&self) -> String {
        let (domid, kind, devid) = (self.domid, &self.kind, self.devid);
        format!("/local/domain/{domid}/device/{kind}/{devid}")
    }

    /// The backend's directory, in dom0.
    #[must_use]
    pub fn backend(&self) -> String {
        let (domid, kind, devid) = (self.domid, &self.kind, self.devid);
        format!("/local/domain/0/backend/{kind}/{domid}/{devid}")
    }
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of domain {}", self.kind, self.devid, self.domid)
    }
}

impl World {
    /// Writes both directories of a device in one transaction, as a toolstack does; both states are 1.
    ///
    /// # Panics
    /// When the simulated xenstored refuses, which means that the world is not set up for it.
    pub fn plug(&self, at: &DeviceAddress, backend: &[(&str, &str)], frontend: &[(&str, &str)]) {
        let tool = self.host("sim-toolstack");
        let (front, back) = (at.frontend(), at.backend());
        let domid = at.domid.to_string();
        let perm = |domid, access| Permission { domid, access };
        let text = |dir: &str, key: &str, value: &str| {
            StoreOp::Write(format!("{dir}/{key}"), value.as_bytes().to_vec())
        };
        let theirs = vec![
            perm(at.domid, Access::None),
            perm(DomId::DOM0, Access::Read),
        ];
        let ours = vec![
            perm(DomId::DOM0, Access::None),
            perm(at.domid, Access::Read),
        ];
        let mut ops = vec![
            StoreOp::Remove(front.clone()),
            StoreOp::Remove(back.clone()),
            StoreOp::Mkdir(front.clone()),
            StoreOp::SetPermissions(front.clone(), theirs),
            StoreOp::Mkdir(back.clone()),
            StoreOp::SetPermissions(back.clone(), ours),
            text(&front, "backend", &back),
            text(&front, "backend-id", "0"),
            text(&back, "frontend", &front),
            text(&back, "frontend-id", &domid),
            text(&back, "online", "1"),
        ];
        ops.extend(backend.iter().map(|(key, value)| text(&back, key, value)));
        ops.extend(frontend.iter().map(|(key, value)| text(&front, key, value)));
        ops.push(text(&front, "state", "1"));
        ops.push(text(&back, "state", "1"));
        if let Err(error) = tool.commit("a simulated device", &ops) {
            panic!("{at} cannot be plugged: {error}");
        }
        self.kill(&tool);
    }

    /// Asks for the removal of a device: `online` 0 and the backend's state 5.
    pub fn unplug(&self, at: &DeviceAddress) {
        let tool = self.host("sim-toolstack");
        let back = at.backend();
        let ops = [
            StoreOp::Write(format!("{back}/online"), b"0".to_vec()),
            StoreOp::Write(format!("{back}/state"), b"5".to_vec()),
        ];
        let _ = tool.commit("removal of a simulated device", &ops);
        self.kill(&tool);
    }

    /// Removes both directories of a device.
    pub fn forget_device(&self, at: &DeviceAddress) {
        let tool = self.host("sim-toolstack");
        let _ = tool.remove(TxId::NONE, &at.frontend());
        let _ = tool.remove(TxId::NONE, &at.backend());
        self.kill(&tool);
    }
}

/// Keys with some replaced (or left out, or added) by a frontend that wants to be wrong. A value `@key` is that of another key.
pub(crate) fn overridden(
    mut keys: Vec<(String, String)>,
    overrides: &[(String, Option<String>)],
) -> Vec<(String, String)> {
    for (key, value) in overrides {
        let other = value.as_deref().and_then(|value| value.strip_prefix('@'));
        let copied = other
            .and_then(|other| keys.iter().find(|(known, _)| known == other))
            .cloned();
        let value = copied.map(|(_, value)| value).or_else(|| value.clone());
        keys.retain(|(known, _)| known != key);
        keys.extend(value.map(|value| (key.clone(), value)));
    }
    keys
}

/// A device as its driver in the guest sees it.
#[derive(Debug)]
pub struct FrontDevice {
    domu: DomU,
    at: DeviceAddress,
    front: String,
    back: String,
    watch: Option<Watch>,
}

impl FrontDevice {
    /// The driver finds its device.
    #[must_use]
    pub fn new(domu: &DomU, at: DeviceAddress) -> Self {
        let front = at.frontend();
        let key = format!("{front}/backend");
        let told = domu.store().read_text(TxId::NONE, &key).ok().flatten();
        let back = told.unwrap_or_else(|| at.backend());
        let watch = domu.store().watch(&format!("{back}/state")).ok();
        Self {
            domu: domu.clone(),
            at,
            front,
            back,
            watch,
        }
    }

    /// The guest's kernel.
    #[must_use]
    pub fn domu(&self) -> &DomU {
        &self.domu
    }

    /// Which device.
    #[must_use]
    pub fn address(&self) -> &DeviceAddress {
        &self.at
    }

    /// Whether the backend's state was written since the last look.
    pub fn backend_changed(&mut self) -> bool {
        let mut changed = false;
        while self.watch.as_ref().and_then(Watch::try_next).is_some() {
            changed = true;
        }
        changed
    }

    /// A key of the backend.
    #[must_use]
    pub fn backend_key(&self, key: &str) -> Option<String> {
        self.domu
            .store()
            .read_text(TxId::NONE, &format!("{}/{key}", self.back))
            .ok()
            .flatten()
    }

    /// A number the backend wrote; `None` when it is missing or no number.
    #[must_use]
    pub fn backend_number(&self, key: &str) -> Option<u64> {
        self.backend_key(key)?.parse().ok()
    }

    /// The backend's state; 0 when its node is gone.
    #[must_use]
    pub fn backend_state(&self) -> XenbusState {
        XenbusState::parse(&self.backend_key("state").unwrap_or_default())
    }

    /// Our own state.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        let key = format!("{}/state", self.front);
        let text = self.domu.store().read_text(TxId::NONE, &key).ok().flatten();
        XenbusState::parse(&text.unwrap_or_default())
    }

    /// Writes keys of ours in one transaction.
    ///
    /// # Errors
    /// As xenstored refuses.
    pub fn publish(&self, keys: &[(String, String)]) -> Result<(), StoreError> {
        let ops: Vec<StoreOp> = keys
            .iter()
            .map(|(key, value)| {
                StoreOp::Write(format!("{}/{key}", self.front), value.as_bytes().to_vec())
            })
            .collect();
        self.domu.store().commit("frontend keys", &ops)
    }

    /// Removes a key of ours (and what is below it).
    pub fn remove_key(&self, key: &str) {
        let _ = self
            .domu
            .store()
            .remove(TxId::NONE, &format!("{}/{key}", self.front));
    }

    /// Writes our state.
    pub fn switch(&self, state: XenbusState) {
        self.write_key("state", &state.to_string());
    }

    /// Writes one key of ours, any key, any value.
    pub fn write_key(&self, key: &str, value: &str) {
        let path = format!("{}/{key}", self.front);
        let _ = self.domu.store().write_text(TxId::NONE, &path, value);
    }

    /// Breaks no rule itself, but somebody else did: notes it in the world.
    pub fn complain(&self, what: &str) {
        self.domu.world().violation(format!("{}: {what}", self.at));
    }
}
