//! Builds a guest: from a configuration to a running domain, or to nothing at all.
//!
//! ```text
//!   check ─▶ record(Building) ─▶ kernel ─▶ domain ─▶ driver, media, taps, pty ─▶ xenstore ─▶ console ─▶ record(Running) ─▶ unpause
//!                    └──────────────── any failure: teardown, the same way a destroyed guest goes ────────────────┘
//! ```
//!
//! Everything that can be known to be wrong without a domain is checked before there is one. An agent that is killed between any two steps finds
//! the record (and the domain by its uuid) and undoes it.

use super::drivers::OrderError;
use super::error::AgentError;
use super::guest::{Console, Device, DeviceBody, Guest};
use super::links::LinkSpec;
use super::record::{ConsoleFacts, Record, Stage};
use super::request::{build_request, kind};
use super::{Agent, DISK_LOCK_TIMEOUT, News, handle, lock};
use crate::build::{self, Built};
use crate::config::disk::DiskSpec;
use crate::config::domain::{DomainConfig, DomainKind};
use crate::config::vdev::vdev_number;
use crate::config::vif::{Mac, VifSpec};
use crate::config::xlconf::XlConf;
use crate::device::{medium, userdata};
use crate::image::Initrd;
use crate::layout::{Tree, device, domain};
use crate::xenbus::machine::Phase;
use parapet_wire::agent as wire;
use parapet_wire::driver::{
    ConnectConsole, DeviceKind, DriverFault, Medium, OpenDisk, OrderBody, Outcome, offer,
};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;
use xen_abi::domain::DomainInfo;
use xen_abi::grant_table::RESERVED_CONSOLE;
use xen_abi::ids::DomId;
use xen_host::pty::Pty;
use xen_host::xenstore::store::{StoreExt, StoreOp, StoreReply, TxId};

/// First bytes of a MAC address that is drawn: Xen's own.
const XEN_OUI: [u8; 3] = [0x00, 0x16, 0x3e];
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// How to create.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    /// Leave it paused.
    pub paused: bool,
    /// Nobody acts on its events.
    pub unmanaged: bool,
}

impl Agent {
    /// Creates and starts a guest; answers its domain.
    ///
    /// # Errors
    /// The cause, with nothing left behind.
    pub fn create(
        &self,
        mut config: DomainConfig,
        options: CreateOptions,
    ) -> Result<DomId, AgentError> {
        draw_what_is_open(&mut config);
        check(&config)?;
        let guest = {
            let _one_at_a_time = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_identity(&config)?;
            self.enter(Record::new(config, options.unmanaged))
        };
        self.start(lock(&guest), options.paused)
    }

    /// Builds the domain of a guest that is in the table and has none.
    pub(super) fn start(
        &self,
        mut guest: MutexGuard<'_, Guest>,
        paused: bool,
    ) -> Result<DomId, AgentError> {
        match self.bring_up(&mut guest, paused) {
            Ok(domid) => {
                tracing::info!(name = guest.record.config.name, %domid, "guest started");
                self.tell(wire::Event::Started(guest.public()));
                Ok(domid)
            }
            Err(error) => {
                self.undo(guest);
                Err(error)
            }
        }
    }

    /// After a failed start nothing of the domain stays. A protected guest that had run before waits for the monitor to try again; any other is forgotten.
    fn undo(&self, mut guest: MutexGuard<'_, Guest>) {
        let again = guest.record.starts > 1 && guest.protection() != wire::Protection::None;
        let name = guest.record.config.name.clone();
        let undone = if again {
            self.take_down(&mut guest)
        } else {
            self.give_up(guest)
        };
        if let Err(error) = undone {
            // The record says what is left to do; [`Agent::reap`] tries again.
            tracing::error!(name, %error, "a failed guest could not be removed yet");
        }
    }

    fn bring_up(&self, guest: &mut Guest, paused: bool) -> Result<DomId, AgentError> {
        guest.record.stage = Stage::Building;
        guest.record.starts += 1;
        guest.down = None;
        self.save(guest)?;
        let kernel_path = guest.record.config.boot.kernel.clone().unwrap_or_default();
        let kernel = self.kernels.load(Path::new(&kernel_path))?;
        let initrd = match &guest.record.config.boot.ramdisk {
            Some(path) => Some(Initrd::open(Path::new(path))?),
            None => None,
        };
        let request = build_request(&guest.record.config, handle(guest.record.uuid));
        let built = build::build(self.seams.xen.as_ref(), &request, &kernel, initrd.as_ref())?;
        guest.record.domid = Some(built.domid);
        guest.record.console = Some(ConsoleFacts {
            port: built.console.port,
            frame: built.console.frame,
        });
        self.save(guest)?;
        self.furnish(guest, &built)?;
        if !paused {
            self.seams.xen.unpause(built.domid)?;
        }
        // The last step: who finds `building` undoes a guest that nobody was promised, who finds `running` adopts one that lacks nothing.
        guest.record.stage = Stage::Running;
        self.save(guest)?;
        (self.outlets.news)(News::Started {
            uuid: guest.record.uuid,
            domid: built.domid,
        });
        guest.started = Some(Instant::now());
        Ok(built.domid)
    }

