//! The bytes of a disk section: a header, numbered records, and in the other direction reports. Pure. All numbers are little-endian.
//!
//! ```text
//!   header, 32 bytes                        record, 40 bytes, then its data
//!    0  magic "PRPTDISK"                     0  kind                              u32
//!    8  version, 1                    u16    4  crc32 of the data                 u32
//!   10  1: continues a broken one     u16    8  number, from 0, counted through   u64
//!   12  device number                 u32   16  first byte                        u64
//!   16  bytes of the disk             u64   24  bytes                             u64
//!   24  zero                          u32   32  zero                              u32
//!   28  crc32 of 0..28                u32   36  crc32 of 0..36                    u32
//!
//!   kind 1 data    bytes first.. of the disk; the data follows
//!        2 zeros   these bytes are zeros; nothing follows
//!        3 round   ends a round: first = its number from 0, bytes = records in it; a report is due
//!        4 end     nothing comes any more; the totals follow (4 numbers, 32 bytes); a report is due
//!
//!   report:  "PRPTRPRT" | round u64 | 1: all is there, else 0 u32 | ranges u32 | (first u64, end u64) ... | crc32 of all of it u32
//! ```
//!
//! A record names its place in the stream, so one that is missing, came twice or out of turn is found out; a flipped bit in a head is found by
//! the head's checksum, one in the data by the data's. Within a round first bytes only grow, so nothing is written twice.

use super::limits::{BLOCK_BYTES, MAX_DAMAGED, MAX_DISK_BYTES, SECTOR_BYTES};
use std::ops::Range;

/// First bytes of a section.
pub const MAGIC: [u8; 8] = *b"PRPTDISK";
/// First bytes of a report.
pub const REPORT_MAGIC: [u8; 8] = *b"PRPTRPRT";
/// Version of the format.
pub const VERSION: u16 = 1;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a record's head.
pub const RECORD_BYTES: usize = 40;
/// Bytes of a report before its ranges.
pub const REPORT_BYTES: usize = 24;
/// Bytes of totals.
pub const TOTALS_BYTES: usize = 32;

/// What a section is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Device number.
    pub disk: u32,
    /// Bytes of the disk.
    pub bytes: u64,
    /// It goes on where another section of the same disk broke off.
    pub continues: bool,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Data for this range follows.
    Data(Range<u64>),
    /// This range is zeros.
    Zeros(Range<u64>),
    /// A round is over.
    Round {
        /// Its number.
        number: u64,
        /// Records in it.
        records: u64,
    },
    /// All is over; totals follow.
    End,
}

/// A record's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the section.
    pub number: u64,
    /// crc32 of what follows.
    pub crc: u32,
    /// What it says.
    pub body: Body,
}

/// What was sent in a section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rounds.
    pub rounds: u64,
    /// Records of data and zeros.
    pub records: u64,
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of zeros.
    pub zero_bytes: u64,
}

/// What a receiver says at the end of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The round it is about.
    pub round: u64,
    /// The end record has come, and everything is there.
    pub complete: bool,
    /// Ranges of bytes whose data was damaged.
    pub damaged: Vec<Range<u64>>,
}

/// Why bytes are no such thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Other first bytes.
    #[error("not a disk section (bytes {0:02x?})")]
    Magic([u8; 8]),
    /// Of another release.
    #[error(
        "version {0} of the disk section; this program speaks {VERSION}: install the same release on both sides"
    )]
    Version(u16),
    /// A bit is wrong.
    #[error("a checksum does not fit")]
    Checksum,
    /// A number that cannot be.
    #[error("{0}")]
    Nonsense(String),
}

