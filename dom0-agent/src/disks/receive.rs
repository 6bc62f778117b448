//! A disk out of a stream: judged record by record, written into a new sparse file that gets its name when all of it is there.
//!
//! ```text
//!   new ─▶ .NAME.incoming (0600, nobody else has it) ── run: header, rounds ... end ──▶ commit: sync, NAME
//!                 │                                        │ the line broke: run again with the next stream
//!                 └──────── dropped at any point before: removed, nothing is left ◀─────┘
//! ```
//!
//! The other side may be anybody. Each length is bounded before anything is read for it, each range lies within the size that the header named,
//! records come in their order, ranges of a round only grow, rounds are counted, and what the end says was sent must be what came. Data whose
//! checksum is wrong is not written but asked for again; everything else that is wrong ends the copy.

use super::error::ReceiveError;
use super::format::{
    Body, FormatError, HEADER_BYTES, Header, RECORD_BYTES, Record, Report, TOTALS_BYTES, Totals,
};
use super::limits::{MAX_DAMAGED, MAX_ROUNDS, ZERO_CHUNK_BYTES};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where a disk is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Device number.
    pub disk: u32,
    /// The file.
    pub path: PathBuf,
    /// How large the disk must be, if that is known.
    pub bytes: Option<u64>,
    /// A file that is there and holds something may be replaced.
    pub replace: bool,
}

/// A disk that is being received.
#[derive(Debug)]
pub struct Receiver {
    place: Place,
    incoming: PathBuf,
    file: File,
    /// Known since the first header.
    bytes: Option<u64>,
    /// Of the present section.
    totals: Totals,
    /// Nothing was ever written from here on.
    high: u64,
    damaged: Vec<Range<u64>>,
    block: Vec<u8>,
    complete: bool,
}

/// Where the present section stands.
#[derive(Debug, Default)]
struct Section {
    /// Number of the next record.
    number: u64,
    /// Records of the present round.
    records: u64,
    /// Where the last range of the present round ended.
    end: u64,
}

impl Receiver {
    /// Makes the file that the disk grows in.
    ///
    /// # Errors
    /// Something is at its place already, or it cannot be made.
    pub fn new(place: Place) -> Result<Self, ReceiveError> {
        look(&place)?;
        let incoming = incoming(&place.path)?;
        let file = create(&incoming)?;
        Ok(Self {
            place,
            incoming,
            file,
            bytes: None,
            totals: Totals::default(),
            high: 0,
            damaged: Vec::new(),
            block: Vec::new(),
            complete: false,
        })
    }

    /// Receives a section to its end, and reports after each round.
    ///
    /// # Errors
    /// See [`ReceiveError::is_resumable`]: after such a one this may be called again with the next stream.
    pub fn run(
        &mut self,
        from: &mut dyn Read,
        reports: &mut dyn Write,
    ) -> Result<Totals, ReceiveError> {
        let bytes = self.header(from)?;
        self.totals = Totals::default();
        let mut section = Section::default();
        loop {
            let record = self.head(from, bytes, &section)?;
            section.number += 1;
            match &record.body {
                Body::Data(range) => {
                    self.in_order(&mut section, range)?;
                    self.data(from, &record, range)?;
                }
                Body::Zeros(range) => {
                    self.in_order(&mut section, range)?;
                    self.zeros(range)?;
                    self.mend(record.number, range)?;
                }
                Body::Round { number, records } => {
                    self.round(&section, *number, *records)?;
                    section = Section {
                        number: section.number,
                        ..Section::default()
                    };
                    self.totals.count(&record.body);
                    let report = Report {
                        round: *number,
                        complete: false,
                        damaged: self.damaged.clone(),
                    };
                    self.line(reports.write_all(&report.encode()))?;
                    self.line(reports.flush())?;
                    continue;
                }
                Body::End => return self.end(from, &record, &section, reports),
            }
            section.records += 1;
            self.totals.count(&record.body);
        }
    }

    /// Makes the disk durable and gives it its name.
    ///
    /// # Errors
    /// Not everything is there, or the file cannot be synced or named; it is removed then.
    pub fn commit(self) -> Result<(), ReceiveError> {
        if !self.complete || self.bytes.is_none() {
            return Err(ReceiveError::Incomplete {
                disk: self.place.disk,
                ranges: self.damaged.len(),
            });
        }
        let this = &self;
        let at = |what| move |source| this.failed(what, source);
        let len = self.file.metadata().map_err(at("size of"))?.len();
        if Some(len) != self.bytes {
            return Err(self.place_error(format!("has become {len} bytes long")));
        }
        self.file.sync_all().map_err(at("sync of"))?;
        look(&self.place)?;
        fs::rename(&self.incoming, &self.place.path).map_err(at("rename of"))?;
        let directory = parent(&self.place.path);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(at("sync of the directory of"))
    }

