//! Writes a stream, in the order that a reader accepts, with few system calls.
//!
//! ```text
//!   header, record, record ... ──gathered──┐
//!   pages(list, contents) ─────────────────┴─▶ one vectored write: [gathered | list | run | run | ...]
//! ```
//!
//! Small parts are gathered and go out with the next pages, when 64 KiB are together, at a CHECKPOINT or END, or when
//! asked ([`Writer::flush`]). Contents of pages are never copied: they are slices in private memory ([`Writer::pages`]), or
//! whoever holds them writes them out itself ([`Writer::pages_with`]). What would break the order, or what a reader would
//! refuse, is refused here; after an error the stream is good for nothing.

use std::io::{self, IoSlice, Write};

use crate::accord::Accord;
use crate::bytes::padding;
use crate::error::{Layer, Part, Place, Problem, StreamError};
use crate::libxc::header::VERSION;
use crate::libxc::pages::{contents, encode as encode_pages};
use crate::libxc::{DomainHeader, ImageHeader, Kind, Mode, PageEntry, Record};
use crate::libxl::LibxlHeader;
use crate::limits::{GATHER_BYTES, PAGE_BYTES, SLICES_PER_WRITE};
use crate::summary::Summary;
use crate::xl_file::XlHeader;
use crate::{libxc, libxl};

/// What may be written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    File,
    Stream,
    Outer,
    Image,
    Record,
    Ended,
}

impl At {
    const fn name(self) -> &'static str {
        match self {
            Self::File => "before the xl file header",
            Self::Stream => "before the libxl stream header",
            Self::Outer => "outside of the image",
            Self::Image => "before the image's headers",
            Self::Record => "inside of the image",
            Self::Ended => "after the end",
        }
    }
}

/// Writes a stream.
///
/// The sink needs no buffer around it; one that has a buffer is to be flushed by [`Writer::flush`] after the end.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    mode: Mode,
    at: At,
    outer: Option<libxl::Order>,
    image: Option<libxc::Order>,
    gathered: Vec<u8>,
    /// Bytes the sink has taken.
    written: u64,
    agreed: Accord,
    summary: Summary,
    failed: bool,
}

impl<W: Write> Writer<W> {
    /// Begins with this layer. `mode`: whether the reader expects checkpoints.
    #[must_use]
    pub const fn new(sink: W, from: Layer, mode: Mode) -> Self {
        let (at, outer) = match from {
            Layer::Xl => (At::File, Some(libxl::Order::new())),
            Layer::Libxl => (At::Stream, Some(libxl::Order::new())),
            Layer::Libxc => (At::Image, None),
        };
        Self {
            sink,
            mode,
            at,
            outer,
            image: None,
            gathered: vec![],
            written: 0,
            agreed: Accord::NONE,
            summary: Summary::new(),
            failed: false,
        }
    }

    /// From here on the reader takes this besides: it has said so.
    pub const fn agree(&mut self, agreed: Accord) {
        self.agreed = agreed;
    }

    /// What was agreed upon.
    pub const fn agreed(&self) -> Accord {
        self.agreed
    }

    /// The header of an xl file.
    ///
    /// # Errors
    /// The configuration is too long, or this is not the beginning of an xl file.
    pub fn file(&mut self, header: &XlHeader) -> Result<(), StreamError> {
        self.part(At::File, Part::XlHeader, "the xl file header", |writer| {
            header.encode(&mut writer.gathered)?;
            writer.at = At::Stream;
            Ok(())
        })
    }

    /// The header of the libxl stream.
    ///
    /// # Errors
    /// This is not its place.
    pub fn stream(&mut self) -> Result<(), StreamError> {
        self.part(
            At::Stream,
            Part::LibxlHeader,
            "the libxl stream header",
            |writer| {
                LibxlHeader::default().encode(&mut writer.gathered);
                writer.at = At::Outer;
                Ok(())
            },
        )
    }

    /// The headers of the image; in a libxl stream LIBXC_CONTEXT before them.
    ///
    /// # Errors
    /// This is not its place, or Xen has no version.
    pub fn image(&mut self, domain: DomainHeader) -> Result<(), StreamError> {
        if self.at == At::Outer {
            self.outer(&libxl::Record::LibxcContext)?;
        }
        self.part(At::Image, Part::ImageHeader, "the image", |writer| {
            if domain.is_converted() {
                return Err(Problem::Value {
                    what: "Xen's major version",
                    found: 0,
                    expected: "that of a real one",
                });
            }
            let image = ImageHeader { version: VERSION };
            image.encode(&mut writer.gathered);
            domain.encode(&mut writer.gathered);
            writer.image = Some(libxc::Order::new(VERSION, domain.kind, writer.mode));
            if let Some(outer) = &mut writer.outer {
                outer.image_is_of(domain.kind);
            }
            writer.summary.image = Some((image, domain));
            writer.at = At::Record;
            Ok(())
        })
    }

