//! Saves a guest: its memory and state go to a file, and then it is gone, or runs on.
//!
//! ```text
//!              record(Saving)      suspended      file complete, on its medium, kept by the client
//!   Running ────────────────▶ Saving ─▶ image ──────────────────────────────────────▶ Dying ─▶ gone
//!      ▲                         │        │ -c, -p                                       (or any time: destroyed by others)
//!      └──── resumed, record ◀───┴────────┴───── any failure, a client that went away
//! ```
//!
//! A guest is never lost: until the file is complete the domain is there, and whoever finds the record `Saving` (this agent after a
//! failure, or the next one) lets it run on; once the record says `Dying` the file is complete. Devices stay connected throughout, since a
//! guest that is told its suspension was cancelled keeps them. While the image is written the guest is not locked: it can be destroyed.

use super::error::AgentError;
use super::guest::{Guest, SharedGuest};
use super::record::Stage;
use super::request::kind;
use super::{Agent, handle, lock};
use crate::config::domain::DomainConfig;
use crate::config::xlconf::XlConf;
use crate::format::json;
use crate::peer::Outgoing;
use crate::save::limits::RESUME_ATTEMPTS;
use crate::save::{self, Patience, SaveError, Saver, Subject};
use parapet_wire::agent as wire;
use std::fs::File;
use xen_abi::domain::{DomainKind, ShutdownReason};
use xen_abi::hvm::params::CALLBACK_IRQ;
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::pv::vcpu_context::VcpuGuestContext;
use xen_host::error::Error;
use xen_stream::Summary;
use zerocopy::{FromBytes, IntoBytes};

/// What the hypercall that a guest suspended with answers when it was cancelled.
const CANCELLED: u64 = 1;

/// What becomes of a guest that was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterSave {
    /// It is gone.
    Destroy,
    /// It runs on.
    Resume,
    /// It would run on, but is paused.
    Pause,
}

/// How to save.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// What becomes of the guest.
    pub after: AfterSave,
    /// How long it is waited for.
    pub patience: Patience,
}

impl SaveOptions {
    /// With stock's patience.
    #[must_use]
    pub fn then(after: AfterSave) -> Self {
        Self {
            after,
            patience: Patience::default(),
        }
    }
}

/// What a guest does after it was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It runs, or has ended; nothing is left of the request.
    Settled,
    /// It took the request and may still suspend.
    MaySuspend,
}

/// Refuses a guest that cannot be saved now.
fn may_be_saved(guest: &Guest, domid: DomId) -> Result<(), AgentError> {
    let busy = |why: &str| {
        let name = &guest.record.config.name;
        Err(AgentError::Invalid(format!("{name} {why}")))
    };
    if guest.gone || guest.record.domid != Some(domid) {
        return Err(AgentError::NoDomain(domid));
    }
    match (guest.record.stage, guest.down) {
        (Stage::Running, None) => Ok(()),
        (Stage::Running, Some(_)) => busy("has shut down; there is nothing to save"),
        (Stage::Saving, _) => busy("is being saved or moved already"),
        (Stage::Leaving | Stage::HandedOver, _) => busy("is being moved to another host"),
        (Stage::Building | Stage::Waiting | Stage::Dying | Stage::Shell, _) => {
            busy("does not run; there is nothing to save")
        }
    }
}

/// Who asked for a save, and has the file.
pub trait Keeper {
    /// Whether they still want it.
    fn waits(&self) -> bool;
    /// The file is complete: puts it where it belongs; false if that did not happen.
    fn keep(&mut self) -> bool;
}

/// A file that is where it belongs already.
#[derive(Debug, Clone, Copy)]
pub struct InPlace;

impl Keeper for InPlace {
    fn waits(&self) -> bool {
        true
    }

    fn keep(&mut self) -> bool {
        true
    }
}

