//! Builds the shells that are missing, and removes those that are condemned. One at a time, and never while a guest is being made.

use super::pool::template_of;
use super::template::{NAME_PREFIX, Template};
use crate::agent::error::AgentError;
use crate::agent::guest::Guest;
use crate::agent::record::{Record, ShellFacts, Stage};
use crate::agent::request::build_request;
use crate::agent::{Agent, handle};
use crate::build::{free_kib, needed_kib};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};
use std::time::Instant;
use uuid::Uuid;

/// Host memory that shells leave free, in KiB.
pub const KEEP_FREE_KIB: u64 = 64 << 10;

impl Agent {
    /// Does what there is to do for the pool, unless somebody does already. What fails is said, noted and tried again later.
    pub fn refill(&self) {
        self.refill_at(Instant::now());
    }

    /// As [`Agent::refill`], at a time that the caller names.
    pub fn refill_at(&self, now: Instant) {
        self.shells.asked.store(true, Ordering::SeqCst);
        // Whoever works looks once more when it was asked meanwhile.
        while self.shells.asked.load(Ordering::SeqCst) {
            let _work = match self.shells.work.try_lock() {
                Ok(work) => work,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.shells.asked.store(false, Ordering::SeqCst);
            self.bury_condemned();
            self.build_missing(now);
        }
    }

    /// Bounded: each turn makes one shell more or leaves its kind alone for a while.
    fn build_missing(&self, now: Instant) {
        // The end of a creation asks again.
        while self.shells.creations.load(Ordering::SeqCst) == 0 {
            let Some(template) = self.shells.pool().missing(now) else {
                return;
            };
            match self.build_shell(&template) {
                Ok(shell) => {
                    let name = shell.record.config.name.as_str();
                    tracing::info!(name, template = template.name(), "shell built");
                    let mut pool = self.shells.pool();
                    pool.ready.push(shell);
                    // It may have been dropped meanwhile.
                    pool.condemn_surplus();
                    pool.no_trouble(template.name());
                }
                Err(error) => {
                    tracing::warn!(template = template.name(), %error, "shell not built");
                    let mut pool = self.shells.pool();
                    pool.trouble(template.name(), now, &error.to_string());
                }
            }
            self.bury_condemned();
        }
    }

    /// A shell, or nothing.
    fn build_shell(&self, template: &Template) -> Result<Guest, AgentError> {
        self.must_have_room(template)?;
        let files = self.files_of(template)?;
        let mut config = template.config.clone();
        config.uuid = Uuid::new_v4();
        config.name = self.free_name()?;
        let mut record = Record::new(config, true);
        record.shell = Some(ShellFacts {
            template: template.name().to_owned(),
            files,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let mut shell = Guest::new(record);
        match self.complete_shell(&mut shell, template) {
            Ok(()) => Ok(shell),
            Err(error) => {
                self.shells.pool().condemned.push(shell);
                Err(error)
            }
        }
    }

    fn complete_shell(&self, shell: &mut Guest, template: &Template) -> Result<(), AgentError> {
        self.save(shell)?;
        let built = self.build(&shell.record.config)?;
        self.note_domain(shell, &built)?;
        self.surround(shell, &built)?;
        self.write_userdata(shell)?;
        let now = self.files_of(template)?;
        if shell.record.shell.as_ref().map(|facts| &facts.files) != Some(&now) {
            let why = "its kernel or ramdisk changed while it was built";
            return Err(AgentError::Invalid(why.to_owned()));
        }
        shell.record.stage = Stage::Shell;
        self.save(shell)
    }

    fn files_of(&self, template: &Template) -> Result<Vec<crate::image::FileKey>, AgentError> {
        template.files().map_err(|source| AgentError::File {
            what: "cannot look at kernel or ramdisk of shells like",
            path: template.name().into(),
            source,
        })
    }

    /// Shells take what nobody needs, and leave some of it.
    fn must_have_room(&self, template: &Template) -> Result<(), AgentError> {
        let free = free_kib(&self.seams.xen.physinfo()?);
        let need = needed_kib(&build_request(&template.config, handle(Uuid::nil())));
        if need + KEEP_FREE_KIB > free {
            return Err(AgentError::Invalid(format!(
                "a shell needs {} MiB and leaves {} MiB free; the host has {} MiB free",
                need.div_ceil(1024),
                KEEP_FREE_KIB / 1024,
                free / 1024
            )));
        }
        Ok(())
    }

    /// The first name of its kind that no domain has.
    fn free_name(&self) -> Result<String, AgentError> {
        let taken: BTreeSet<String> = self
            .named_domains()?
            .into_iter()
            .filter_map(|(_, name)| name)
            .collect();
        let mut names = (1_u32..).map(|number| format!("{NAME_PREFIX}{number}"));
        let free = names.find(|name| !taken.contains(name));
        free.ok_or_else(|| AgentError::Invalid("no name is free for a shell".to_owned()))
    }

    /// Removes what is condemned; what cannot be removed stays so, and its record with it.
    pub(super) fn bury_condemned(&self) {
        let condemned = std::mem::take(&mut self.shells.pool().condemned);
        for mut shell in condemned {
            if let Err(error) = self.bury(&mut shell) {
                let name = shell.record.config.name.as_str();
                tracing::error!(name, template = template_of(&shell), %error, "a shell is not removed yet");
                self.shells.pool().condemned.push(shell);
            }
        }
    }

    fn bury(&self, shell: &mut Guest) -> Result<(), AgentError> {
        self.remove_all(shell)?;
        let removed = self.records.remove(shell.record.key);
        removed.map_err(|source| AgentError::File {
            what: "cannot remove the record in",
            path: self.dirs.state.clone(),
            source,
        })
    }

    /// Removes what is condemned, once whoever works for the pool is done with it.
    pub(super) fn bury_now(&self) {
        let _work = self
            .shells
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.bury_condemned();
    }
}
