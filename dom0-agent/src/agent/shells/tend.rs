//! What becomes of shells otherwise: an earlier agent left them, they became useless, the operator asks.

use super::pool::{Kept, Pool, template_of};
use super::take::is_untouched;
use super::template::{MAX_SHELLS, MAX_TEMPLATES, Template};
use crate::agent::create::{check, check_kernel};
use crate::agent::drivers::DriverSpec;
use crate::agent::error::AgentError;
use crate::agent::guest::Guest;
use crate::agent::record::{Record, Stage};
use crate::agent::request::build_request;
use crate::agent::{Agent, News, handle};
use crate::config::domain::DomainConfig;
use parapet_wire::agent as wire;
use std::time::Instant;
use uuid::Uuid;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::DomId;

impl Pool {
    /// Nothing is missing or condemned.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.condemned.is_empty() && self.missing(now).is_none()
    }
}

impl Agent {
    // ---- an earlier agent ----

    /// Fills the pool from the records of shells. What cannot be kept is condemned; faults are logged.
    pub(in crate::agent) fn recover_shells(&self, records: Vec<Record>, domains: &[DomainInfo]) {
        let templates = self.shells.file.load().unwrap_or_else(|error| {
            tracing::error!(path = %self.shells.file.path().display(), %error, "templates of shells cannot be read");
            Vec::new()
        });
        let kept = templates.into_iter().map(|template| Kept {
            template,
            trouble: None,
        });
        self.shells.pool().kept = kept.collect();
        for record in records {
            let name = record.config.name.clone();
            let mut shell = Guest::new(record);
            let alive = domains
                .iter()
                .any(|info| Some(info.domid) == shell.record.domid && is_untouched(info, &shell));
            let usable = alive && shell.record.stage == Stage::Shell && self.is_current(&shell);
            let kept = usable
                && self.adopt_shell(&mut shell).unwrap_or_else(|error| {
                    tracing::warn!(name, %error, "shell not kept");
                    false
                });
            let mut pool = self.shells.pool();
            match kept {
                true => pool.ready.push(shell),
                false => pool.condemned.push(shell),
            }
        }
        self.shells.pool().condemn_surplus();
        self.bury_now();
        if !self.shells.pool().is_idle(Instant::now()) {
            self.news(News::Shells);
        }
    }

    /// Reaches its driver; false when that is gone.
    fn adopt_shell(&self, shell: &mut Guest) -> Result<bool, AgentError> {
        let Some(domid) = shell.record.domid else {
            return Ok(false);
        };
        let spec = DriverSpec {
            uuid: shell.record.key,
            domid,
            name: shell.record.config.name.clone(),
        };
        let driver = self.drivers.attach(spec, self.news_sink());
        let driver = driver.map_err(|error| AgentError::DriverAway {
            domid,
            what: error.to_string(),
        })?;
        let Some(driver) = driver else {
            return Ok(false);
        };
        shell.employ(driver);
        self.new_console(shell, domid)?;
        Ok(true)
    }

    /// It is what this agent would build now.
    fn is_current(&self, shell: &Guest) -> bool {
        let Some(facts) = &shell.record.shell else {
            return false;
        };
        let template = Template::new(shell.record.config.clone(), 1);
        facts.release == env!("CARGO_PKG_VERSION")
            && template.files().is_ok_and(|files| files == facts.files)
    }

    // ---- they become useless ----

    /// Condemns what is stale or was touched, and has the pool filled up if something is missing.
    pub(in crate::agent) fn tend_shells(&self, domains: &[DomainInfo], now: Instant) {
        let mut pool = self.shells.pool();
        let useless = |shell: &Guest| {
            let info = domains
                .iter()
                .find(|info| Some(info.domid) == shell.record.domid);
            // One that was built since the list was made is not in there.
            let touched = info.is_some_and(|info| !is_untouched(info, shell));
            let gone = info.is_none() && !self.is_there(shell);
            touched || gone || !self.is_current(shell)
        };
        pool.condemn(useless);
        let idle = pool.is_idle(now);
        drop(pool);
        if !idle {
            self.news(News::Shells);
        }
    }

    fn is_there(&self, shell: &Guest) -> bool {
        let domid = shell.record.domid.unwrap_or(DomId::INVALID);
        let info = self.seams.xen.domain_info(domid);
        info.is_ok_and(|info| info.is_some_and(|info| is_untouched(&info, shell)))
    }

    /// A driver process ended: if it was a shell's, that one is of no use any more.
    pub fn shell_driver_died(&self, uuid: Uuid) {
        if self.shells.pool().condemn(|shell| shell.record.key == uuid) {
            self.news(News::Shells);
        }
    }

    /// All shells are built anew, with drivers of the installed release.
    pub(in crate::agent) fn renew_shells(&self) {
        if self.shells.pool().condemn(|_| true) {
            self.news(News::Shells);
        }
    }

    // ---- the operator asks ----

    /// Whether this domain is a shell.
    pub(in crate::agent) fn is_shell(&self, domid: DomId) -> bool {
        self.shells.pool().has(domid)
    }

    /// Refuses what makes sense for guests only.
    pub(in crate::agent) fn must_be_no_shell(&self, domid: DomId) -> Result<(), AgentError> {
        match self.is_shell(domid) {
            true => Err(AgentError::Invalid(format!(
                "domain {domid} was built in advance and is no guest yet; `parapet shells drop` removes such domains"
            ))),
            false => Ok(()),
        }
    }

