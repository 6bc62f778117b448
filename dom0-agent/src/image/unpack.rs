//! Unpacks a kernel: gzip, bzip2, xz, zstd and legacy lz4, chosen by magic, with a cap on the result.
//!
//! The kernel build appends the unpacked size (4 bytes, little-endian) to every payload but gzip's, whose own trailer
//! says the same; those bytes are no part of the packed data and would stop a strict decoder. All input is untrusted.
//!
//! zstd goes through the C library, in the sandboxed worker only. Measured on Debian 13's kernel (6.12.107: 11.9 MB to
//! 57.6 MB) as user instructions under callgrind, optimised builds:
//!
//! | decoder | instructions |
//! |---|---|
//! | ruzstd 0.9.1, `FrameDecoder::decode_all` | 2267 M |
//! | ruzstd 0.9.1, `StreamingDecoder` | 2328 M |
//! | C zstd 1.5.7, streaming | 812 M |
//! | C zstd 1.5.7, one call into the final buffer (used here) | 684 M |

use super::error::{Fault, Format};
use super::limits::{LZ4_LEGACY_BLOCK, LZ4_PACKED_BLOCK, MAX_XZ_DICTIONARY_KIB};
use super::{bzimage, zstd_frame};
use std::borrow::Cow;
use std::io::Read;

const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Bytes of the unpacked size behind a payload.
const TRAILER: usize = 4;

/// The format that `data` starts with.
#[must_use]
pub fn detect(data: &[u8]) -> Option<Format> {
    const MAGICS: [(&[u8], Format); 8] = [
        (b"\x7fELF", Format::Elf),
        (b"\x1f\x8b", Format::Gzip),
        (b"BZh", Format::Bzip2),
        (b"\xfd7zXZ\0", Format::Xz),
        (b"\x28\xb5\x2f\xfd", Format::Zstd),
        (&LZ4_LEGACY_MAGIC, Format::Lz4),
        (b"\x89LZO", Format::Lzo),
        (b"\x5d\0\0", Format::Lzma),
    ];
    MAGICS
        .iter()
        .find(|(magic, _)| data.starts_with(magic))
        .map(|(_, format)| *format)
}

/// An unpacked kernel: an ELF file, as far as its magic says.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked<'a> {
    /// The ELF file.
    pub elf: Cow<'a, [u8]>,
    /// How it was packed.
    pub format: Format,
}

/// Unpacks a kernel file: a bzImage, an ELF file, or an ELF file packed as a whole.
///
/// # Errors
/// See [`Fault`]; positions are bytes of `file`.
pub fn unpack(file: &[u8], limit: u64) -> Result<Unpacked<'_>, Fault> {
    let (packed, promised) = Packed::find(file, limit)?;
    let format = packed.format;
    let elf = match (format, promised) {
        (Format::Elf, _) => Cow::Borrowed(packed.data),
        (Format::Lzo | Format::Lzma, _) => return Err(Fault::Unsupported { format }),
        (Format::Gzip, _) => Cow::Owned(packed.gzip()?),
        (_, Some(promised)) => {
            Cow::Owned(packed.check_size(promised, packed.decode(Some(promised))?)?)
        }
        (_, None) => Cow::Owned(packed.decode(None)?),
    };
    if elf.len() as u64 > limit {
        return Err(Fault::UnpacksTooBig { limit });
    }
    check_elf(&elf, format)?;
    Ok(Unpacked { elf, format })
}

/// The unpacked size, if `file` is a bzImage that [`unpack_zstd`] can unpack.
///
/// # Errors
/// As [`unpack`].
pub fn zstd_size(file: &[u8], limit: u64) -> Result<Option<u64>, Fault> {
    let (packed, promised) = Packed::find(file, limit)?;
    Ok(promised.filter(|promised| packed.format == Format::Zstd && *promised > 0))
}

