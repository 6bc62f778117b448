//! What an earlier agent left: every record is finished, undone or adopted.
//!
//! | record says | domain | what happens |
//! |---|---|---|
//! | building | any | undone; a guest that had run before waits for its restart |
//! | dying | any | removed for good |
//! | waiting | none | waits for its restart |
//! | waiting, its domain is to be kept | there, stopped | put aside; the guest waits for its restart |
//! | running | there | adopted: devices as xenstore shows them, the living driver or a successor |
//! | saving, leaving | there | runs on, then adopted |
//! | handed over | there, suspended | waits for somebody who knows where the guest runs |
//! | handed over | there, not suspended | it was taken back: adopted |
//! | running, and accepted from another host | there | its arrival is finished |
//! | running, saving, leaving, handed over | gone | somebody destroyed it: forgotten |
//! | shell | untouched, and still wanted | kept |
//! | shell | anything else | removed |

use super::drivers::DriverSpec;
use super::error::AgentError;
use super::guest::{Console, Device, DeviceBody, Guest};
use super::links::LinkSpec;
use super::record::{Record, Stage};
use super::{Agent, News, lock};
use crate::config::vdev::vdev_number;
use crate::layout::paths;
use crate::xenbus::machine::{Phase, state};
use parapet_wire::driver::{DeviceKind, OrderBody, Outcome, offer};
use std::sync::MutexGuard;
use std::time::Instant;
use xen_abi::ids::DomId;
use xen_host::pty::Pty;
use xen_host::xenstore::store::{StoreExt, TxId};

impl Agent {
    /// Fills the table from the records. Called once, before anything else is served.
    ///
    /// # Errors
    /// The records cannot be read, or Xen does not answer. Faults of single guests are logged; their records stay for the next start.
    pub fn recover(&self) -> Result<(), AgentError> {
        let records = self.records.load_all().map_err(|source| AgentError::File {
            what: "cannot read guest records in",
            path: self.dirs.state.clone(),
            source,
        })?;
        let domains = self.seams.xen.domain_list(DomId(1))?;
        let (shells, guests): (Vec<Record>, Vec<Record>) = records
            .into_iter()
            .partition(|record| record.shell.is_some());
        // First: a guest that was taking a shell's domain undoes what it had of it, and a driver holds that domain's pages.
        self.recover_shells(shells, &domains);
        for record in guests {
            let name = record.config.name.clone();
            let alive = domains.iter().any(|info| {
                Some(info.domid) == record.domid && record.is_called(info.handle) && !info.dying
            });
            if let Err(error) = self.recover_one(record, alive) {
                tracing::error!(name, %error, "guest not recovered");
            }
        }
        Ok(())
    }

    fn recover_one(&self, record: Record, alive: bool) -> Result<(), AgentError> {
        let stage = record.stage;
        let name = record.config.name.clone();
        let restarting = stage == Stage::Building && record.starts > 1;
        let shared = self.enter(record);
        let mut guest = lock(&shared);
        match (stage, alive) {
            (Stage::Running, true) => {
                tracing::info!(name, "guest adopted");
                self.finish_arrival(&mut guest)?;
                self.adopt(guest)
            }
            (Stage::Saving | Stage::Leaving, true) => {
                tracing::warn!(name, "guest was being saved or moved; it runs on");
                self.end_log(&guest);
                if let Err(error) = self.go_on(&mut guest) {
                    tracing::error!(name, %error, "it does not run on yet");
                }
                self.adopt(guest)
            }
            (Stage::HandedOver, true) => self.recover_handed_over(guest),
            (Stage::Waiting | Stage::Building, _) if stage == Stage::Waiting || restarting => {
                self.reach_devices(&mut guest);
                self.make_way(&mut guest)
            }
            (
                Stage::Waiting
                | Stage::Building
                | Stage::Dying
                | Stage::Running
                | Stage::Saving
                | Stage::Leaving
                | Stage::HandedOver
                | Stage::Shell,
                _,
            ) => {
                tracing::warn!(name, ?stage, "what is left of a guest is removed");
                self.reach_devices(&mut guest);
                self.give_up(guest)
            }
        }
    }

    /// Finds the driver and names the devices of a guest that is to be removed, so that teardown reaches them.
    fn reach_devices(&self, guest: &mut Guest) {
        let Some(domid) = guest.record.domid else {
            return;
        };
        let spec = DriverSpec {
            uuid: guest.record.key,
            domid,
            name: guest.record.config.name.clone(),
        };
        guest.driver = self.drivers.attach(spec, self.news_sink()).ok().flatten();
        for (position, vif) in guest.record.config.vifs.clone().into_iter().enumerate() {
            let devid = vif
                .devid
                .unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
            let ifname = vif
                .ifname
                .clone()
                .unwrap_or_else(|| format!("vif{domid}.{devid}"));
            let body = DeviceBody::Net {
                spec: vif,
                ifname,
                queues: Vec::new(),
            };
            guest.devices.insert(
                (DeviceKind::Net, devid),
                Device {
                    phase: Phase::Closed,
                    body,
                },
            );
        }
    }

    /// Takes over a guest that runs. May be repeated after a failure.
    pub(super) fn adopt(&self, mut guest: MutexGuard<'_, Guest>) -> Result<(), AgentError> {
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        self.adopt_name(&mut guest, domid)?;
        self.adopt_devices(&mut guest, domid)?;
        let spec = DriverSpec {
            uuid: guest.record.key,
            domid,
            name: guest.record.config.name.clone(),
        };
        let living = self
            .drivers
            .attach(spec, self.news_sink())
            .unwrap_or_else(|error| {
                tracing::warn!(%domid, %error, "a driver is there but does not answer");
                None
            });
        guest.started = Some(Instant::now());
        let taken_over = match living {
            Some(driver) => {
                guest.employ(driver);
                self.adopt_driver(&mut guest, domid)
            }
            None => self.replace_driver(&mut guest),
        };
        taken_over.inspect_err(|_| guest.started = None)?;
        let uuid = guest.record.key;
        (self.outlets.news)(News::Started { uuid, domid });
        self.settle_guest(&mut guest)
    }