    /// Removes one shell; the pool is filled up again a little later.
    pub(in crate::agent) fn give_up_shell(&self, domid: DomId) -> Result<(), AgentError> {
        let mut pool = self.shells.pool();
        let doomed = |shell: &Guest| shell.record.domid == Some(domid);
        let template = pool.ready.iter().find(|it| doomed(it)).map(template_of);
        let template = template.unwrap_or_default().to_owned();
        // Whoever destroys all domains one by one must come to an end.
        pool.trouble(&template, Instant::now(), "one was destroyed");
        pool.condemn(doomed);
        drop(pool);
        self.bury_now();
        self.news(News::Shells);
        self.must_be_buried(|shell| shell.record.domid == Some(domid))
    }

    /// The pool, for the API.
    #[must_use]
    pub fn list_shells(&self) -> Vec<wire::ShellTemplate> {
        let pool = self.shells.pool();
        let public = |kept: &Kept| {
            let config = &kept.template.config;
            let mut ready: Vec<DomId> = pool
                .of(kept.template.name())
                .filter_map(|shell| shell.record.domid)
                .collect();
            ready.sort_unstable();
            let full = ready.len() >= usize::try_from(kept.template.count).unwrap_or(usize::MAX);
            let trouble = kept.trouble.as_ref().filter(|_| !full);
            wire::ShellTemplate {
                name: kept.template.name().to_owned(),
                count: kept.template.count,
                ready,
                memory_kib: config.memory.target_kib,
                kernel: config.boot.kernel.clone().unwrap_or_default(),
                trouble: trouble.map(|(_, why)| why.clone()),
            }
        };
        pool.kept.iter().map(public).collect()
    }

    /// From now on shells are kept for guests of this configuration, in place of what was kept under its name.
    ///
    /// # Errors
    /// Nothing can be built from it, there are too many, or it cannot be written down.
    pub fn add_shells(&self, config: DomainConfig, count: u32) -> Result<(), AgentError> {
        let template = Template::new(config, count);
        check_kernel(&template.config)?;
        check(&template.config)?;
        build_request(&template.config, handle(Uuid::nil())).check()?;
        let mut pool = self.shells.pool();
        let others = || {
            let other = |kept: &&Kept| kept.template.name() != template.name();
            pool.kept.iter().filter(other)
        };
        let all = others().map(|kept| kept.template.count).sum::<u32>();
        if count == 0 || all.saturating_add(count) > MAX_SHELLS {
            return Err(AgentError::Invalid(format!(
                "{count} shells: 1 to {MAX_SHELLS} can be kept, of all kinds together; {all} are of other kinds"
            )));
        }
        if others().count() >= MAX_TEMPLATES {
            return Err(AgentError::Invalid(format!(
                "shells of {MAX_TEMPLATES} kinds are kept already; drop one kind first"
            )));
        }
        if let Some(same) = others().find(|kept| kept.template.fits(&template.config)) {
            return Err(AgentError::Invalid(format!(
                "shells of \"{}\" fit this configuration already; drop those first, or keep more of them",
                same.template.name()
            )));
        }
        let templates = others().map(|kept| kept.template.clone());
        self.write_templates(templates.chain([template.clone()]).collect())?;
        pool.kept
            .retain(|kept| kept.template.name() != template.name());
        pool.kept.push(Kept {
            template,
            trouble: None,
        });
        pool.condemn_surplus();
        drop(pool);
        self.news(News::Shells);
        Ok(())
    }

    /// Keeps no more shells of this kind, or of any, and removes those that there are.
    ///
    /// # Errors
    /// No such kind; or a shell that does not go away yet: it is tried again.
    pub fn drop_shells(&self, name: Option<&str>) -> Result<(), AgentError> {
        let goes = |kept: &Kept| name.is_none_or(|name| kept.template.name() == name);
        let mut pool = self.shells.pool();
        if let Some(name) = name
            && !pool.kept.iter().any(goes)
        {
            return Err(AgentError::Invalid(format!(
                "no shells of \"{name}\" are kept; `parapet shells list` shows the kinds"
            )));
        }
        let left = pool.kept.iter().filter(|kept| !goes(kept));
        self.write_templates(left.map(|kept| kept.template.clone()).collect())?;
        pool.kept.retain(|kept| !goes(kept));
        pool.condemn_surplus();
        drop(pool);
        self.bury_now();
        self.must_be_buried(|_| true)
    }

    fn write_templates(&self, templates: Vec<Template>) -> Result<(), AgentError> {
        let written = self.shells.file.save(templates);
        written.map_err(|source| AgentError::File {
            what: "cannot write",
            path: self.shells.file.path().to_owned(),
            source,
        })
    }

    fn must_be_buried(&self, which: impl Fn(&Guest) -> bool) -> Result<(), AgentError> {
        let pool = self.shells.pool();
        match pool.condemned.iter().find(|shell| which(shell)) {
            Some(shell) => Err(AgentError::Invalid(format!(
                "{} is not removed yet; it is tried again (the agent's log says why)",
                shell.record.config.name
            ))),
            None => Ok(()),
        }
    }
}