/// Lets the guest run on if whoever saves it ends early, by a panic as well.
pub(super) struct Saving<'a> {
    pub(super) agent: &'a Agent,
    pub(super) guest: &'a SharedGuest,
    pub(super) over: bool,
    /// The guest may have taken the request to suspend.
    pub(super) asked: bool,
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        if !self.over {
            let mut guest = lock(self.guest);
            if let Err(error) = self.agent.go_on_after(&mut guest, self.asked) {
                // The record says what is left to do; [`Agent::reap`] tries again.
                let name = &guest.record.config.name;
                tracing::error!(name, %error, "a guest that was to be saved does not run on yet");
            }
        }
    }
}

impl Agent {
    /// The configuration that belongs into a save file, as libxl writes it: of the guest as it is, or this one instead.
    ///
    /// # Errors
    /// Not a guest of ours.
    pub fn saved_config(
        &self,
        domid: DomId,
        instead: Option<&DomainConfig>,
    ) -> Result<String, AgentError> {
        let shared = self.guest_to_save(domid)?;
        let guest = lock(&shared);
        // Before the client opens a file.
        may_be_saved(&guest, domid)?;
        let config = instead.unwrap_or(&guest.record.config);
        Ok(json::saved(config, &XlConf::default()))
    }

    pub(super) fn guest_to_save(&self, domid: DomId) -> Result<SharedGuest, AgentError> {
        if domid == DomId::DOM0 {
            return Err(AgentError::ControlDomain("saving it"));
        }
        if let Some(guest) = self.by_domid(domid) {
            return Ok(guest);
        }
        Err(self.none_of_ours(domid, "save")?)
    }

    /// Saves a guest: a libxl stream goes to `file`, from where it stands.
    ///
    /// # Errors
    /// The cause; the guest runs on then, unless it stopped by itself or was destroyed meanwhile.
    pub fn save_guest(
        &self,
        domid: DomId,
        options: SaveOptions,
        file: File,
        keeper: &mut dyn Keeper,
    ) -> Result<Summary, AgentError> {
        let shared = self.guest_to_save(domid)?;
        let subject = self.begin_saving(&shared, domid)?;
        let mut saving = Saving {
            agent: self,
            guest: &shared,
            over: false,
            asked: true,
        };
        let written = self.write_image(subject, options.patience, file, keeper);
        saving.asked = !written.as_ref().is_err_and(SaveError::never_asked);
        let summary = written?;
        if !keeper.keep() {
            return Err(SaveError::Unwanted.into());
        }
        tracing::info!(%domid, bytes = summary.bytes, "guest saved");
        let mut guest = lock(&shared);
        saving.over = true;
        match options.after {
            // The file is complete: what cannot be removed yet is tried again by `reap`, and never runs.
            AfterSave::Destroy => {
                if let Err(error) = self.give_up(guest) {
                    tracing::error!(%domid, %error, "a saved guest could not be removed yet");
                }
            }
            AfterSave::Pause => {
                let paused = self.seams.xen.pause(domid);
                self.go_on(&mut guest)?;
                paused?;
            }
            AfterSave::Resume => self.go_on(&mut guest)?,
        }
        Ok(summary)
    }

    pub(super) fn begin_saving(
        &self,
        shared: &SharedGuest,
        domid: DomId,
    ) -> Result<Subject, AgentError> {
        let mut guest = lock(shared);
        may_be_saved(&guest, domid)?;
        guest.record.stage = Stage::Saving;
        if let Err(error) = self.save(&guest) {
            guest.record.stage = Stage::Running;
            return Err(error);
        }
        // Nor is its silence from now on a failure to whoever watches it.
        self.tell(wire::Event::HeartbeatStopped {
            uuid: handle(guest.uuid()),
        });
        Ok(Subject {
            domid,
            kind: kind(guest.record.config.kind),
            max_memory_kib: guest.record.config.memory.max_kib,
        })
    }

