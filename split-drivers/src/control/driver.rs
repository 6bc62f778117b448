//! Orders carried out. [`Driver::obey`] is idempotent: an agent that was restarted says everything again and gets the same answers.

use super::consoles::Console;
use super::disks::Disk;
use super::nets::Net;
use super::pool::Pool;
use super::threads::{FaultLine, fault};
use crate::console::worker::Terminal;
use crate::limits::{MAX_CONSOLES, MAX_DISKS, MAX_NETS};
use parapet_wire::driver::{
    ConnectConsole, ConnectDisk, ConnectNet, DeviceFault, DeviceKind, DriverFault, OpenDisk, Order,
    OrderBody, Outcome,
};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use xen_host::error::Error;
use xen_host::eventfd::EventFd;

/// One guest's devices.
#[derive(Debug)]
pub struct Driver {
    pool: Pool,
    disks: BTreeMap<u32, Disk>,
    nets: BTreeMap<u32, Net>,
    consoles: BTreeMap<u32, Console>,
    line: FaultLine,
    faults: Receiver<DeviceFault>,
    bell: Arc<EventFd>,
    finished: bool,
}

/// The descriptors of an order, taken one by one.
struct Fds(std::vec::IntoIter<OwnedFd>);

impl Fds {
    fn next(&mut self, what: &str) -> Result<OwnedFd, DriverFault> {
        self.0
            .next()
            .ok_or_else(|| fault(format!("the order came without its {what}"), false))
    }
}

