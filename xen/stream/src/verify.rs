//! Reads a whole stream and says what it holds, or the first thing that is wrong with it.
//!
//! Stricter than the stock checker (`verify-stream-v2`), which looks at one record at a time: order, completeness and both
//! layers' checkpoints are judged as well. Contents of pages are passed over.

use std::io::Read;

use crate::error::{Layer, StreamError};
use crate::libxc::Mode;
use crate::reader::{Event, Reader};
use crate::summary::Summary;
use crate::xl_file::XlHeader;

/// What a whole stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The header of the file, where there is one.
    pub file: Option<XlHeader>,
    /// What was counted.
    pub summary: Summary,
    /// Something stands behind the end. Stock ignores it in a file.
    pub more: bool,
}

/// Reads from the start of `from` to its end, and one byte more.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(source: impl Read, from: Layer, mode: Mode) -> Result<Verified, StreamError> {
    let mut reader = Reader::new(source, from, mode);
    let mut file = None;
    loop {
        match reader.next()? {
            Event::File(header) => file = Some(header),
            Event::End => break,
            Event::Stream(_)
            | Event::Outer(_)
            | Event::Image(..)
            | Event::Record(_)
            | Event::Pages(_)
            | Event::Skipped { .. } => {}
        }
    }
    let more = !reader.source_ends()?;
    Ok(Verified {
        file,
        summary: reader.summary(),
        more,
    })
}
