//! Guests that stopped and are kept under another name, for `rename-restart`.
//!
//! ```text
//!   reap, monitor ─▶ name and uuid for the copy ─▶ record(Waiting, aside) ─▶ driver, taps ─▶ set_handle ─▶ xenstore, userdata ─▶ record(Waiting) ─▶ started again
//!                                                         └────────── an agent that dies in here: its successor goes on ─────┘
//! ```
//!
//! While it is put aside the domain is on its guest's record, under both names. From then on no record has it, and nothing that we do about guests
//! concerns it: it is a domain without devices, that a node in xenstore calls a copy of its guest. It is destroyed as a stock guest is.
//!
//! The guest comes first: a copy that cannot be kept is destroyed, and so is one whose memory the guest needs.

use super::error::AgentError;
use super::furnish::start_time;
use super::guest::Guest;
use super::reap::action_for;
use super::record::{Aside, Stage};
use super::request::build_request;
use super::{Agent, handle};
use crate::build::{free_kib, needed_kib};
use crate::config::domain::DomainConfig;
use crate::config::events::ShutdownAction;
use crate::config::xlconf::XlConf;
use crate::device::userdata;
use crate::layout::device::{CONSOLE_BACKEND, DISK_BACKEND, NET_BACKEND};
use crate::layout::{Tree, domain, paths};
use std::collections::BTreeSet;
use std::sync::{MutexGuard, TryLockError};
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreOp, StoreReply, TxId};

/// Copies of one guest that are kept at most: each holds all of its memory.
pub const MAX_KEPT: usize = 3;

impl Guest {
    /// Whether it stopped in a way for which its domain is to be kept, and nothing was done about it.
    pub(super) fn wants_to_be_kept(&self) -> bool {
        let asked = self.down.is_some_and(|(reason, _)| {
            action_for(&self.record.config.events, reason) == ShutdownAction::RenameRestart
        });
        asked
            && self.record.stage == Stage::Running
            && self.record.domid.is_some()
            && self.record.aside.is_none()
            && !self.gone
    }
}

impl Agent {
    /// Chooses what a guest's domain is called once it is put aside, if it is to be kept and there are not too many copies already. Nobody takes a
    /// name meanwhile: the caller shows that it holds the lock.
    pub(super) fn choose_aside(
        &self,
        guest: &mut Guest,
        _naming: &MutexGuard<'_, ()>,
    ) -> Result<(), AgentError> {
        if !guest.wants_to_be_kept() {
            return Ok(());
        }
        let name = guest.record.config.name.clone();
        if self.kept_of(guest.uuid())?.len() >= MAX_KEPT {
            tracing::warn!(
                name,
                MAX_KEPT,
                "so many stopped domains of this guest are kept already: restarted, and this one is not kept; destroy one of them"
            );
            return Ok(());
        }
        let taken = self.names_taken()?;
        let mut numbers = 1..=taken.len() + 1;
        let free = numbers.find_map(|number| {
            let name = format!("{name}-{number}");
            (!taken.contains(&name)).then_some(name)
        });
        guest.record.aside = free.map(|name| Aside {
            name,
            uuid: Uuid::new_v4(),
        });
        Ok(())
    }

    /// Names of all domains and guests. Those of a guest that somebody works on are the one it began with, and the one that xenstore has.
    fn names_taken(&self) -> Result<BTreeSet<String>, AgentError> {
        let mut taken: BTreeSet<String> = self
            .named_domains()?
            .into_iter()
            .filter_map(|(_, name)| name)
            .collect();
        for (began_as, shared) in self.names_in_table() {
            taken.insert(began_as);
            let guest = match shared.try_lock() {
                Ok(guest) => guest,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            taken.insert(guest.record.config.name.clone());
        }
        Ok(taken)
    }

    /// Makes way for a guest's next domain: the one it has is put aside if that was decided, and destroyed otherwise. May be repeated from any point.
    pub(super) fn make_way(&self, guest: &mut Guest) -> Result<(), AgentError> {
        match self.put_aside(guest) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if guest.record.aside.is_some() => {
                let name = &guest.record.config.name;
                tracing::error!(name, %error, "the stopped domain cannot be kept: destroyed");
            }
            // It is kept. That its guest has nothing to do with it any more is written down the next time.
            Err(error) => return Err(error),
        }
        self.take_down(guest)
    }

