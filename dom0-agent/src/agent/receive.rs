//! Takes a guest that is moved here: the receiver's end of stock's handshake.
//!
//! ```text
//!   check ─▶ record(Expected) ─▶ (disks, if they come along) ─▶ domain from the stream, paused ─▶ devices ─▶ "ready" ─▶ "it is yours" ─▶ record(Accepted) ─▶ name, unpause ─▶ "it runs"
//!                   └───────────────────── any failure: teardown, and the guest runs on where it was ──┘       └─ any failure: teardown, "it does not"
//! ```
//!
//! While it is expected the guest has a name and a uuid of its own here: the one that is still running may be on this very host. It becomes the guest
//! with the record that says `Accepted`, which is written when the other side has given it up: an agent that is killed before that leaves a copy
//! that the next one removes, and after it one that the next one lets run. Source of the handshake: Xen `tools/xl/xl_migrate.c`.

use super::create::{CreateOptions, check, check_shape, draw_what_is_open};
use super::error::AgentError;
use super::furnish::{name_rings, number_of, vm_facts};
use super::guest::{Guest, SharedGuest};
use super::landing::{Landing, LandingOptions};
use super::migrate::Escort;
use super::record::{Arrival, Record, Stage};
use super::request::build_request;
use super::{Agent, News, handle, landing, lock};
use crate::config::domain::DomainConfig;
use crate::layout::{Tree, domain, paths};
use crate::peer::{Incoming, widen};
use crate::restore::{self, Restored};
use parapet_wire::agent as wire;
use parapet_wire::driver::Medium;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use xen_abi::ids::DomId;
use xen_host::seam::StoreExt;
use xen_stream::Accord;
use xen_stream::accord;
use xen_stream::handshake::{self, HandshakeError, Message, Status};

/// What a guest is called until it is ours, as with stock.
pub const INCOMING_SUFFIX: &str = "--incoming";
/// Longest time in which the other side may send nothing of the stream. It is silent by right while its guest suspends, which may take two minutes (one
/// to acknowledge, one to suspend, with stock as with us), and while disks are flushed then; a guest that is waited for costs its memory.
pub const STALL: Duration = Duration::from_secs(300);
/// Longest time for the other side to give the guest up once it is ready here.
const GO_PATIENCE: Duration = Duration::from_secs(120);
/// What stock's sender is told of a guest that cannot be run here: libxl's `ERROR_FAIL`.
const RC_FAIL: i8 = -3;

/// How to take a guest.
#[derive(Debug, Clone, Copy)]
pub struct ArrivalOptions {
    /// How to start it.
    pub start: CreateOptions,
    /// Longest time in which nothing of its stream may come.
    pub stall: Duration,
    /// Its disks come along.
    pub disks: Option<LandingOptions>,
    /// What is taken of a sender's offer beyond stock's format.
    pub takes: Accord,
}

impl Default for ArrivalOptions {
    fn default() -> Self {
        Self {
            start: CreateOptions::default(),
            stall: STALL,
            disks: None,
            takes: Accord::ALL,
        }
    }
}

/// Why a guest did not arrive. It runs where it was.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// The other side did not give it up.
    #[error("the guest did not become ours: {0}")]
    Kept(HandshakeError),
    /// The other side cannot be told.
    #[error("cannot answer the other side: {0}")]
    Answer(std::io::Error),
    /// Somebody destroyed it here meanwhile.
    #[error("what had arrived of the guest was destroyed meanwhile")]
    Destroyed,
    /// Its name belongs to another guest here.
    #[error(
        "a domain named \"{name}\" exists here already (domain {domid}) and is another guest; rename or destroy one of them"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        domid: DomId,
    },
}

impl Agent {
    /// Takes a guest: its stream comes from `input`, which stands behind the header of a save file, and the handshake goes over `input` and `output`.
    ///
    /// # Errors
    /// The cause, with nothing left behind; the guest runs where it was.
    pub fn receive_guest(
        &self,
        mut config: DomainConfig,
        options: &ArrivalOptions,
        input: File,
        output: File,
        escort: &dyn Escort,
    ) -> Result<DomId, AgentError> {
        draw_what_is_open(&mut config);
        match options.disks {
            Some(_) => check_shape(&config)?,
            None => check(&config)?,
        }
        self.check_name_at_home(&config)?;
        let name = config.name.clone();
        config.name = format!("{name}{INCOMING_SUFFIX}");
        let shared = self.enter_arriving(config, options.start)?;
        let arrived = self.arrive(&shared, &name, options, input, output, escort);
        if arrived.is_err() {
            self.turn_away(&shared);
        }
        arrived
    }

    /// Another guest of this name would make the move fail in its last moment.
    fn check_name_at_home(&self, config: &DomainConfig) -> Result<(), AgentError> {
        let Some(domid) = self.domain_named(&config.name)? else {
            return Ok(());
        };
        let info = self.seams.xen.domain_info(domid)?;
        if info.is_none_or(|info| info.handle == handle(config.uuid)) {
            // It is moved from this host to this host.
            return Ok(());
        }
        let name = config.name.clone();
        Err(ArrivalError::NameInUse { name, domid }.into())
    }