    /// A record of the libxl layer.
    ///
    /// # Errors
    /// It may not come now, is not a good one, or the sink refuses.
    pub fn outer(&mut self, record: &libxl::Record) -> Result<(), StreamError> {
        let kind = record.kind();
        let part = Part::LibxlRecord {
            number: self.summary.outer_records + 1,
            kind: Some(kind.number()),
        };
        self.part(At::Outer, part, "a record of the libxl layer", |writer| {
            let order = writer.outer.get_or_insert_default();
            order.admit(kind)?;
            let in_image = order.phase() == libxl::order::Phase::Image;
            writer.framed(kind.number(), |body| record.encode(body))?;
            writer.summary.outer_records += 1;
            writer.summary.count_outer(kind);
            writer.at = match kind {
                libxl::Kind::End => At::Ended,
                _ if !in_image => At::Outer,
                _ if writer.image.is_some() => At::Record,
                _ => At::Image,
            };
            match kind {
                libxl::Kind::End | libxl::Kind::CheckpointEnd => writer.send_gathered(),
                _ => writer.send_if_many(),
            }
        })
    }

    /// A small record of the image.
    ///
    /// # Errors
    /// It may not come now, is not a good one, or the sink refuses.
    pub fn record(&mut self, record: &Record) -> Result<(), StreamError> {
        let kind = record.kind();
        self.part(
            At::Record,
            self.next_record(kind),
            "a record of the image",
            |writer| {
                writer.admit(kind)?.note(record)?;
                writer.framed(kind.number(), |body| record.encode(body))?;
                writer.summary.count(kind);
                match (kind, &mut writer.outer) {
                    (Kind::End | Kind::Checkpoint, Some(outer)) => {
                        outer.leave_image(kind == Kind::Checkpoint);
                        writer.at = At::Outer;
                    }
                    (Kind::End, None) => writer.at = At::Ended,
                    _ => {}
                }
                match kind {
                    Kind::End | Kind::Checkpoint => writer.send_gathered(),
                    _ => writer.send_if_many(),
                }
            },
        )
    }

