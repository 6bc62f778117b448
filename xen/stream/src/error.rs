//! What can be wrong with a stream, and where.
//!
//! A [`Problem`] is found by whoever looks at bytes; the reader or writer adds the [`Place`], which names the record. Causes
//! of the operating system are in `source()` and are not repeated in the text.

use std::fmt;
use std::io;

use crate::libxc::Refusal;
use crate::{libxc, libxl};

/// The three formats, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// xl's save file.
    Xl,
    /// libxl's stream.
    Libxl,
    /// libxc's image.
    Libxc,
}

/// Which part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The header of an xl file, its configuration included.
    XlHeader,
    /// The header of a libxl stream.
    LibxlHeader,
    /// A record of a libxl stream.
    LibxlRecord {
        /// Counted from 1.
        number: u64,
        /// Its type, once it is known.
        kind: Option<u32>,
    },
    /// The first header of a libxc image.
    ImageHeader,
    /// The second header of a libxc image.
    DomainHeader,
    /// A record of a libxc image.
    LibxcRecord {
        /// Counted from 1.
        number: u64,
        /// Its type, once it is known.
        kind: Option<u32>,
    },
    /// Behind the last record.
    End,
}

/// Which part of a stream, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// What it is.
    pub part: Part,
    /// Bytes before it, from where the reader or writer began.
    pub offset: u64,
}

impl Place {
    /// This problem, here.
    #[must_use]
    pub fn says(self, problem: impl Into<Problem>) -> StreamError {
        StreamError {
            place: self,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::XlHeader => f.write_str("xl file header")?,
            Part::LibxlHeader => f.write_str("libxl stream header")?,
            Part::ImageHeader => f.write_str("libxc image header")?,
            Part::DomainHeader => f.write_str("libxc domain header")?,
            Part::LibxlRecord { number, kind } => {
                write!(f, "libxl record {number}")?;
                name(f, kind, |kind| {
                    libxl::Kind::from_number(kind).map(libxl::Kind::name)
                })?;
            }
            Part::LibxcRecord { number, kind } => {
                write!(f, "libxc record {number}")?;
                name(f, kind, |kind| {
                    libxc::Kind::from_number(kind).map(libxc::Kind::name)
                })?;
            }
            Part::End => f.write_str("end of the stream")?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

fn name(
    f: &mut fmt::Formatter<'_>,
    kind: Option<u32>,
    known: impl Fn(u32) -> Option<&'static str>,
) -> fmt::Result {
    match kind.map(|kind| (kind, known(kind))) {
        Some((_, Some(name))) => write!(f, " ({name})"),
        Some((kind, None)) => write!(f, " (type {kind:#x})"),
        None => f.write_str(" (its header)"),
    }
}

/// What is wrong with a stream, with the place.
#[derive(Debug)]
pub struct StreamError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for StreamError {
    /// The cause of the problem, not the problem, which the text has told already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

/// How long something ought to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This many bytes.
    Exactly(u64),
    /// This many or more.
    AtLeast(u64),
    /// `base` bytes and then one or more times `unit`.
    Units {
        /// Fixed part.
        base: u64,
        /// What follows, each.
        unit: u64,
    },
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes}"),
            Self::AtLeast(bytes) => write!(f, "{bytes} or more"),
            Self::Units { base: 0, unit } => write!(f, "a multiple of {unit}, not 0"),
            Self::Units { base, unit } => write!(f, "{base} and a multiple of {unit}"),
        }
    }
}

