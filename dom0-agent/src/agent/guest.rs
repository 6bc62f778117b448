//! One guest in the agent's memory: its record, its driver, its devices.

use super::chatter::Chatter;
use super::drivers::{Driver, DriverSpec};
use super::error::AgentError;
use super::record::{ConsoleFacts, Record, Stage};
use super::tracking::TrackedDisk;
use crate::build::Built;
use crate::config::disk::DiskSpec;
use crate::config::domain::CarriedValue;
use crate::config::protect::{Probe, ProtectClass, ProtectConfig};
use crate::config::vif::VifSpec;
use crate::xenbus::machine::{Dialect, Phase};
use parapet_wire::agent as wire;
use parapet_wire::driver::DeviceKind;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::domain::ShutdownReason;

/// A guest behind its lock.
pub type SharedGuest = Arc<Mutex<Guest>>;

/// See the module.
#[derive(Debug)]
pub struct Guest {
    /// What is on disk.
    pub record: Record,
    /// Its driver, while one is connected.
    pub driver: Option<Box<dyn Driver>>,
    /// Its devices; the key is the order in which they are served.
    pub devices: BTreeMap<(DeviceKind, u32), Device>,
    /// Its disks that are being copied, by number.
    pub tracked: BTreeMap<u32, TrackedDisk>,
    /// Its console's pty.
    pub console: Option<Console>,
    /// Set once the domain has shut down and that was acted upon.
    pub down: Option<(ShutdownReason, Instant)>,
    /// Its dump, if its end asks for one.
    pub dump: Dump,
    /// Since when it waits for a restart by the monitor while no monitor is there.
    pub unheard: Option<Instant>,
    /// When its present domain was started.
    pub started: Option<Instant>,
    /// Since when the present driver, or the last one, has been served by this agent.
    pub driver_since: Option<Instant>,
    /// Driver deaths since the last one that was long enough ago, for back-off.
    pub driver_deaths: u32,
    /// It was given away and given back, and does not run on yet.
    pub comes_back: bool,
    /// A disk's medium was not there when its driver was replaced: that disk stands still until it is.
    pub lacks_medium: bool,
    /// Log lines that it has caused.
    pub chatter: Chatter,
    /// Forgotten: who waited for its lock finds nothing to do any more.
    pub gone: bool,
}

/// How far the dump of a guest that stopped has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// Nothing was done.
    NotBegun,
    /// It is being written.
    Underway,
    /// It is there, or could not be made.
    Over,
}

/// A device that takes part in xenbus.
#[derive(Debug)]
pub struct Device {
    /// Where the handshake stands.
    pub phase: Phase,
    /// What it is.
    pub body: DeviceBody,
}

/// The kinds of device.
#[derive(Debug)]
pub enum DeviceBody {
    /// A disk.
    Disk {
        /// As configured.
        spec: DiskSpec,
    },
    /// A network interface.
    Net {
        /// As configured, with its MAC address.
        spec: VifSpec,
        /// Tap name.
        ifname: String,
        /// The tap's queues, kept so that the tap stays up while drivers come and go.
        queues: Vec<OwnedFd>,
    },
}

impl DeviceBody {
    /// Frontend kind.
    #[must_use]
    pub fn front_kind(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "vbd",
            Self::Net { .. } => "vif",
        }
    }

    /// Backend kind.
    #[must_use]
    pub fn back_kind(&self) -> &'static str {
        match self {
            Self::Disk { .. } => crate::layout::device::DISK_BACKEND,
            Self::Net { .. } => crate::layout::device::NET_BACKEND,
        }
    }

    /// An interface whose tap could not be opened again.
    #[must_use]
    pub fn lacks_tap(&self) -> bool {
        matches!(self, Self::Net { queues, .. } if queues.is_empty())
    }

    /// Handshake of its frontends.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Disk { .. } => Dialect::Initialised,
            Self::Net { .. } => Dialect::Connected,
        }
    }
}

/// The primary console's pty, kept open so that it outlives drivers.
#[derive(Debug)]
pub struct Console {
    /// Master side.
    pub master: OwnedFd,
    /// Slave side, held so that the master never sees a hang-up.
    pub slave: OwnedFd,
    /// Path of the slave.
    pub tty: String,
}

