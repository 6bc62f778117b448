//! Attach and detach on a running guest, rename, planned driver replacement.

use super::drivers::DriverNews;
use super::error::AgentError;
use super::furnish::order_driver;
use super::guest::{Guest, SharedGuest};
use super::record::Stage;
use super::{Agent, DETACH_TIMEOUT, News, lock};
use crate::config::disk::DiskSpec;
use crate::config::vdev::vdev_number;
use crate::config::vif::{Mac, VifSpec};
use crate::layout::{Tree, paths};
use crate::xenbus::machine::{Phase, state};
use parapet_wire::agent as wire;
use parapet_wire::driver::{DeviceKind, OrderBody};
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, StoreOp};

impl Agent {
    fn ours(&self, domid: DomId, what: &'static str) -> Result<SharedGuest, AgentError> {
        if domid == DomId::DOM0 {
            return Err(AgentError::ControlDomain(what));
        }
        if let Some(guest) = self.by_domid(domid) {
            // Its file says which devices it has.
            if lock(&guest).record.stage == Stage::Saving {
                let why = format!("domain {domid} is being saved; {what} must wait");
                return Err(AgentError::Invalid(why));
            }
            return Ok(guest);
        }
        self.must_be_no_shell(domid)?;
        Err(self.none_of_ours(domid, what)?)
    }

    /// Why nothing like this can be done to a domain that no guest of ours has.
    pub(super) fn none_of_ours(
        &self,
        domid: DomId,
        what: &'static str,
    ) -> Result<AgentError, AgentError> {
        Ok(match self.seams().xen.domain_info(domid)? {
            Some(_) if self.is_kept(domid) => AgentError::Kept { domid, what },
            Some(_) => AgentError::Foreign { domid, what },
            None => AgentError::NoDomain(domid),
        })
    }

    /// Adds a disk to a running guest.
    ///
    /// # Errors
    /// The cause, with nothing left behind.
    pub fn attach_disk(&self, domid: DomId, spec: &DiskSpec) -> Result<(), AgentError> {
        let shared = self.ours(domid, "block-attach")?;
        let mut guest = lock(&shared);
        let devid = disk_number(&spec.vdev)?;
        let key = (DeviceKind::Disk, devid);
        must_be_free(&guest, key, &spec.vdev)?;
        // The record first: an agent that dies in here knows of everything that it may find.
        guest.record.config.disks.push(spec.clone());
        let mut tree = Tree::new(domid);
        let attached = self
            .save(&guest)
            .and_then(|()| self.furnish_disk(&mut guest, domid, spec, &mut tree))
            .and_then(|_| self.show_device(&guest, tree));
        attached.inspect_err(|_| {
            guest
                .record
                .config
                .disks
                .retain(|other| other.vdev != spec.vdev);
            if !guest.devices.contains_key(&key) {
                self.close_disk(&mut guest, domid, devid);
            }
            self.undo_attach(&mut guest, domid, key);
        })
    }

    /// Adds a network interface to a running guest; answers its device number.
    ///
    /// # Errors
    /// The cause, with nothing left behind.
    pub fn attach_net(&self, domid: DomId, spec: &VifSpec) -> Result<u32, AgentError> {
        let shared = self.ours(domid, "network-attach")?;
        let mut guest = lock(&shared);
        let mut spec = spec.clone();
        if spec.mac.is_none() {
            let [a, b, c, ..] = Uuid::new_v4().into_bytes();
            spec.mac = Some(Mac([0x00, 0x16, 0x3e, a & 0x7f, b, c]));
        }
        let free = |guest: &Guest| {
            (0..u32::MAX).find(|devid| !guest.devices.contains_key(&(DeviceKind::Net, *devid)))
        };
        let devid = spec.devid.or_else(|| free(&guest)).unwrap_or(0);
        spec.devid = Some(devid);
        let key = (DeviceKind::Net, devid);
        must_be_free(&guest, key, &devid.to_string())?;
        guest.record.config.vifs.push(spec.clone());
        let mut tree = Tree::new(domid);
        let attached = self
            .save(&guest)
            .and_then(|()| self.furnish_net(&mut guest, domid, devid, &spec, &mut tree))
            .and_then(|()| self.show_device(&guest, tree));
        attached.map(|()| devid).inspect_err(|_| {
            guest
                .record
                .config
                .vifs
                .retain(|other| other.devid != Some(devid));
            self.undo_attach(&mut guest, domid, key);
        })
    }

