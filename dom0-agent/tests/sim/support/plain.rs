//! A driver that takes orders as the real one does, holds what it must hold (ports, mapped rings, the medium's lock), and moves no data.

use parapet_wire::driver::{
    ConnectConsole, ConnectDisk, ConnectNet, DeviceKind, DriverFault, Medium, OrderBody, Outcome,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use xen_abi::ids::{DomId, GrantRef, Port};
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::{Devices, Events};
use xen_sim::SimHost;

/// How long a disk's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// A ring that is held.
#[derive(Debug)]
struct Held {
    _pages: Vec<SharedRegion>,
    _ports: Vec<Box<dyn Events>>,
}

#[derive(Debug)]
struct Disk {
    file: File,
    locked: bool,
    medium: Medium,
    rings: Option<(ConnectDisk, Vec<Held>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Plain {
    process: SimHost,
    domid: DomId,
    disks: BTreeMap<u32, Disk>,
    nets: BTreeMap<u32, (ConnectNet, Vec<Held>)>,
    consoles: BTreeMap<u32, (ConnectConsole, Held)>,
}

fn fault(error: &Error) -> DriverFault {
    DriverFault {
        text: error.to_string(),
        retry: false,
    }
}

fn refuse<T>(text: &str) -> Result<T, DriverFault> {
    Err(DriverFault {
        text: text.to_owned(),
        retry: false,
    })
}

impl Plain {
    pub fn new(process: SimHost, domid: DomId) -> Self {
        Self {
            process,
            domid,
            disks: BTreeMap::new(),
            nets: BTreeMap::new(),
            consoles: BTreeMap::new(),
        }
    }

    pub fn obey(&mut self, body: OrderBody, fds: Vec<OwnedFd>) -> Result<Outcome, DriverFault> {
        let mut fds = fds.into_iter();
        match body {
            OrderBody::Hello => {
                let serving = self.disks.iter().filter(|(_, disk)| disk.rings.is_some());
                return Ok(Outcome::Hello {
                    domid: self.domid,
                    pid: 1,
                    disks: serving.map(|(devid, _)| *devid).collect(),
                    nets: self.nets.keys().copied().collect(),
                    consoles: self.consoles.keys().copied().collect(),
                });
            }
            OrderBody::OpenDisk(ref open) | OrderBody::PrepareDisk(ref open) => {
                let lock = matches!(body, OrderBody::OpenDisk(_));
                let Some(fd) = fds.next() else {
                    return refuse("an open without a descriptor");
                };
                if let Some(disk) = self.disks.get(&open.devid).filter(|disk| disk.locked) {
                    return Ok(Outcome::Medium(disk.medium));
                }
                return self.open(open.devid, File::from(fd), lock);
            }
            OrderBody::ConnectDisk(order) => return self.connect_disk(order, fds.next()),
            OrderBody::DisconnectDisk { devid } => {
                if let Some(disk) = self.disks.get_mut(&devid) {
                    disk.rings = None;
                }
            }
            OrderBody::CloseDisk { devid } => match self.disks.get(&devid) {
                Some(disk) if disk.rings.is_some() => return refuse("the disk is being served"),
                _ => drop(self.disks.remove(&devid)),
            },
            OrderBody::ConnectNet(order) => self.connect_net(order, fds.count())?,
            OrderBody::DisconnectNet { devid } => drop(self.nets.remove(&devid)),
            OrderBody::ConnectConsole(order) => self.connect_console(order, fds.count())?,
            OrderBody::Stats => return Ok(Outcome::Stats(Vec::new())),
            OrderBody::Quiesce => {
                self.disks.clear();
                self.nets.clear();
                self.consoles.clear();
            }
            OrderBody::TrackDisk(_)
            | OrderBody::UntrackDisk { .. }
            | OrderBody::ThawDisk { .. } => {}
            // It moves no data, so it changes nothing and is always quiet.
            OrderBody::TakeDirty { .. } => return Ok(Outcome::Dirty { extents: 0 }),
            OrderBody::FreezeDisk { .. } => return Ok(Outcome::Frozen { untaken: 0 }),
        }
        Ok(Outcome::Done)
    }

    /// Lets go of a device's rings, as the real driver does when a guest breaks a rule.
    pub fn stop(&mut self, kind: DeviceKind, devid: u32) {
        match kind {
            DeviceKind::Disk => {
                if let Some(disk) = self.disks.get_mut(&devid) {
                    disk.rings = None;
                }
            }
            DeviceKind::Net => drop(self.nets.remove(&devid)),
            DeviceKind::Console => drop(self.consoles.remove(&devid)),
        }
    }

    fn open(&mut self, devid: u32, file: File, lock: bool) -> Result<Outcome, DriverFault> {
        let prepared = self.disks.remove(&devid);
        let (file, locked) = match prepared {
            Some(Disk { file, locked, .. }) => (file, locked),
            None => (file, false),
        };
        // Another thread of this test program may be between fork and exec, and hold a copy of every descriptor for a moment.
        let deadline = Instant::now() + LOCK_PATIENCE;
        while lock && !locked && file.try_lock().is_err() {
            if Instant::now() > deadline {
                return Err(DriverFault {
                    text: "the disk is still locked".to_owned(),
                    retry: true,
                });
            }
            std::thread::yield_now();
        }
        let medium = Medium {
            sectors: file.metadata().unwrap().len() / 512,
            sector_size: 512,
            physical_sector_size: 512,
            discard_granularity: Some(4096),
        };
        let disk = Disk {
            file,
            locked: locked || lock,
            medium,
            rings: None,
        };
        self.disks.insert(devid, disk);
        Ok(Outcome::Medium(medium))
    }

    fn connect_disk(
        &mut self,
        order: ConnectDisk,
        journal: Option<OwnedFd>,
    ) -> Result<Outcome, DriverFault> {
        if journal.is_none() {
            return refuse("a disk without its journal");
        }
        let Some(disk) = self.disks.get(&order.devid).filter(|disk| disk.locked) else {
            return refuse("the disk is not open");
        };
        if let Some((same, _)) = &disk.rings {
            return if same.rings == order.rings {
                Ok(Outcome::Disk { redone: 0 })
            } else {
                refuse("the disk is served on other rings")
            };
        }
        let held = order
            .rings
            .iter()
            .map(|ring| self.hold(&[&ring.refs], &[ring.port]))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(disk) = self.disks.get_mut(&order.devid) {
            disk.rings = Some((order, held));
        }
        Ok(Outcome::Disk { redone: 0 })
    }

    fn connect_net(&mut self, order: ConnectNet, taps: usize) -> Result<(), DriverFault> {
        if taps != order.queues.len() {
            return refuse("not one tap queue per ring");
        }
        if let Some((same, _)) = self.nets.get(&order.devid) {
            return if same.queues == order.queues {
                Ok(())
            } else {
                refuse("the interface is served on other rings")
            };
        }
        let held = order
            .queues
            .iter()
            .map(|queue| {
                let mut ports = vec![queue.tx_port, queue.rx_port];
                ports.dedup();
                self.hold(&[&[queue.tx_ref], &[queue.rx_ref]], &ports)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.nets.insert(order.devid, (order, held));
        Ok(())
    }

    fn connect_console(&mut self, order: ConnectConsole, fds: usize) -> Result<(), DriverFault> {
        if fds != 1 + usize::from(order.log) {
            return refuse("a console without its terminal or log");
        }
        if self.consoles.contains_key(&order.index) {
            return Ok(());
        }
        let held = self.hold(&[&[order.gref]], &[order.port])?;
        self.consoles.insert(order.index, (order, held));
        Ok(())
    }

    /// Binds and maps; nothing is kept on an error.
    fn hold(&self, pages: &[&[GrantRef]], ports: &[Port]) -> Result<Held, DriverFault> {
        let bind = |port: &Port| {
            let events = self.process.open_events(Some(self.domid));
            let events = events.map_err(|error| fault(&error))?;
            match events.bind_interdomain(self.domid, *port) {
                Ok(_) => Ok(events),
                Err(error) => Err(DriverFault {
                    text: format!("event channel {port} of domain {}: {error}", self.domid),
                    retry: true,
                }),
            }
        };
        let map = |refs: &&[GrantRef]| self.process.open_grants()?.map(self.domid, refs, true);
        let ports: Result<Vec<_>, DriverFault> = ports.iter().map(bind).collect();
        let ports = ports?;
        let pages: Result<Vec<_>, Error> = pages.iter().map(map).collect();
        Ok(Held {
            _pages: pages.map_err(|error| fault(&error))?,
            _ports: ports,
        })
    }
}
