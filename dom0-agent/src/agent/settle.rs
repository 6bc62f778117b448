//! Brings a guest's devices to where they should be: reads what is true now, asks the xenbus machine, does what it says, until nothing is left to do.
//!
//! Level-triggered: it does not matter which watch fired or how often, and an agent that was restarted just settles every guest.

use super::error::AgentError;
use super::furnish::order_driver;
use super::guest::{DeviceBody, Guest, SharedGuest};
use super::patience::Patience;
use super::{Agent, handle, lock};
use crate::layout::device::Place;
use crate::layout::{Tree, device};
use crate::xenbus::keys::{self, Keys};
use crate::xenbus::machine::{self, Action, Observation, Phase};
use parapet_wire::agent as wire;
use parapet_wire::driver::{DeviceFault, DeviceKind, OrderBody};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{StoreOp, StoreReply, TxId};

/// Rounds one call makes for one device before it lets others have a turn; a device that needs more is asked again by its next watch event.
const MAX_ROUNDS: usize = 8;
/// Times a driver is replaced in a row before the guest's devices are left alone until the next event.
const MAX_DRIVER_DEATHS: u32 = 20;
/// A driver that lived this long, from its own start, counts as healthy again.
const DRIVER_HEALTHY: Duration = Duration::from_secs(60);
/// Deaths in a row after which a driver is still replaced at once.
const DEATHS_AT_ONCE: u32 = 3;
/// Pause before the next one; doubles from there.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(10);

impl Agent {
    /// Settles the devices of one guest.
    ///
    /// # Errors
    /// Xenstore does not answer. Faults of single devices are handled by closing these.
    pub fn settle(&self, shared: &SharedGuest) -> Result<(), AgentError> {
        self.settle_guest(&mut lock(shared))
    }

    pub(super) fn settle_guest(&self, guest: &mut Guest) -> Result<(), AgentError> {
        if !guest.record.stage.is_up() {
            return Ok(());
        }
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        let keys: Vec<(DeviceKind, u32)> = guest.devices.keys().copied().collect();
        // What one device meets is no reason to leave the others as they are.
        let mut patience = Patience::of_a_look();
        let mut settled = Ok(());
        for key in keys {
            let result = self.settle_device(guest, domid, key, &mut patience);
            settled = settled.and(result);
        }
        settled
    }