    /// A guest may have been renamed since its record was written; what everybody sees is right.
    fn adopt_name(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        let path = format!("{}/name", paths::domain(domid));
        match self.seams.store.read_text(TxId::NONE, &path)? {
            Some(name) if name != guest.record.config.name => {
                guest.record.config.name = name;
                self.save(guest)
            }
            _ => Ok(()),
        }
    }

    fn adopt_devices(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        for spec in guest.record.config.disks.clone() {
            let Some(devid) = vdev_number(&spec.vdev) else {
                continue;
            };
            let body = DeviceBody::Disk { spec };
            let phase = self.phase_of(domid, devid, &body)?;
            guest
                .devices
                .insert((DeviceKind::Disk, devid), Device { phase, body });
        }
        for (position, spec) in guest.record.config.vifs.clone().into_iter().enumerate() {
            let devid = spec
                .devid
                .unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
            let ifname = spec
                .ifname
                .clone()
                .unwrap_or_else(|| format!("vif{domid}.{devid}"));
            let body = DeviceBody::Net {
                spec,
                ifname,
                queues: Vec::new(),
            };
            let phase = self.phase_of(domid, devid, &body)?;
            guest
                .devices
                .insert((DeviceKind::Net, devid), Device { phase, body });
        }
        Ok(())
    }

    /// The phase that the backend's node shows; it was written by us.
    fn phase_of(&self, domid: DomId, devid: u32, body: &DeviceBody) -> Result<Phase, AgentError> {
        let path = format!("{}/state", paths::backend(body.back_kind(), domid, devid));
        let number = self
            .seams
            .store
            .read_text(TxId::NONE, &path)?
            .and_then(|text| text.parse::<u32>().ok());
        Ok(match number {
            Some(state::CONNECTED | state::CLOSING) => Phase::Connected,
            Some(state::CLOSED) => Phase::Closed,
            _ => Phase::InitWait,
        })
    }

    /// Gives a driver what its guest lacked when it was employed, as far as that is there by now.
    pub(super) fn complete(&self, guest: &mut Guest) -> Result<(), AgentError> {
        match guest.record.domid {
            // A driver that has gone is replaced by whoever heard of it.
            Some(domid) if guest.driver.is_some() => self.adopt_driver(guest, domid),
            _ => Ok(()),
        }
    }

    /// A driver that went on serving while no agent was there: it keeps what it serves and is told the rest.
    fn adopt_driver(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        let answer = super::furnish::order_driver(guest, domid, OrderBody::Hello, Vec::new())?;
        let Outcome::Hello {
            disks,
            nets,
            consoles,
            ..
        } = answer
        else {
            return Err(AgentError::Driver {
                domid,
                what: format!("answered hello with {answer:?}"),
            });
        };
        let served: Vec<(DeviceKind, u32)> = disks
            .into_iter()
            .map(|devid| (DeviceKind::Disk, devid))
            .chain(nets.into_iter().map(|devid| (DeviceKind::Net, devid)))
            .collect();
        if consoles.is_empty() {
            self.new_console(guest, domid)?;
        }
        for key in &served {
            // The earlier agent died between connecting it and saying so.
            if let Some(device) = guest.devices.get_mut(key)
                && device.phase == Phase::InitWait
            {
                device.phase = Phase::Connected;
                self.publish(guest, domid, *key, state::CONNECTED)?;
            }
        }
        if !self.reopen_links(guest, &served) {
            guest.started = None;
        }
        self.hand_over(guest, domid, &served)
    }

    /// A pty in place of the one that died with the earlier agent and its driver.
    pub(super) fn new_console(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        let (master, slave, tty) = Pty::open()?.into_parts();
        let tty = tty.display().to_string();
        let path = format!("{}/tty", paths::frontend("console", domid, 0));
        self.seams.store.write_text(TxId::NONE, &path, &tty)?;
        guest.console = Some(Console { master, slave, tty });
        Ok(())
    }

    /// Opens taps whose descriptors went with an earlier agent. Only while no driver serves them: an extra queue would swallow packets. False when one could
    /// not be opened; its interface is left as it is, without a word to the guest.
    #[must_use]
    pub(super) fn reopen_links(&self, guest: &mut Guest, served: &[(DeviceKind, u32)]) -> bool {
        let mut all = true;
        let most = guest.record.config.cpu.max.clamp(1, offer::NET_MAX_QUEUES);
        let unserved = |(key, _): &(&(DeviceKind, u32), &mut Device)| !served.contains(key);
        for (_, device) in guest.devices.iter_mut().filter(unserved) {
            let DeviceBody::Net {
                spec,
                ifname,
                queues,
            } = &mut device.body
            else {
                continue;
            };
            if !queues.is_empty() {
                continue;
            }
            let wanted = LinkSpec {
                ifname: ifname.clone(),
                bridge: spec.bridge.clone(),
                mtu: spec.mtu,
                queues: most,
            };
            match self.links.make(&wanted) {
                Ok(link) => *queues = link.queues,
                Err(error) => {
                    tracing::error!(ifname, error, "tap not reopened; tried again");
                    all = false;
                }
            }
        }
        all
    }
}
