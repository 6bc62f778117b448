//! Everything around a built domain: its driver, the media and taps the driver serves, the console, and the tree in xenstore that says so.
//!
//! Used by `create.rs` for a whole guest and by `hotplug.rs` for one device more.

use super::drivers::{DriverSpec, OrderError};
use super::error::AgentError;
use super::guest::{Console, Device, DeviceBody, Guest};
use super::links::LinkSpec;
use super::request::kind;
use super::{Agent, DISK_LOCK_TIMEOUT, handle};
use crate::build::Built;
use crate::config::disk::DiskSpec;
use crate::config::vdev::vdev_number;
use crate::config::vif::VifSpec;
use crate::config::xlconf::XlConf;
use crate::device::{medium, userdata};
use crate::layout::{Tree, device, domain};
use crate::xenbus::machine::Phase;
use parapet_wire::driver::{
    ConnectConsole, DeviceKind, DriverFault, Medium, OpenDisk, OrderBody, Outcome, offer,
};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use xen_abi::grant_table::RESERVED_CONSOLE;
use xen_abi::ids::DomId;
use xen_host::pty::Pty;
use xen_host::xenstore::store::StoreExt;

impl Agent {
    /// Driver, devices, xenstore, console: everything around a built domain.
    pub(super) fn furnish(&self, guest: &mut Guest, built: &Built) -> Result<(), AgentError> {
        self.surround(guest, built)?;
        self.connect_console(guest)?;
        self.write_userdata(guest)
    }

    /// What a guest lacks that has taken a shell: names and devices.
    pub(super) fn furnish_shell(&self, guest: &mut Guest, domid: DomId) -> Result<(), AgentError> {
        let mut tree = Tree::new(domid);
        domain::renamed(&mut tree, &vm_facts(guest));
        self.furnish_disks(guest, &mut tree)?;
        self.furnish_nets(guest, &mut tree)?;
        let ops = tree.into_ops();
        self.seams.store.commit("a guest from a shell", &ops)?;
        self.write_userdata(guest)
    }

    /// All of [`Agent::furnish`] that can be done before it is known whose console it is.
    pub(super) fn surround(&self, guest: &mut Guest, built: &Built) -> Result<(), AgentError> {
        let mut tree = self.prepare(guest, built.domid)?;
        self.furnish_disks(guest, &mut tree)?;
        name_rings(&mut tree, built);
        self.seams.store.commit("a new guest", &tree.into_ops())?;
        self.introduce(built)
    }

    /// What needs neither the guest's memory nor its disks: driver, console, taps. What xenstore is to say of them is for the caller to write.
    pub(super) fn prepare(&self, guest: &mut Guest, domid: DomId) -> Result<Tree, AgentError> {
        let spec = DriverSpec {
            uuid: guest.record.key,
            domid,
            name: guest.record.config.name.clone(),
        };
        let started = self.drivers.start(spec, self.news_sink());
        guest.employ(started.map_err(|error| driver(domid, &error))?);
        let pty = Pty::open()?;
        let (master, slave, tty) = pty.into_parts();
        guest.console = Some(Console {
            master,
            slave,
            tty: tty.display().to_string(),
        });
        let mut tree = Tree::new(domid);
        describe_domain(&mut tree, guest);
        self.furnish_nets(guest, &mut tree)?;
        if let Some(console) = &guest.console {
            device::console(&mut tree, domid, &console.tty);
        }
        Ok(tree)
    }

    /// Lets xenstored talk to a guest whose memory is there.
    pub(super) fn introduce(&self, built: &Built) -> Result<(), AgentError> {
        self.seams
            .store
            .introduce(built.domid, built.store.frame, built.store.port)?;
        Ok(())
    }

    fn furnish_disks(&self, guest: &mut Guest, tree: &mut Tree) -> Result<(), AgentError> {
        for spec in guest.record.config.disks.clone() {
            self.furnish_disk(guest, tree.guest(), &spec, tree)?;
        }
        Ok(())
    }

    fn furnish_nets(&self, guest: &mut Guest, tree: &mut Tree) -> Result<(), AgentError> {
        for (position, spec) in guest.record.config.vifs.clone().iter().enumerate() {
            let devid = spec
                .devid
                .unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
            self.furnish_net(guest, tree.guest(), devid, spec, tree)?;
        }
        Ok(())
    }

    /// Opens a disk in the driver and describes it.
    pub(super) fn furnish_disk(
        &self,
        guest: &mut Guest,
        domid: DomId,
        spec: &DiskSpec,
        tree: &mut Tree,
    ) -> Result<u32, AgentError> {
        let devid = free_disk(guest, spec)?;
        let medium = self.open_disk(guest, domid, devid, spec)?;
        describe_disk(tree, devid, spec, medium);
        guest
            .devices
            .insert((DeviceKind::Disk, devid), new_disk(spec));
        Ok(devid)
    }

