//! Reads a stream, one event at a time, through all three layers.
//!
//! ```text
//!   Xl ──▶ File ──▶ Libxl header ──▶ Outer(LIBXC_CONTEXT) ──▶ Image ──▶ Record | Pages | Skipped ... ──▶ Record(END)
//!                                         ▲      Record(CHECKPOINT) ──▶ Outer ... Outer(CHECKPOINT_END) ──▶ Record ...
//!                                         └──────── Outer(EMULATOR_...) ... Outer(END) ──▶ End
//! ```
//!
//! [`Reader::next`] reads exactly one part and judges it: headers, lengths before bodies, order, padding. Small records come
//! whole; of pages comes the list, and the contents stay in the source until the consumer moves them ([`Pages`]). After an
//! error there is nothing more to be had. It never reads a byte beyond the part it returns.

mod pages;
mod source;

use std::io::Read;

use crate::accord::Accord;
use crate::bytes::{Fields, padding};
use crate::error::{Expected, Layer, Part, Place, Problem, StreamError};
use crate::libxc::header as image;
use crate::libxc::kind::{HEADER_BYTES, OPTIONAL};
use crate::libxc::order::Phase;
use crate::libxc::pages as list;
use crate::libxc::{DomainHeader, ImageHeader, Kind, Mode, PageEntry, Record};
use crate::libxl::LibxlHeader;
use crate::limits::{OPTIONAL_BYTES, RECORD_BYTES};
use crate::summary::Summary;
use crate::xl_file::{self, XlHeader};
use crate::{libxc, libxl};

pub use pages::Pages;
use source::Source;

/// One part of a stream.
#[derive(Debug)]
pub enum Event<'a, R> {
    /// The header of an xl file with the domain's configuration.
    File(XlHeader),
    /// The header of a libxl stream.
    Stream(LibxlHeader),
    /// A record of the libxl layer.
    Outer(libxl::Record),
    /// Both headers of the image.
    Image(ImageHeader, DomainHeader),
    /// A small record of the image.
    Record(Record),
    /// Pages.
    Pages(Pages<'a, R>),
    /// An optional record that nobody here knows; its body is gone.
    Skipped {
        /// Of which layer.
        layer: Layer,
        /// Its type.
        kind: u32,
        /// Bytes of its body.
        length: u32,
    },
    /// The outermost layer has ended; the source may go on with something else.
    End,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    File,
    Stream,
    Outer,
    Image,
    Record,
    Ended,
}

/// An [`Event`] before it borrows the reader.
enum Found {
    File(XlHeader),
    Stream(LibxlHeader),
    Outer(libxl::Record),
    Image(ImageHeader, DomainHeader),
    Record(Record),
    Pages(Place),
    Skipped(Layer, Header),
    End,
}

/// The header of a record.
#[derive(Debug, Clone, Copy)]
struct Header {
    place: Place,
    kind: u32,
    length: u32,
}

impl Header {
    fn length(self) -> u64 {
        self.length.into()
    }
}

/// Reads a stream.
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    mode: Mode,
    at: At,
    outer: Option<libxl::Order>,
    image: Option<libxc::Order>,
    /// A record whose header was read, and that waits for a STATIC_DATA_END that had to be inferred.
    waiting: Option<(Header, Kind)>,
    /// Contents of pages the consumer has not moved, and where their record is.
    left: u64,
    left_of: Place,
    entries: Vec<PageEntry>,
    body: Vec<u8>,
    agreed: Accord,
    summary: Summary,
    failed: bool,
}