    fn header(&mut self, from: &mut dyn Read) -> Result<u64, ReceiveError> {
        let mut bytes = [0; HEADER_BYTES];
        self.line(from.read_exact(&mut bytes))?;
        let header = Header::decode(&bytes).map_err(|error| self.odd_header(error.to_string()))?;
        if header.disk != self.place.disk {
            return Err(self.odd_header(format!("the stream is about disk {}", header.disk)));
        }
        if header.continues != self.bytes.is_some() {
            let what = if header.continues {
                "the stream goes on with a disk of which nothing has come"
            } else {
                "the stream begins anew what has begun"
            };
            return Err(self.odd_header(what.to_owned()));
        }
        if let Some(wanted) = self.bytes.or(self.place.bytes)
            && header.bytes != wanted
        {
            let what = format!(
                "a disk of {} bytes where {wanted} were agreed",
                header.bytes
            );
            return Err(self.odd_header(what));
        }
        self.file
            .set_len(header.bytes)
            .map_err(|source| self.failed("size of", source))?;
        self.bytes = Some(header.bytes);
        Ok(header.bytes)
    }

    fn head(
        &self,
        from: &mut dyn Read,
        bytes: u64,
        section: &Section,
    ) -> Result<Record, ReceiveError> {
        let mut head = [0; RECORD_BYTES];
        self.line(from.read_exact(&mut head))?;
        let record = match Record::decode(&head, bytes) {
            Ok(record) => record,
            Err(FormatError::Checksum) => {
                return Err(ReceiveError::Damaged {
                    disk: self.place.disk,
                    record: section.number,
                });
            }
            Err(error) => return Err(self.hostile(section, error.to_string())),
        };
        if record.number == section.number {
            Ok(record)
        } else {
            let what = format!(
                "it is numbered {}: one is missing or came twice",
                record.number
            );
            Err(self.hostile(section, what))
        }
    }

    /// Within a round nothing is said twice.
    fn in_order(&self, section: &mut Section, range: &Range<u64>) -> Result<(), ReceiveError> {
        if range.start < section.end {
            let what = format!("byte {} comes after byte {}", range.start, section.end);
            return Err(self.hostile(section, what));
        }
        section.end = range.end;
        Ok(())
    }

    fn data(
        &mut self,
        from: &mut dyn Read,
        record: &Record,
        range: &Range<u64>,
    ) -> Result<(), ReceiveError> {
        let mut block = std::mem::take(&mut self.block);
        block.resize(record.payload(), 0);
        self.line(from.read_exact(&mut block))?;
        if crc32fast::hash(&block) == record.crc {
            self.file
                .write_all_at(&block, range.start)
                .map_err(|source| self.failed("write of", source))?;
            self.high = self.high.max(range.end);
            self.mend(record.number, range)?;
        } else {
            // Once, however often it arrives damaged.
            self.mend(record.number, range)?;
            self.damaged.push(range.clone());
        }
        self.block = block;
        Ok(())
    }

    /// A new file is a hole from one end to the other: only where data was written does anything have to be done.
    fn zeros(&self, range: &Range<u64>) -> Result<(), ReceiveError> {
        let range = range.start..range.end.min(self.high);
        if range.start >= range.end {
            return Ok(());
        }
        let (at, count) = (
            i64::try_from(range.start),
            i64::try_from(range.end - range.start),
        );
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let punched = match (at, count) {
            (Ok(at), Ok(count)) => fallocate(&self.file, punch, at, count),
            _ => Err(Errno::EOVERFLOW),
        };
        let written = match punched {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.write_zeros(&range),
            Err(errno) => Err(errno.into()),
        };
        written.map_err(|source| self.failed("write of", source))
    }

    fn write_zeros(&self, range: &Range<u64>) -> io::Result<()> {
        let zeros = [0; ZERO_CHUNK_BYTES];
        for at in range.clone().step_by(ZERO_CHUNK_BYTES) {
            let len = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            self.file
                .write_all_at(&zeros[..len.min(ZERO_CHUNK_BYTES)], at)?;
        }
        Ok(())
    }

