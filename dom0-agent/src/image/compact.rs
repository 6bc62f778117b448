//! What of an unpacked kernel is loaded, and how little of it needs to be kept.
//!
//! ```text
//!   loadable    │hdr│pad│ text ════════ │pad│ data ═══ 0000 │ debug, symbols ... │     the ELF file; zeros cut off
//!   compacted   │ text ════════│ data ═══│                                               offsets rewritten
//! ```
//!
//! Zeros at the end of a segment are dropped, since memory beyond `file_size` is zeroed anyway; of Debian 13's kernel
//! (57.6 MB) 40 MB remain. Pure.

use super::elf::{self, KernelMeta, Segment};
use super::error::{Fault, Format};

const PAGE: usize = 4096;

/// Reads an ELF kernel and cuts the zeros off the ends of its segments; offsets count in `elf`.
///
/// # Errors
/// As [`elf::parse`].
pub fn loadable(elf: &[u8], format: Format) -> Result<KernelMeta, Fault> {
    let mut meta = elf::parse(elf, format)?;
    for segment in &mut meta.segments {
        segment.file_size = used(segment, elf)?;
    }
    Ok(meta)
}

/// The same metadata for a file that holds just the segments' bytes, end to end.
#[must_use]
pub fn compacted(meta: &KernelMeta) -> KernelMeta {
    let mut compact = meta.clone();
    let mut offset = 0;
    for segment in &mut compact.segments {
        segment.file_offset = offset;
        offset += segment.file_size;
    }
    compact.unpacked_size = offset;
    compact
}

/// Bytes of a segment before the zero pages at its end.
fn used(segment: &Segment, elf: &[u8]) -> Result<u64, Fault> {
    let start = usize::try_from(segment.file_offset).ok();
    let bytes = start
        .zip(usize::try_from(segment.file_size).ok())
        .and_then(|(start, size)| elf.get(start..start.checked_add(size)?))
        .ok_or_else(|| Fault::elf("a segment lies outside of the file"))?;
    let zero_pages = bytes.rchunks(PAGE).take_while(|page| is_zero(page)).count();
    Ok(bytes.len().saturating_sub(zero_pages * PAGE) as u64)
}

fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