    /// Lets the guest and stock tools see a new device.
    fn show_device(&self, guest: &Guest, tree: Tree) -> Result<(), AgentError> {
        self.seams.store.commit("a new device", &tree.into_ops())?;
        self.write_userdata(guest)
    }

    fn undo_attach(&self, guest: &mut Guest, domid: DomId, key: (DeviceKind, u32)) {
        let undone = if guest.devices.contains_key(&key) {
            self.remove_device(guest, domid, key)
        } else {
            self.save(guest)
        };
        if let Err(error) = undone {
            tracing::error!(%domid, device = ?key, %error, "a device that could not be attached is not removed yet");
        }
    }

    /// Removes a device from a running guest. Without `force` the guest must let go of it within [`DETACH_TIMEOUT`].
    ///
    /// # Errors
    /// No such device, or a guest that does not let go (the device stays).
    pub fn detach(
        &self,
        domid: DomId,
        kind: DeviceKind,
        devid: u32,
        force: bool,
    ) -> Result<(), AgentError> {
        self.detach_within(domid, kind, devid, force, DETACH_TIMEOUT)
    }

    /// As [`Agent::detach`], with another patience.
    ///
    /// # Errors
    /// As [`Agent::detach`].
    pub fn detach_within(
        &self,
        domid: DomId,
        kind: DeviceKind,
        devid: u32,
        force: bool,
        patience: Duration,
    ) -> Result<(), AgentError> {
        let what = if kind == DeviceKind::Disk {
            "block-detach"
        } else {
            "network-detach"
        };
        let shared = self.ours(domid, what)?;
        let key = (kind, devid);
        let (back, front) = {
            let guest = lock(&shared);
            let Some(device) = guest.devices.get(&key) else {
                return Err(AgentError::Device {
                    device: devid.to_string(),
                    what: format!("domain {domid} has no such device"),
                });
            };
            (
                paths::backend(device.body.back_kind(), domid, devid),
                paths::frontend(device.body.front_kind(), domid, devid),
            )
        };
        let watch = self.seams().store.watch(&front)?;
        let mut ops = vec![
            StoreOp::Write(format!("{back}/online"), b"0".to_vec()),
            StoreOp::Write(format!("{back}/state"), b"5".to_vec()),
        ];
        if force {
            ops.push(StoreOp::Remove(front.clone()));
        }
        self.seams().store.commit("detach", &ops)?;
        let deadline = Instant::now() + patience;
        loop {
            self.settle(&shared)?;
            if !lock(&shared).devices.contains_key(&key) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || watch.next_timeout(left).is_none() {
                self.keep_device(&lock(&shared), key, &back)?;
                return Err(AgentError::GuestTimedOut {
                    what: format!("{what} of device {devid}"),
                    seconds: patience.as_secs(),
                });
            }
        }
    }

    /// Takes back that a device is to go, so that a guest which wakes up later keeps it.
    fn keep_device(
        &self,
        guest: &Guest,
        key: (DeviceKind, u32),
        back: &str,
    ) -> Result<(), AgentError> {
        let Some(device) = guest.devices.get(&key) else {
            return Ok(());
        };
        let state = match device.phase {
            Phase::InitWait => state::INIT_WAIT,
            Phase::Connected => state::CONNECTED,
            Phase::Closed | Phase::Gone => state::CLOSED,
        };
        let ops = [
            StoreOp::Write(format!("{back}/online"), b"1".to_vec()),
            StoreOp::Write(format!("{back}/state"), state.to_string().into_bytes()),
        ];
        Ok(self.seams().store.commit("detach given up", &ops)?)
    }