impl Guest {
    /// A guest without anything running.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self {
            record,
            driver: None,
            devices: BTreeMap::new(),
            tracked: BTreeMap::new(),
            console: None,
            down: None,
            dump: Dump::NotBegun,
            unheard: None,
            started: None,
            driver_since: None,
            driver_deaths: 0,
            comes_back: false,
            lacks_medium: false,
            chatter: Chatter::default(),
            gone: false,
        }
    }

    /// Whom a driver of this guest serves; `None` while it has no domain.
    #[must_use]
    pub fn driver_spec(&self) -> Option<DriverSpec> {
        Some(DriverSpec {
            uuid: self.record.key,
            domid: self.record.domid?,
            name: self.record.config.name.clone(),
        })
    }

    /// Takes over where a domain that was just built has its console.
    pub fn set_console(&mut self, built: &Built) {
        self.record.console = Some(ConsoleFacts {
            port: built.console.port,
            frame: built.console.frame,
        });
    }

    /// Whether a line that this guest has caused may go into the log. Says first how many did not.
    pub fn speak(&mut self) -> bool {
        let said = self.chatter.speak(Instant::now());
        if let Some(left_out) = said.filter(|left_out| *left_out > 0) {
            let name = &self.record.config.name;
            tracing::warn!(
                name,
                left_out,
                "log lines that this guest caused were left out"
            );
        }
        said.is_some()
    }

    /// Takes a driver into service. How long it lives counts from now.
    pub fn employ(&mut self, driver: Box<dyn Driver>) {
        self.driver = Some(driver);
        self.driver_since = Some(Instant::now());
    }

    /// Identity: what it is called by everybody else. Its record may have another key.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.record.config.uuid
    }

    /// Its state, for the API.
    #[must_use]
    pub fn state(&self) -> wire::GuestState {
        match (self.record.stage, self.down) {
            // A shell is never shown as a guest.
            (Stage::Building | Stage::Shell, _) => wire::GuestState::Building,
            (Stage::Running | Stage::Saving, Some((reason, _))) => wire::GuestState::Down(reason),
            (Stage::Running | Stage::Saving, None) => wire::GuestState::Running,
            (Stage::Leaving | Stage::HandedOver, _) => wire::GuestState::Leaving,
            (Stage::Waiting, _) => wire::GuestState::Waiting,
            (Stage::Dying, _) => wire::GuestState::Dying,
        }
    }

    /// Its protection class.
    #[must_use]
    pub fn protection(&self) -> wire::Protection {
        match self.record.config.protect.class {
            ProtectClass::None => wire::Protection::None,
            ProtectClass::Restart => wire::Protection::Restart,
            ProtectClass::Failover => wire::Protection::Failover,
            ProtectClass::Continuous => wire::Protection::Continuous,
        }
    }

    /// Silence of its heartbeat after which it counts as hung, if that is watched.
    #[must_use]
    pub fn heartbeat_timeout(&self) -> Option<Duration> {
        watching(&self.record.config.protect)
            .heartbeat_timeout_ms
            .map(Duration::from_millis)
    }

    /// Changes protection class and, if given, the way of watching.
    ///
    /// # Errors
    /// A probe that cannot be understood.
    pub fn set_protection(
        &mut self,
        protection: wire::Protection,
        watching: Option<&wire::Watching>,
    ) -> Result<(), AgentError> {
        let protect = &mut self.record.config.protect;
        if let Some(watching) = watching {
            let probes = watching.probes.iter().map(|text| {
                Probe::parse(text).ok_or_else(|| {
                    AgentError::Invalid(format!(
                        "probe {text}: give tcp:ADDR:PORT, http://... or ping:ADDR"
                    ))
                })
            });
            protect.probes = probes.collect::<Result<_, _>>()?;
            set(
                protect,
                "heartbeat_timeout",
                watching.heartbeat_timeout_ms.map(|ms| ms.div_ceil(1000)),
            );
            set(
                protect,
                "max_restarts",
                watching.max_restarts.map(u64::from),
            );
        }
        protect.class = match protection {
            wire::Protection::None => ProtectClass::None,
            wire::Protection::Restart => ProtectClass::Restart,
            wire::Protection::Failover => ProtectClass::Failover,
            wire::Protection::Continuous => ProtectClass::Continuous,
        };
        Ok(())
    }

    /// What the API shows.
    #[must_use]
    pub fn public(&self) -> wire::Guest {
        wire::Guest {
            uuid: super::handle(self.uuid()),
            name: self.record.config.name.clone(),
            domid: self.record.domid,
            state: self.state(),
            protection: self.protection(),
            watching: watching(&self.record.config.protect),
            driver_pid: self.driver.as_ref().map(|driver| driver.pid()),
        }
    }
}

/// What the monitor is told about how to watch a guest. `protect_heartbeat_timeout` is in seconds.
fn watching(protect: &ProtectConfig) -> wire::Watching {
    let number = |key: &str| match protect.settings.get(key) {
        Some(CarriedValue::Atom(text)) => text.trim().parse::<u64>().ok(),
        _ => None,
    };
    wire::Watching {
        heartbeat_timeout_ms: number("heartbeat_timeout")
            .map(|seconds| seconds.saturating_mul(1000)),
        probes: protect.probes.iter().map(probe_text).collect(),
        max_restarts: number("max_restarts").and_then(|count| u32::try_from(count).ok()),
    }
}

fn set(protect: &mut ProtectConfig, key: &str, value: Option<u64>) {
    match value {
        Some(value) => drop(
            protect
                .settings
                .insert(key.to_owned(), CarriedValue::Atom(value.to_string())),
        ),
        None => drop(protect.settings.remove(key)),
    }
}

fn probe_text(probe: &Probe) -> String {
    match probe {
        Probe::Tcp { host, port } if host.contains(':') => format!("tcp:[{host}]:{port}"),
        Probe::Tcp { host, port } => format!("tcp:{host}:{port}"),
        Probe::Http { url } => url.clone(),
        Probe::Ping { host } => format!("ping:{host}"),
    }
}
