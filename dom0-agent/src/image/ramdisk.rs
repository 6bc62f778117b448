//! Whether a file can be a ramdisk: what it is made of, and whether it is all there, without unpacking a byte.
//!
//! ```text
//!   archives       [zeros] archive [zeros] archive ...        each: cpio (newc), or one of the packings that Linux unpacks
//!   file system    one image of ext2, romfs, cramfs, squashfs or minix, for an `initrd` of the old kind
//! ```
//!
//! Only headers are read. How much of a cut file is noticed depends on what its format says of its own length:
//!
//! | format | followed to its end | what tells |
//! |---|---|---|
//! | cpio | yes | the size in each entry's header |
//! | zstd, lz4 | yes | the size in each block's header |
//! | xz | yes | the footer, which has a checksum |
//! | ext2, romfs, cramfs, squashfs | yes | the size in the superblock |
//! | gzip, bzip2, lzma, lzo | no | nothing: the guest's kernel finds out, and says so on its console |
//!
//! Pure but for the reads. Sources: `Documentation/driver-api/early-userspace/buffer-format.rst`, RFC 1952, RFC 8878, the xz file format 1.2.1,
//! the lz4 frame format, and the file systems' headers in `include/uapi/linux`.

use super::error::Fault;
use super::limits::{LZ4_PACKED_BLOCK, MAX_ARCHIVES, MAX_CPIO_ENTRIES, MAX_CPIO_NAME};
use super::zstd_frame;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::io;

/// What a ramdisk, or a part of one, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// A cpio archive, `newc`, with or without checksums.
    Cpio,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// lzma without the xz container.
    Lzma,
    /// xz.
    Xz,
    /// lzo.
    Lzo,
    /// lz4 in its legacy frame.
    Lz4,
    /// Zstandard.
    Zstd,
    /// ext2 and its successors.
    Ext2,
    /// romfs.
    Romfs,
    /// cramfs.
    Cramfs,
    /// squashfs.
    Squashfs,
    /// minix.
    Minix,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpio => "cpio",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Ext2 => "ext2",
            Self::Romfs => "romfs",
            Self::Cramfs => "cramfs",
            Self::Squashfs => "squashfs",
            Self::Minix => "minix",
        })
    }
}

/// Why a file was not found good.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes are no ramdisk.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Reads some bytes from an offset on, all of them or none.
pub type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Bytes read at once: small entries of an archive share a read.
const WINDOW: usize = 4096;
/// Bytes looked at in one go where something is searched for.
const STRIDE: usize = 64 * 1024;
/// The longest magic.
const MAGIC: usize = 8;

/// Judges a file of `size` bytes.
///
/// # Errors
/// It cannot be read, is no ramdisk, is cut short or contradicts itself.
pub fn judge(size: u64, read: Read<'_>) -> Result<(), Trouble> {
    let image = Image::new(size, read);
    if container(&image.upto(0, MAGIC)?).is_none()
        && let Some((kind, promised)) = file_system(&image)?
    {
        return match promised {
            promised if promised > size => Err(cut(kind, promised, size).into()),
            _ => Ok(()),
        };
    }
    let mut at = 0;
    for archive in 0..MAX_ARCHIVES {
        let start = match image.first_not_zero(at)? {
            Some(start) => start,
            None if archive > 0 => return Ok(()),
            None => 0,
        };
        let head = image.upto(start, MAGIC)?;
        let Some(kind) = container(&head) else {
            return Err(unknown(start, &head).into());
        };
        let end = match kind {
            Container::Cpio => cpio(&image, start)?,
            Container::Zstd => Some(zstd(&image, start)?),
            Container::Lz4 => Some(lz4(&image, start)?),
            Container::Xz => Some(xz(&image, start)?),
            Container::Gzip => gzip(&image, start)?,
            _ => None,
        };
        match end {
            Some(end) => at = end,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The packing that bytes begin with: what Linux looks for.
fn container(head: &[u8]) -> Option<Container> {
    const KNOWN: [(&[u8], Container); 10] = [
        (b"070701", Container::Cpio),
        (b"070702", Container::Cpio),
        (&[0x1f, 0x8b], Container::Gzip),
        (&[0x1f, 0x9e], Container::Gzip),
        (b"BZh", Container::Bzip2),
        (&[0x5d, 0x00, 0x00], Container::Lzma),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Container::Xz),
        (&[0x89, b'L', b'Z', b'O'], Container::Lzo),
        (&LZ4_MAGIC, Container::Lz4),
        (&[0x28, 0xb5, 0x2f, 0xfd], Container::Zstd),
    ];
    KNOWN
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, kind)| *kind)
}

