//! What two agents say to each other about the disks of a guest that moves, around the sections of [`super::format`]. Pure; little-endian.
//!
//! ```text
//!   sender                                       receiver
//!     │ ── offers: number, size, read-only ─────────▶ │ looks at each place, and whether there is room
//!     │ ◀───────── answers: send it, or it is here ── │ or one line that says why not
//!     │ ── turn(round, disk), a round ─ report ─ ... ▶│
//!     │ ── turn(over) ───────────────────────────────▶│
//!     │ ══ the guest's stream ═══════════════════════▶│
//!     │ ── turn(last, disk), rounds, end ─ reports ... ▶│
//!     │ ── turn(over) ───────────────────────────────▶│ every disk gets its name
//!
//!   offers:  "PRPTOFFR" | version u16 | count u16 | zero u32 | (disk u32, flags u32, bytes u64, data u64) ... | crc32 u32
//!   answers: "PRPTANSW" | count u16 | text bytes u16 | zero u32 | (disk u32, 1: send it, 2: it is here u32) ... | text | crc32 u32
//!   turn:    "PRPTTURN" | 1: a round, 2: the last rounds, 3: over u32 | disk u32 | zero u32 | crc32 u32
//! ```

use super::format::{FormatError, check_seal, nonsense, seal, u16_at, u32_at, u64_at};
use super::limits::{MAX_DISK_BYTES, MAX_DISKS, MAX_REASON_BYTES, SECTOR_BYTES};
use std::io::{self, Read};

const OFFERS: [u8; 8] = *b"PRPTOFFR";
const ANSWERS: [u8; 8] = *b"PRPTANSW";
const TURN: [u8; 8] = *b"PRPTTURN";
/// Version of this talk.
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 16;
const OFFER_BYTES: usize = 24;
const ANSWER_BYTES: usize = 8;
const TURN_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
const READ_ONLY: u32 = 1;

/// Why there is no more to be understood.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The connection broke, or the other side went silent.
    #[error(transparent)]
    Line(#[from] io::Error),
    /// It says something else.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// A disk that the sender has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Device number.
    pub disk: u32,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Bytes that its image holds now, about; the rest are holes.
    pub data: u64,
}

/// What becomes of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It is to be sent.
    Send,
    /// It is there already.
    Have,
}

/// Whose turn it is on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// One round of this disk follows.
    Round(u32),
    /// The last rounds of this disk follow, to its end.
    Last(u32),
    /// Something else follows.
    Over,
}

fn head(magic: [u8; 8], first: u16, second: u16) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(first.to_le_bytes());
    bytes.extend(second.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend([0; CRC_BYTES]);
    seal(&mut bytes);
    bytes
}

/// Reads a head, and what its two numbers say is to follow.
fn message(
    from: &mut dyn Read,
    magic: [u8; 8],
    rest: impl Fn(u16, u16) -> Result<usize, FormatError>,
) -> Result<Vec<u8>, TalkError> {
    let mut bytes = vec![0; HEAD_BYTES];
    from.read_exact(&mut bytes)?;
    if bytes[..8] != magic {
        let mut found = [0; 8];
        found.copy_from_slice(&bytes[..8]);
        return Err(FormatError::Magic(found).into());
    }
    let rest = rest(u16_at(&bytes, 8), u16_at(&bytes, 10))?;
    bytes.resize(HEAD_BYTES + rest + CRC_BYTES, 0);
    from.read_exact(&mut bytes[HEAD_BYTES..])?;
    check_seal(&bytes)?;
    Ok(bytes)
}

/// How many disks somebody speaks of.
fn counted(count: u16) -> Result<usize, FormatError> {
    match usize::from(count) {
        many if many > MAX_DISKS => {
            nonsense(format!("{many} disks, at most {MAX_DISKS} are allowed"))
        }
        count => Ok(count),
    }
}

/// Offers as bytes; at most [`MAX_DISKS`] of them.
#[must_use]
pub fn encode_offers(offers: &[Offer]) -> Vec<u8> {
    let count = u16::try_from(offers.len()).unwrap_or(u16::MAX);
    let mut bytes = head(OFFERS, VERSION, count);
    for offer in offers {
        bytes.extend(offer.disk.to_le_bytes());
        bytes.extend((u32::from(offer.read_only) * READ_ONLY).to_le_bytes());
        bytes.extend(offer.bytes.to_le_bytes());
        bytes.extend(offer.data.to_le_bytes());
    }
    sealed(bytes)
}