    /// False, with nothing done, when there is nothing to be kept (any more).
    fn put_aside(&self, guest: &mut Guest) -> Result<bool, AgentError> {
        let (Some(aside), Some(domid)) = (guest.record.aside.clone(), guest.record.domid) else {
            return Ok(false);
        };
        guest.record.stage = Stage::Waiting;
        self.save(guest)?;
        let info = self.seams.xen.domain_info(domid)?;
        let stopped = info.is_some_and(|info| {
            guest.record.is_called(info.handle) && !info.dying && info.shutdown.is_some()
        });
        if !stopped {
            return Ok(false);
        }
        self.end_driver(guest)?;
        self.remove_links(guest)?;
        guest.console = None;
        guest.started = None;
        self.seams.xen.set_handle(domid, handle(aside.uuid))?;
        self.name_kept(guest, domid, &aside)?;
        let (key, name) = (guest.record.key, &guest.record.config.name);
        tracing::warn!(name, %domid, kept_as = aside.name, "the stopped domain is kept");
        self.remove_journals(key);
        guest.record.domid = None;
        guest.record.console = None;
        guest.record.aside = None;
        self.save(guest)?;
        Ok(true)
    }

    /// Takes devices and the guest's names from its domain, and gives it names of its own.
    fn name_kept(&self, guest: &Guest, domid: DomId, aside: &Aside) -> Result<(), AgentError> {
        let config = &guest.record.config;
        let mut tree = Tree::new(domid);
        for kind in [DISK_BACKEND, NET_BACKEND, CONSOLE_BACKEND] {
            tree.remove(&paths::backends(kind, domid));
        }
        for devices in [
            format!("{}/device", paths::domain(domid)),
            paths::frontend("console", domid, 0),
            format!("{}/device", paths::libxl(domid)),
            paths::vm(handle(config.uuid)),
        ] {
            tree.remove(&devices);
        }
        let facts = domain::VmFacts {
            uuid: handle(aside.uuid),
            name: &aside.name,
            start_time: start_time(),
            kernel: config.boot.kernel.as_deref().unwrap_or(""),
            ramdisk: config.boot.ramdisk.as_deref(),
            cmdline: config.boot.cmdline.as_deref().unwrap_or(""),
        };
        domain::renamed(&mut tree, &facts);
        tree.value(paths::kept(domid), config.uuid.to_string());
        self.commit_removal(tree)?;
        let shown = DomainConfig {
            name: aside.name.clone(),
            uuid: aside.uuid,
            disks: Vec::new(),
            vifs: Vec::new(),
            ..config.clone()
        };
        let json = crate::format::json::userdata(&shown, &XlConf::default());
        let directory = &self.dirs.userdata;
        userdata::write(directory, domid, aside.uuid, &json)
            .and_then(|()| userdata::remove(directory, domid, config.uuid))
            .map_err(|source| AgentError::File {
                what: "cannot change userdata in",
                path: directory.clone(),
                source,
            })
    }

    /// The domains that are kept of this guest, the newest last (but for the moment in which domain ids begin anew).
    fn kept_of(&self, uuid: Uuid) -> Result<Vec<DomId>, AgentError> {
        let domains = self.seams.xen.domain_list(DomId(1))?;
        let nodes = domains.iter().map(|info| paths::kept(info.domid));
        let ops: Vec<StoreOp> = nodes.map(StoreOp::Read).collect();
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.seams.store.call(TxId::NONE, &ops)?;
        let wanted = uuid.to_string().into_bytes();
        let mut kept: Vec<DomId> = domains
            .iter()
            .zip(answers)
            .filter(|(info, answer)| {
                !info.dying && matches!(answer, Ok(StoreReply::Value(value)) if *value == wanted)
            })
            .map(|(info, _)| info.domid)
            .collect();
        kept.sort_unstable();
        Ok(kept)
    }

    /// Whether this domain is kept of some guest.
    pub(super) fn is_kept(&self, domid: DomId) -> bool {
        let answers = self
            .seams
            .store
            .call(TxId::NONE, &[StoreOp::Read(paths::kept(domid))]);
        answers.is_ok_and(|answers| matches!(answers.as_slice(), [Ok(StoreReply::Value(_))]))
    }

    /// Destroys what is kept of a guest, the newest first, until the host has the memory in which the guest can come back, or nothing is left.
    pub(super) fn sacrifice_kept(&self, config: &DomainConfig) -> Result<(), AgentError> {
        let need = needed_kib(&build_request(config, handle(config.uuid)));
        let suffices = || Ok::<_, AgentError>(free_kib(&self.seams.xen.physinfo()?) >= need);
        if suffices()? {
            return Ok(());
        }
        for domid in self.kept_of(config.uuid)?.into_iter().rev() {
            let name = &config.name;
            tracing::warn!(name, %domid, "a stopped domain that was kept is destroyed: its guest needs the memory to come back");
            if let Err(error) = self.destroy_foreign(domid) {
                tracing::error!(name, %domid, %error, "it does not go away");
            }
            if suffices()? {
                return Ok(());
            }
        }
        Ok(())
    }
}