/// A file system, and the bytes that it says it has.
fn file_system(image: &Image<'_>) -> Result<Option<(Container, u64)>, Trouble> {
    const SUPERBLOCK: u64 = 1024;
    const MINIX: [u16; 4] = [0x137f, 0x138f, 0x2468, 0x2478];
    let head = image.upto(0, 48)?;
    if head.starts_with(b"-rom1fs-") {
        let size = head.get(8..12).and_then(|four| four.try_into().ok());
        let size = size.map_or(u64::MAX, |four| u64::from(u32::from_be_bytes(four)));
        return Ok(Some((Container::Romfs, size)));
    }
    if head.starts_with(b"hsqs") {
        let used = head.get(40..48).and_then(|eight| eight.try_into().ok());
        let used = used.map_or(u64::MAX, u64::from_le_bytes);
        return Ok(Some((Container::Squashfs, used)));
    }
    // Some put a boot sector in front of it.
    for start in [0, 512] {
        let head = image.upto(start, 12)?;
        if head.len() == 12 && head.starts_with(&[0x45, 0x3d, 0xcd, 0x28]) {
            // The first form of cramfs does not say its size.
            let says = u32_at(&head, 8) & 1 != 0;
            let size = if says { u32_at(&head, 4) } else { 0 };
            return Ok(Some((Container::Cramfs, u64::from(size))));
        }
    }
    let block = image.upto(SUPERBLOCK, 64)?;
    if block.len() < 64 {
        return Ok(None);
    }
    if block[56..58] == [0x53, 0xef] {
        let bytes = u64::from(u32_at(&block, 4)) << (10 + (u32_at(&block, 24) & 7));
        return Ok(Some((Container::Ext2, bytes)));
    }
    let minix = u16::from_le_bytes([block[16], block[17]]);
    Ok(MINIX.contains(&minix).then_some((Container::Minix, 0)))
}