    /// Pages, whose contents are in private memory: `runs` in the order of those `entries` that have some, in pieces of any
    /// size. Everything goes out with as few vectored writes as the sink allows.
    ///
    /// # Errors
    /// As [`Writer::pages_with`], or `runs` are not as long as the contents.
    pub fn pages(
        &mut self,
        entries: &[PageEntry],
        runs: &[IoSlice<'_>],
    ) -> Result<(), StreamError> {
        let given: u64 = runs.iter().map(|run| run.len() as u64).sum();
        if given != contents(entries) * PAGE_BYTES {
            self.failed = true;
            let place = self.place(self.next_record(Kind::PageData));
            return Err(place.says(Problem::Misuse {
                call: "writing pages",
                state: "with contents of another size",
            }));
        }
        self.pages_with(entries, |sink, head, from| {
            let mut slices = Vec::with_capacity(runs.len().min(SLICES_PER_WRITE) + 1);
            if !head.is_empty() {
                slices.push(IoSlice::new(head));
            }
            let mut from = usize::try_from(from).unwrap_or(usize::MAX);
            for run in runs {
                if slices.len() == SLICES_PER_WRITE {
                    break;
                }
                let skipped = from.min(run.len());
                from -= skipped;
                if skipped < run.len() {
                    slices.push(IoSlice::new(&run[skipped..]));
                }
            }
            sink.write_vectored(&slices)
        })
    }

    /// Pages, whose contents `mover` writes: it is given the sink, bytes that must go first (none after they went), and
    /// how many bytes of the contents went already; it writes once (a `writev` out of mapped guest memory, say), and
    /// says how many bytes went, those that had to go first included. It is called again until all are written.
    ///
    /// # Errors
    /// Memory may not come now, the list is not a good one, the sink refuses, or the mover claims more than there is.
    pub fn pages_with(
        &mut self,
        entries: &[PageEntry],
        mover: impl FnMut(&mut W, &[u8], u64) -> io::Result<usize>,
    ) -> Result<(), StreamError> {
        let part = self.next_record(Kind::PageData);
        self.part(At::Record, part, "a record of the image", |writer| {
            writer.admit(Kind::PageData)?;
            let begin = writer.begin_record(Kind::PageData.number());
            let length = encode_pages(entries, writer.agreed, &mut writer.gathered)?;
            writer.set_length(begin, length)?;
            writer.summary.count_pages(entries);
            match contents(entries) * PAGE_BYTES {
                0 => writer.send_if_many(),
                bytes => writer.send_with(bytes, mover),
            }
        })
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// The sink refuses.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        let place = self.place(Part::End);
        self.send_gathered()
            .and_then(|()| self.sink.flush().map_err(Problem::Write))
            .map_err(|problem| {
                self.failed = true;
                place.says(problem)
            })
    }

    /// What was written so far, gathered bytes included.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            bytes: self.offset(),
            ..self.summary
        }
    }

    /// The sink, to ask it something.
    pub const fn sink(&self) -> &W {
        &self.sink
    }

    /// The sink. What was gathered and not sent is lost: only after the end is there nothing.
    pub fn into_sink(self) -> W {
        self.sink
    }

    /// Bytes before the next part.
    fn offset(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    fn place(&self, part: Part) -> Place {
        Place {
            part,
            offset: self.offset(),
        }
    }

    const fn next_record(&self, kind: Kind) -> Part {
        Part::LibxcRecord {
            number: self.summary.image_records + 1,
            kind: Some(kind.number()),
        }
    }

    /// Does one part in its place, or leaves the writer failed.
    fn part(
        &mut self,
        at: At,
        part: Part,
        call: &'static str,
        write: impl FnOnce(&mut Self) -> Result<(), Problem>,
    ) -> Result<(), StreamError> {
        let place = self.place(part);
        let misuse = |state| Problem::Misuse { call, state };
        let result = if self.failed {
            Err(misuse("after an error"))
        } else if self.at != at {
            Err(misuse(self.at.name()))
        } else {
            write(self)
        };
        result.map_err(|problem| {
            self.failed = true;
            place.says(problem)
        })
    }

    fn admit(&mut self, kind: Kind) -> Result<&mut libxc::Order, Problem> {
        let order = self.image.as_mut().ok_or(Problem::Misuse {
            call: "a record of the image",
            state: At::Image.name(),
        })?;
        order.admit(kind)?;
        self.summary.image_records += 1;
        Ok(order)
    }

    /// Appends a record's header with its length left open, and answers where its body begins.
    fn begin_record(&mut self, kind: u32) -> usize {
        self.gathered.extend_from_slice(&kind.to_le_bytes());
        self.gathered.extend_from_slice(&[0; 4]);
        self.gathered.len()
    }

    fn set_length(&mut self, begin: usize, length: u64) -> Result<(), Problem> {
        let length = u32::try_from(length).map_err(|_| Problem::Limit {
            what: "bytes",
            found: length,
            limit: u32::MAX.into(),
        })?;
        self.gathered[begin - 4..begin].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Appends a whole record: header, body, padding.
    fn framed(
        &mut self,
        kind: u32,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let begin = self.begin_record(kind);
        body(&mut self.gathered)?;
        let length = (self.gathered.len() - begin) as u64;
        self.set_length(begin, length)?;
        self.gathered.extend_from_slice(&[0; 8][..padding(length)]);
        Ok(())
    }

    fn send_if_many(&mut self) -> Result<(), Problem> {
        if self.gathered.len() < GATHER_BYTES {
            return Ok(());
        }
        self.send_gathered()
    }

    fn send_gathered(&mut self) -> Result<(), Problem> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.send_with(0, |sink, head, _| sink.write(head))
    }

    /// Sends what was gathered and then `bytes` bytes, all of it by `mover`.
    fn send_with(
        &mut self,
        bytes: u64,
        mut mover: impl FnMut(&mut W, &[u8], u64) -> io::Result<usize>,
    ) -> Result<(), Problem> {
        let first = self.gathered.len() as u64;
        let (all, mut done) = (first + bytes, 0);
        while done < all {
            let head = usize::try_from(done)
                .ok()
                .and_then(|done| self.gathered.get(done..));
            let from = done.saturating_sub(first);
            let moved = match mover(&mut self.sink, head.unwrap_or_default(), from) {
                Ok(0) => return Err(Problem::Write(io::ErrorKind::WriteZero.into())),
                Ok(moved) => moved as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Problem::Write(error)),
            };
            if moved > all - done {
                return Err(Problem::Mover {
                    claimed: moved,
                    offered: all - done,
                });
            }
            done += moved;
        }
        self.written += all;
        self.gathered.clear();
        Ok(())
    }
}
