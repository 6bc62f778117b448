//! The disks of a guest that moves, at the host where it arrives: what may land where, and what becomes of it if the guest does not come.
//!
//! ```text
//!   offers ─▶ each place looked at, room counted ─▶ .NAME.incoming made, on record ─▶ answers ─▶ rounds ... (the guest's stream) ... last rounds
//!                     │ no: one line says why                                                                    │
//!                     └──── nothing is left ◀──── any failure until the guest is ours: removed ◀──── NAME ◀──────┘
//! ```
//!
//! A disk that the guest can write to lands where nothing is yet, or nothing but an empty file, unless replacing was asked for. One that it only
//! reads (a CD-ROM) may be there already: a file of the same size is taken for it.

use super::error::AgentError;
use super::guest::SharedGuest;
use super::record::Stage;
use super::{Agent, lock};
use crate::config::disk::DiskSpec;
use crate::config::vdev::vdev_number;
use crate::disks::talk::{self, Offer, TalkError, Turn, Wish};
use crate::disks::{Heard, Landed, Place, ReceiveError, Receiver, place};
use nix::sys::statvfs::statvfs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How disks are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LandingOptions {
    /// Files that are there and not empty are replaced.
    pub replace: bool,
}

/// Why disks did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum LandingError {
    /// The other side says something else, or nothing.
    #[error(
        "the other side does not speak of disks as this one does ({0}); was it asked for --with-disks?"
    )]
    Talk(TalkError),
    /// The configuration and the offers are of different disks.
    #[error(
        "{0}; the configuration that is sent along must have the guest's disks, with paths of this host"
    )]
    Disks(String),
    /// Not enough space.
    #[error(
        "{directory}: {free} bytes are free, and the disks that land there hold {needed}; make room"
    )]
    Room {
        /// Where.
        directory: PathBuf,
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// A turn of a disk that is not being received, or of another kind than is due.
    #[error("the other side speaks out of turn: {0}")]
    Turn(String),
    /// A disk.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

impl From<TalkError> for LandingError {
    fn from(error: TalkError) -> Self {
        Self::Talk(error)
    }
}

/// Disks that are on their way here.
#[derive(Debug)]
pub(super) struct Landing {
    disks: BTreeMap<u32, (Receiver, Landed)>,
    complete: BTreeSet<u32>,
}

impl Agent {
    /// Hears which disks come, and makes the files that they grow in.
    pub(super) fn expect_landing(
        &self,
        shared: &SharedGuest,
        options: LandingOptions,
        from: &mut dyn Read,
        answers: &mut dyn Write,
    ) -> Result<Landing, AgentError> {
        let offers = talk::read_offers(from).map_err(LandingError::Talk)?;
        let said =
            |result: std::io::Result<()>| result.map_err(|error| LandingError::Talk(error.into()));
        match self.make_places(shared, options, &offers) {
            Ok((landing, wishes)) => {
                said(answers.write_all(&talk::encode_wishes(&wishes)))?;
                Ok(landing)
            }
            Err(error) => {
                // Whether it is heard or not: this is why.
                let _ = answers.write_all(&talk::encode_refusal(&error.to_string()));
                Err(error)
            }
        }
    }

    fn make_places(
        &self,
        shared: &SharedGuest,
        options: LandingOptions,
        offers: &[Offer],
    ) -> Result<(Landing, Vec<(u32, Wish)>), AgentError> {
        let specs = lock(shared).record.config.disks.clone();
        let mut places = Vec::new();
        let mut wishes = Vec::new();
        for offer in offers {
            let path = path_of(&specs, offer)?;
            if offer.read_only && is_there(&path, offer.bytes) {
                wishes.push((offer.disk, Wish::Have));
                continue;
            }
            wishes.push((offer.disk, Wish::Send));
            places.push((
                Place {
                    disk: offer.disk,
                    path,
                    bytes: Some(offer.bytes),
                    replace: options.replace,
                },
                offer.data,
            ));
        }
        if let Some(spec) = specs.iter().find(|spec| !is_offered(spec, offers)) {
            let what = format!("disk {} does not come along", spec.vdev);
            return Err(LandingError::Disks(what).into());
        }
        check_room(&places)?;
        let mut landing = Landing {
            disks: BTreeMap::new(),
            complete: BTreeSet::new(),
        };
        let mut landed = Vec::new();
        for (place, _) in places {
            let (disk, path) = (place.disk, place.path.clone());
            let receiver = Receiver::new(place).map_err(LandingError::Receive)?;
            let found = Landed::of(&path, receiver.file());
            let found = found.map_err(|source| AgentError::File {
                what: "cannot look at what grows for",
                path,
                source,
            })?;
            landed.push(found.clone());
            landing.disks.insert(disk, (receiver, found));
        }
        let mut guest = lock(shared);
        if guest.gone || guest.record.stage != Stage::Building {
            return Err(super::receive::ArrivalError::Destroyed.into());
        }
        // Whoever finds the record of a guest that did not come removes them.
        guest.record.landed = landed;
        self.save(&guest)?;
        Ok((landing, wishes))
    }
}

impl Landing {
    /// Numbers of the disks that come.
    pub(super) fn numbers(&self) -> BTreeSet<u32> {
        self.disks.keys().copied().collect()
    }

    /// Takes rounds, in whatever order they come, until something else is to follow.
    pub(super) fn take(
        &mut self,
        from: &mut dyn Read,
        reports: &mut dyn Write,
    ) -> Result<(), LandingError> {
        // Ends: rounds and ends of a disk are counted by its receiver.
        loop {
            let turn = Turn::read(from)?;
            let (Turn::Round(disk) | Turn::Last(disk)) = turn else {
                return Ok(());
            };
            let odd = |what: &str| LandingError::Turn(format!("disk {disk} {what}"));
            if self.complete.contains(&disk) {
                return Err(odd("comes after its end"));
            }
            let Some((receiver, _)) = self.disks.get_mut(&disk) else {
                return Err(odd("was not asked for"));
            };
            if matches!(turn, Turn::Last(_)) {
                receiver.run(from, reports)?;
                self.complete.insert(disk);
            } else if receiver.turn(from, reports)? != Heard::Round {
                return Err(odd("ends before its last round"));
            }
        }
    }

    /// Every disk is durable and has its name.
    pub(super) fn commit(self) -> Result<(), LandingError> {
        for (receiver, landed) in self.disks.into_values() {
            landed.set_aside()?;
            receiver.commit()?;
        }
        Ok(())
    }
}

fn is_offered(spec: &DiskSpec, offers: &[Offer]) -> bool {
    vdev_number(&spec.vdev).is_some_and(|disk| offers.iter().any(|offer| offer.disk == disk))
}

/// Where the configuration has the disk that is offered.
fn path_of(specs: &[DiskSpec], offer: &Offer) -> Result<PathBuf, LandingError> {
    let spec = specs
        .iter()
        .find(|spec| vdev_number(&spec.vdev) == Some(offer.disk));
    let Some((spec, target)) = spec.and_then(|spec| Some((spec, spec.target.as_ref()?))) else {
        let what = format!("disk {} is in no line of the configuration", offer.disk);
        return Err(LandingError::Disks(what));
    };
    if spec.writable == offer.read_only {
        let what = format!("disk {} is writable on one side only", spec.vdev);
        return Err(LandingError::Disks(what));
    }
    Ok(PathBuf::from(target))
}

/// A medium that the guest only reads, and that is here.
fn is_there(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() / 512 * 512 == bytes)
}