/// What is wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The source refused. Worth another look at the file or the connection.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// The sink refused: no space, or nobody reads any more.
    #[error("cannot be written")]
    Write(#[source] io::Error),
    /// The source ended. On a connection: the sender went away.
    #[error("the stream ends after {got} of {need} bytes of {what}")]
    Truncated {
        /// Which bytes.
        what: &'static str,
        /// How many there were.
        got: u64,
        /// How many there should be.
        need: u64,
    },
    /// Not such a stream at all.
    #[error("{what} is {found:#x} where {expected:#x} is the mark of {format}")]
    Mark {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it must be.
        expected: u64,
        /// Of which format.
        format: &'static str,
    },
    /// The first bytes are not those of an xl save file.
    #[error("does not begin with the mark of an xl save file")]
    NotXl,
    /// Made by a program newer than this one.
    #[error(
        "{format} of version {found} is newer than version {newest}, the newest that can be read"
    )]
    Newer {
        /// Which format.
        format: &'static str,
        /// Its version.
        found: u32,
        /// The newest known.
        newest: u32,
    },
    /// Made by a program older than Xen 4.6.
    #[error(
        "{format} of version {found} is older than version {oldest}, the oldest that can be read"
    )]
    Older {
        /// Which format.
        format: &'static str,
        /// Its version.
        found: u32,
        /// The oldest known.
        oldest: u32,
    },
    /// An xl file with an image of the kind that Xen 4.5 and older made.
    #[error("the image is of the kind of Xen 4.5 and older, which only stock xl restores")]
    Legacy,
    /// Made of such an image by `convert-legacy-stream`, which does not keep the order of records (PV_INFO after
    /// STATIC_DATA_END, HVM_PARAMS twice).
    #[error("was converted from an image of Xen 4.5 or older, which only stock xl restores")]
    Converted,
    /// Made on a big-endian machine.
    #[error("{0} is big-endian, and only little-endian can be read")]
    BigEndian(&'static str),
    /// Flags that the reader must know.
    #[error("needs features {unknown:#x}, which this program does not know; a newer one made it")]
    Flags {
        /// Those not known.
        unknown: u32,
    },
    /// Bits that are always 0.
    #[error("reserved bits of {what} are {value:#x}, not 0")]
    Reserved {
        /// Which field.
        what: &'static str,
        /// The bits.
        value: u64,
    },
    /// The bytes that fill a record up are always 0.
    #[error("the {bytes} bytes after its body are {value:#x}, not 0")]
    Padding {
        /// How many they are.
        bytes: u64,
        /// As a little-endian number.
        value: u64,
    },
    /// A record of an impossible size.
    #[error("is {found} bytes long, expected {expected}")]
    Length {
        /// What its header says.
        found: u64,
        /// What it must be.
        expected: Expected,
    },
    /// A list that does not fill its record.
    #[error("{count} {what} take {needs} bytes, the record says {length}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// Bytes for them, header included.
        needs: u64,
        /// The record's length.
        length: u64,
    },
    /// A list of pages that does not fill its record.
    #[error(
        "{pages} pages, {contents} with contents, take {needs} bytes, the record says {length}"
    )]
    Pages {
        /// In the list.
        pages: u64,
        /// Of these.
        contents: u64,
        /// Bytes for them, header included.
        needs: u64,
        /// The record's length.
        length: u64,
    },
    /// Larger than this program is willing to hold.
    #[error("{found} {what}, {limit} is the limit")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many may be.
        limit: u64,
    },
    /// A value that means nothing.
    #[error("{what} is {found:#x}, expected {expected}")]
    Value {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// Those that mean something.
        expected: &'static str,
    },
    /// One entry of a list is wrong.
    #[error("entry {index}: {what} is {found:#x}, expected {expected}")]
    Entry {
        /// Which, from 0.
        index: usize,
        /// Which field of it.
        what: &'static str,
        /// Its value.
        found: u64,
        /// Those that mean something.
        expected: &'static str,
    },
    /// Contents that do not hold together.
    #[error("{0}")]
    Content(&'static str),
    /// A record without which nothing can be restored, and that is not known here.
    #[error("a mandatory record of unknown type {kind:#x}; a newer program made it")]
    Unknown {
        /// Its type.
        kind: u32,
    },
    /// A record at the wrong time.
    #[error(transparent)]
    Order(#[from] Refusal),
    /// A record of the libxl layer at the wrong time.
    #[error(transparent)]
    Outer(#[from] libxl::Refusal),
    /// Whoever moves pages said more than it was offered.
    #[error("the mover of pages claims {claimed} bytes of {offered}")]
    Mover {
        /// What it says.
        claimed: u64,
        /// What there was.
        offered: u64,
    },
    /// A call that makes no sense now: a mistake of the caller, not of the stream.
    #[error("{call} is not possible {state}")]
    Misuse {
        /// Which call.
        call: &'static str,
        /// Why.
        state: &'static str,
    },
}