/// Reads offers: each of another disk, of a size that a disk may have.
///
/// # Errors
/// The line, or they are none.
pub fn read_offers(from: &mut dyn Read) -> Result<Vec<Offer>, TalkError> {
    let bytes = message(from, OFFERS, |version, count| match version {
        VERSION => Ok(counted(count)? * OFFER_BYTES),
        other => Err(FormatError::Version(other)),
    })?;
    let mut offers: Vec<Offer> = Vec::new();
    for at in (HEAD_BYTES..bytes.len() - CRC_BYTES).step_by(OFFER_BYTES) {
        let (disk, flags, size) = (
            u32_at(&bytes, at),
            u32_at(&bytes, at + 4),
            u64_at(&bytes, at + 8),
        );
        if flags & !READ_ONLY != 0 {
            return Err(FormatError::Nonsense(format!("flags {flags:#x}")).into());
        }
        if size == 0 || size > MAX_DISK_BYTES || !size.is_multiple_of(SECTOR_BYTES) {
            return Err(FormatError::Nonsense(format!("a disk of {size} bytes")).into());
        }
        if offers.iter().any(|offer| offer.disk == disk) {
            return Err(FormatError::Nonsense(format!("disk {disk} is offered twice")).into());
        }
        offers.push(Offer {
            disk,
            read_only: flags & READ_ONLY != 0,
            bytes: size,
            data: u64_at(&bytes, at + 16),
        });
    }
    Ok(offers)
}

/// What becomes of each offer, as bytes.
#[must_use]
pub fn encode_wishes(wishes: &[(u32, Wish)]) -> Vec<u8> {
    let mut bytes = head(ANSWERS, u16::try_from(wishes.len()).unwrap_or(u16::MAX), 0);
    for (disk, wish) in wishes {
        bytes.extend(disk.to_le_bytes());
        let wish: u32 = match wish {
            Wish::Send => 1,
            Wish::Have => 2,
        };
        bytes.extend(wish.to_le_bytes());
    }
    sealed(bytes)
}

/// Why none of the disks is taken, as bytes; a long reason is cut.
#[must_use]
pub fn encode_refusal(reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let text = &reason.as_bytes()[..end];
    let mut bytes = head(ANSWERS, 0, u16::try_from(end).unwrap_or(u16::MAX));
    bytes.extend(text);
    sealed(bytes)
}

/// Reads the answer to `offers`: a wish for each, or why not.
///
/// # Errors
/// The line, or it is no answer to them.
pub fn read_answer(
    from: &mut dyn Read,
    offers: &[Offer],
) -> Result<Result<Vec<(u32, Wish)>, String>, TalkError> {
    let bytes = message(from, ANSWERS, |count, text| {
        if usize::from(text) > MAX_REASON_BYTES {
            return nonsense(format!("a reason of {text} bytes"));
        }
        Ok(counted(count)? * ANSWER_BYTES + usize::from(text))
    })?;
    let count = usize::from(u16_at(&bytes, 8));
    let text = &bytes[HEAD_BYTES + count * ANSWER_BYTES..bytes.len() - CRC_BYTES];
    if !text.is_empty() {
        return Ok(Err(String::from_utf8_lossy(text).into_owned()));
    }
    let mut wishes = Vec::new();
    for (at, offer) in (HEAD_BYTES..).step_by(ANSWER_BYTES).take(count).zip(offers) {
        let wish = match u32_at(&bytes, at + 4) {
            1 => Wish::Send,
            2 => Wish::Have,
            other => return Err(FormatError::Nonsense(format!("the wish {other}")).into()),
        };
        if u32_at(&bytes, at) == offer.disk {
            wishes.push((offer.disk, wish));
        }
    }
    if wishes.len() != offers.len() || count != offers.len() {
        let what = format!(
            "an answer about {count} disks, {} of which were offered",
            wishes.len()
        );
        return Err(FormatError::Nonsense(what).into());
    }
    Ok(Ok(wishes))
}

impl Turn {
    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; TURN_BYTES] {
        let (kind, disk): (u32, u32) = match self {
            Self::Round(disk) => (1, disk),
            Self::Last(disk) => (2, disk),
            Self::Over => (3, 0),
        };
        let mut bytes = [0; TURN_BYTES];
        bytes[..8].copy_from_slice(&TURN);
        bytes[8..12].copy_from_slice(&kind.to_le_bytes());
        bytes[12..16].copy_from_slice(&disk.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// The line, or it is none.
    pub fn read(from: &mut dyn Read) -> Result<Self, TalkError> {
        let mut bytes = [0; TURN_BYTES];
        from.read_exact(&mut bytes)?;
        if bytes[..8] != TURN {
            let mut found = [0; 8];
            found.copy_from_slice(&bytes[..8]);
            return Err(FormatError::Magic(found).into());
        }
        check_seal(&bytes)?;
        match (u32_at(&bytes, 8), u32_at(&bytes, 12)) {
            (1, disk) => Ok(Self::Round(disk)),
            (2, disk) => Ok(Self::Last(disk)),
            (3, 0) => Ok(Self::Over),
            (kind, disk) => {
                Err(FormatError::Nonsense(format!("turn {kind} of disk {disk}")).into())
            }
        }
    }
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