    fn write_image(
        &self,
        subject: Subject,
        patience: Patience,
        file: File,
        keeper: &dyn Keeper,
    ) -> Result<Summary, SaveError> {
        let xen = self.seams.xen.as_ref();
        let waits = || keeper.waits();
        // A file that cannot be written is noticed before the guest is bothered.
        let out = Outgoing::patient(file, &waits);
        let mut saver = Saver::begin(xen, subject, out, None, &waits)?;
        save::suspend::suspend(xen, self.seams.store.as_ref(), subject.domid, patience)?;
        let pages = saver.memory()?;
        saver.send(&pages)?;
        saver.finish().map(|(summary, _)| summary)
    }

    /// After a save that kept the guest, or failed: it runs on, and nothing is left of the request to suspend.
    pub(super) fn go_on(&self, guest: &mut Guest) -> Result<(), AgentError> {
        self.go_on_after(guest, true)
    }

    /// As [`Agent::go_on`]; a guest that was never `asked` and suspends later does so for somebody else.
    fn go_on_after(&self, guest: &mut Guest, asked: bool) -> Result<(), AgentError> {
        // Whatever happens now: a guest that suspends after this is woken by `reap`.
        guest.record.asked_to_suspend = asked;
        if guest.gone || guest.record.stage == Stage::Dying {
            return Ok(());
        }
        guest.record.stage = Stage::Running;
        let Some(domid) = guest.record.domid else {
            return Ok(());
        };
        let mut awake = Ok(Woken::Settled);
        for _ in 0..RESUME_ATTEMPTS {
            awake = self.wake(domid, kind(guest.record.config.kind));
            if awake.is_ok() {
                break;
            }
        }
        // A record that says `Saving` is as good for the next agent while the guest does not run.
        if awake.is_ok() {
            self.serve_again(guest);
        }
        // One that had suspended has answered the request, and one that had not seen it cannot any more: only a guest that took it may still suspend.
        guest.record.asked_to_suspend = awake? == Woken::MaySuspend && asked;
        self.save(guest)
    }

    /// Wakes a domain that has suspended, or takes the request back. May be repeated.
    fn wake(&self, domid: DomId, kind: DomainKind) -> Result<Woken, AgentError> {
        let info = self.seams.xen.domain_info(domid)?;
        let Some(info) = info.filter(|info| !info.dying) else {
            return Ok(Woken::Settled);
        };
        match info.shutdown {
            Some(ShutdownReason::Suspend) => {
                // A second request would put it to sleep again.
                save::suspend::withdraw(self.seams.store.as_ref(), domid)?;
                self.cancel_suspension(domid, kind)?;
                self.seams.xen.resume(domid)?;
                self.seams.store.resume(domid)?;
                Ok(Woken::Settled)
            }
            // It stopped for another reason: that is `reap`'s.
            Some(_) => Ok(Woken::Settled),
            None => {
                let untouched = save::suspend::withdraw(self.seams.store.as_ref(), domid)?;
                // An earlier attempt may have woken it and not come further.
                self.seams.store.resume(domid)?;
                Ok(if untouched {
                    Woken::Settled
                } else {
                    Woken::MaySuspend
                })
            }
        }
    }

    /// Lets the guest's hypercall say that the suspension was cancelled, so that it keeps its devices. One without PV drivers does not look.
    fn cancel_suspension(&self, domid: DomId, kind: DomainKind) -> Result<(), Error> {
        let xen = &self.seams.xen;
        if kind != DomainKind::Pv && xen.hvm_param(domid, CALLBACK_IRQ)? == 0 {
            return Ok(());
        }
        let bytes = xen.vcpu_context(domid, VcpuId(0))?;
        let mut context =
            VcpuGuestContext::read_from_bytes(&bytes).map_err(|_| Error::Malformed {
                op: "getvcpucontext",
                what: format!("{} bytes", bytes.len()),
            })?;
        context.user_regs.rax = CANCELLED;
        xen.set_vcpu_context(domid, VcpuId(0), context.as_bytes())
    }
}