    /// Driver, devices, xenstore, console: everything around a built domain.
    fn furnish(&self, guest: &mut Guest, built: &Built) -> Result<(), AgentError> {
        let domid = built.domid;
        let spec = super::drivers::DriverSpec {
            uuid: guest.record.uuid,
            domid,
        };
        guest.driver = Some(
            self.drivers
                .start(spec, self.news_sink())
                .map_err(|error| driver(domid, &error))?,
        );
        let pty = Pty::open()?;
        let (master, slave, tty) = pty.into_parts();
        guest.console = Some(Console {
            master,
            slave,
            tty: tty.display().to_string(),
        });

        let mut tree = Tree::new(domid);
        self.describe_domain(&mut tree, guest, built);
        for spec in guest.record.config.disks.clone() {
            self.furnish_disk(guest, domid, &spec, &mut tree)?;
        }
        for (position, spec) in guest.record.config.vifs.clone().iter().enumerate() {
            let devid = spec
                .devid
                .unwrap_or(u32::try_from(position).unwrap_or(u32::MAX));
            self.furnish_net(guest, domid, devid, spec, &mut tree)?;
        }
        if let Some(console) = &guest.console {
            device::console(
                &mut tree,
                domid,
                built.console.frame,
                built.console.port,
                &console.tty,
            );
        }
        self.seams.store.commit("a new guest", &tree.into_ops())?;
        self.seams
            .store
            .introduce(domid, built.store.frame, built.store.port)?;
        self.connect_console(guest)?;
        self.write_userdata(guest)
    }

    fn describe_domain(&self, tree: &mut Tree, guest: &Guest, built: &Built) {
        let config = &guest.record.config;
        let facts = domain::DomainFacts {
            domid: built.domid,
            uuid: handle(guest.record.uuid),
            name: &config.name,
            kind: kind(config.kind),
            target_kib: config.memory.target_kib,
            static_max_kib: config.memory.max_kib,
            vcpus_online: config.cpu.online,
            vcpus_max: config.cpu.max,
            store: (built.store.frame, built.store.port),
            start_time: start_time(),
            kernel: config.boot.kernel.as_deref().unwrap_or(""),
            ramdisk: config.boot.ramdisk.as_deref(),
            cmdline: config.boot.cmdline.as_deref().unwrap_or(""),
        };
        domain::skeleton(tree, &facts);
    }

    /// Opens a disk in the driver and describes it.
    pub(super) fn furnish_disk(
        &self,
        guest: &mut Guest,
        domid: DomId,
        spec: &DiskSpec,
        tree: &mut Tree,
    ) -> Result<u32, AgentError> {
        let devid = vdev_number(&spec.vdev).ok_or_else(|| {
            AgentError::Invalid(format!("disk {}: no such virtual device", spec.vdev))
        })?;
        if guest.devices.contains_key(&(DeviceKind::Disk, devid)) {
            return Err(AgentError::Device {
                device: spec.vdev.clone(),
                what: "is used by another disk of this guest".into(),
            });
        }
        let medium = self.open_disk(guest, domid, devid, spec)?;
        let discard =
            spec.discard.unwrap_or(true) && spec.writable && medium.discard_granularity.is_some();
        let facts = device::DiskFacts {
            vdev: &spec.vdev,
            target: spec.target.as_deref().unwrap_or(""),
            writable: spec.writable,
            cdrom: spec.cdrom,
            removable: spec.removable || spec.cdrom,
            discard,
            medium,
        };
        device::disk(tree, domid, devid, &facts);
        let body = DeviceBody::Disk { spec: spec.clone() };
        guest.devices.insert(
            (DeviceKind::Disk, devid),
            Device {
                phase: Phase::InitWait,
                body,
            },
        );
        Ok(devid)
    }