impl Driver {
    /// A driver without devices.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new(pool: Pool) -> Result<Self, Error> {
        let (sender, faults) = channel();
        let bell = Arc::new(EventFd::new()?);
        let line = FaultLine::new(sender, Arc::clone(&bell));
        Ok(Self {
            pool,
            disks: BTreeMap::new(),
            nets: BTreeMap::new(),
            consoles: BTreeMap::new(),
            line,
            faults,
            bell,
            finished: false,
        })
    }

    /// Signalled when [`Driver::take_faults`] has something.
    #[must_use]
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Whether [`OrderBody::Quiesce`] was carried out.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Devices that stopped by themselves since the last call. What was left of them is stopped too.
    pub fn take_faults(&mut self) -> Vec<DeviceFault> {
        let _ = self.bell.take();
        let faults: Vec<DeviceFault> = self.faults.try_iter().collect();
        for fault in &faults {
            match fault.kind {
                DeviceKind::Disk => {
                    if let Some(disk) = self.disks.get_mut(&fault.devid) {
                        disk.disconnect(&mut self.pool);
                    }
                }
                DeviceKind::Console => {
                    if let Some(console) = self.consoles.remove(&fault.devid) {
                        console.disconnect(&mut self.pool);
                    }
                }
                DeviceKind::Net => self.disconnect_net(fault.devid),
            }
        }
        faults
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// What the agent is to be told.
    pub fn obey(&mut self, order: Order, fds: Vec<OwnedFd>) -> Result<Outcome, DriverFault> {
        let mut fds = Fds(fds.into_iter());
        match order.body {
            OrderBody::Hello => Ok(self.hello()),
            OrderBody::OpenDisk(open) => self.open_disk(&open, &mut fds),
            OrderBody::PrepareDisk(open) => self.prepare_disk(&open, &mut fds),
            OrderBody::ConnectDisk(connect) => self.connect_disk(&connect, &mut fds),
            OrderBody::DisconnectDisk { devid } => {
                if let Some(disk) = self.disks.get_mut(&devid) {
                    disk.disconnect(&mut self.pool);
                }
                Ok(Outcome::Done)
            }
            OrderBody::CloseDisk { devid } => match self.disks.get(&devid) {
                Some(disk) if disk.is_serving() => {
                    Err(fault(format!("disk {devid} is being served"), false))
                }
                _ => {
                    self.disks.remove(&devid);
                    Ok(Outcome::Done)
                }
            },
            OrderBody::ConnectNet(connect) => self.connect_net(&connect, fds),
            OrderBody::DisconnectNet { devid } => {
                self.disconnect_net(devid);
                Ok(Outcome::Done)
            }
            OrderBody::ConnectConsole(connect) => self.connect_console(&connect, &mut fds),
            OrderBody::Stats => Ok(self.stats()),
            OrderBody::Quiesce => {
                self.quiesce();
                Ok(Outcome::Done)
            }
            OrderBody::TrackDisk(track) => {
                let map = fds.next("dirty map")?;
                self.disk(track.devid)?.track(&track, map)?;
                Ok(Outcome::Done)
            }
            OrderBody::TakeDirty { devid } => {
                let extents = self.disk(devid)?.take_dirty()?;
                Ok(Outcome::Dirty { extents })
            }
            OrderBody::UntrackDisk { devid } => {
                self.disk(devid)?.untrack();
                Ok(Outcome::Done)
            }
            OrderBody::FreezeDisk { devid, within_ms } => {
                let within = Duration::from_millis(within_ms);
                let untaken = self.disk(devid)?.freeze(within)?;
                Ok(Outcome::Frozen { untaken })
            }
            OrderBody::ThawDisk { devid } => {
                self.disk(devid)?.thaw();
                Ok(Outcome::Done)
            }
        }
    }

    /// The connection of an agent has ended: what only it needed ends too.
    pub fn agent_left(&mut self) {
        self.disks.values_mut().for_each(Disk::forget_copier);
    }

    fn disk(&mut self, devid: u32) -> Result<&mut Disk, DriverFault> {
        let not_open = || fault(format!("disk {devid} is not open"), false);
        self.disks.get_mut(&devid).ok_or_else(not_open)
    }

    fn hello(&self) -> Outcome {
        let serving = self.disks.iter().filter(|(_, disk)| disk.is_serving());
        Outcome::Hello {
            domid: self.pool.domid(),
            pid: std::process::id(),
            disks: serving.map(|(devid, _)| *devid).collect(),
            nets: self.nets.keys().copied().collect(),
            consoles: self.consoles.keys().copied().collect(),
        }
    }

    fn open_disk(&mut self, order: &OpenDisk, fds: &mut Fds) -> Result<Outcome, DriverFault> {
        let fd = fds.next("disk")?;
        match self.known_disk(order)? {
            Some(disk) => {
                disk.claim(order)?;
                Ok(Outcome::Medium(disk.medium()))
            }
            None => self.add_disk(order, || Disk::open(order, fd)),
        }
    }

    fn prepare_disk(&mut self, order: &OpenDisk, fds: &mut Fds) -> Result<Outcome, DriverFault> {
        let fd = fds.next("disk")?;
        match self.known_disk(order)? {
            Some(disk) => Ok(Outcome::Medium(disk.medium())),
            None => self.add_disk(order, || Disk::prepare(order, fd)),
        }
    }

    /// The disk of this number, if there is one; it must have been opened as this order has it.
    fn known_disk(&mut self, order: &OpenDisk) -> Result<Option<&mut Disk>, DriverFault> {
        match self.disks.get_mut(&order.devid) {
            None => Ok(None),
            Some(disk) if disk.is_opened_by(order) => Ok(Some(disk)),
            Some(_) => {
                let text = format!(
                    "disk {} is open in another way; close it first",
                    order.devid
                );
                Err(fault(text, false))
            }
        }
    }

    fn add_disk(
        &mut self,
        order: &OpenDisk,
        open: impl FnOnce() -> Result<Disk, DriverFault>,
    ) -> Result<Outcome, DriverFault> {
        if self.disks.len() >= MAX_DISKS {
            return Err(fault(
                format!("a driver serves at most {MAX_DISKS} disks"),
                false,
            ));
        }
        let disk = open()?;
        let medium = disk.medium();
        self.disks.insert(order.devid, disk);
        Ok(Outcome::Medium(medium))
    }

    fn connect_disk(&mut self, order: &ConnectDisk, fds: &mut Fds) -> Result<Outcome, DriverFault> {
        let journal = fds.next("journal")?;
        let not_open = || fault(format!("disk {} is not open", order.devid), false);
        let disk = self.disks.get_mut(&order.devid);
        let disk = disk.filter(|disk| disk.is_claimed()).ok_or_else(not_open)?;
        let redone = disk.connect(order, journal, &mut self.pool, &self.line)?;
        Ok(Outcome::Disk { redone })
    }

    fn connect_net(&mut self, order: &ConnectNet, taps: Fds) -> Result<Outcome, DriverFault> {
        if let Some(net) = self.nets.get(&order.devid) {
            let why = format!(
                "interface {}: is served on other rings; disconnect it first",
                order.devid
            );
            return if net.serves(order) {
                Ok(Outcome::Done)
            } else {
                Err(fault(why, false))
            };
        }
        if self.nets.len() >= MAX_NETS {
            return Err(fault(
                format!("a driver serves at most {MAX_NETS} interfaces"),
                false,
            ));
        }
        let net = Net::connect(order, taps.0.collect(), &mut self.pool, &self.line)?;
        self.nets.insert(order.devid, net);
        Ok(Outcome::Done)
    }

    fn disconnect_net(&mut self, devid: u32) {
        if let Some(net) = self.nets.remove(&devid) {
            net.disconnect(&mut self.pool);
        }
    }

    fn connect_console(
        &mut self,
        order: &ConnectConsole,
        fds: &mut Fds,
    ) -> Result<Outcome, DriverFault> {
        let line = fds.next("terminal")?;
        let log = if order.log {
            Some(fds.next("log")?)
        } else {
            None
        };
        let terminal = Terminal { line, log };
        if let Some(console) = self.consoles.get_mut(&order.index)
            && console.serves(order)
        {
            console.reconnect(terminal)?;
            return Ok(Outcome::Done);
        }
        if let Some(old) = self.consoles.remove(&order.index) {
            old.disconnect(&mut self.pool);
        }
        if self.consoles.len() >= MAX_CONSOLES {
            return Err(fault(
                format!("a driver serves at most {MAX_CONSOLES} consoles"),
                false,
            ));
        }
        let console = Console::connect(order, terminal, &mut self.pool, &self.line)?;
        self.consoles.insert(order.index, console);
        Ok(Outcome::Done)
    }

    fn stats(&self) -> Outcome {
        let disks = self.disks.values().filter_map(Disk::stats);
        let consoles = self.consoles.values().map(Console::stats);
        let nets = self.nets.values().map(Net::stats);
        Outcome::Stats(disks.chain(nets).chain(consoles).collect())
    }

    /// Leaves everything as a successor wants to find it.
    fn quiesce(&mut self) {
        for disk in std::mem::take(&mut self.disks).into_values() {
            disk.let_go(&mut self.pool);
        }
        for net in std::mem::take(&mut self.nets).into_values() {
            net.disconnect(&mut self.pool);
        }
        for console in std::mem::take(&mut self.consoles).into_values() {
            console.disconnect(&mut self.pool);
        }
        self.finished = true;
    }
}