    /// As [`Agent::furnish_disk`], while somebody else may still use it: [`Agent::claim_disks`] makes it the guest's own.
    pub(super) fn expect_disk(
        &self,
        guest: &mut Guest,
        domid: DomId,
        spec: &DiskSpec,
        tree: &mut Tree,
    ) -> Result<Medium, AgentError> {
        let devid = free_disk(guest, spec)?;
        let medium = self.have_opened(guest, domid, devid, spec, OrderBody::PrepareDisk)?;
        describe_disk(tree, devid, spec, medium);
        guest
            .devices
            .insert((DeviceKind::Disk, devid), new_disk(spec));
        Ok(medium)
    }

    /// As [`Agent::expect_disk`], while there is no medium yet.
    pub(super) fn await_disk(guest: &mut Guest, spec: &DiskSpec) -> Result<(), AgentError> {
        let devid = free_disk(guest, spec)?;
        guest
            .devices
            .insert((DeviceKind::Disk, devid), new_disk(spec));
        Ok(())
    }

    /// Takes the disks from whoever had them. One that is not what was `expected`, or of which nothing was known, is described in `tree`.
    pub(super) fn claim_disks(
        &self,
        guest: &mut Guest,
        domid: DomId,
        expected: &[Option<Medium>],
        tree: &mut Tree,
    ) -> Result<(), AgentError> {
        for (spec, expected) in guest.record.config.disks.clone().iter().zip(expected) {
            let devid = number_of(spec)?;
            let medium = self.open_disk(guest, domid, devid, spec)?;
            if Some(medium) != *expected {
                describe_disk(tree, devid, spec, medium);
            }
        }
        Ok(())
    }

    /// Lets the driver open a medium. Only the driver keeps the description, so its lock is the fence against a dead driver's I/O.
    pub(super) fn open_disk(
        &self,
        guest: &mut Guest,
        domid: DomId,
        devid: u32,
        spec: &DiskSpec,
    ) -> Result<Medium, AgentError> {
        self.have_opened(guest, domid, devid, spec, OrderBody::OpenDisk)
    }

