//! What shells there are, and what is missing. Nothing in here waits.

use super::template::{Template, Templates};
use crate::agent::guest::Guest;
use crate::config::domain::DomainConfig;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xen_abi::ids::DomId;

/// Pause before a kind of shell that could not be built is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The pool, behind its locks.
#[derive(Debug)]
pub struct Shells {
    pub(super) file: Templates,
    pub(super) pool: Mutex<Pool>,
    /// Held while a shell is built or removed; never by whoever holds the pool.
    pub(super) work: Mutex<()>,
    /// Somebody asked for work since the last time it was looked for.
    pub(super) asked: AtomicBool,
    /// Guests that are being made: nothing is begun meanwhile.
    pub(super) creations: AtomicUsize,
}

impl Shells {
    /// An empty pool, whose templates are below `state`.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self {
            file: Templates::below(state),
            pool: Mutex::default(),
            work: Mutex::default(),
            asked: AtomicBool::new(false),
            creations: AtomicUsize::new(0),
        }
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A template and how it fares.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) template: Template,
    /// Why the last one was not built, and when it is tried again.
    pub(super) trouble: Option<(Instant, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) kept: Vec<Kept>,
    /// Complete, and waiting.
    pub(super) ready: Vec<Guest>,
    /// Still to be removed, or what a guest left of one.
    pub(super) condemned: Vec<Guest>,
}

impl Pool {
    pub(super) fn of(&self, template: &str) -> impl Iterator<Item = &Guest> {
        self.ready
            .iter()
            .filter(move |shell| template_of(shell) == template)
    }

    /// The first kind of which one is missing and which may be tried now.
    pub(super) fn missing(&self, now: Instant) -> Option<Template> {
        let wanted = self.kept.iter().find(|kept| {
            let there = self.of(kept.template.name()).count();
            let paused = kept.trouble.as_ref().is_some_and(|(until, _)| now < *until);
            !paused && there < usize::try_from(kept.template.count).unwrap_or(usize::MAX)
        })?;
        Some(wanted.template.clone())
    }

    /// A shell for this guest, taken out. Those that are stale are condemned on the way.
    pub(super) fn take_fitting(&mut self, config: &DomainConfig) -> Option<Guest> {
        let kept = self.kept.iter().find(|kept| kept.template.fits(config))?;
        let name = kept.template.name().to_owned();
        let files = kept.template.files().ok();
        while let Some(at) = self.ready.iter().position(|it| template_of(it) == name) {
            let shell = self.ready.remove(at);
            let built = shell.record.shell.as_ref().map(|facts| &facts.files);
            if built.is_some() && built == files.as_ref() {
                return Some(shell);
            }
            self.condemned.push(shell);
        }
        None
    }

    /// Condemns every shell that `which` says; true when there was one.
    pub(super) fn condemn(&mut self, which: impl Fn(&Guest) -> bool) -> bool {
        let before = self.condemned.len();
        for shell in std::mem::take(&mut self.ready) {
            let place = match which(&shell) {
                true => &mut self.condemned,
                false => &mut self.ready,
            };
            place.push(shell);
        }
        self.condemned.len() > before
    }

    /// Condemns what nobody wants: of a kind that is not kept, or beyond its number.
    pub(super) fn condemn_surplus(&mut self) {
        for shell in std::mem::take(&mut self.ready) {
            let name = template_of(&shell);
            let kept = self.kept.iter().find(|kept| kept.template.name() == name);
            let wanted = kept.is_some_and(|kept| {
                let there = u32::try_from(self.of(name).count()).unwrap_or(u32::MAX);
                kept.template.fits(&shell.record.config) && there < kept.template.count
            });
            match wanted {
                true => self.ready.push(shell),
                false => self.condemned.push(shell),
            }
        }
    }

    /// Notes why a kind is short, and that it is not tried again for a while.
    pub(super) fn trouble(&mut self, template: &str, now: Instant, why: &str) {
        for kept in &mut self.kept {
            if kept.template.name() == template {
                kept.trouble = Some((now + RETRY, why.to_owned()));
            }
        }
    }

    /// The kind is tried again at once.
    pub(super) fn no_trouble(&mut self, template: &str) {
        for kept in &mut self.kept {
            if kept.template.name() == template {
                kept.trouble = None;
            }
        }
    }

    pub(super) fn has(&self, domid: DomId) -> bool {
        self.ready
            .iter()
            .any(|shell| shell.record.domid == Some(domid))
    }
}

/// Name of the template that a shell was built from.
pub(super) fn template_of(shell: &Guest) -> &str {
    let facts = shell.record.shell.as_ref();
    facts.map_or("", |facts| facts.template.as_str())
}