    /// Gives a guest another name.
    ///
    /// # Errors
    /// The name is taken or unusable.
    pub fn rename(&self, domid: DomId, name: &str) -> Result<(), AgentError> {
        if name.is_empty() {
            return Err(AgentError::Invalid("an empty name".into()));
        }
        self.must_be_no_shell(domid)?;
        if let Some(holder) = self.domain_named(name)? {
            return Err(AgentError::NameInUse {
                name: name.to_owned(),
                domid: holder,
            });
        }
        let Some(info) = self.seams().xen.domain_info(domid)? else {
            return Err(AgentError::NoDomain(domid));
        };
        let ops = [
            StoreOp::Write(
                format!("{}/name", paths::domain(domid)),
                name.as_bytes().to_vec(),
            ),
            StoreOp::Write(
                format!("{}/name", paths::vm(info.handle)),
                name.as_bytes().to_vec(),
            ),
        ];
        self.seams().store.commit("rename", &ops)?;
        if let Some(shared) = self.by_domid(domid) {
            let mut guest = lock(&shared);
            name.clone_into(&mut guest.record.config.name);
            self.save(&guest)?;
            self.write_userdata(&guest)?;
            self.tell(wire::Event::Changed(guest.public()));
        }
        Ok(())
    }

    /// Changes how a guest is protected and watched, now and for its next starts.
    ///
    /// # Errors
    /// No such guest, or its record cannot be written.
    pub fn protect(
        &self,
        uuid: Uuid,
        protection: wire::Protection,
        watching: Option<&wire::Watching>,
    ) -> Result<(), AgentError> {
        let shared = self
            .by_uuid(uuid)
            .ok_or_else(|| AgentError::NoGuest(uuid.to_string()))?;
        let mut guest = lock(&shared);
        guest.set_protection(protection, watching)?;
        self.save(&guest)?;
        self.write_userdata(&guest)?;
        self.tell(wire::Event::Changed(guest.public()));
        Ok(())
    }

    /// Replaces drivers by new ones of the installed release: of one guest, or of all, one after the other.
    ///
    /// # Errors
    /// The first driver that could not be replaced.
    pub fn replace_drivers(&self, only: Option<DomId>) -> Result<u32, AgentError> {
        let mut replaced = 0;
        let all = self.every_guest();
        for shared in all {
            let mut guest = lock(&shared);
            let running = guest.record.stage.is_up() && guest.record.domid.is_some();
            if !running || only.is_some_and(|domid| guest.record.domid != Some(domid)) {
                continue;
            }
            if let Some(domid) = guest.record.domid {
                // A driver that cannot finish in order is simply killed: its successor recovers from the journals.
                let _ = order_driver(&mut guest, domid, OrderBody::Quiesce, Vec::new());
            }
            if let Some(mut old) = guest.driver.take() {
                old.kill();
            }
            guest.driver_deaths = 0;
            if let Err(error) = self.replace_driver(&mut guest) {
                // A guest without a driver is nobody's wish: the daemon goes on trying.
                let uuid = guest.record.key;
                (self.outlets.news)(News::Driver(DriverNews::Died { uuid, pid: 0 }));
                return Err(error);
            }
            replaced += 1;
        }
        if only.is_none() {
            self.renew_shells();
        }
        Ok(replaced)
    }
}

fn must_be_free(guest: &Guest, key: (DeviceKind, u32), name: &str) -> Result<(), AgentError> {
    if guest.devices.contains_key(&key) {
        return Err(AgentError::Device {
            device: name.to_owned(),
            what: "this guest has one of that number already".into(),
        });
    }
    Ok(())
}

/// Device number of a disk named by name or number.
///
/// # Errors
/// Neither.
pub fn disk_number(text: &str) -> Result<u32, AgentError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    vdev_number(text).ok_or_else(|| {
        AgentError::Invalid(format!("{text}: neither a virtual device nor its number"))
    })
}