/// Unpacks a zstd bzImage into a buffer of exactly the size that [`zstd_size`] told: the fast way, without a copy.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_zstd(file: &[u8], limit: u64, into: &mut [u8]) -> Result<(), Fault> {
    let (packed, _) = Packed::find(file, limit)?;
    let length = packed.zstd_frame()?.length;
    let got = zstd::bulk::decompress_to_buffer(&packed.data[..length], into)
        .map_err(|error| packed.damaged(packed.data.len() - length, error.to_string()))?;
    if got != into.len() {
        let (promised, got) = (into.len() as u64, got as u64);
        return Err(Fault::WrongSize {
            format: Format::Zstd,
            promised,
            got,
        });
    }
    check_elf(into, Format::Zstd)
}

fn check_elf(elf: &[u8], format: Format) -> Result<(), Fault> {
    match detect(elf) {
        Some(Format::Elf) => Ok(()),
        _ => Err(Fault::elf(format!(
            "the {format} payload does not start with the ELF magic"
        ))),
    }
}

/// Packed bytes, and where they stand in the file.
struct Packed<'a> {
    data: &'a [u8],
    base: u64,
    format: Format,
    limit: u64,
}

impl<'a> Packed<'a> {
    /// Finds the packed bytes of a file, and the unpacked size where a bzImage tells it.
    fn find(file: &'a [u8], limit: u64) -> Result<(Self, Option<u64>), Fault> {
        if file.is_empty() {
            return Err(Fault::Empty);
        }
        let (range, is_bzimage) = match bzimage::payload(file)? {
            Some(range) => (range, true),
            None => (0..file.len(), false),
        };
        let base = range.start as u64;
        let data = &file[range];
        let format = bzimage::format_of(data)?;
        let packed = Self {
            data,
            base,
            format,
            limit,
        };
        // gzip ends with its unpacked size anyway, so the kernel build adds none.
        if !is_bzimage
            || matches!(
                format,
                Format::Elf | Format::Gzip | Format::Lzo | Format::Lzma
            )
        {
            return Ok((packed, None));
        }
        let Some((data, trailer)) = data.split_last_chunk::<TRAILER>() else {
            return Err(packed.truncated(data.len()));
        };
        let promised = u64::from(u32::from_le_bytes(*trailer));
        if promised > limit {
            return Err(packed.too_big());
        }
        Ok((Self { data, ..packed }, Some(promised)))
    }

    fn check_size(&self, promised: u64, out: Vec<u8>) -> Result<Vec<u8>, Fault> {
        if out.len() as u64 == promised {
            return Ok(out);
        }
        Err(Fault::WrongSize {
            format: self.format,
            promised,
            got: out.len() as u64,
        })
    }

    fn decode(&self, promised: Option<u64>) -> Result<Vec<u8>, Fault> {
        match self.format {
            Format::Bzip2 => {
                let mut decoder = bzip2::bufread::BzDecoder::new(self.data);
                let result = self.drain(&mut decoder, promised);
                let left = decoder.get_ref().len();
                result.map_err(|what| self.blame(left, what))
            }
            Format::Xz => {
                let mut left = self.data;
                let mut decoder =
                    lzma_rust2::XzReader::new_mem_limit(&mut left, false, MAX_XZ_DICTIONARY_KIB);
                let result = self.drain(&mut decoder, promised);
                drop(decoder);
                result.map_err(|what| self.blame(left.len(), what))
            }
            Format::Zstd => self.zstd(promised),
            Format::Lz4 => self.lz4(promised),
            Format::Elf | Format::Gzip | Format::Lzo | Format::Lzma => Err(Fault::Unsupported {
                format: self.format,
            }),
        }
    }

    /// gzip carries its own unpacked size, modulo 2^32, in its last four bytes; the decoder checks it.
    fn gzip(&self) -> Result<Vec<u8>, Fault> {
        let promised = self
            .data
            .last_chunk::<4>()
            .map(|b| u64::from(u32::from_le_bytes(*b)));
        let hint = promised.filter(|promised| *promised <= self.limit);
        let mut decoder = flate2::bufread::GzDecoder::new(self.data);
        let result = self.drain(&mut decoder, hint);
        let left = decoder.get_ref().len();
        result.map_err(|what| self.blame(left, what))
    }

