//! Moves a guest to another host: the sender's end of stock's handshake.
//!
//! ```text
//!   Running ─▶ Saving ─────────────▶ Leaving ───────────▶ HandedOver ──"it runs"──────▶ Dying ─▶ gone
//!      ▲        memory goes,          suspended, devices      │ │
//!      │        guest runs            let go; the rest goes,  │ └─ no word ─▶ HandedOver, until somebody knows  (settle_move)
//!      │           │                  "ready" comes           │
//!      └───────────┴───── any failure ────┴──"it does not"────┘
//! ```
//!
//! There is one moment after which the guest must not run here by itself: the record says `HandedOver` before the word is sent that gives it away. Until
//! then whatever happens, the death of this agent included, lets it run on here, and the other side, which has not had the word, removes its copy.
//! After it the other side's answer decides, and if none comes, nobody guesses.
//!
//! The guest's driver ends when the guest has suspended: its disks are unlocked for the other side, and what the guest was told is written is on them.
//! Source of the handshake: Xen `tools/xl/xl_migrate.c`; see [`xen_stream::handshake`].

use super::error::AgentError;
use super::furnish::order_driver;
use super::guest::{Guest, SharedGuest};
use super::luggage::{self, Luggage, LuggageOptions};
use super::record::Stage;
use super::save::Saving;
use super::{Agent, News, handle, lock};
use crate::agent::drivers::DriverNews;
use crate::device::medium;
use crate::disks::limits::REPORT_PATIENCE as DISK_PATIENCE;
use crate::layout::{Tree, paths};
use crate::peer::{Outgoing, Replies};
use crate::save::live::{self, Log};
use crate::save::precopy::{Precopy, Why};
use crate::save::{Offer, PageSet, Patience, SaveError, Saver, Subject, limits, suspend};
use parapet_wire::driver::OrderBody;
use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::domain::DomainKind;
use xen_abi::ids::DomId;
use xen_host::seam::{Dirty, StoreExt};
use xen_stream::Accord;
use xen_stream::handshake::{self, HandshakeError, Message, Status};

/// What a guest that was given away is called, as with stock.
pub const AWAY_SUFFIX: &str = "--migratedaway";
/// Longest time in which the other side may take nothing of the stream.
const STALL: Duration = Duration::from_secs(30);
/// Longest time from the end of the stream until the other side has built the domain.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// Longest time for the other side to say how it got on.
const REPORT_PATIENCE: Duration = Duration::from_secs(60);

/// How to move.
#[derive(Debug, Clone, Copy)]
pub struct MoveOptions {
    /// The guest runs while its memory goes.
    pub live: bool,
    /// Memory goes a second time, to be compared there.
    pub verify: bool,
    /// How long the guest should stand still at most for the sake of its memory.
    pub max_downtime: Duration,
    /// How long it is waited for.
    pub patience: Patience,
    /// Its disks go along.
    pub disks: Option<LuggageOptions>,
    /// What the other side is offered beyond stock's format.
    pub offers: Accord,
    /// How long its answer is waited for, before any memory goes: what went before is as stock has it.
    pub answer: Duration,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            live: true,
            verify: false,
            max_downtime: limits::MAX_DOWNTIME,
            patience: Patience::default(),
            disks: None,
            offers: Accord::ALL,
            answer: Duration::ZERO,
        }
    }
}

/// A connection to the other side, which has been sent the header of a save file.
#[derive(Debug)]
pub struct Connection {
    /// To it.
    pub to: File,
    /// From it.
    pub from: File,
}

/// Whoever asked for a move.
pub trait Escort {
    /// Whether they still want it.
    fn waits(&self) -> bool;
    /// A line about how it goes.
    fn tell(&self, line: String);
}

/// How a move went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// From the first byte to the other side's word that the guest runs.
    pub total: Duration,
    /// From asking the guest to suspend to that word: it stood still for at most this long.
    pub pause: Duration,
    /// Of that, until it had suspended.
    pub suspending: Duration,
    /// Rounds of memory, the last one included.
    pub rounds: u32,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Why it was suspended when it was.
    pub why: Why,
}

