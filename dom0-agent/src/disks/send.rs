//! Rounds of a disk into a stream: reads, leaves zeros out, numbers and checksums, and hears what must come again.

use super::copy::Moved;
use super::error::CopyError;
use super::extents::ExtentSet;
use super::format::{Body, Header, REPORT_BYTES, Record, Report, Totals};
use super::source::Source;
use parapet_wire::dirty::EXTENT_BYTES;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::Instant;

/// A sender of one disk.
#[derive(Debug)]
pub struct Sender {
    disk: u32,
    source: Source,
    /// Number of the next record of this section.
    number: u64,
    /// Rounds of this section that were sent.
    round: u64,
    totals: Totals,
    block: Vec<u8>,
}

impl Sender {
    /// A sender of this image; nothing is sent yet.
    #[must_use]
    pub fn new(disk: u32, source: Source) -> Self {
        Self {
            disk,
            source,
            number: 0,
            round: 0,
            totals: Totals::default(),
            block: Vec::new(),
        }
    }

    /// The image.
    pub fn source(&mut self) -> &mut Source {
        &mut self.source
    }

    /// What was sent so far in this section.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Begins a section: the first, or one that goes on where another broke off.
    ///
    /// # Errors
    /// The line broke.
    pub fn begin(&mut self, continues: bool, out: &mut dyn Write) -> Result<(), CopyError> {
        (self.number, self.round, self.totals) = (0, 0, Totals::default());
        let header = Header {
            disk: self.disk,
            bytes: self.source.bytes(),
            continues,
        };
        self.line(out.write_all(&header.encode()))
    }

    /// Sends a set of extents as one round, and hears what of it arrived damaged.
    ///
    /// # Errors
    /// The image cannot be read, or the line broke.
    pub fn round(
        &mut self,
        set: &ExtentSet,
        out: &mut dyn Write,
        reports: &mut dyn Read,
    ) -> Result<(Moved, ExtentSet), CopyError> {
        let since = Instant::now();
        let before = self.totals;
        let windows: Vec<Range<u64>> = set.windows(self.source.bytes()).collect();
        for window in windows {
            self.window(window, out)?;
        }
        let (number, records) = (self.round, self.totals.records - before.records);
        self.record(Body::Round { number, records }, &[], out)?;
        self.line(out.flush())?;
        self.round += 1;
        let report = self.report(number, reports)?;
        let moved = Moved {
            bytes: self.totals.data_bytes - before.data_bytes,
            took: since.elapsed(),
        };
        Ok((moved, ExtentSet::touching(report.damaged)))
    }

    /// Ends the section; the receiver says that it has everything.
    ///
    /// # Errors
    /// The line broke, or it has not.
    pub fn end(
        &mut self,
        out: &mut dyn Write,
        reports: &mut dyn Read,
    ) -> Result<Totals, CopyError> {
        let totals = self.totals;
        self.record(Body::End, &totals.encode(), out)?;
        self.line(out.flush())?;
        let report = self.report(self.round, reports)?;
        if report.complete {
            Ok(totals)
        } else {
            self.misreport("it does not have everything")
        }
    }

    /// Reads a window and sends it as runs of extents with and without data.
    fn window(&mut self, window: Range<u64>, out: &mut dyn Write) -> Result<(), CopyError> {
        let mut block = std::mem::take(&mut self.block);
        self.source.read(window.clone(), &mut block)?;
        for run in runs(&block) {
            let at = window.start + run.bytes.start as u64;
            let range = at..window.start + run.bytes.end as u64;
            if run.zeros {
                self.record(Body::Zeros(range), &[], out)?;
            } else {
                self.record(Body::Data(range), &block[run.bytes], out)?;
            }
        }
        self.block = block;
        Ok(())
    }

    fn record(&mut self, body: Body, data: &[u8], out: &mut dyn Write) -> Result<(), CopyError> {
        self.totals.count(&body);
        let record = Record {
            number: self.number,
            crc: crc32fast::hash(data),
            body,
        };
        self.number += 1;
        self.line(out.write_all(&record.encode()))?;
        self.line(out.write_all(data))
    }

    fn report(&self, round: u64, reports: &mut dyn Read) -> Result<Report, CopyError> {
        let mut start = [0; REPORT_BYTES];
        self.line(reports.read_exact(&mut start))?;
        let odd = |error: super::format::FormatError| CopyError::Report {
            disk: self.disk,
            what: error.to_string(),
        };
        let rest = Report::rest(&start).map_err(odd)?;
        let mut bytes = start.to_vec();
        bytes.resize(REPORT_BYTES + rest, 0);
        self.line(reports.read_exact(&mut bytes[REPORT_BYTES..]))?;
        let report = Report::decode(&bytes, self.source.bytes()).map_err(odd)?;
        if report.round == round {
            Ok(report)
        } else {
            self.misreport(&format!("round {} where {round} was sent", report.round))
        }
    }

    fn misreport<T>(&self, what: &str) -> Result<T, CopyError> {
        Err(CopyError::Report {
            disk: self.disk,
            what: what.to_owned(),
        })
    }

    fn line<T>(&self, result: io::Result<T>) -> Result<T, CopyError> {
        result.map_err(|source| CopyError::Line {
            disk: self.disk,
            source,
        })
    }
}

struct Run {
    zeros: bool,
    bytes: Range<usize>,
}

/// The runs of extents of a block that begins where an extent does.
fn runs(block: &[u8]) -> Vec<Run> {
    let extent = usize::try_from(EXTENT_BYTES).unwrap_or(usize::MAX);
    let mut runs: Vec<Run> = Vec::new();
    for (at, bytes) in (0..).step_by(extent).zip(block.chunks(extent)) {
        let zeros = is_zero(bytes);
        let end = at + bytes.len();
        match runs.last_mut() {
            Some(last) if last.zeros == zeros => last.bytes.end = end,
            _ => runs.push(Run {
                zeros,
                bytes: at..end,
            }),
        }
    }
    runs
}

/// Most data shows in its first bytes that it is some; only zeros are looked at to the end.
fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(256)
        .all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_found_by_the_extent_and_runs_are_whole() {
        let extent = usize::try_from(EXTENT_BYTES).unwrap();
        let mut block = vec![0; 4 * extent + 512];
        block[extent * 2 - 1] = 1;
        block[4 * extent] = 1;
        let runs: Vec<_> = runs(&block)
            .into_iter()
            .map(|run| (run.zeros, run.bytes))
            .collect();
        assert_eq!(
            runs,
            [
                (true, 0..extent),
                (false, extent..2 * extent),
                (true, 2 * extent..4 * extent),
                (false, 4 * extent..4 * extent + 512)
            ]
        );
    }
}
