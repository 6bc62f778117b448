//! Opens a file that a configuration names: regular, of a sensible size, known by a key that changes when it changes.

use super::error::{Fault, ImageError, Role};
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Modification time: seconds, nanoseconds.
    pub mtime: (i64, i64),
    /// Change time: catches writers that set the modification time back.
    pub ctime: (i64, i64),
    /// Bytes.
    pub size: u64,
}

impl FileKey {
    /// The key of an open file.
    ///
    /// # Errors
    /// `fstat` failed.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    /// The key of the file that a path leads to now.
    ///
    /// # Errors
    /// `stat` failed.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&std::fs::metadata(path)?))
    }

    /// A file name made of it.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!(
            "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}-{:x}",
            self.dev, self.ino, self.mtime.0, self.mtime.1, self.ctime.0, self.ctime.1, self.size
        )
    }
}

impl From<&Metadata> for FileKey {
    fn from(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
        }
    }
}

/// A kernel or initrd file, open.
#[derive(Debug)]
pub struct Source {
    file: File,
    key: FileKey,
}

impl Source {
    /// Opens a regular file of 1 to `limit` bytes. Never blocks on a pipe or a device.
    ///
    /// # Errors
    /// It is missing, unreadable, no regular file, empty or too big.
    pub fn open(role: Role, path: &Path, limit: u64) -> Result<Self, ImageError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| ImageError::io(role, path, error))?;
        let meta = file
            .metadata()
            .map_err(|error| ImageError::io(role, path, error))?;
        if !meta.is_file() {
            return Err(ImageError::NotAFile {
                role,
                path: path.to_owned(),
            });
        }
        if let Some(fault) = size_fault(meta.size(), limit) {
            return Err(ImageError::Bad {
                role,
                path: path.to_owned(),
                fault,
            });
        }
        let key = FileKey::of(&file).map_err(|error| ImageError::io(role, path, error))?;
        Ok(Self { file, key })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> FileKey {
        self.key
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.key.size
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The open file, given away.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

/// The fault a file of this many bytes has by its size alone.
pub(super) fn size_fault(size: u64, limit: u64) -> Option<Fault> {
    match size {
        0 => Some(Fault::Empty),
        size if size > limit => Some(Fault::TooBig { size, limit }),
        _ => None,
    }
}