/// What happened at the end of a move that did not work.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The other side said something else, or nothing, while the guest was still ours.
    #[error("{0}; the guest runs on here")]
    Handshake(HandshakeError),
    /// The other side could not be told; it has not had the guest.
    #[error("giving the guest to the other side failed: {0}; it runs on here")]
    NotGiven(std::io::Error),
    /// The other side has it, could not run it, and gave it back.
    #[error(
        "the other side could not start the guest (it says {0}, see its messages); it runs on here"
    )]
    GivenBack(i8),
    /// Nobody knows.
    #[error(
        "the other side was given the guest, and then {cause}. If it runs there: `parapet settle {name} there`; if it does not, and never will: `parapet settle {name} here`. Until then it is suspended here as {name}"
    )]
    Unknown {
        /// What it is called here now.
        name: String,
        /// What was missed.
        cause: String,
    },
    /// There is nothing to settle.
    #[error("{0} was not given to another host")]
    NotAway(String),
    /// It arrived, on this very host.
    #[error("{name} cannot go on here: {arrived} has arrived on this host, and is the guest now")]
    ArrivedHere {
        /// What is left of it.
        name: String,
        /// The guest.
        arrived: String,
    },
}

/// What one move has found out so far.
struct Journey<'a> {
    agent: &'a Agent,
    shared: &'a SharedGuest,
    subject: Subject,
    options: &'a MoveOptions,
    escort: &'a dyn Escort,
    replies: &'a Replies,
    began: Instant,
    /// The guest was asked to suspend.
    asked: Cell<bool>,
}

/// A guest whose image is with the other side.
struct Sent<'a> {
    out: Outgoing<'a>,
    /// Images that were copied.
    stay: Vec<PathBuf>,
    asked: Instant,
    suspending: Duration,
    rounds: u32,
    bytes: u64,
    why: Why,
}

impl Agent {
    /// Moves a guest.
    ///
    /// # Errors
    /// The cause. The guest runs on here then, unless it stopped by itself or was destroyed meanwhile; but after [`MoveError::Unknown`] it is suspended.
    pub fn move_guest(
        &self,
        domid: DomId,
        options: &MoveOptions,
        connection: Connection,
        escort: &dyn Escort,
    ) -> Result<Moved, AgentError> {
        let shared = self.guest_to_save(domid)?;
        let subject = self.begin_saving(&shared, domid)?;
        let mut saving = Saving {
            agent: self,
            guest: &shared,
            over: false,
            asked: true,
        };
        let wanted = || escort.waits();
        let replies = Replies::new(connection.from);
        let journey = Journey {
            agent: self,
            shared: &shared,
            subject,
            options,
            escort,
            replies: &replies,
            began: Instant::now(),
            asked: Cell::new(false),
        };
        let answered = || replies.agreed();
        let sent = journey.send(connection.to, &answered, &wanted);
        let unseen = matches!(&sent, Err(AgentError::Save(error)) if error.never_asked());
        saving.asked = journey.asked.get() && !unseen;
        let sent = sent?;
        let words = replies.reader(READY_PATIENCE, &wanted);
        let mut words = words.map_err(MoveError::NotGiven)?;
        handshake::expect(&mut words, Message::Ready).map_err(MoveError::Handshake)?;
        journey.phase("the other side is ready");
        escort.tell("migration sender: Target has acknowledged transfer.".into());
        journey.part_with(&mut saving, sent)
    }

    /// Its dirty log may be on still.
    pub(super) fn end_log(&self, guest: &Guest) {
        if let Some(domid) = guest.record.domid
            && let Err(error) = self.seams.xen.log_dirty_off(domid)
        {
            tracing::debug!(%domid, %error, "the dirty log is not off");
        }
    }

    /// Gives a guest that goes on the driver it had before it was to leave. A guest that still has one is left alone.
    pub(super) fn serve_again(&self, guest: &mut Guest) {
        // An agent that starts adopts its guests, drivers included.
        if guest.driver.is_some() || guest.started.is_none() {
            return;
        }
        if let Err(error) = self.replace_driver(guest) {
            let (name, uuid) = (&guest.record.config.name, guest.record.key);
            tracing::error!(name, %error, "a guest that goes on has no driver yet");
            (self.outlets.news)(News::Driver(DriverNews::Died { uuid, pid: 0 }));
        }
    }

    /// Writes a domain's name where everybody looks.
    pub(super) fn call_it(&self, domid: DomId, uuid: Uuid, name: &str) -> Result<(), AgentError> {
        let mut tree = Tree::new(domid);
        tree.value(format!("{}/name", paths::domain(domid)), name);
        tree.value(format!("{}/name", paths::vm(handle(uuid))), name);
        Ok(self.seams.store.commit("a name", &tree.into_ops())?)
    }
}

