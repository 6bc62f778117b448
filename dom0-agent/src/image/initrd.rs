//! The initial ramdisk: passed to the guest as it is, packed or not.
//!
//! Only its size is judged: the guest's kernel unpacks it, so what is inside is between the file and that kernel.

use super::error::{Fault, ImageError, Role};
use super::limits::MAX_INITRD;
use super::source::Source;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An initrd ready to be copied into a guest.
#[derive(Debug)]
pub struct Initrd {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Initrd {
    /// Opens an initrd.
    ///
    /// # Errors
    /// It is missing, unreadable, no regular file, empty or larger than [`MAX_INITRD`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let source = Source::open(Role::Initrd, path, MAX_INITRD)?;
        Ok(Self {
            path: path.to_owned(),
            size: source.size(),
            file: source.into_file(),
        })
    }

    /// Size in bytes, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// It cannot be read, or has become shorter since it was opened.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<(), ImageError> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ImageError::Changed {
                    role: Role::Initrd,
                    path: self.path.clone(),
                },
                _ => ImageError::io(Role::Initrd, &self.path, error),
            })
    }

    /// The fault an initrd of this many bytes has by its size alone.
    #[must_use]
    pub fn size_fault(size: u64) -> Option<Fault> {
        super::source::size_fault(size, MAX_INITRD)
    }
}
