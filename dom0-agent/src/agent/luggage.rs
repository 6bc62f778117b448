//! The disks of a guest that moves, at the host that it leaves: copied while it runs, and what is left once it has suspended.
//!
//! ```text
//!   pack: offers ─▶ answers ─▶ tracking      live: turn by turn a round of each disk, until all may be suspended for
//!   (memory goes, the guest suspends, its driver ends)      finish: the last rounds of each disk, to its end
//!   drop: tracking is off, whatever came before
//! ```
//!
//! Nothing of the guest is changed here. Its images stay where they are.

use super::error::AgentError;
use super::guest::SharedGuest;
use super::migrate::Escort;
use super::tracking::GuestDisk;
use super::{Agent, lock};
use crate::config::vdev::vdev_number;
use crate::disks::limits::{MAX_DISKS, NEWS_EVERY};
use crate::disks::talk::{self, Offer, TalkError, Turn, Wish};
use crate::disks::{CopyError, DiskCopy, Next, Policy, Source};
use crate::peer::Outgoing;
use crate::peer::replies::Words;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes in a MiB, for people.
const MIB: f64 = (1 << 20) as f64;

/// How disks go along.
#[derive(Debug, Clone, Copy)]
pub struct LuggageOptions {
    /// When a disk has been copied often enough.
    pub policy: Policy,
    /// Lets a little time pass before an order to a driver is given again.
    pub pause: fn(),
}

impl Default for LuggageOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            pause: super::tracking::a_moment,
        }
    }
}

/// Why disks did not go along.
#[derive(Debug, thiserror::Error)]
pub enum LuggageError {
    /// The other side cannot take them.
    #[error("the other side does not take the disks: {0}")]
    Refused(String),
    /// The other side says something else, or nothing.
    #[error(
        "the other side does not speak of disks as this one does ({0}); was it started with --with-disks?"
    )]
    Talk(TalkError),
    /// Too many.
    #[error("a guest with {0} disks; at most {MAX_DISKS} can be copied along")]
    Many(usize),
}

/// One disk.
struct Piece<'a> {
    vdev: String,
    disk: u32,
    copy: DiskCopy<GuestDisk<&'a Agent, fn()>>,
}

/// See the module.
pub(super) struct Luggage<'a> {
    pieces: Vec<Piece<'a>>,
    /// Images that stay behind.
    stay: Vec<PathBuf>,
    reports: Words<'a>,
    escort: &'a dyn Escort,
    policy: Policy,
}

impl<'a> Luggage<'a> {
    /// Offers the disks to the other side, and lets the writes to those that it wants be noted.
    pub(super) fn pack(
        agent: &'a Agent,
        shared: &SharedGuest,
        options: &LuggageOptions,
        out: &mut Outgoing<'a>,
        mut reports: Words<'a>,
        escort: &'a dyn Escort,
    ) -> Result<Self, AgentError> {
        let disks = lock(shared).record.config.disks.clone();
        let (mut offers, mut places) = (Vec::new(), Vec::new());
        if disks.len() > MAX_DISKS {
            return Err(LuggageError::Many(disks.len()).into());
        }
        for spec in &disks {
            let (Some(disk), Some(target)) = (vdev_number(&spec.vdev), &spec.target) else {
                continue;
            };
            offers.push(offer(disk, Path::new(target), !spec.writable)?);
            places.push((spec.vdev.clone(), PathBuf::from(target)));
        }
        out.write_all(&talk::encode_offers(&offers))
            .map_err(|error| LuggageError::Talk(error.into()))?;
        let answer = talk::read_answer(&mut reports, &offers).map_err(LuggageError::Talk)?;
        let wishes = answer.map_err(LuggageError::Refused)?;
        let mut luggage = Self {
            pieces: Vec::new(),
            stay: Vec::new(),
            reports,
            escort,
            policy: options.policy,
        };
        for ((disk, wish), (vdev, path)) in wishes.into_iter().zip(places) {
            if wish == Wish::Have {
                luggage.tell(format!("disk {vdev}: the other side has it already."));
                continue;
            }
            let tracked = GuestDisk::new(agent, shared.clone(), disk, options.pause);
            let copy = DiskCopy::begin(disk, &path, options.policy, tracked)?;
            luggage.pieces.push(Piece { vdev, disk, copy });
            luggage.stay.push(path);
        }
        Ok(luggage)
    }

    /// Copies while the guest runs, until it is time to suspend it for the sake of every disk.
    pub(super) fn live(&mut self, out: &mut Outgoing<'_>) -> Result<(), AgentError> {
        for number in 1..=self.policy.max_rounds {
            let mut ready = true;
            for piece in &mut self.pieces {
                if !piece.copy.is_due() {
                    piece.copy.look()?;
                }
                if !piece.copy.is_due() {
                    continue;
                }
                say(piece.disk, out, Turn::Round(piece.disk))?;
                let what = format!("disk {}, round {number}", piece.vdev);
                let mut line = Line::new(out, self.escort, &what, piece.copy.left());
                let next = piece.copy.round(&mut line, &mut self.reports)?;
                ready &= matches!(next, Next::Suspend(_));
                let news = news(&what, piece, next);
                self.escort.tell(format!("migration sender: {news}"));
            }
            if ready {
                break;
            }
        }
        over(out)
    }