impl<'a> Journey<'a> {
    /// Sends the guest; it is suspended, and without a driver, then.
    fn send(
        &self,
        to: File,
        answered: &'a dyn Fn() -> Accord,
        wanted: &'a dyn Fn() -> bool,
    ) -> Result<Sent<'a>, AgentError> {
        let agent: &'a Agent = self.agent;
        let xen = agent.seams.xen.as_ref();
        let mut out = Outgoing::connection(to, STALL, wanted).map_err(MoveError::NotGiven)?;
        let mut luggage = None;
        if let Some(options) = &self.options.disks {
            let reports = self.replies.reader(DISK_PATIENCE, wanted);
            let reports = reports.map_err(MoveError::NotGiven)?;
            let mut packed =
                Luggage::pack(agent, self.shared, options, &mut out, reports, self.escort)?;
            packed.live(&mut out)?;
            luggage = Some(packed);
        }
        let mut saver = Saver::begin(xen, self.subject, out, self.offer(answered), wanted)?;
        self.replies.wait(self.options.answer, wanted);
        let (log, rest, rounds, why) = match self.log(&mut saver)? {
            Some(log) => {
                let mut precopy = Precopy::new(log.pages(), self.options.max_downtime);
                let rest = live::rounds(&mut saver, &log, &mut precopy, &mut |news| {
                    self.escort.tell(format!("migration sender: {news}"));
                })?;
                (Some(log), rest.pages, precopy.rounds(), rest.why)
            }
            None => (None, PageSet::default(), 0, Why::NotLive),
        };
        let asked = Instant::now();
        self.asked.set(true);
        let (store, patience) = (self.agent.seams.store.as_ref(), self.options.patience);
        suspend::suspend(xen, store, self.subject.domid, patience).map_err(SaveError::from)?;
        let suspending = asked.elapsed();
        self.phase("suspended");
        self.let_devices_go()?;
        self.phase("its devices are let go");
        let pages = match &log {
            Some(log) => rest.and(log.take(Dirty::TakeLast)?),
            None => saver.memory()?,
        };
        saver.send(&pages)?;
        drop(log);
        self.phase("its last pages are sent");
        if self.options.verify {
            let all = saver.everything();
            saver.verify()?;
            saver.send(&all)?;
        }
        let (summary, mut out) = saver.finish()?;
        self.phase("its image is sent");
        let stay = match luggage {
            Some(luggage) => luggage.finish(&mut out)?,
            None => Vec::new(),
        };
        self.phase("its disks are sent");
        Ok(Sent {
            out,
            stay,
            asked,
            suspending,
            rounds: rounds + 1,
            bytes: summary.bytes,
            why,
        })
    }

    /// Gives the guest to the other side, which is ready for it. From here on it is let go of or taken back by what the other side says, not because
    /// somebody went away.
    fn part_with(&self, saving: &mut Saving<'_>, mut sent: Sent<'_>) -> Result<Moved, AgentError> {
        let agent = self.agent;
        let name = self.hand_over()?;
        saving.over = true;
        self.escort
            .tell("migration sender: Giving target permission to start.".into());
        if let Err(error) = Self::give(&mut sent.out) {
            agent.take_back(lock(self.shared))?;
            return Err(MoveError::NotGiven(error).into());
        }
        self.phase("it is given away");
        match self.verdict() {
            Ok(Status::Started) => {
                let pause = sent.asked.elapsed();
                self.phase("it runs on the other side");
                self.escort
                    .tell("migration sender: Target reports successful startup.".into());
                self.let_go_for_good();
                luggage::tell_what_stays(self.escort, &sent.stay);
                Ok(Moved {
                    total: self.began.elapsed(),
                    pause,
                    suspending: sent.suspending,
                    rounds: sent.rounds,
                    bytes: sent.bytes,
                    why: sent.why,
                })
            }
            Ok(Status::Failed { rc }) => {
                agent.take_back(lock(self.shared))?;
                Err(MoveError::GivenBack(rc).into())
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(
                    name,
                    cause,
                    "a guest was given away, and nobody knows whether it arrived"
                );
                Err(MoveError::Unknown { name, cause }.into())
            }
        }
    }

    /// What the other side is offered. It may answer from then on.
    fn offer(&self, answered: &'a dyn Fn() -> Accord) -> Option<Offer<'a>> {
        let what = self.options.offers;
        (what != Accord::NONE).then(|| {
            self.replies.offered();
            Offer { what, answered }
        })
    }

    /// How the other side got on; when it failed it also gives the guest back.
    fn verdict(&self) -> Result<Status, HandshakeError> {
        let words = self.replies.reader(REPORT_PATIENCE, &|| true);
        let mut words = words.map_err(|source| {
            let wanted = Message::Report.name();
            HandshakeError::Read { wanted, source }
        })?;
        handshake::expect(&mut words, Message::Report)?;
        let status = handshake::status(&mut words)?;
        if matches!(status, Status::Failed { .. }) {
            handshake::expect(&mut words, Message::Go)?;
        }
        Ok(status)
    }

    /// For whoever looks for where the time goes.
    fn phase(&self, what: &str) {
        let (domid, at) = (self.subject.domid, self.began.elapsed());
        tracing::debug!(%domid, ?at, what, "move");
    }

    /// The dirty log, for a guest that is to be moved live and can be.
    fn log(&self, saver: &mut Saver<'_>) -> Result<Option<Log<'a>>, AgentError> {
        if !self.options.live {
            return Ok(None);
        }
        if self.subject.kind == DomainKind::Pv {
            let why = "migration sender: a PV guest stands still while its memory goes.";
            self.escort.tell(why.into());
            return Ok(None);
        }
        let all = saver.memory()?;
        let agent: &'a Agent = self.agent;
        let xen = agent.seams.xen.as_ref();
        match Log::start(xen, self.subject.domid, all) {
            Ok(log) => Ok(Some(log)),
            Err(error) => {
                self.escort.tell(format!(
                    "migration sender: no live move on this host, the guest stands still while its memory goes ({error})."
                ));
                Ok(None)
            }
        }
    }

    /// The guest has suspended: its driver finishes what it was asked, and ends. Whoever goes on with it gets a new one.
    fn let_devices_go(&self) -> Result<(), AgentError> {
        let mut guest = lock(self.shared);
        let domid = self.subject.domid;
        if guest.gone || guest.record.domid != Some(domid) {
            return Err(AgentError::NoDomain(domid));
        }
        guest.record.stage = Stage::Leaving;
        self.agent.save(&guest)?;
        if guest.driver.is_some() {
            order_driver(&mut guest, domid, OrderBody::Quiesce, Vec::new())?;
        }
        if let Some(mut driver) = guest.driver.take() {
            driver.kill();
        }
        flush(&guest)
    }

    /// From now on the guest must not run here by itself; answers what it is called.
    fn hand_over(&self) -> Result<String, AgentError> {
        let mut guest = lock(self.shared);
        let domid = self.subject.domid;
        if guest.gone || guest.record.domid != Some(domid) {
            return Err(AgentError::NoDomain(domid));
        }
        let (away, before) = (Uuid::new_v4(), guest.record.clone());
        let name = format!("{}{AWAY_SUFFIX}", before.config.name);
        guest.record.stage = Stage::HandedOver;
        guest.record.away = Some(away);
        guest.record.config.name.clone_from(&name);
        let done = self
            .agent
            .save(&guest)
            .and_then(|()| Ok(self.agent.seams.xen.set_handle(domid, handle(away))?))
            .and_then(|()| self.agent.call_it(domid, before.config.uuid, &name));
        if let Err(error) = done {
            // Nobody was told: it goes on as if nothing had been.
            let uuid = before.config.uuid;
            guest.record = before;
            let _ = self.agent.seams.xen.set_handle(domid, handle(uuid));
            let _ = self.agent.call_it(domid, uuid, &guest.record.config.name);
            return Err(error);
        }
        Ok(name)
    }

    /// Says the word that gives the guest away. An error means that the other side has not had it.
    fn give(out: &mut Outgoing<'_>) -> std::io::Result<()> {
        let word = Message::Go.bytes();
        let mut done = 0;
        while done < word.len() {
            match out.write(&word[done..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                // A part of a word is none.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// It runs on the other side. What cannot be removed here yet is tried again by `reap`, and never runs.
    fn let_go_for_good(&self) {
        if let Err(error) = self.agent.give_up(lock(self.shared)) {
            let domid = self.subject.domid;
            tracing::error!(%domid, %error, "a guest that was moved could not be removed yet");
        }
    }
}

/// Puts on its medium what the guest has written: another host does not see this one's page cache.
fn flush(guest: &Guest) -> Result<(), AgentError> {
    let disks = &guest.record.config.disks;
    for disk in disks.iter().filter(|disk| disk.writable) {
        let opened = medium::open(disk)?;
        opened
            .file
            .sync_data()
            .map_err(|error| AgentError::Medium {
                vdev: disk.vdev.clone(),
                path: disk.target.clone().unwrap_or_default().into(),
                what: format!("cannot be flushed before the guest is moved: {error}"),
            })?;
    }
    Ok(())
}