    fn enter_arriving(
        &self,
        config: DomainConfig,
        options: CreateOptions,
    ) -> Result<SharedGuest, AgentError> {
        let _one_at_a_time = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(domid) = self.domain_named(&config.name)? {
            let name = config.name;
            return Err(AgentError::NameInUse { name, domid });
        }
        Ok(self.enter(Record::arriving(config, options.unmanaged)))
    }

    fn arrive(
        &self,
        shared: &SharedGuest,
        name: &str,
        options: &ArrivalOptions,
        input: File,
        mut output: File,
        escort: &dyn Escort,
    ) -> Result<DomId, AgentError> {
        let unanswered = |error| AgentError::from(ArrivalError::Answer(error));
        let answers = input.try_clone().map_err(unanswered)?;
        let mut back = output.try_clone().map_err(unanswered)?;
        let wanted = || escort.waits();
        let line = input.try_clone().map_err(unanswered)?;
        let mut line = Incoming::new(line, options.stall, &wanted);
        let mut landing = match options.disks {
            Some(terms) => Some(self.expect_landing(shared, terms, &mut line, &mut output)?),
            None => None,
        };
        let awaited = landing.as_ref().map(Landing::numbers).unwrap_or_default();
        if let Some(landing) = &mut landing {
            escort.tell("migration target: its disks come along.".into());
            landing.take(&mut line, &mut output)?;
        }
        widen(&input);
        let stream = Incoming::new(input, options.stall, &wanted);
        let mut land = || match landing.take() {
            Some(mut landing) => {
                landing.take(&mut line, &mut output)?;
                Ok(landing.commit()?)
            }
            None => Ok(()),
        };
        let mut answer = |offered: Accord| {
            let taken = offered.and(options.takes);
            if taken != Accord::NONE {
                back.write_all(&accord::answer(taken))?;
            }
            Ok(taken)
        };
        let restored = self.build_arriving(shared, stream, &awaited, &mut answer, &mut land)?;
        let domid = restored.built.domid;
        if let Some(compared) = restored.compared {
            let (pages, different) = (compared.pages, compared.different);
            escort.tell(format!(
                "migration target: {pages} pages came twice, {different} of them differ."
            ));
        }
        escort.tell(
            "migration target: Transfer complete, requesting permission to start domain.".into(),
        );
        output
            .write_all(Message::Ready.bytes())
            .map_err(unanswered)?;
        handshake::expect(
            &mut Incoming::new(answers, GO_PATIENCE, &wanted),
            Message::Go,
        )
        .map_err(ArrivalError::Kept)?;
        escort.tell("migration target: Got permission, starting domain.".into());
        let taken = self.take(shared, name, options.start.paused);
        let status = match &taken {
            Ok(()) => Status::Started,
            Err(_) => Status::Failed { rc: RC_FAIL },
        };
        let mut report = Message::Report.bytes().to_vec();
        report.push(status.byte());
        if taken.is_err() {
            // What is left of it here goes before it is given back: there is never a moment with two.
            self.turn_away(shared);
            report.extend(Message::Go.bytes());
        }
        let told = output.write_all(&report);
        taken?;
        if let Err(error) = told {
            // It is ours, and runs: the other side finds out by asking.
            tracing::warn!(%domid, %error, "a guest arrived, and the other side could not be told");
        }
        self.settle_in(shared, domid);
        Ok(domid)
    }

    /// Makes the domain, without the guest's lock while its stream comes: that may take long, and others ask for all guests meanwhile. What needs
    /// neither its memory nor its disks is made before, while it still runs elsewhere. Those of its disks that are `awaited` have come when `land` has.
    fn build_arriving(
        &self,
        shared: &SharedGuest,
        stream: Incoming<'_>,
        awaited: &BTreeSet<u32>,
        answer: &mut restore::Answer<'_>,
        land: &mut dyn FnMut() -> Result<(), AgentError>,
    ) -> Result<Restored, AgentError> {
        let _creation = self.begin_creation();
        let request = {
            let mut guest = lock(shared);
            guest.record.starts += 1;
            self.save(&guest)?;
            self.make_room(&guest.record.config)?;
            build_request(&guest.record.config, handle(guest.record.key))
        };
        let mut prepared: Result<Vec<Option<Medium>>, AgentError> =
            Err(ArrivalError::Destroyed.into());
        let mut prepare = |domid| prepared = self.prepare_arriving(shared, domid, awaited);
        let xen = self.seams.xen.as_ref();
        let restored = restore::restore(xen, &request, stream, answer, &mut prepare)?;
        let built = restored.built;
        let expected = prepared?;
        tracing::debug!(domid = %built.domid, "an arriving guest is built");
        land()?;
        let mut guest = lock(shared);
        if guest.gone || guest.record.stage != Stage::Building {
            return Err(ArrivalError::Destroyed.into());
        }
        guest.set_console(&built);
        self.save(&guest)?;
        let mut tree = Tree::new(built.domid);
        self.claim_disks(&mut guest, built.domid, &expected, &mut tree)?;
        name_rings(&mut tree, &built);
        tracing::debug!(domid = %built.domid, "an arriving guest has its disks");
        self.seams.store.put(&tree.into_ops())?;
        tracing::debug!(domid = %built.domid, "an arriving guest is described");
        self.introduce(&built)?;
        self.connect_console(&mut guest)?;
        tracing::debug!(domid = %built.domid, "an arriving guest is furnished");
        Ok(restored)
    }