impl<R: Read> Reader<R> {
    /// Begins at the start of this layer. `mode`: whether checkpoints were agreed upon.
    ///
    /// A source that is a file or a connection needs no buffer around it: reads are few and of the size that is needed.
    #[must_use]
    pub const fn new(source: R, from: Layer, mode: Mode) -> Self {
        let (at, outer) = match from {
            Layer::Xl => (At::File, Some(libxl::Order::new())),
            Layer::Libxl => (At::Stream, Some(libxl::Order::new())),
            Layer::Libxc => (At::Image, None),
        };
        Self {
            source: Source::new(source),
            mode,
            at,
            outer,
            image: None,
            waiting: None,
            left: 0,
            left_of: Place {
                part: Part::ImageHeader,
                offset: 0,
            },
            entries: vec![],
            body: vec![],
            agreed: Accord::NONE,
            summary: Summary::new(),
            failed: false,
        }
    }

    /// From here on the stream may hold what was agreed upon: the sender was answered, and may have heard it.
    pub const fn agree(&mut self, agreed: Accord) {
        self.agreed = agreed;
    }

    /// The next part. Contents of pages that were not moved are skipped first. At the end it keeps answering
    /// [`Event::End`].
    ///
    /// # Errors
    /// What is wrong with the stream, and where. Every later call fails as well.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it returns borrows the reader, which iterators cannot say"
    )]
    pub fn next(&mut self) -> Result<Event<'_, R>, StreamError> {
        if self.failed {
            return Err(self.place(Part::End).says(Problem::Misuse {
                call: "reading on",
                state: "after an error",
            }));
        }
        let found = self.advance().inspect_err(|_| self.failed = true)?;
        Ok(match found {
            Found::File(header) => Event::File(header),
            Found::Stream(header) => Event::Stream(header),
            Found::Outer(record) => Event::Outer(record),
            Found::Image(image, domain) => Event::Image(image, domain),
            Found::Record(record) => Event::Record(record),
            Found::Pages(place) => Event::Pages(self.lend_pages(place)),
            Found::Skipped(layer, header) => Event::Skipped {
                layer,
                kind: header.kind,
                length: header.length,
            },
            Found::End => Event::End,
        })
    }

    fn advance(&mut self) -> Result<Found, StreamError> {
        self.skip_contents()?;
        match self.at {
            At::File => self.file().map(Found::File),
            At::Stream => self.stream().map(Found::Stream),
            At::Outer => self.outer(),
            At::Image => self
                .image()
                .map(|(image, domain)| Found::Image(image, domain)),
            At::Record => self.record(),
            At::Ended => Ok(Found::End),
        }
    }

    fn lend_pages(&mut self, place: Place) -> Pages<'_, R> {
        let compare = self
            .image
            .as_ref()
            .is_some_and(|order| order.phase() == Phase::Verify);
        Pages {
            entries: &self.entries,
            compare,
            source: &mut self.source,
            left: &mut self.left,
            place,
            failed: &mut self.failed,
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            bytes: self.source.offset(),
            ..self.summary
        }
    }

    /// Whether the source ends here. Only after [`Event::End`], and it costs the source a byte if it does not.
    ///
    /// # Errors
    /// The source refuses.
    pub fn source_ends(&mut self) -> Result<bool, StreamError> {
        let place = self.place(Part::End);
        self.source.at_end().map_err(|problem| place.says(problem))
    }

    /// The source, just behind the last part that was returned.
    pub fn into_source(self) -> R {
        self.source.into_inner()
    }

    /// The source, to ask it something: reading from it would lose the reader its place.
    pub const fn source(&self) -> &R {
        self.source.get_ref()
    }

    const fn place(&self, part: Part) -> Place {
        Place {
            part,
            offset: self.source.offset(),
        }
    }

    fn skip_contents(&mut self) -> Result<(), StreamError> {
        let place = self.left_of;
        let left = std::mem::take(&mut self.left);
        self.source
            .skip(left, "page contents")
            .map_err(|problem| place.says(problem))
    }

    fn file(&mut self) -> Result<XlHeader, StreamError> {
        let place = self.place(Part::XlHeader);
        let mut read = || {
            let mut bytes = [0; xl_file::HEADER_BYTES];
            self.source.fill(&mut bytes, "the header")?;
            let fixed = xl_file::Fixed::decode(&bytes)?;
            self.source.collect(
                fixed.data_length.into(),
                "the configuration",
                &mut self.body,
            )?;
            fixed.complete(&self.body)
        };
        let header = read().map_err(|problem| place.says(problem))?;
        self.at = At::Stream;
        Ok(header)
    }

    fn stream(&mut self) -> Result<LibxlHeader, StreamError> {
        let place = self.place(Part::LibxlHeader);
        let mut bytes = [0; libxl::header::HEADER_BYTES];
        let header = self
            .source
            .fill(&mut bytes, "the header")
            .and_then(|()| LibxlHeader::decode(&bytes))
            .map_err(|problem| place.says(problem))?;
        if header.converted {
            return Err(place.says(Problem::Converted));
        }
        self.at = At::Outer;
        Ok(header)
    }

    fn image(&mut self) -> Result<(ImageHeader, DomainHeader), StreamError> {
        let place = self.place(Part::ImageHeader);
        let mut bytes = [0; image::IMAGE_BYTES];
        let image = self
            .source
            .fill(&mut bytes, "the header")
            .and_then(|()| ImageHeader::decode(&bytes))
            .map_err(|problem| place.says(problem))?;
        let place = self.place(Part::DomainHeader);
        let mut bytes = [0; image::DOMAIN_BYTES];
        let domain = self
            .source
            .fill(&mut bytes, "the header")
            .and_then(|()| DomainHeader::decode(&bytes))
            .map_err(|problem| place.says(problem))?;
        if domain.is_converted() {
            return Err(place.says(Problem::Converted));
        }
        self.image = Some(libxc::Order::new(image.version, domain.kind, self.mode));
        if let Some(outer) = &mut self.outer {
            outer.image_is_of(domain.kind);
        }
        self.summary.image = Some((image, domain));
        self.at = At::Record;
        Ok((image, domain))
    }

    /// Reads a record's header. `part` names the record once its type is known.
    fn header(
        &mut self,
        longest: u64,
        part: impl Fn(Option<u32>) -> Part,
    ) -> Result<Header, StreamError> {
        let place = self.place(part(None));
        let mut bytes = [0; HEADER_BYTES];
        self.source
            .fill(&mut bytes, "the header of a record")
            .map_err(|problem| place.says(problem))?;
        let (words, _) = bytes.as_chunks::<4>();
        let (kind, length) = (u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1]));
        let place = Place {
            part: part(Some(kind)),
            ..place
        };
        if u64::from(length) > longest {
            return Err(place.says(Problem::Limit {
                what: "bytes",
                found: length.into(),
                limit: longest,
            }));
        }
        Ok(Header {
            place,
            kind,
            length,
        })
    }

    /// Reads the body of a small record, and the padding after it.
    fn body(&mut self, length: u64) -> Result<(), Problem> {
        self.source.collect(length, "its body", &mut self.body)?;
        let bytes = padding(length);
        let mut filling = [0; 8];
        self.source.fill(&mut filling[..bytes], "its padding")?;
        match u64::from_le_bytes(filling) {
            0 => Ok(()),
            value => Err(Problem::Padding {
                bytes: bytes as u64,
                value,
            }),
        }
    }

    /// A record that is not known: skipped if that is allowed.
    fn unknown(&mut self, layer: Layer, header: Header) -> Result<Found, Problem> {
        let kind = header.kind;
        if kind & OPTIONAL == 0 {
            return Err(Problem::Unknown { kind });
        }
        self.source.skip(
            header.length() + padding(header.length()) as u64,
            "its body",
        )?;
        self.summary.skipped += 1;
        Ok(Found::Skipped(layer, header))
    }

    fn outer(&mut self) -> Result<Found, StreamError> {
        let number = self.summary.outer_records + 1;
        let header = self.header(OPTIONAL_BYTES, |kind| Part::LibxlRecord { number, kind })?;
        self.summary.outer_records = number;
        match libxl::Kind::from_number(header.kind) {
            None => self.unknown(Layer::Libxl, header),
            Some(kind) => self.known_outer(kind, header.length()).map(Found::Outer),
        }
        .map_err(|problem| header.place.says(problem))
    }

    fn known_outer(&mut self, kind: libxl::Kind, length: u64) -> Result<libxl::Record, Problem> {
        let order = self.outer.get_or_insert_default();
        order.admit(kind)?;
        let in_image = order.phase() == libxl::order::Phase::Image;
        libxl::record::check_longest(kind, length)?;
        self.body(length)?;
        let record = libxl::Record::decode(kind, &self.body)?;
        self.summary.count_outer(kind);
        self.at = match kind {
            libxl::Kind::End => At::Ended,
            _ if !in_image => At::Outer,
            _ if self.image.is_some() => At::Record,
            _ => At::Image,
        };
        Ok(record)
    }

    fn record(&mut self) -> Result<Found, StreamError> {
        let (header, kind) = match self.waiting.take() {
            Some((header, kind)) => (header, Some(kind)),
            None => {
                let number = self.summary.image_records + 1;
                let header =
                    self.header(RECORD_BYTES, |kind| Part::LibxcRecord { number, kind })?;
                self.summary.image_records = number;
                (header, Kind::from_number(header.kind))
            }
        };
        match kind {
            None => self.unknown(Layer::Libxc, header),
            Some(kind) => self.known(header, kind),
        }
        .map_err(|problem| header.place.says(problem))
    }

    /// Whether a STATIC_DATA_END has to be understood first; then this record waits.
    fn infer(&mut self, header: Header, kind: Kind) -> Result<bool, Problem> {
        let Some(order) = &mut self.image else {
            return Err(Problem::Misuse {
                call: "reading a record",
                state: "before the image's headers",
            });
        };
        if !order.infers_static_end(kind) {
            order.admit(kind)?;
            return Ok(false);
        }
        order.infer_static_end()?;
        self.waiting = Some((header, kind));
        Ok(true)
    }

    fn known(&mut self, header: Header, kind: Kind) -> Result<Found, Problem> {
        if self.infer(header, kind)? {
            return Ok(Found::Record(Record::StaticDataEnd));
        }
        if kind == Kind::PageData {
            self.pages(header.length())?;
            self.left_of = header.place;
            return Ok(Found::Pages(header.place));
        }
        libxc::record::check_longest(kind, header.length())?;
        self.body(header.length())?;
        let record = Record::decode(kind, &self.body)?;
        if let Some(order) = &mut self.image {
            order.note(&record)?;
        }
        self.summary.count(kind);
        match (kind, &mut self.outer) {
            (Kind::End | Kind::Checkpoint, Some(outer)) => {
                outer.leave_image(kind == Kind::Checkpoint);
                self.at = At::Outer;
            }
            (Kind::End, None) => self.at = At::Ended,
            _ => {}
        }
        Ok(Found::Record(record))
    }

    /// Reads the list of a record of pages of `length` bytes; the contents are left in the source.
    fn pages(&mut self, length: u64) -> Result<(), Problem> {
        if length < list::HEADER_BYTES as u64 {
            return Err(Problem::Length {
                found: length,
                expected: Expected::AtLeast(list::HEADER_BYTES as u64 + 8),
            });
        }
        let mut bytes = [0; list::HEADER_BYTES];
        self.source.fill(&mut bytes, "the number of its pages")?;
        let mut fields = Fields::of(&bytes);
        let count = list::decode_count(length, fields.u32()?)?;
        fields.zero32("the record")?;
        self.source
            .collect(8 * u64::from(count), "its list of pages", &mut self.body)?;
        self.left = list::decode_entries(length, &self.body, self.agreed, &mut self.entries)?;
        self.summary.count_pages(&self.entries);
        Ok(())
    }
}