pub(super) fn nonsense<T>(text: impl Into<String>) -> Result<T, FormatError> {
    Err(FormatError::Nonsense(text.into()))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Puts the checksum of everything before into the last four bytes.
pub(super) fn seal(bytes: &mut [u8]) {
    let (rest, crc) = bytes.split_at_mut(bytes.len() - 4);
    crc.copy_from_slice(&crc32fast::hash(rest).to_le_bytes());
}

pub(super) fn check_seal(bytes: &[u8]) -> Result<(), FormatError> {
    let (rest, crc) = bytes.split_at(bytes.len() - 4);
    if u32_at(crc, 0) == crc32fast::hash(rest) {
        Ok(())
    } else {
        Err(FormatError::Checksum)
    }
}

impl Header {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&u16::from(self.continues).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.disk.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no header, or of a disk of a size that none has.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FormatError> {
        if bytes[..8] != MAGIC {
            let mut magic = [0; 8];
            magic.copy_from_slice(&bytes[..8]);
            return Err(FormatError::Magic(magic));
        }
        match u16_at(bytes, 8) {
            VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        check_seal(bytes)?;
        let size = u64_at(bytes, 16);
        if size == 0 || size > MAX_DISK_BYTES || !size.is_multiple_of(SECTOR_BYTES) {
            return nonsense(format!("a disk of {size} bytes"));
        }
        let continues = match u16_at(bytes, 10) {
            0 => false,
            1 => true,
            other => return nonsense(format!("flags {other:#x}")),
        };
        if u32_at(bytes, 24) != 0 {
            return nonsense("a reserved field that is not 0");
        }
        Ok(Self {
            disk: u32_at(bytes, 12),
            bytes: size,
            continues,
        })
    }
}

const DATA: u32 = 1;
const ZEROS: u32 = 2;
const ROUND: u32 = 3;
const END: u32 = 4;

impl Record {
    /// Bytes that follow the head.
    #[must_use]
    pub fn payload(&self) -> usize {
        match &self.body {
            Body::Data(range) => usize::try_from(range.end - range.start).unwrap_or(usize::MAX),
            Body::Zeros(_) | Body::Round { .. } => 0,
            Body::End => TOTALS_BYTES,
        }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let (kind, first, len) = match &self.body {
            Body::Data(range) => (DATA, range.start, range.end - range.start),
            Body::Zeros(range) => (ZEROS, range.start, range.end - range.start),
            Body::Round { number, records } => (ROUND, *number, *records),
            Body::End => (END, 0, TOTALS_BYTES as u64),
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&first.to_le_bytes());
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// From bytes. A range in it lies within a disk of `disk_bytes`, is of whole sectors and not empty, and one with data holds at most
    /// [`BLOCK_BYTES`].
    ///
    /// # Errors
    /// They are no record of such a disk.
    pub fn decode(bytes: &[u8; RECORD_BYTES], disk_bytes: u64) -> Result<Self, FormatError> {
        check_seal(bytes)?;
        let (first, len) = (u64_at(bytes, 16), u64_at(bytes, 24));
        if u32_at(bytes, 32) != 0 {
            return nonsense("a reserved field that is not 0");
        }
        let body = match u32_at(bytes, 0) {
            DATA if len > BLOCK_BYTES as u64 => {
                return nonsense(format!(
                    "data of {len} bytes, at most {BLOCK_BYTES} are allowed"
                ));
            }
            DATA => Body::Data(range(first, len, disk_bytes)?),
            ZEROS => Body::Zeros(range(first, len, disk_bytes)?),
            ROUND => Body::Round {
                number: first,
                records: len,
            },
            END if (first, len) == (0, TOTALS_BYTES as u64) => Body::End,
            END => return nonsense("an end record of another shape"),
            other => return nonsense(format!("a record of kind {other}")),
        };
        Ok(Self {
            number: u64_at(bytes, 8),
            crc: u32_at(bytes, 4),
            body,
        })
    }
}

fn range(first: u64, len: u64, disk_bytes: u64) -> Result<Range<u64>, FormatError> {
    let end = first.checked_add(len).filter(|end| *end <= disk_bytes);
    let aligned = first.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
    match end {
        Some(end) if len > 0 && aligned => Ok(first..end),
        Some(_) => nonsense(format!("{len} bytes at {first} are not whole sectors")),
        None => nonsense(format!(
            "{len} bytes at {first} are beyond the end of a disk of {disk_bytes}"
        )),
    }
}

impl Totals {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; TOTALS_BYTES] {
        let mut bytes = [0; TOTALS_BYTES];
        let words = [self.rounds, self.records, self.data_bytes, self.zero_bytes];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; TOTALS_BYTES]) -> Self {
        Self {
            rounds: u64_at(bytes, 0),
            records: u64_at(bytes, 8),
            data_bytes: u64_at(bytes, 16),
            zero_bytes: u64_at(bytes, 24),
        }
    }

    /// Counts a record.
    pub fn count(&mut self, body: &Body) {
        match body {
            Body::Data(range) => {
                self.records += 1;
                self.data_bytes += range.end - range.start;
            }
            Body::Zeros(range) => {
                self.records += 1;
                self.zero_bytes += range.end - range.start;
            }
            Body::Round { .. } => self.rounds += 1,
            Body::End => {}
        }
    }
}

impl Report {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.damaged.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(REPORT_BYTES + self.damaged.len() * 16 + 4);
        bytes.extend_from_slice(&REPORT_MAGIC);
        bytes.extend_from_slice(&self.round.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.complete).to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        for range in &self.damaged {
            bytes.extend_from_slice(&range.start.to_le_bytes());
            bytes.extend_from_slice(&range.end.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        seal(&mut bytes);
        bytes
    }

    /// How many bytes follow the first [`REPORT_BYTES`] of a report.
    ///
    /// # Errors
    /// They are no beginning of a report.
    pub fn rest(start: &[u8; REPORT_BYTES]) -> Result<usize, FormatError> {
        if start[..8] != REPORT_MAGIC {
            let mut magic = [0; 8];
            magic.copy_from_slice(&start[..8]);
            return Err(FormatError::Magic(magic));
        }
        match u32_at(start, 20) as usize {
            count if count <= MAX_DAMAGED => Ok(count * 16 + 4),
            count => nonsense(format!("{count} damaged ranges")),
        }
    }

    /// From the bytes of a whole report about a disk of this size.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8], disk_bytes: u64) -> Result<Self, FormatError> {
        let start = bytes.first_chunk().ok_or(FormatError::Checksum)?;
        if bytes.len() != REPORT_BYTES + Self::rest(start)? {
            return nonsense("a report of another length");
        }
        check_seal(bytes)?;
        let ranges = bytes[REPORT_BYTES..bytes.len() - 4].chunks_exact(16);
        let damaged = ranges
            .map(|pair| {
                let (first, end) = (u64_at(pair, 0), u64_at(pair, 8));
                range(first, end.saturating_sub(first), disk_bytes)
            })
            .collect::<Result<_, _>>()?;
        let complete = match u32_at(bytes, 16) {
            0 => false,
            1 => true,
            other => return nonsense(format!("state {other}")),
        };
        Ok(Self {
            round: u64_at(bytes, 8),
            complete,
            damaged,
        })
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
