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
use super::limits::{MAX_DAMAGED, MAX_ROUNDS, SYNC_BYTES, ZERO_CHUNK_BYTES};
use super::place::{Place, create, incoming, look, parent};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

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
    /// The present section, once its header has come.
    section: Option<Section>,
    /// Bytes written that may not be on the medium yet.
    unsynced: u64,
    complete: bool,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A round; more are to come.
    Round,
    /// The end: everything is there.
    End(Totals),
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
            section: None,
            unsynced: 0,
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
        loop {
            if let Heard::End(totals) = self.turn(from, reports)? {
                return Ok(totals);
            }
        }
    }

    /// Receives to the end of a round or of the section, and reports. Between two of these the stream may be about something else.
    ///
    /// # Errors
    /// As [`Receiver::run`].
    pub fn turn(
        &mut self,
        from: &mut dyn Read,
        reports: &mut dyn Write,
    ) -> Result<Heard, ReceiveError> {
        // After an error a section begins anew.
        let mut section = match (self.section.take(), self.bytes) {
            (Some(section), Some(_)) => section,
            _ => {
                self.header(from)?;
                self.totals = Totals::default();
                Section::default()
            }
        };
        let bytes = self.bytes.unwrap_or(0);
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
                    self.sync()?;
                    self.line(reports.write_all(&report.encode()))?;
                    self.line(reports.flush())?;
                    self.section = Some(section);
                    return Ok(Heard::Round);
                }
                Body::End => return self.end(from, &record, &section, reports).map(Heard::End),
            }
            section.records += 1;
            self.totals.count(&record.body);
        }
    }

    /// The file that the disk grows in.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn sync(&mut self) -> Result<(), ReceiveError> {
        if std::mem::take(&mut self.unsynced) > 0 {
            let synced = self.file.sync_data();
            synced.map_err(|source| self.failed("sync of", source))?;
        }
        Ok(())
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

    fn header(&mut self, from: &mut dyn Read) -> Result<(), ReceiveError> {
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
        Ok(())
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
            self.unsynced += range.end - range.start;
            if self.unsynced >= SYNC_BYTES {
                self.sync()?;
            }
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

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
