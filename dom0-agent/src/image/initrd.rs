//! The initial ramdisk: passed to the guest as it is, packed or not.
//!
//! [`ramdisk`] judges whether it can be one at all and whether it is whole. Nothing is unpacked here: that is between the file and the guest's kernel.

use super::error::{Fault, ImageError, Role};
use super::limits::MAX_INITRD;
use super::ramdisk::{self, Trouble};
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
    /// It is missing, unreadable, no regular file, empty, larger than [`MAX_INITRD`], no ramdisk, or not all of one.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let source = Source::open(Role::Initrd, path, MAX_INITRD)?;
        let initrd = Self {
            path: path.to_owned(),
            size: source.size(),
            file: source.into_file(),
        };
        let read = |into: &mut [u8], offset| initrd.file.read_exact_at(into, offset);
        ramdisk::judge(initrd.size, &read).map_err(|trouble| match trouble {
            Trouble::Io(error) => initrd.unread(error),
            Trouble::Fault(fault) => ImageError::Bad {
                role: Role::Initrd,
                path: path.to_owned(),
                fault,
            },
        })?;
        Ok(initrd)
    }

    /// Size in bytes, at least 1.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// It cannot be read, or has become shorter since it was opened.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<(), ImageError> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| self.unread(error))
    }

    fn unread(&self, error: io::Error) -> ImageError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ImageError::Changed {
                role: Role::Initrd,
                path: self.path.clone(),
            },
            _ => ImageError::io(Role::Initrd, &self.path, error),
        }
    }

    /// The fault an initrd of this many bytes has by its size alone.
    #[must_use]
    pub fn size_fault(size: u64) -> Option<Fault> {
        super::source::size_fault(size, MAX_INITRD)
    }
}
