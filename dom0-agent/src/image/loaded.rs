//! A kernel ready to be placed into guest memory: metadata, and the bytes of its segments in a file.

use super::elf::KernelMeta;
use super::error::{ImageError, Role};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An unpacked kernel. Stays readable when its cache entry is evicted.
#[derive(Debug)]
pub struct LoadedKernel {
    path: PathBuf,
    meta: KernelMeta,
    image: File,
    warm: bool,
}

impl LoadedKernel {
    /// From metadata and the image file that its offsets count in.
    pub(super) fn new(path: &Path, meta: KernelMeta, image: File, warm: bool) -> Self {
        Self {
            path: path.to_owned(),
            meta,
            image,
            warm,
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
        &self.meta
    }

    /// Whether it came from the cache.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.warm
    }

    /// Fills `into` with image bytes from `offset` on.
    ///
    /// # Errors
    /// The image file cannot be read, or is shorter than its metadata says.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<(), ImageError> {
        self.image
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