/// Whether what the disks hold now has room on the file systems that they land on. They may grow; a disk that finds no room ends the move later.
fn check_room(places: &[(Place, u64)]) -> Result<(), AgentError> {
    let mut needed: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (place, data) in places {
        let directory = place::parent(&place.path);
        let failed = |source: std::io::Error| AgentError::File {
            what: "cannot put a disk into",
            path: directory.to_owned(),
            source,
        };
        let found = fs::metadata(directory).map_err(failed)?;
        let sum = needed
            .entry(found.dev())
            .or_insert_with(|| (directory.to_owned(), 0));
        sum.1 = sum.1.saturating_add(*data);
    }
    for (directory, needed) in needed.into_values() {
        let found = statvfs(&directory).map_err(|errno| AgentError::File {
            what: "cannot ask for the room in",
            path: directory.clone(),
            source: errno.into(),
        })?;
        let free = found
            .blocks_available()
            .saturating_mul(found.fragment_size());
        if free < needed {
            let error = LandingError::Room {
                directory,
                free,
                needed,
            };
            return Err(error.into());
        }
    }
    Ok(())
}

/// The guest is here for good: what its disks replaced goes.
pub(super) fn keep(landed: &[Landed]) {
    for disk in landed {
        if let Err(error) = disk.keep() {
            tracing::error!(%error, "what a disk has replaced is left");
        }
    }
}

/// Removes what landed for a guest that did not come.
pub(super) fn take_away(landed: &[Landed]) {
    for disk in landed {
        if let Err(error) = disk.take_away() {
            tracing::error!(%error, "a disk of a guest that did not arrive is left");
        }
    }
}
