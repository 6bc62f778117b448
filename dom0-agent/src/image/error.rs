//! What can be wrong with a kernel or an initrd: which file, what is the matter with it, and what to do.
//!
//! [`Fault`] is the matter itself, found by the pure parsers that know no file name; it crosses the pipe from the
//! unpacking worker. [`ImageError`] adds the file.

use super::limits;
use super::ramdisk::Container;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// How a kernel is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Not packed: the ELF file itself.
    Elf,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// lz4 in its legacy frame.
    Lz4,
    /// lzo: known, refused.
    Lzo,
    /// lzma without the xz container: known, refused.
    Lzma,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lzo => "lzo",
            Self::Lzma => "lzma",
        })
    }
}

/// What is wrong with the bytes of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// No byte in it.
    #[error("is empty; copy the file again")]
    Empty,
    /// Larger than is ever sensible.
    #[error("is {size} bytes, more than the {limit} bytes allowed")]
    TooBig {
        /// Bytes it has.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Neither bzImage nor ELF, plain or packed.
    #[error(
        "is not a kernel: it starts with {start}, which is neither a bzImage nor an ELF file; \
             give the distribution's vmlinuz, or a vmlinux"
    )]
    NotAKernel {
        /// First bytes in hex.
        start: String,
    },
    /// A bzImage too old to have a payload.
    #[error("uses boot protocol {}.{:02}; Xen guests need 2.08 (Linux 2.6.26) or later", version >> 8, version & 0xff)]
    OldProtocol {
        /// As in the header: major << 8 | minor.
        version: u16,
    },
    /// The file ends before its own header says.
    #[error("is cut short: its {} payload ends at byte {promised}, the file at byte {have}; copy the file again",
            format.map_or_else(|| "packed".to_owned(), |f| f.to_string()))]
    CutShort {
        /// Packing, where enough of it is there to tell.
        format: Option<Format>,
        /// Where the payload should end.
        promised: u64,
        /// Where the file ends.
        have: u64,
    },
    /// A format we know and do not unpack.
    #[error(
        "is packed with {format}, which is not supported; use a kernel packed with gzip, bzip2, xz, zstd or lz4, \
             or the unpacked vmlinux"
    )]
    Unsupported {
        /// Which.
        format: Format,
    },
    /// The packed data ends in the middle.
    #[error("has truncated {format} data: it breaks off at byte {position}; copy the file again")]
    Truncated {
        /// Packing.
        format: Format,
        /// Byte of the file at which data was missing.
        position: u64,
    },
    /// The packed data contradicts itself.
    #[error("has damaged {format} data before byte {position} ({what}); copy the file again")]
    Damaged {
        /// Packing.
        format: Format,
        /// How far the decoder had read in the file.
        position: u64,
        /// What the decoder said.
        what: String,
    },
    /// Unpacks to more than allowed.
    #[error(
        "unpacks to more than {limit} bytes of kernel; that is not a kernel, or it has its debug information still inside"
    )]
    UnpacksTooBig {
        /// Bytes allowed.
        limit: u64,
    },
    /// Unpacks to another size than its trailer says.
    #[error(
        "unpacks from {format} to {got} bytes where its trailer says {promised}; copy the file again"
    )]
    WrongSize {
        /// Packing.
        format: Format,
        /// Bytes promised.
        promised: u64,
        /// Bytes that came.
        got: u64,
    },
    /// No ramdisk that a kernel knows.
    #[error(
        "is not a ramdisk: at byte {position} it has {start}, which no kernel unpacks; give a cpio archive (newc), plain or \
             packed with gzip, bzip2, lzma, xz, lzo, lz4 (legacy) or zstd, or a file system image"
    )]
    NotARamdisk {
        /// Where something else should be.
        position: u64,
        /// What is there, in hex.
        start: String,
    },
    /// A ramdisk that ends before its own headers say.
    #[error(
        "is cut short: its {container} data goes on to byte {promised} at least, the file ends at byte {have}; copy the file again"
    )]
    RamdiskCut {
        /// What it is.
        container: Container,
        /// Bytes that there should be, at least.
        promised: u64,
        /// Bytes that there are.
        have: u64,
    },
    /// A ramdisk that contradicts itself.
    #[error("has damaged {container} data at byte {position} ({what}); copy the file again")]
    RamdiskDamaged {
        /// What it is.
        container: Container,
        /// Where.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// The ELF file is malformed.
    #[error("holds a malformed ELF file: {what}")]
    BadElf {
        /// What is wrong.
        what: String,
    },
    /// A Xen note is malformed.
    #[error("has a malformed Xen note: {what}")]
    BadNote {
        /// What is wrong.
        what: String,
    },
    /// No notes at all: not built for Xen.
    #[error("has no Xen notes: it was built without CONFIG_XEN_PV and CONFIG_PVH")]
    NotForXen,
    /// Good for Xen, but not for this kind of guest.
    #[error("cannot start as a {kind} guest: {why}")]
    NotForKind {
        /// `pv` or `pvh`.
        kind: String,
        /// Why.
        why: String,
    },
}

impl Fault {
    pub(super) fn elf(what: impl Into<String>) -> Self {
        Self::BadElf { what: what.into() }
    }

    pub(super) fn note(what: impl Into<String>) -> Self {
        Self::BadNote { what: what.into() }
    }

    pub(super) fn kind(kind: &str, why: impl Into<String>) -> Self {
        Self::NotForKind {
            kind: kind.to_owned(),
            why: why.into(),
        }
    }
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `kernel=`
    Kernel,
    /// `ramdisk=`
    Initrd,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

/// Failure to load a kernel or an initrd.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is not there.
    #[error("{role} {} does not exist; check `{}=` in the configuration", path.display(), config_key(*.role))]
    Missing {
        /// Kernel or initrd.
        role: Role,
        /// File.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {role} {}", path.display())]
    Unreadable {
        /// Kernel or initrd.
        role: Role,
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{role} {} is not a regular file", path.display())]
    NotAFile {
        /// Kernel or initrd.
        role: Role,
        /// File.
        path: PathBuf,
    },
    /// Its bytes are no good.
    #[error("{role} {} {fault}", path.display())]
    Bad {
        /// Kernel or initrd.
        role: Role,
        /// File.
        path: PathBuf,
        /// What is wrong with them.
        fault: Fault,
    },
    /// The file changed while it was read.
    #[error("{role} {} changed while it was being read; try again", path.display())]
    Changed {
        /// Kernel or initrd.
        role: Role,
        /// File.
        path: PathBuf,
    },
    /// The unpacking process failed without an answer.
    #[error("unpacking kernel {} failed: the worker {what}", path.display())]
    Worker {
        /// Kernel.
        path: PathBuf,
        /// What became of it.
        what: String,
    },
    /// No place for the unpacked kernel.
    #[error("cannot keep the unpacked kernel in {}; unpacked kernels take up to {} MiB each",
            path.display(), limits::MAX_UNPACKED / limits::MIB)]
    Cache {
        /// File or directory of the cache.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn config_key(role: Role) -> &'static str {
    match role {
        Role::Kernel => "kernel",
        Role::Initrd => "ramdisk",
    }
}

impl ImageError {
    /// From opening or reading a file.
    pub(super) fn io(role: Role, path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { role, path },
            _ => Self::Unreadable { role, path, source },
        }
    }
}