    fn zstd_frame(&self) -> Result<zstd_frame::Frame, Fault> {
        zstd_frame::walk(self.data).map_err(|broken| match broken {
            zstd_frame::Broken::Truncated => self.truncated(self.data.len()),
            zstd_frame::Broken::Damaged { at, what } => self.damaged(self.data.len() - at, what),
        })
    }

    fn zstd(&self, promised: Option<u64>) -> Result<Vec<u8>, Fault> {
        let frame = self.zstd_frame()?;
        let capacity = promised
            .or(frame.content_size)
            .unwrap_or(self.limit)
            .min(self.limit);
        let capacity = usize::try_from(capacity).map_err(|_| self.too_big())?;
        let data = &self.data[..frame.length];
        zstd::bulk::decompress(data, capacity).map_err(|error| {
            let what = error.to_string();
            if promised.is_none() && what.contains("Destination buffer") {
                return self.too_big();
            }
            self.damaged(self.data.len() - frame.length, what)
        })
    }

    /// The frame of `lz4 -l`: magic, then blocks of a 4-byte packed size and that many bytes, to the end of the input.
    fn lz4(&self, promised: Option<u64>) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::with_capacity(self.hint(promised));
        let largest = promised.map_or(LZ4_LEGACY_BLOCK, |_| self.hint(promised));
        let mut block = vec![0; largest.min(LZ4_LEGACY_BLOCK)];
        let mut rest = &self.data[LZ4_LEGACY_MAGIC.len()..];
        while !rest.is_empty() {
            let Some((size, after)) = rest.split_first_chunk::<4>() else {
                return Err(self.truncated(self.data.len()));
            };
            if *size == LZ4_LEGACY_MAGIC {
                rest = after;
                continue;
            }
            let size = u32::from_le_bytes(*size) as usize;
            if size == 0 || size > LZ4_PACKED_BLOCK {
                return Err(self.damaged(rest.len(), format!("a block of {size} bytes")));
            }
            let Some((packed, after)) = after.split_at_checked(size) else {
                return Err(self.truncated(self.data.len()));
            };
            let length = lz4_flex::block::decompress_into(packed, &mut block)
                .map_err(|error| self.damaged(after.len(), error.to_string()))?;
            if (out.len() + length) as u64 > self.limit {
                return Err(self.too_big());
            }
            out.extend_from_slice(&block[..length]);
            rest = after;
        }
        Ok(out)
    }

    fn hint(&self, promised: Option<u64>) -> usize {
        let likely = promised
            .unwrap_or(self.data.len() as u64 * 4)
            .min(self.limit);
        usize::try_from(likely).unwrap_or(0)
    }

    /// Reads a decoder to its end, or to the limit.
    fn drain(&self, decoder: &mut impl Read, promised: Option<u64>) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(self.hint(promised));
        // One byte beyond the limit is enough to see that it is exceeded.
        match decoder.take(self.limit + 1).read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A decoder that failed with nothing left to read had too little; one that failed before has bad data.
    fn blame(&self, left: usize, what: String) -> Fault {
        if left == 0 {
            self.truncated(self.data.len())
        } else {
            self.damaged(left, what)
        }
    }

    fn truncated(&self, at: usize) -> Fault {
        Fault::Truncated {
            format: self.format,
            position: self.base + at as u64,
        }
    }

    fn damaged(&self, left: usize, what: impl Into<String>) -> Fault {
        let position = self.base + (self.data.len() - left) as u64;
        Fault::Damaged {
            format: self.format,
            position,
            what: what.into(),
        }
    }

    fn too_big(&self) -> Fault {
        Fault::UnpacksTooBig { limit: self.limit }
    }
}