    fn have_opened(
        &self,
        guest: &mut Guest,
        domid: DomId,
        devid: u32,
        spec: &DiskSpec,
        order: fn(OpenDisk) -> OrderBody,
    ) -> Result<Medium, AgentError> {
        let opened = medium::open(spec)?;
        let order = order(OpenDisk {
            devid,
            read_only: !spec.writable,
            discard: spec.discard.unwrap_or(true) && spec.writable,
            buffered: opened.buffered,
            lock_timeout_ms: u64::try_from(DISK_LOCK_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        });
        match order_driver(guest, domid, order, vec![OwnedFd::from(opened.file)])? {
            Outcome::Medium(medium) => Ok(medium),
            other => Err(driver(
                domid,
                &OrderError::Lost(format!("answered an open with {other:?}")),
            )),
        }
    }

    /// Makes the tap of an interface and describes it.
    pub(super) fn furnish_net(
        &self,
        guest: &mut Guest,
        domid: DomId,
        devid: u32,
        spec: &VifSpec,
        tree: &mut Tree,
    ) -> Result<(), AgentError> {
        let ifname = spec
            .ifname
            .clone()
            .unwrap_or_else(|| format!("vif{domid}.{devid}"));
        if guest.devices.contains_key(&(DeviceKind::Net, devid)) {
            return Err(AgentError::Device {
                device: ifname,
                what: format!("device number {devid} is used twice"),
            });
        }
        let queues = guest.record.config.cpu.max.clamp(1, offer::NET_MAX_QUEUES);
        let wanted = LinkSpec {
            ifname: ifname.clone(),
            bridge: spec.bridge.clone(),
            mtu: spec.mtu,
            queues,
        };
        let link = self.links.make(&wanted).map_err(|what| AgentError::Link {
            ifname: ifname.clone(),
            what,
        })?;
        let mac = spec.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let facts = device::NetFacts {
            mac: &mac,
            bridge: &link.bridge,
            ifname: &ifname,
            mtu: Some(link.mtu).filter(|mtu| *mtu != 1500),
            rate: spec
                .rate
                .map(|rate| format!("{},{}", rate.bytes_per_interval, rate.interval_us)),
            trusted: spec.trusted.unwrap_or(true),
            max_queues: queues,
        };
        device::net(tree, domid, devid, &facts);
        let body = DeviceBody::Net {
            spec: spec.clone(),
            ifname,
            queues: link.queues,
        };
        guest.devices.insert(
            (DeviceKind::Net, devid),
            Device {
                phase: Phase::InitWait,
                body,
            },
        );
        Ok(())
    }

    /// Lets the driver serve the primary console.
    pub(super) fn connect_console(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let (Some(console), Some(facts), Some(domid)) =
            (&guest.console, guest.record.console, guest.record.domid)
        else {
            return Ok(());
        };
        let log = self.console_log(&guest.record.config.name)?;
        let master = console
            .master
            .try_clone()
            .map_err(|error| AgentError::Driver {
                domid,
                what: error.to_string(),
            })?;
        let order = OrderBody::ConnectConsole(ConnectConsole {
            index: 0,
            gref: RESERVED_CONSOLE,
            port: facts.port,
            log: true,
        });
        order_driver(guest, domid, order, vec![master, log]).map(drop)
    }

    fn console_log(&self, name: &str) -> Result<OwnedFd, AgentError> {
        let path = log_file(&self.dirs.logs, "console", name);
        // Not in append mode: the driver moves the newest half to the front when the log is full.
        std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map(OwnedFd::from)
            .map_err(|source| AgentError::File {
                what: "cannot open console log",
                path,
                source,
            })
    }

    /// Writes what stock tools read about a guest.
    pub(super) fn write_userdata(&self, guest: &Guest) -> Result<(), AgentError> {
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        let json = crate::format::json::userdata(&guest.record.config, &XlConf::default());
        userdata::write(&self.dirs.userdata, domid, guest.record.identity(), &json).map_err(
            |source| AgentError::File {
                what: "cannot write userdata in",
                path: self.dirs.userdata.clone(),
                source,
            },
        )
    }
}

pub(super) fn number_of(spec: &DiskSpec) -> Result<u32, AgentError> {
    vdev_number(&spec.vdev)
        .ok_or_else(|| AgentError::Invalid(format!("disk {}: no such virtual device", spec.vdev)))
}

/// The number of a disk that the guest does not have yet.
fn free_disk(guest: &Guest, spec: &DiskSpec) -> Result<u32, AgentError> {
    let devid = number_of(spec)?;
    if guest.devices.contains_key(&(DeviceKind::Disk, devid)) {
        return Err(AgentError::Device {
            device: spec.vdev.clone(),
            what: "is used by another disk of this guest".into(),
        });
    }
    Ok(devid)
}

fn new_disk(spec: &DiskSpec) -> Device {
    Device {
        phase: Phase::InitWait,
        body: DeviceBody::Disk { spec: spec.clone() },
    }
}

fn describe_disk(tree: &mut Tree, devid: u32, spec: &DiskSpec, medium: Medium) {
    let discard =
        spec.discard.unwrap_or(true) && spec.writable && medium.discard_granularity.is_some();
    let facts = device::DiskFacts {
        vdev: &spec.vdev,
        target: spec.target.as_deref().unwrap_or(""),
        writable: spec.writable,
        cdrom: spec.cdrom,
        removable: spec.removable || spec.cdrom,
        discard,
        trusted: spec.trusted.unwrap_or(true),
        medium,
    };
    let domid = tree.guest();
    device::disk(tree, domid, devid, &facts);
}

/// Where the guest's rings are, which its memory says.
pub(super) fn name_rings(tree: &mut Tree, built: &Built) {
    domain::store(tree, built.store.frame, built.store.port);
    device::console_ring(tree, built.domid, built.console.frame, built.console.port);
}

fn describe_domain(tree: &mut Tree, guest: &Guest) {
    let config = &guest.record.config;
    let facts = domain::DomainFacts {
        domid: tree.guest(),
        vm: vm_facts(guest),
        kind: kind(config.kind),
        target_kib: config.memory.target_kib,
        static_max_kib: config.memory.max_kib,
        vcpus_online: config.cpu.online,
        vcpus_max: config.cpu.max,
    };
    domain::skeleton(tree, &facts);
}

/// What goes by the guest's uuid.
pub(super) fn vm_facts(guest: &Guest) -> domain::VmFacts<'_> {
    let config = &guest.record.config;
    domain::VmFacts {
        uuid: handle(guest.record.identity()),
        name: &config.name,
        start_time: start_time(),
        kernel: config.boot.kernel.as_deref().unwrap_or(""),
        ramdisk: config.boot.ramdisk.as_deref(),
        cmdline: config.boot.cmdline.as_deref().unwrap_or(""),
    }
}

/// The log of one kind about the guest of this name. Names outlive domain ids, so the number of logs is the number of names.
pub(super) fn log_file(logs: &Path, kind: &str, name: &str) -> PathBuf {
    logs.join(format!("{kind}-{}.log", name.replace('/', "_")))
}

/// Gives the guest's driver an order.
pub(super) fn order_driver(
    guest: &mut Guest,
    domid: DomId,
    body: OrderBody,
    fds: Vec<OwnedFd>,
) -> Result<Outcome, AgentError> {
    let Some(process) = guest.driver.as_mut() else {
        return Err(AgentError::DriverAway {
            domid,
            what: "is not running".into(),
        });
    };
    process
        .order(body, fds)
        .map_err(|error| driver(domid, &error))
}

fn driver(domid: DomId, error: &OrderError) -> AgentError {
    let what = error.to_string();
    match error {
        OrderError::Refused(DriverFault { retry: false, .. }) => AgentError::Driver { domid, what },
        OrderError::Refused(_) => AgentError::DriverBusy { domid, what },
        OrderError::Lost(_) => AgentError::DriverAway { domid, what },
    }
}

/// Now, as libxl writes it: seconds and hundredths.
pub(super) fn start_time() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:02}", now.as_secs(), now.subsec_millis() / 10)
}
