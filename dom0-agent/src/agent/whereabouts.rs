//! What is left of a guest that was given away when nobody can know whether it runs on the other side: it waits here, suspended, until somebody says so.
//!
//! ```text
//!   handed over ──there──▶ removed
//!        │    └──here───▶ has its name and uuid again, runs        not beside the guest itself, if that is on this host
//!        └─ the agent was restarted: suspended still? it waits on; running: it was taken back already
//! ```

use super::error::AgentError;
use super::guest::Guest;
use super::migrate::{AWAY_SUFFIX, MoveError};
use super::record::Stage;
use super::{Agent, handle, lock};
use std::sync::MutexGuard;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;

/// Where a guest runs, by the word of somebody who knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// It does not run on the other host and never will: it goes on here.
    Here,
    /// It runs there, or has ended there: what is left of it here goes.
    There,
}

impl Agent {
    /// Settles what [`MoveError::Unknown`] left open.
    ///
    /// # Errors
    /// The guest was not given away, or cannot be woken or removed.
    pub fn settle_move(&self, domid: DomId, whereabouts: Whereabouts) -> Result<(), AgentError> {
        let shared = self.guest_to_save(domid)?;
        let guest = lock(&shared);
        if guest.gone || guest.record.domid != Some(domid) {
            return Err(AgentError::NoDomain(domid));
        }
        if guest.record.stage != Stage::HandedOver {
            return Err(MoveError::NotAway(guest.record.config.name.clone()).into());
        }
        match whereabouts {
            Whereabouts::Here if self.lives_on(&guest.record)? => {
                let name = guest.record.config.name.clone();
                let arrived = name.strip_suffix(AWAY_SUFFIX).unwrap_or(&name).to_owned();
                Err(MoveError::ArrivedHere { name, arrived }.into())
            }
            Whereabouts::Here => self.take_back(guest),
            Whereabouts::There => self.give_up(guest),
        }
    }

    /// A guest that was given away and is still ours: it runs on. What fails is tried again by `reap`.
    pub(super) fn take_back(&self, mut guest: MutexGuard<'_, Guest>) -> Result<(), AgentError> {
        let Some(domid) = guest.record.domid.filter(|_| !guest.gone) else {
            return Ok(());
        };
        guest.comes_back = true;
        let name = guest.record.config.name.clone();
        let name = name.strip_suffix(AWAY_SUFFIX).unwrap_or(&name).to_owned();
        let uuid = guest.record.config.uuid;
        self.seams.xen.set_handle(domid, handle(uuid))?;
        self.call_it(domid, uuid, &name)?;
        guest.record.config.name = name;
        guest.record.away = None;
        // The record says that it was given away until the guest runs; whoever finds it running knows that it was taken back.
        self.go_on(&mut guest)?;
        guest.comes_back = false;
        self.write_userdata(&guest)
    }

    /// After a restart of the agent.
    pub(super) fn recover_handed_over(
        &self,
        mut guest: MutexGuard<'_, Guest>,
    ) -> Result<(), AgentError> {
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        let info = self.seams.xen.domain_info(domid)?;
        let suspended = info.is_some_and(|info| info.shutdown == Some(ShutdownReason::Suspend));
        if suspended {
            let name = &guest.record.config.name;
            tracing::warn!(
                name,
                "was given to another host; `parapet settle {name} here|there` says what became of it"
            );
            return Ok(());
        }
        guest.record.away = None;
        guest.record.stage = Stage::Running;
        self.save(&guest)?;
        self.adopt(guest)
    }
}