    /// Lets the driver open a medium. Only the driver keeps the description, so its lock is the fence against a dead driver's I/O.
    pub(super) fn open_disk(
        &self,
        guest: &mut Guest,
        domid: DomId,
        devid: u32,
        spec: &DiskSpec,
    ) -> Result<Medium, AgentError> {
        let opened = medium::open(spec)?;
        let order = OrderBody::OpenDisk(OpenDisk {
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
        let safe: String = name
            .chars()
            .map(|c| if c == '/' { '_' } else { c })
            .collect();
        let path = self.dirs.logs.join(format!("console-{safe}.log"));
        std::fs::OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
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
        userdata::write(&self.dirs.userdata, domid, guest.record.uuid, &json).map_err(|source| {
            AgentError::File {
                what: "cannot write userdata in",
                path: self.dirs.userdata.clone(),
                source,
            }
        })
    }

    /// Name and uuid must be free, among our guests and among everybody's domains.
    fn check_identity(&self, config: &DomainConfig) -> Result<(), AgentError> {
        for guest in self.guests() {
            if guest.uuid == handle(config.uuid) {
                return Err(AgentError::UuidInUse {
                    uuid: config.uuid.to_string(),
                    name: guest.name,
                });
            }
            if guest.name == config.name {
                return Err(AgentError::NameInUse {
                    name: guest.name,
                    domid: guest.domid.unwrap_or(DomId::INVALID),
                });
            }
        }
        for (info, name) in self.named_domains()? {
            if name.as_ref() == Some(&config.name) {
                return Err(AgentError::NameInUse {
                    name: config.name.clone(),
                    domid: info.domid,
                });
            }
            // A guest that cannot be built is looked for by its uuid to be removed: it must never find somebody else's.
            if info.handle == handle(config.uuid) {
                return Err(AgentError::UuidInUse {
                    uuid: config.uuid.to_string(),
                    name: name.unwrap_or_else(|| format!("domain {}", info.domid)),
                });
            }
        }
        Ok(())
    }

    /// The domain of this name, whoever made it.
    ///
    /// # Errors
    /// Xen or xenstore does not answer.
    pub fn domain_named(&self, name: &str) -> Result<Option<DomId>, AgentError> {
        Ok(self
            .named_domains()?
            .into_iter()
            .find(|(_, found)| found.as_deref() == Some(name))
            .map(|(info, _)| info.domid))
    }

    /// All domains, with the names that xenstore has for them.
    fn named_domains(&self) -> Result<Vec<(DomainInfo, Option<String>)>, AgentError> {
        let domains = self.seams.xen.domain_list(DomId::DOM0)?;
        let ops: Vec<StoreOp> = domains
            .iter()
            .map(|info| StoreOp::Read(format!("/local/domain/{}/name", info.domid)))
            .collect();
        let names = self.seams.store.call(TxId::NONE, &ops)?;
        let text = |reply| match reply {
            Ok(StoreReply::Value(value)) => String::from_utf8(value).ok(),
            _ => None,
        };
        Ok(domains
            .into_iter()
            .zip(names.into_iter().map(text))
            .collect())
    }
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
        OrderError::Refused(_) | OrderError::Lost(_) => AgentError::DriverAway { domid, what },
    }
}

/// Everything about a configuration that can be judged without the host's help.
fn check(config: &DomainConfig) -> Result<(), AgentError> {
    let not_yet = |what: &str, detail: &str| {
        Err(AgentError::NotYet {
            what: what.into(),
            detail: detail.into(),
        })
    };
    if config.name.is_empty() || config.name.len() > MAX_NAME_BYTES {
        return Err(AgentError::Invalid(format!(
            "the name must have 1 to {MAX_NAME_BYTES} bytes"
        )));
    }
    if config.name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AgentError::Invalid(format!(
            "the name \"{}\" looks like a domain id; put a letter into it",
            config.name
        )));
    }
    if config.kind == DomainKind::Hvm {
        return not_yet("type=\"hvm\"", "use type=\"pvh\" or type=\"pv\"");
    }
    if config.boot.kernel.is_none() {
        return match &config.boot.bootloader {
            Some(_) => not_yet(
                "bootloader=",
                "name the guest's kernel with kernel= and ramdisk=",
            ),
            None => Err(AgentError::Invalid(
                "no kernel= in the configuration; a PV or PVH guest needs one".into(),
            )),
        };
    }
    for disk in &config.disks {
        let path = medium::check(disk)?;
        if !path.is_absolute() {
            return Err(AgentError::Invalid(format!(
                "disk {}: target {} must be an absolute path",
                disk.vdev,
                path.display()
            )));
        }
        medium::open(disk)?;
    }
    for vif in &config.vifs {
        if vif
            .backend_domain
            .as_deref()
            .is_some_and(|domain| domain != "0" && domain != "Domain-0")
        {
            return not_yet(
                "vif backend=",
                "driver domains are not supported; serve the interface from dom0",
            );
        }
    }
    Ok(())
}

/// Fixes what the configuration left open, so that a restart gives the same guest.
fn draw_what_is_open(config: &mut DomainConfig) {
    for (position, vif) in (0..).zip(&mut config.vifs) {
        // Positions change when an interface is detached.
        vif.devid.get_or_insert(position);
        if vif.mac.is_none() {
            let [a, b, c, ..] = Uuid::new_v4().into_bytes();
            let [x, y, z] = XEN_OUI;
            vif.mac = Some(Mac([x, y, z, a & 0x7f, b, c]));
        }
    }
}

/// Now, as libxl writes it: seconds and hundredths.
fn start_time() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{}.{:02}", now.as_secs(), now.subsec_millis() / 10)
}