    /// What has come now is damaged no more. Parts of a damaged range may come in several records.
    fn mend(&mut self, record: u64, good: &Range<u64>) -> Result<(), ReceiveError> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        let cut = |range: Range<u64>| {
            let before = range.start..range.end.min(good.start);
            let after = range.start.max(good.end)..range.end;
            [before, after]
                .into_iter()
                .filter(|part| part.start < part.end)
        };
        self.damaged = std::mem::take(&mut self.damaged)
            .into_iter()
            .flat_map(cut)
            .collect();
        if self.damaged.len() < MAX_DAMAGED {
            return Ok(());
        }
        Err(ReceiveError::Hostile {
            disk: self.place.disk,
            record,
            what: format!("{MAX_DAMAGED} ranges are damaged"),
        })
    }

    fn round(&self, section: &Section, number: u64, records: u64) -> Result<(), ReceiveError> {
        let what = if number != self.totals.rounds {
            format!("round {number} ends where {} was due", self.totals.rounds)
        } else if records != section.records {
            format!(
                "a round of {records} records of which {} came",
                section.records
            )
        } else if number >= MAX_ROUNDS {
            format!("more than {MAX_ROUNDS} rounds")
        } else {
            return Ok(());
        };
        Err(self.hostile(section, what))
    }

    fn end(
        &mut self,
        from: &mut dyn Read,
        record: &Record,
        section: &Section,
        reports: &mut dyn Write,
    ) -> Result<Totals, ReceiveError> {
        let mut bytes = [0; TOTALS_BYTES];
        self.line(from.read_exact(&mut bytes))?;
        if crc32fast::hash(&bytes) != record.crc {
            return Err(ReceiveError::Damaged {
                disk: self.place.disk,
                record: record.number,
            });
        }
        if section.records > 0 {
            return Err(self.hostile(section, "the end within a round".to_owned()));
        }
        let said = Totals::decode(&bytes);
        if said != self.totals {
            let what = format!("{said:?} were sent, {:?} came", self.totals);
            return Err(self.hostile(section, what));
        }
        if !self.damaged.is_empty() {
            return Err(ReceiveError::Incomplete {
                disk: self.place.disk,
                ranges: self.damaged.len(),
            });
        }
        self.complete = true;
        let report = Report {
            round: self.totals.rounds,
            complete: true,
            damaged: Vec::new(),
        };
        self.line(reports.write_all(&report.encode()))?;
        self.line(reports.flush())?;
        Ok(said)
    }

    fn line<T>(&self, result: io::Result<T>) -> Result<T, ReceiveError> {
        result.map_err(|source| ReceiveError::Line {
            disk: self.place.disk,
            source,
        })
    }

    fn hostile(&self, section: &Section, what: String) -> ReceiveError {
        ReceiveError::Hostile {
            disk: self.place.disk,
            record: section.number,
            what,
        }
    }

    fn odd_header(&self, what: String) -> ReceiveError {
        ReceiveError::Header {
            disk: self.place.disk,
            what,
        }
    }

    fn place_error(&self, what: String) -> ReceiveError {
        ReceiveError::Place {
            path: self.place.path.clone(),
            what,
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> ReceiveError {
        ReceiveError::File {
            what,
            path: self.incoming.clone(),
            source,
        }
    }
}

/// What was made and did not get its name is removed.
impl Drop for Receiver {
    fn drop(&mut self) {
        match fs::remove_file(&self.incoming) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(path = %self.incoming.display(), %error, "cannot remove half a disk");
            }
        }
    }
}

/// Whether a disk may be put there.
fn look(place: &Place) -> Result<(), ReceiveError> {
    let refuse = |what: &str| {
        Err(ReceiveError::Place {
            path: place.path.clone(),
            what: what.to_owned(),
        })
    };
    match fs::symlink_metadata(&place.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ReceiveError::File {
            what: "look at",
            path: place.path.clone(),
            source,
        }),
        Ok(there) if !there.is_file() => {
            refuse("is there, and no regular file; choose another place")
        }
        Ok(there) if there.len() > 0 && !place.replace => {
            refuse("is there and not empty; move it away, or allow that it is replaced")
        }
        Ok(_) => Ok(()),
    }
}

/// Where it grows: beside its place, so that it can be renamed.
fn incoming(path: &Path) -> Result<PathBuf, ReceiveError> {
    match path.file_name() {
        Some(name) => Ok(parent(path).join(format!(".{}.incoming", name.to_string_lossy()))),
        None => Err(ReceiveError::Place {
            path: path.to_owned(),
            what: "names no file".to_owned(),
        }),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the file, and holds its lock: one that a receiver left that was killed has none, and is removed.
fn create(path: &Path) -> Result<File, ReceiveError> {
    let failed = |what| {
        move |source| ReceiveError::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("look at")(source)),
        Ok(old) => match old.try_lock() {
            Ok(()) => fs::remove_file(path).map_err(failed("remove"))?,
            Err(TryLockError::WouldBlock) => {
                return Err(ReceiveError::Place {
                    path: path.to_owned(),
                    what: "is being received by somebody else".to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock of")(source)),
        },
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("make"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ReceiveError::Place {
            path: path.to_owned(),
            what: "is being received by somebody else".to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed("lock of")(source)),
    }
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
