//! From a packed kernel file to what a domain builder reads: the loadable bytes, end to end, and their metadata.
//!
//! ```text
//!   ELF file   │hdr│pad│ text ════════ │pad│ data ═══ 0000 │ debug, symbols ... │
//!   image      │ text ════════│ data ═══│              file_offset of each segment rewritten
//! ```
//!
//! Zeros at the end of a segment are dropped, since memory beyond `file_size` is zeroed anyway; of Debian 13's kernel
//! (57.6 MB) 40 MB remain. Pure; runs in the unpacking worker.

use super::elf::{self, KernelMeta, Segment};
use super::error::Fault;
use super::unpack;
use std::borrow::Cow;

const PAGE: usize = 4096;

/// A kernel ready to be written as an image file.
#[derive(Debug)]
pub struct Compacted<'a> {
    /// Metadata; offsets count in the image.
    pub meta: KernelMeta,
    elf: Cow<'a, [u8]>,
    /// Where the bytes of each segment lie in `elf`.
    parts: Vec<std::ops::Range<usize>>,
}

impl Compacted<'_> {
    /// The pieces of the image, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &self.elf[part.clone()])
    }

    /// The whole image.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }
}

/// Unpacks a kernel file and reduces it to what is loaded.
///
/// # Errors
/// Anything wrong with the file, see [`Fault`].
pub fn compact(file: &[u8], limit: u64) -> Result<Compacted<'_>, Fault> {
    let unpacked = unpack::unpack(file, limit)?;
    let mut meta = elf::parse(&unpacked.elf, unpacked.format)?;
    let mut parts = Vec::with_capacity(meta.segments.len());
    let mut offset = 0;
    for segment in &mut meta.segments {
        let part = part(segment, &unpacked.elf)?;
        segment.file_offset = offset;
        segment.file_size = part.len() as u64;
        offset += segment.file_size;
        parts.push(part);
    }
    meta.unpacked_size = offset;
    Ok(Compacted {
        meta,
        elf: unpacked.elf,
        parts,
    })
}

/// A segment's bytes in the ELF file without the zeros at its end, whole pages of them.
fn part(segment: &Segment, elf: &[u8]) -> Result<std::ops::Range<usize>, Fault> {
    let whole = usize::try_from(segment.file_offset)
        .ok()
        .zip(usize::try_from(segment.file_size).ok())
        .map(|(start, size)| start..start.saturating_add(size));
    let Some(whole) = whole.filter(|range| range.end <= elf.len()) else {
        return Err(Fault::elf("a segment lies outside of the file"));
    };
    let bytes = &elf[whole.clone()];
    let zero_pages = bytes.rchunks(PAGE).take_while(|page| is_zero(page)).count();
    let length = bytes.len().saturating_sub(zero_pages * PAGE);
    Ok(whole.start..whole.start + length)
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