/// Follows an archive from header to header; where it ends, or nothing where nobody wants to look on.
fn cpio(image: &Image<'_>, start: u64) -> Result<Option<u64>, Trouble> {
    const HEADER: usize = 110;
    const FILE_SIZE: usize = 6;
    const NAME_SIZE: usize = 11;
    const TRAILER: &[u8] = b"TRAILER!!!\0";
    let kind = Container::Cpio;
    let aligned = |offset: u64| start + (offset - start).next_multiple_of(4);
    let mut at = start;
    for _ in 0..MAX_CPIO_ENTRIES {
        let header = image.whole(kind, at, HEADER)?;
        if container(&header) != Some(kind) {
            return Err(damaged(kind, at, "no entry where the next one should be").into());
        }
        let field = |n: usize| {
            let text = header.get(6 + 8 * n..14 + 8 * n)?;
            let text = std::str::from_utf8(text).ok()?;
            u64::from_str_radix(text, 16).ok()
        };
        let (Some(bytes), Some(name)) = (field(FILE_SIZE), field(NAME_SIZE)) else {
            return Err(damaged(kind, at, "a size that is no number").into());
        };
        if name == 0 || name > MAX_CPIO_NAME {
            return Err(damaged(kind, at, "a name without an end").into());
        }
        let name_at = at + HEADER as u64;
        let body = aligned(name_at + name);
        let is_last =
            name == TRAILER.len() as u64 && image.whole(kind, name_at, TRAILER.len())? == TRAILER;
        let end = if is_last {
            name_at + name
        } else {
            body + bytes
        };
        if end > image.size {
            return Err(cut(kind, end, image.size).into());
        }
        at = aligned(end);
        // The last entry may be missing.
        if is_last || at >= image.size {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn zstd(image: &Image<'_>, start: u64) -> Result<u64, Trouble> {
    let kind = Container::Zstd;
    let wrong = |at: u64, broken| match broken {
        zstd_frame::Broken::Truncated => cut(kind, image.size + 1, image.size),
        zstd_frame::Broken::Damaged { what, .. } => damaged(kind, at, what),
    };
    let head = image.upto(start, zstd_frame::LONGEST_HEADER)?;
    let header = zstd_frame::header(&head).map_err(|broken| wrong(start, broken))?;
    let mut at = start + header.length as u64;
    // Each pass moves on by at least a block header, so the size bounds the loop.
    loop {
        let three = image.whole(kind, at, zstd_frame::BLOCK_HEADER)?;
        let block = zstd_frame::block(&three).map_err(|broken| wrong(at, broken))?;
        at += (zstd_frame::BLOCK_HEADER + block.body) as u64;
        if block.is_last {
            at += header.checksum as u64;
        }
        if at > image.size {
            return Err(cut(kind, at, image.size).into());
        }
        if block.is_last {
            return Ok(at);
        }
    }
}

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Legacy frames have no end: a size of zero (padding) or another magic is one.
fn lz4(image: &Image<'_>, start: u64) -> Result<u64, Trouble> {
    let kind = Container::Lz4;
    let mut at = start + LZ4_MAGIC.len() as u64;
    // As in `zstd`.
    loop {
        if at == image.size {
            return Ok(at);
        }
        let head = image.upto(at, MAGIC)?;
        if head.iter().take(4).all(|byte| *byte == 0) || container(&head).is_some() {
            return Ok(at);
        }
        let four = image.whole(kind, at, 4)?;
        let body = u32_at(&four, 0);
        if body as usize > LZ4_PACKED_BLOCK {
            return Err(damaged(kind, at, "a block that is larger than any").into());
        }
        at += 4 + u64::from(body);
        if at > image.size {
            return Err(cut(kind, at, image.size).into());
        }
    }
}

/// Where a stream ends is written at its end only: that is the end of the file, where nothing was appended.
fn xz(image: &Image<'_>, start: u64) -> Result<u64, Trouble> {
    const HEADER: usize = 12;
    const FOOTER: usize = 12;
    let kind = Container::Xz;
    let header = image.whole(kind, start, HEADER)?;
    let flags = [header[6], header[7]];
    if crc32fast::hash(&flags) != u32_at(&header, 8) {
        return Err(damaged(kind, start, "the checksum of its header is wrong").into());
    }
    let is_footer = |bytes: &[u8]| {
        bytes.len() == FOOTER
            && bytes[8..] == [flags[0], flags[1], b'Y', b'Z']
            && crc32fast::hash(&bytes[4..10]) == u32_at(bytes, 0)
    };
    let after = start + HEADER as u64;
    let last = image.last_not_zero(after)?.saturating_sub(FOOTER as u64);
    if last >= after && is_footer(&image.upto(last, FOOTER)?) {
        return Ok(image.size);
    }
    let mut at = after;
    while at < image.size {
        let bytes = image.read_fresh(at, STRIDE)?;
        let found = bytes.windows(FOOTER).position(is_footer);
        if let Some(found) = found {
            return Ok(at + (found + FOOTER) as u64);
        }
        let step = bytes.len().saturating_sub(FOOTER - 1).max(1);
        at += step as u64;
    }
    Err(cut(kind, image.size + 1, image.size).into())
}

/// gzip says nothing of where it ends.
fn gzip(image: &Image<'_>, start: u64) -> Result<Option<u64>, Trouble> {
    /// Header and trailer.
    const SHORTEST: usize = 18;
    const DEFLATE: u8 = 8;
    const RESERVED: u8 = 0xe0;
    let kind = Container::Gzip;
    let head = image.whole(kind, start, SHORTEST)?;
    if head[2] != DEFLATE || head[3] & RESERVED != 0 {
        return Err(damaged(kind, start, "its header names a method that does not exist").into());
    }
    Ok(None)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    u32::from_le_bytes(four.unwrap_or_default())
}

fn unknown(position: u64, head: &[u8]) -> Fault {
    let start: Vec<String> = head.iter().map(|byte| format!("{byte:02x}")).collect();
    Fault::NotARamdisk {
        position,
        start: start.join(" "),
    }
}

fn cut(container: Container, promised: u64, have: u64) -> Fault {
    Fault::RamdiskCut {
        container,
        promised,
        have,
    }
}

fn damaged(container: Container, position: u64, what: &str) -> Fault {
    Fault::RamdiskDamaged {
        container,
        position,
        what: what.to_owned(),
    }
}

/// The file, with the bytes that were read last.
struct Image<'a> {
    size: u64,
    read: Read<'a>,
    window: RefCell<(u64, Vec<u8>)>,
}

impl<'a> Image<'a> {
    fn new(size: u64, read: Read<'a>) -> Self {
        Self {
            size,
            read,
            window: RefCell::default(),
        }
    }

    /// Bytes from `at` on, fewer where the file ends.
    fn read_fresh(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        if !bytes.is_empty() {
            (self.read)(&mut bytes, at)?;
        }
        Ok(bytes)
    }

    /// As [`Image::read_fresh`], at most a window.
    fn upto(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut window = self.window.borrow_mut();
        let inside = |(start, bytes): &(u64, Vec<u8>)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            Some(bytes.get(from..from + length)?.to_vec())
        };
        if let Some(found) = inside(&window) {
            return Ok(found);
        }
        *window = (at, self.read_fresh(at, WINDOW.max(length))?);
        let bytes = &window.1;
        Ok(bytes[..length.min(bytes.len())].to_vec())
    }

    /// Bytes that must be there.
    fn whole(&self, kind: Container, at: u64, length: usize) -> Result<Vec<u8>, Trouble> {
        let bytes = self.upto(at, length)?;
        if bytes.len() < length {
            return Err(cut(kind, at + length as u64, self.size).into());
        }
        Ok(bytes)
    }

    fn first_not_zero(&self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        let mut length = MAGIC;
        while at < self.size {
            let bytes = self.read_fresh(at, length)?;
            if let Some(found) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + found as u64));
            }
            at += bytes.len() as u64;
            length = STRIDE;
        }
        Ok(None)
    }

    /// The end of the file without the zeros there; not before `from`.
    fn last_not_zero(&self, from: u64) -> io::Result<u64> {
        let mut end = self.size;
        while end > from {
            let start = end.saturating_sub(STRIDE as u64).max(from);
            let length = usize::try_from(end - start).unwrap_or(STRIDE);
            let bytes = self.read_fresh(start, length)?;
            if let Some(found) = bytes.iter().rposition(|byte| *byte != 0) {
                return Ok(start + found as u64 + 1);
            }
            end = start;
        }
        Ok(end)
    }
}
