//! A guest takes a shell; and shells make room for guests that they do not fit.
//!
//! ```text
//!   guest's record names the shell's domain ─▶ set_handle ─▶ the driver's files ─▶ (furnish_shell) ─▶ what the shell had is condemned
//! ```
//!
//! Up to `set_handle` the domain is the shell's, from then on the guest's: whoever finds both records tells by the domain's uuid.

use super::pool::Shells;
use super::template::MAX_SHELLS;
use crate::agent::drivers::DriverSpec;
use crate::agent::error::AgentError;
use crate::agent::guest::Guest;
use crate::agent::request::build_request;
use crate::agent::{Agent, News, handle};
use crate::build::{free_kib, needed_kib};
use crate::config::domain::DomainConfig;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::DomId;

/// A guest is being made for as long as this lives: nothing is begun for the pool meanwhile.
#[derive(Debug)]
pub struct Creation<'a> {
    shells: &'a Shells,
    agent: &'a Agent,
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        self.shells.creations.fetch_sub(1, Ordering::SeqCst);
        if !self.shells.pool().is_idle(Instant::now()) {
            self.agent.news(News::Shells);
        }
    }
}

impl Agent {
    /// See [`Creation`].
    pub(in crate::agent) fn begin_creation(&self) -> Creation<'_> {
        self.shells.creations.fetch_add(1, Ordering::SeqCst);
        Creation {
            shells: &self.shells,
            agent: self,
        }
    }

    /// Gives a guest the domain, driver and console of a shell and furnishes it; false when none fits.
    ///
    /// # Errors
    /// The guest cannot be furnished, or what it has of a shell cannot be taken from it again.
    pub(in crate::agent) fn take_shell(&self, guest: &mut Guest) -> Result<bool, AgentError> {
        for _ in 0..MAX_SHELLS {
            let fitting = self.shells.pool().take_fitting(&guest.record.config);
            let Some(mut shell) = fitting else {
                return Ok(false);
            };
            let name = shell.record.config.name.clone();
            let moved = self.move_in(guest, &mut shell);
            // What is left of it: all, or its nodes, files and record.
            self.shells.pool().condemned.push(shell);
            match moved {
                Ok(domid) => {
                    let guest_name = guest.record.config.name.as_str();
                    tracing::debug!(name = guest_name, shell = name, "takes a shell");
                    return self.furnish_shell(guest, domid).map(|()| true);
                }
                Err(error) => {
                    tracing::warn!(shell = name, %error, "shell not taken");
                    self.bury_now();
                    // Its domain, if it is the guest's by now.
                    self.remove_all(guest)?;
                    self.save(guest)?;
                }
            }
        }
        Ok(false)
    }

    fn move_in(&self, guest: &mut Guest, shell: &mut Guest) -> Result<DomId, AgentError> {
        let domid = shell.record.domid.unwrap_or(DomId::INVALID);
        let info = self.seams.xen.domain_info(domid)?;
        if !info.is_some_and(|info| is_untouched(&info, shell)) {
            let why = format!("domain {domid} was started, or is another one by now");
            return Err(AgentError::Invalid(why));
        }
        guest.record.domid = Some(domid);
        guest.record.console = shell.record.console;
        self.save(guest)?;
        let uuid = guest.record.key;
        self.seams.xen.set_handle(domid, handle(uuid))?;
        let away = |what: String| AgentError::DriverAway { domid, what };
        let Some(driver) = shell.driver.as_mut() else {
            return Err(away("is not running".to_owned()));
        };
        let served = driver.serve_as(DriverSpec {
            uuid,
            domid,
            name: guest.record.config.name.clone(),
        });
        served.map_err(|error| away(error.to_string()))?;
        if let Some(driver) = shell.driver.take() {
            guest.employ(driver);
        }
        guest.console = shell.console.take();
        // The first order: a driver that died unnoticed costs the shell, not the guest.
        self.connect_console(guest)?;
        Ok(domid)
    }

    /// Gives shells up until the host has the memory that this guest needs, or there is none left to give up.
    pub(in crate::agent) fn make_room(&self, config: &DomainConfig) -> Result<(), AgentError> {
        let need = needed_kib(&build_request(config, handle(config.uuid)));
        let mut waited = false;
        // One turn for each shell, and one after waiting for the one that was being built.
        for _ in 0..=MAX_SHELLS + 1 {
            if self.shells.pool().kept.is_empty() || free_kib(&self.seams.xen.physinfo()?) >= need {
                return Ok(());
            }
            if self.sacrifice(&config.name) {
                self.bury_now();
                continue;
            }
            if waited {
                return Ok(());
            }
            // Nothing new is begun while a guest is being made.
            drop(
                self.shells
                    .work
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            waited = true;
        }
        Ok(())
    }

    /// Condemns the shell that was built last; false when there is none.
    fn sacrifice(&self, guest: &str) -> bool {
        let mut pool = self.shells.pool();
        let Some(shell) = pool.ready.pop() else {
            return false;
        };
        let template = super::pool::template_of(&shell).to_owned();
        tracing::warn!(
            shell = shell.record.config.name,
            guest,
            "a shell is given up for its memory"
        );
        pool.trouble(
            &template,
            Instant::now(),
            "given up: a guest needed the memory",
        );
        pool.condemned.push(shell);
        true
    }
}

/// Nobody has started, stopped, replaced or taken it.
pub(super) fn is_untouched(info: &DomainInfo, shell: &Guest) -> bool {
    info.handle == handle(shell.record.key)
        && info.paused
        && !info.dying
        && info.shutdown.is_none()
        && info.cpu_time_ns == 0
}
