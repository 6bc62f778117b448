//! A kernel ready to be placed into guest memory: metadata, and the bytes of its segments in a file.

use super::cache::Unsaved;
use super::elf::KernelMeta;
use super::error::{ImageError, Role};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Metadata and the file that its offsets count in.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) meta: KernelMeta,
    pub(super) file: File,
}

/// An unpacked kernel. Stays readable when its cache entry is evicted.
#[derive(Debug)]
pub struct LoadedKernel {
    path: PathBuf,
    image: Arc<Image>,
    /// A kernel unpacked just now goes to the cache when the guest that needed it no longer waits: on drop.
    unsaved: Option<Unsaved>,
}

impl LoadedKernel {
    pub(super) fn new(path: &Path, image: Arc<Image>, unsaved: Option<Unsaved>) -> Self {
        Self {
            path: path.to_owned(),
            image,
            unsaved,
        }
    }

    /// The file it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Segments and notes.
    #[must_use]
    pub fn meta(&self) -> &KernelMeta {
        &self.image.meta
    }

    /// The file that its metadata counts in.
    pub(crate) fn file(&self) -> &File {
        &self.image.file
    }

    /// Whether it was unpacked before.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.unsaved.is_none()
    }

    /// Fills `into` with image bytes from `offset` on.
    ///
    /// # Errors
    /// The image file cannot be read, or is shorter than its metadata says.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<(), ImageError> {
        self.image
            .file
            .read_exact_at(into, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ImageError::Changed {
                    role: Role::Kernel,
                    path: self.path.clone(),
                },
                _ => ImageError::Cache {
                    path: self.path.clone(),
                    source: error,
                },
            })
    }
}