    /// Copies what is left, now that nobody writes to the disks any more. Answers which images stay behind.
    pub(super) fn finish(mut self, out: &mut Outgoing<'_>) -> Result<Vec<PathBuf>, AgentError> {
        for piece in &mut self.pieces {
            say(piece.disk, out, Turn::Last(piece.disk))?;
            let began = Instant::now();
            let what = format!("disk {}, last round", piece.vdev);
            let mut line = Line::new(out, self.escort, &what, piece.copy.left());
            let totals = piece.copy.finish(&mut line, &mut self.reports)?;
            self.escort.tell(format!(
                "migration sender: {what}: {:.2} s; {:.1} MiB of data in all, {:.1} MiB of zeros.",
                began.elapsed().as_secs_f64(),
                totals.data_bytes as f64 / MIB,
                totals.zero_bytes as f64 / MIB,
            ));
        }
        over(out)?;
        Ok(self.stay)
    }

    fn tell(&self, text: String) {
        self.escort.tell(format!("migration sender: {text}"));
    }
}

/// Says which images a guest that has left did not take away.
pub(super) fn tell_what_stays(escort: &dyn Escort, images: &[PathBuf]) {
    for image in images {
        let image = image.display();
        escort.tell(format!(
            "migration sender: {image} stays here as the guest left it; remove it when it is not needed any more."
        ));
    }
}

/// What the other side is told of a disk.
fn offer(disk: u32, path: &Path, read_only: bool) -> Result<Offer, CopyError> {
    let mut source = Source::open(disk, path)?;
    let bytes = source.bytes();
    let data = source.allocated()?.bytes().min(bytes);
    Ok(Offer {
        disk,
        read_only,
        bytes,
        data,
    })
}

fn say(disk: u32, out: &mut Outgoing<'_>, turn: Turn) -> Result<(), CopyError> {
    let said = out.write_all(&turn.encode());
    said.map_err(|source| CopyError::Line { disk, source })
}

fn over(out: &mut Outgoing<'_>) -> Result<(), AgentError> {
    let said = out.write_all(&Turn::Over.encode());
    Ok(said.map_err(|error| LuggageError::Talk(error.into()))?)
}

/// How a round went: bytes, rate, what is left.
fn news(what: &str, piece: &Piece<'_>, next: Next) -> String {
    let (bytes, took) = piece
        .copy
        .moved()
        .map_or((0, Duration::ZERO), |moved| (moved.bytes, moved.took));
    let (mib, seconds) = (bytes as f64 / MIB, took.as_secs_f64().max(1e-9));
    let text = format!(
        "{what}: {mib:.1} MiB in {seconds:.2} s ({:.1} MiB/s)",
        mib / seconds
    );
    match next {
        Next::Round(left) => format!("{text}, {:.1} MiB left", left as f64 / MIB),
        Next::Suspend(forecast) => {
            let left = forecast.left as f64 / MIB;
            match forecast.expected {
                Some(time) => format!(
                    "{text}, {left:.1} MiB left, which take about {:.2} s",
                    time.as_secs_f64()
                ),
                None => format!("{text}, {left:.1} MiB left"),
            }
        }
    }
}

/// The line to the other side during one round: it ends when nobody wants the move any more, and somebody hears now and then how far it is.
struct Line<'l, 'o> {
    out: &'l mut Outgoing<'o>,
    escort: &'l dyn Escort,
    what: &'l str,
    /// Bytes of the round, at most.
    whole: u64,
    sent: u64,
    began: Instant,
    told: Instant,
}

impl<'l, 'o> Line<'l, 'o> {
    fn new(out: &'l mut Outgoing<'o>, escort: &'l dyn Escort, what: &'l str, whole: u64) -> Self {
        let now = Instant::now();
        Self {
            out,
            escort,
            what,
            whole,
            sent: 0,
            began: now,
            told: now,
        }
    }
}

impl Write for Line<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.escort.waits() {
            let why = "nobody waits for it any more";
            return Err(io::Error::new(ErrorKind::ConnectionAborted, why));
        }
        let done = self.out.write(bytes)?;
        self.sent += done as u64;
        if self.told.elapsed() >= NEWS_EVERY {
            self.told = Instant::now();
            let (sent, whole) = (self.sent as f64 / MIB, self.whole as f64 / MIB);
            let rate = sent / self.began.elapsed().as_secs_f64().max(1e-9);
            self.escort.tell(format!(
                "migration sender: {}: {sent:.1} of at most {whole:.1} MiB ({rate:.1} MiB/s)",
                self.what
            ));
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
