//! Builds a guest: from a configuration to a running domain, or to nothing at all.
//!
//! ```text
//!   check ─▶ record(Building) ─▶ kernel ─▶ domain ─▶ driver, media, taps, pty ─▶ xenstore ─▶ console ─▶ record(Running) ─▶ unpause
//!                    └──────────────── any failure: teardown, the same way a destroyed guest goes ────────────────┘
//! ```
//!
//! Where a shell fits (`shells.rs`), the guest takes its domain, driver and nodes, and only names, devices and console are left to do.
//!
//! Everything that can be known to be wrong without a domain is checked before there is one. An agent that is killed between any two steps finds
//! the record (and the domain by its uuid) and undoes it.

use super::error::AgentError;
use super::guest::{Dump, Guest, SharedGuest};
use super::record::{Record, Stage};
use super::request::build_request;
use super::{Agent, News, handle, lock, shells};
use crate::build::{self, Built};
use crate::config::domain::{DomainConfig, DomainKind};
use crate::config::vif::{Mac, VifKind};
use crate::device::medium;
use crate::image::Initrd;
use parapet_wire::agent as wire;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;
use uuid::Uuid;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreOp, StoreReply, TxId};

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
        check_kernel(&config)?;
        check(&config)?;
        let guest = self.enter_new(config, options)?;
        self.start(lock(&guest), options.paused)
    }

    /// Takes a name and a uuid for a guest that is to be made.
    pub(super) fn enter_new(
        &self,
        config: DomainConfig,
        options: CreateOptions,
    ) -> Result<SharedGuest, AgentError> {
        let _one_at_a_time = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_identity(&config)?;
        Ok(self.enter(Record::new(config, options.unmanaged)))
    }

    /// Builds the domain of a guest that is in the table and has none.
    pub(super) fn start(
        &self,
        guest: MutexGuard<'_, Guest>,
        paused: bool,
    ) -> Result<DomId, AgentError> {
        self.start_with(guest, paused, |guest| {
            if self.take_shell(guest)? {
                return Ok(());
            }
            self.make(guest, |config| self.build(config))
        })
    }

    /// As [`Agent::start`], with a domain that `make` makes.
    pub(super) fn start_by(
        &self,
        guest: MutexGuard<'_, Guest>,
        paused: bool,
        make: impl FnOnce(&DomainConfig) -> Result<Built, AgentError>,
    ) -> Result<DomId, AgentError> {
        self.start_with(guest, paused, |guest| self.make(guest, make))
    }

    fn start_with(
        &self,
        mut guest: MutexGuard<'_, Guest>,
        paused: bool,
        furnished: impl FnOnce(&mut Guest) -> Result<(), AgentError>,
    ) -> Result<DomId, AgentError> {
        let _creation = self.begin_creation();
        match self.bring_up(&mut guest, paused, furnished) {
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

    /// A domain of its own for a guest, with everything around it.
    fn make(
        &self,
        guest: &mut Guest,
        make: impl FnOnce(&DomainConfig) -> Result<Built, AgentError>,
    ) -> Result<(), AgentError> {
        self.save(guest)?;
        self.make_room(&guest.record.config)?;
        if guest.record.starts > 1 {
            self.sacrifice_kept(&guest.record.config)?;
        }
        let built = make(&guest.record.config)?;
        self.note_domain(guest, &built)?;
        self.furnish(guest, &built)
    }

    /// Puts on record which domain is the guest's.
    pub(super) fn note_domain(&self, guest: &mut Guest, built: &Built) -> Result<(), AgentError> {
        guest.record.domid = Some(built.domid);
        guest.set_console(built);
        self.save(guest)
    }

    /// Builds a domain from a kernel.
    pub(super) fn build(&self, config: &DomainConfig) -> Result<Built, AgentError> {
        let kernel_path = config.boot.kernel.clone().unwrap_or_default();
        let kernel = self.kernels.load(Path::new(&kernel_path))?;
        let initrd = match &config.boot.ramdisk {
            Some(path) => Some(Initrd::open(Path::new(path))?),
            None => None,
        };
        let request = build_request(config, handle(config.uuid));
        let xen = self.seams.xen.as_ref();
        Ok(build::build(xen, &request, &kernel, initrd.as_ref())?)
    }

    fn bring_up(
        &self,
        guest: &mut Guest,
        paused: bool,
        furnished: impl FnOnce(&mut Guest) -> Result<(), AgentError>,
    ) -> Result<DomId, AgentError> {
        guest.record.stage = Stage::Building;
        guest.record.asked_to_suspend = false;
        guest.record.starts += 1;
        guest.down = None;
        guest.dump = Dump::NotBegun;
        guest.unheard = None;
        // It saves the record before there is anything to undo.
        furnished(guest)?;
        let domid = guest.record.domid.unwrap_or(DomId::INVALID);
        if !paused {
            self.seams.xen.unpause(domid)?;
        }
        // The last step: who finds `building` undoes a guest that nobody was promised, who finds `running` adopts one that lacks nothing.
        guest.record.stage = Stage::Running;
        self.save(guest)?;
        (self.outlets.news)(News::Started {
            uuid: guest.record.key,
            domid,
        });
        guest.started = Some(Instant::now());
        Ok(domid)
    }

    /// Name and uuid must be free, among our guests and among everybody's domains.
    fn check_identity(&self, config: &DomainConfig) -> Result<(), AgentError> {
        let all = self.every_guest();
        for shared in &all {
            let guest = lock(shared);
            // A name that its stopped domain is about to get is taken too.
            if let (Some(aside), domid) = (&guest.record.aside, guest.record.domid)
                && aside.name == config.name
            {
                return Err(AgentError::NameInUse {
                    name: aside.name.clone(),
                    domid: domid.unwrap_or(DomId::INVALID),
                });
            }
            let guest = guest.public();
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
    pub(super) fn named_domains(&self) -> Result<Vec<(DomainInfo, Option<String>)>, AgentError> {
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

fn not_yet(what: &str, detail: &str) -> Result<(), AgentError> {
    Err(AgentError::NotYet {
        what: what.into(),
        detail: detail.into(),
    })
}

/// A guest that is to boot needs something to boot.
pub(super) fn check_kernel(config: &DomainConfig) -> Result<(), AgentError> {
    match (&config.boot.kernel, &config.boot.bootloader) {
        (Some(_), _) => Ok(()),
        (None, Some(_)) => not_yet(
            "bootloader=",
            "name the guest's kernel with kernel= and ramdisk=",
        ),
        (None, None) => Err(AgentError::Invalid(
            "no kernel= in the configuration; a PV or PVH guest needs one".into(),
        )),
    }
}

/// Everything about a configuration that can be judged without a domain, its media included.
pub(super) fn check(config: &DomainConfig) -> Result<(), AgentError> {
    check_shape(config)?;
    for disk in &config.disks {
        medium::open(disk)?;
    }
    Ok(())
}

/// As [`check`], of a guest whose media are not there yet.
pub(super) fn check_shape(config: &DomainConfig) -> Result<(), AgentError> {
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
    if config.name.starts_with(shells::NAME_PREFIX) {
        return Err(AgentError::Invalid(format!(
            "names that begin with \"{}\" are for domains built in advance; choose another",
            shells::NAME_PREFIX
        )));
    }
    if config.kind == DomainKind::Hvm {
        return not_yet("type=\"hvm\"", "use type=\"pvh\" or type=\"pv\"");
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
    }
    for vif in &config.vifs {
        if vif.kind == VifKind::Ioemu {
            return Err(AgentError::Link {
                ifname: "type=ioemu".into(),
                what: "an emulated card is for HVM guests; leave type= out".into(),
            });
        }
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
pub(super) fn draw_what_is_open(config: &mut DomainConfig) {
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