    fn settle_device(
        &self,
        guest: &mut Guest,
        domid: DomId,
        key: (DeviceKind, u32),
        patience: &mut Patience,
    ) -> Result<(), AgentError> {
        for _ in 0..MAX_ROUNDS {
            let Some(device) = guest.devices.get(&key) else {
                return Ok(());
            };
            let place = place(domid, key.1, &device.body);
            let now = self.observe(&place)?;
            let before = device.phase;
            let (phase, actions) = machine::step(before, device.body.dialect(), now);
            set_phase(guest, key, phase);
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                // Each may be repeated: what could not be finished begins again at the next look.
                self.perform(guest, domid, key, action, patience)
                    .inspect_err(|_| set_phase(guest, key, before))?;
            }
        }
        Ok(())
    }

    fn observe(&self, place: &Place<'_>) -> Result<Observation, AgentError> {
        let ops = [
            StoreOp::Read(format!("{}/state", place.front())),
            StoreOp::Read(format!("{}/online", place.back())),
            StoreOp::Read(format!("{}/frontend", place.back())),
        ];
        let mut replies = self.seams.store.call(TxId::NONE, &ops)?.into_iter();
        let mut next = || match replies.next() {
            Some(Ok(StoreReply::Value(value))) => Some(value),
            _ => None,
        };
        let front = next()
            .and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
            .unwrap_or(0);
        let online = next().is_some_and(|value| value == b"1");
        let present = next().is_some();
        Ok(Observation {
            front,
            online,
            present,
        })
    }

    fn perform(
        &self,
        guest: &mut Guest,
        domid: DomId,
        key: (DeviceKind, u32),
        action: Action,
        patience: &mut Patience,
    ) -> Result<(), AgentError> {
        match action {
            Action::Connect => {
                let connected = patience.outlast(|| self.connect(guest, domid, key, false));
                let (phase, actions) = match connected {
                    Ok(()) => machine::connected(),
                    Err(error) if error.passes() => return Err(error),
                    Err(error) => {
                        if guest.speak() {
                            tracing::warn!(%domid, device = ?key, %error, "device not connected");
                        }
                        self.publish_error(guest, domid, key, &error.to_string());
                        machine::refused()
                    }
                };
                set_phase(guest, key, phase);
                actions
                    .into_iter()
                    .try_for_each(|action| self.perform(guest, domid, key, action, patience))
            }
            Action::Disconnect => {
                let order = match key.0 {
                    DeviceKind::Disk => OrderBody::DisconnectDisk { devid: key.1 },
                    DeviceKind::Net | DeviceKind::Console => {
                        OrderBody::DisconnectNet { devid: key.1 }
                    }
                };
                if let Err(error) = order_driver(guest, domid, order, Vec::new())
                    && guest.speak()
                {
                    tracing::warn!(%domid, device = ?key, %error, "disconnect");
                }
                Ok(())
            }
            Action::Publish(state) => self.publish(guest, domid, key, state),
            Action::Remove => self.remove_device(guest, domid, key),
        }
    }

    /// Reads what the frontend published and lets the driver serve it.
    fn connect(
        &self,
        guest: &mut Guest,
        domid: DomId,
        key: (DeviceKind, u32),
        resume: bool,
    ) -> Result<(), AgentError> {
        let Some(device) = guest.devices.get(&key) else {
            return Ok(());
        };
        let front = place(domid, key.1, &device.body).front();
        let invalid = |error: keys::KeyError| AgentError::Invalid(error.to_string());
        let (order, fds) = match &device.body {
            DeviceBody::Disk { .. } => {
                let read = self.read_keys(&front, &keys::disk_paths())?;
                let mut order = keys::disk(key.1, &read).map_err(invalid)?;
                order.resume = resume;
                let journal = self.journal(guest.record.key, key.1)?;
                (OrderBody::ConnectDisk(order), vec![OwnedFd::from(journal)])
            }
            DeviceBody::Net { spec, queues, .. } => {
                let read = self.read_keys(&front, &keys::net_paths())?;
                let mac = spec.mac.map_or([0; 6], |mac| mac.0);
                let mut order = keys::net(key.1, mac, &read).map_err(invalid)?;
                order.resume = resume;
                let fds = queues
                    .iter()
                    .take(order.queues.len())
                    .map(OwnedFd::try_clone)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| AgentError::Driver {
                        domid,
                        what: error.to_string(),
                    })?;
                (OrderBody::ConnectNet(order), fds)
            }
        };
        order_driver(guest, domid, order, fds).map(drop)
    }

    /// Reads those of the named keys that are there. Most are not: only frontends of many queues and pages have them all, and a request
    /// that finds nothing costs xenstored, and a guest that waits for a driver's successor, as much as one that does.
    fn read_keys(&self, front: &str, names: &[String]) -> Result<Keys, AgentError> {
        let mut there = self
            .children(&[front.to_owned()])?
            .pop()
            .unwrap_or_default();
        let folders: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| Some(name.split_once('/')?.0))
            .filter(|folder| there.contains(*folder))
            .collect();
        let paths: Vec<String> = folders.iter().map(|it| format!("{front}/{it}")).collect();
        for (folder, children) in folders.iter().zip(self.children(&paths)?) {
            there.extend(children.iter().map(|child| format!("{folder}/{child}")));
        }
        let names: Vec<&String> = names.iter().filter(|name| there.contains(*name)).collect();
        let ops: Vec<StoreOp> = names
            .iter()
            .map(|name| StoreOp::Read(format!("{front}/{name}")))
            .collect();
        let mut found = Keys::default();
        for (name, reply) in names.into_iter().zip(self.answers(&ops)?) {
            match reply {
                Ok(StoreReply::Value(value)) => found.insert(name.clone(), &value),
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// The children of each node; none where the node is missing.
    fn children(&self, paths: &[String]) -> Result<Vec<BTreeSet<String>>, AgentError> {
        let ops: Vec<StoreOp> = paths.iter().cloned().map(StoreOp::List).collect();
        self.answers(&ops)?
            .into_iter()
            .map(|reply| match reply {
                Ok(StoreReply::Children(names)) => Ok(names.into_iter().collect()),
                Ok(_) => Ok(BTreeSet::new()),
                Err(error) if error.is_missing() => Ok(BTreeSet::new()),
                Err(error) => Err(error.into()),
            })
            .collect()
    }

    /// One round trip, or none for no questions.
    fn answers(&self, ops: &[StoreOp]) -> Result<Vec<Result<StoreReply, StoreError>>, AgentError> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.seams.store.call(TxId::NONE, ops)?)
    }

    /// The in-flight journal of a disk: a file in memory-backed storage that outlives driver and agent.
    fn journal(&self, uuid: Uuid, devid: u32) -> Result<File, AgentError> {
        let directory = self.journal_dir(uuid);
        let path = directory.join(format!("disk-{devid}"));
        std::fs::create_dir_all(&directory)
            .and_then(|()| {
                std::fs::OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .read(true)
                    .write(true)
                    .open(&path)
            })
            .map_err(|source| AgentError::File {
                what: "cannot open journal",
                path,
                source,
            })
    }

    /// Takes a device out of the guest: its nodes, its medium or tap, its place in the configuration. May be repeated after a failure.
    pub(super) fn remove_device(
        &self,
        guest: &mut Guest,
        domid: DomId,
        key: (DeviceKind, u32),
    ) -> Result<(), AgentError> {
        let Some(device) = guest.devices.get_mut(&key) else {
            return Ok(());
        };
        let mut tree = Tree::new(domid);
        device::removal(&mut tree, &place(domid, key.1, &device.body));
        match &mut device.body {
            DeviceBody::Disk { spec } => {
                let vdev = spec.vdev.clone();
                self.close_disk(guest, domid, key.1);
                let disks = &mut guest.record.config.disks;
                disks.retain(|other| other.vdev != vdev);
            }
            DeviceBody::Net { ifname, queues, .. } => {
                queues.clear();
                self.links.remove(ifname).map_err(|what| AgentError::Link {
                    ifname: ifname.clone(),
                    what,
                })?;
                let vifs = &mut guest.record.config.vifs;
                vifs.retain(|other| other.devid != Some(key.1));
            }
        }
        self.commit_removal(tree)?;
        self.save(guest)?;
        self.write_userdata(guest)?;
        guest.devices.remove(&key);
        Ok(())
    }

    /// Lets the driver forget a medium, if it has it.
    pub(super) fn close_disk(&self, guest: &mut Guest, domid: DomId, devid: u32) {
        let order = OrderBody::CloseDisk { devid };
        if let Err(error) = order_driver(guest, domid, order, Vec::new()) {
            tracing::warn!(%domid, %error, "close disk");
        }
        let journal = self
            .journal_dir(guest.record.key)
            .join(format!("disk-{devid}"));
        let _ = std::fs::remove_file(journal);
    }

    /// A driver stopped a device because the guest broke a rule: the device is closed, the guest lives on.
    ///
    /// # Errors
    /// Xenstore does not answer.
    pub fn device_fault(
        &self,
        shared: &SharedGuest,
        fault: &DeviceFault,
    ) -> Result<(), AgentError> {
        let mut guest = lock(shared);
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        if guest.speak() {
            tracing::error!(%domid, kind = ?fault.kind, devid = fault.devid, why = fault.text, "device stopped");
        }
        let key = (fault.kind, fault.devid);
        if !guest.devices.contains_key(&key) {
            return Ok(());
        }
        self.publish_error(&mut guest, domid, key, &fault.text);
        let (phase, actions) = machine::refused();
        set_phase(&mut guest, key, phase);
        actions.into_iter().try_for_each(|action| {
            self.perform(&mut guest, domid, key, action, &mut Patience::none())
        })
    }

    /// How long to wait before a driver is replaced: nothing, unless its predecessors died soon after their start too.
    #[must_use]
    pub fn driver_pause(&self, shared: &SharedGuest) -> Duration {
        pause(deaths(&lock(shared)))
    }

    /// A driver died: its successor goes on with the same rings, and the guest sees a pause.
    ///
    /// # Errors
    /// No successor could be started.
    pub fn driver_died(&self, shared: &SharedGuest, pid: u32) -> Result<(), AgentError> {
        let since = Instant::now();
        let mut guest = lock(shared);
        // None: an earlier try to replace it failed.
        let current = guest.driver.as_ref().map(|driver| driver.pid());
        if !guest.record.stage.is_up() || current.is_some_and(|current| current != pid) {
            return Ok(());
        }
        guest.driver_deaths = deaths(&guest) + u32::from(current.is_some());
        if guest.driver_deaths > MAX_DRIVER_DEATHS {
            tracing::error!(
                name = guest.record.config.name,
                "the driver dies again and again; left stopped until `parapet upgrade-drivers`"
            );
            return Ok(());
        }
        if let Some(mut dead) = guest.driver.take() {
            dead.kill();
        }
        self.replace_driver(&mut guest)?;
        self.settle_guest(&mut guest)?;
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::warn!(
            name = guest.record.config.name,
            pid,
            micros,
            "driver replaced"
        );
        self.tell(wire::Event::DriverReplaced {
            uuid: handle(guest.uuid()),
            micros,
        });
        Ok(())
    }

    /// Starts a driver on rings that another served.
    pub(super) fn replace_driver(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let Some(spec) = guest.driver_spec() else {
            return Ok(());
        };
        let domid = spec.domid;
        let driver = self
            .drivers
            .start(spec, self.news_sink())
            .map_err(|error| AgentError::Driver {
                domid,
                what: error.to_string(),
            })?;
        guest.employ(driver);
        let handed = self.equip_driver(guest, domid);
        if handed.is_err()
            && let Some(mut half) = guest.driver.take()
        {
            // Whoever tries again begins with a new one.
            half.kill();
        }
        handed
    }

    fn equip_driver(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        if guest.console.is_none() {
            self.new_console(guest, domid)?;
        }
        if !self.reopen_links(guest, &[]) {
            // Taken over again by the next [`Agent::reap`], when the tap may be had.
            guest.started = None;
        }
        self.hand_over(guest, domid, &[])
    }

    /// Tells a driver everything it should serve; `served` it serves already.
    pub(super) fn hand_over(
        &self,
        guest: &mut Guest,
        domid: DomId,
        served: &[(DeviceKind, u32)],
    ) -> Result<(), AgentError> {
        // Disks come first in this order, and a guest waits for nothing as much as for them. The console comes last.
        let keys: Vec<(DeviceKind, u32)> = guest.devices.keys().copied().collect();
        let mut patience = Patience::of_a_successor();
        let mut lacking = Vec::new();
        for key in keys.into_iter().filter(|key| !served.contains(key)) {
            let Some(device) = guest.devices.get(&key) else {
                continue;
            };
            let connected = device.phase == Phase::Connected && !device.body.lacks_tap();
            if let DeviceBody::Disk { spec } = &device.body {
                let spec = spec.clone();
                match self.open_disk(guest, domid, key.1, &spec) {
                    // The others do not wait for it. What its guest has asked of it waits in the ring.
                    Err(error @ AgentError::Medium { .. }) => {
                        lacking.push(error.to_string());
                        continue;
                    }
                    opened => opened?,
                };
                self.track_again(guest, domid, key.1)?;
            }
            if !connected {
                continue;
            }
            if let Err(error) = patience.outlast(|| self.connect(guest, domid, key, true)) {
                if error.passes() {
                    return Err(error);
                }
                if guest.speak() {
                    tracing::error!(%domid, device = ?key, %error, "a device cannot be taken over; closed");
                }
                self.publish_error(guest, domid, key, &error.to_string());
                let (phase, actions) = machine::refused();
                set_phase(guest, key, phase);
                for action in actions {
                    self.perform(guest, domid, key, action, &mut patience)?;
                }
            }
        }
        self.connect_console(guest)?;
        // Told once. It is tried again by [`Agent::complete`].
        if !lacking.is_empty() && !guest.lacks_medium {
            let name = &guest.record.config.name;
            tracing::error!(name, ?lacking, "served without this; tried again");
        }
        guest.lacks_medium = !lacking.is_empty();
        Ok(())
    }
}