    /// Answers what its disks are, as they are now; of one that is awaited nothing is known.
    fn prepare_arriving(
        &self,
        shared: &SharedGuest,
        domid: DomId,
        awaited: &BTreeSet<u32>,
    ) -> Result<Vec<Option<Medium>>, AgentError> {
        let mut guest = lock(shared);
        if guest.gone || guest.record.stage != Stage::Building {
            return Err(ArrivalError::Destroyed.into());
        }
        guest.record.domid = Some(domid);
        self.save(&guest)?;
        let mut tree = self.prepare(&mut guest, domid)?;
        let mut expected = Vec::new();
        for spec in guest.record.config.disks.clone() {
            expected.push(if awaited.contains(&number_of(&spec)?) {
                Self::await_disk(&mut guest, &spec)?;
                None
            } else {
                Some(self.expect_disk(&mut guest, domid, &spec, &mut tree)?)
            });
        }
        self.seams.store.put(&tree.into_ops())?;
        tracing::debug!(%domid, "an arriving guest is expected");
        Ok(expected)
    }

    /// The guest is ours, and runs.
    fn take(&self, shared: &SharedGuest, name: &str, paused: bool) -> Result<(), AgentError> {
        // Before the guest's lock, as everywhere.
        let one_at_a_time = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(domid) = self.domain_named(name)? {
            let name = name.to_owned();
            return Err(ArrivalError::NameInUse { name, domid }.into());
        }
        let mut guest = lock(shared);
        let Some(domid) = guest.record.domid.filter(|_| !guest.gone) else {
            return Err(ArrivalError::Destroyed.into());
        };
        if guest.record.stage != Stage::Building {
            return Err(ArrivalError::Destroyed.into());
        }
        name.clone_into(&mut guest.record.config.name);
        drop(one_at_a_time);
        guest.record.stage = Stage::Running;
        guest.record.arrival = Some(Arrival::Accepted { paused });
        self.save(&guest)?;
        tracing::debug!(name, "an arriving guest is accepted");
        if !paused {
            self.seams.xen.unpause(domid)?;
        }
        guest.started = Some(Instant::now());
        Ok(())
    }

    /// What nobody waits for: the guest gets its name, and everybody is told. What fails is tried again by `reap`.
    fn settle_in(&self, shared: &SharedGuest, domid: DomId) {
        let mut guest = lock(shared);
        if let Err(error) = self.finish_arrival(&mut guest) {
            tracing::error!(%domid, %error, "a guest that arrived has not all of its names yet");
        }
        let name = &guest.record.config.name;
        tracing::info!(name, %domid, "guest arrived");
        let uuid = guest.record.key;
        (self.outlets.news)(News::Started { uuid, domid });
        self.tell(wire::Event::Started(guest.public()));
    }

    /// Names an accepted guest and lets it run. May be repeated after a failure; does nothing for a guest that did not come from elsewhere.
    pub(super) fn finish_arrival(&self, guest: &mut Guest) -> Result<(), AgentError> {
        let (Some(Arrival::Accepted { paused }), Some(domid)) =
            (guest.record.arrival, guest.record.domid)
        else {
            return Ok(());
        };
        let (key, uuid) = (guest.record.key, guest.record.config.uuid);
        // It runs already unless the agent that accepted it died. An operator's pause in between is lost then.
        let info = self.seams.xen.domain_info(domid)?;
        if !paused && guest.started.is_none() && info.is_some_and(|info| info.paused) {
            self.seams.xen.unpause(domid)?;
        }
        self.seams.xen.set_handle(domid, handle(uuid))?;
        let mut tree = Tree::new(domid);
        tree.remove(&paths::vm(handle(key)));
        domain::renamed(&mut tree, &vm_facts(guest));
        self.seams
            .store
            .commit("the arrival of a guest", &tree.into_ops())?;
        self.write_userdata(guest)?;
        guest.record.arrival = None;
        landing::keep(&std::mem::take(&mut guest.record.landed));
        self.save(guest)
    }

    /// Removes what is left of a guest that does not stay.
    fn turn_away(&self, shared: &SharedGuest) {
        let mut guest = lock(shared);
        if guest.gone {
            return;
        }
        // It was never the guest here.
        guest.record.arrival = Some(Arrival::Expected);
        let name = guest.record.config.name.clone();
        if let Err(error) = self.give_up(guest) {
            tracing::error!(name, %error, "a guest that did not arrive could not be removed yet");
        }
    }
}