/// Deaths that count against the present driver: those of its predecessors, unless it lived long enough itself.
fn deaths(guest: &Guest) -> u32 {
    match guest.driver_since {
        Some(since) if since.elapsed() > DRIVER_HEALTHY => 0,
        _ => guest.driver_deaths,
    }
}

/// The pause after so many deaths in a row.
fn pause(deaths: u32) -> Duration {
    match deaths.checked_sub(DEATHS_AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => PAUSE_MOST.min(PAUSE_FIRST * 2_u32.saturating_pow(more.min(16))),
    }
}

fn set_phase(guest: &mut Guest, key: (DeviceKind, u32), phase: Phase) {
    if let Some(device) = guest.devices.get_mut(&key) {
        device.phase = phase;
    }
}

pub(super) fn place(domid: DomId, devid: u32, body: &DeviceBody) -> Place<'static> {
    Place {
        domid,
        devid,
        front_kind: body.front_kind(),
        back_kind: body.back_kind(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_dies_again_and_again_is_replaced_ever_later() {
        assert_eq!((0..3).map(pause).sum::<Duration>(), Duration::ZERO);
        assert_eq!(pause(3), PAUSE_FIRST);
        assert_eq!(pause(5), PAUSE_FIRST * 4);
        assert_eq!(pause(MAX_DRIVER_DEATHS), PAUSE_MOST);
        assert_eq!(pause(u32::MAX), PAUSE_MOST);
    }
}
