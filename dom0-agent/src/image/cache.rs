//! Unpacked kernels, kept, so that the second guest of a kernel starts without unpacking or parsing anything.
//!
//! ```text
//!   load ─▶ on disk? ──yes──▶ LoadedKernel
//!             │ no                 ▲
//!           in memory? ──yes───────┤
//!             │ no                 │
//!           worker ─▶ memfd ───────┘──dropped──▶ a thread writes it to disk
//! ```
//!
//! The guest that needs an unpacked kernel first is built from the worker's memfd and does not wait for a disk. A cache
//! that cannot be written costs speed, never a guest. What lies on disk is `store`'s matter.

use super::compact;
use super::error::{ImageError, Role};
use super::limits::MAX_KERNEL_FILE;
use super::loaded::{Image, LoadedKernel};
use super::source::{FileKey, Source};
use super::store::Store;
use super::worker::Worker;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Where the daemon keeps its cache.
pub const DEFAULT_DIRECTORY: &str = "/var/cache/parapet/kernels";

/// A cache of unpacked kernels. Dropping it waits until what it has still to write is written.
#[derive(Debug)]
pub struct KernelCache {
    shared: Arc<Shared>,
    worker: Worker,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    writing: Mutex<Writing>,
}

/// Kernels that are not on disk yet, and the threads that bring them there.
#[derive(Debug, Default)]
struct Writing {
    images: BTreeMap<String, Arc<Image>>,
    threads: Vec<JoinHandle<()>>,
}

impl Shared {
    fn writing(&self) -> MutexGuard<'_, Writing> {
        // Nothing in it is ever half changed.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel that goes to disk when this is dropped.
#[derive(Debug)]
pub(super) struct Unsaved {
    shared: Arc<Shared>,
    name: String,
    image: Arc<Image>,
}

impl Drop for Unsaved {
    fn drop(&mut self) {
        let (shared, name, image) = (
            Arc::clone(&self.shared),
            self.name.clone(),
            Arc::clone(&self.image),
        );
        let write = move || {
            let compact = compact::compacted(&image.meta);
            if let Err(error) = shared.store.keep(&name, &image, compact) {
                tracing::warn!(directory = %shared.store.directory().display(), %error, "unpacked kernel not kept");
            }
            shared.writing().images.remove(&name);
        };
        match std::thread::Builder::new()
            .name("kernel-cache".to_owned())
            .spawn(write)
        {
            Ok(thread) => {
                let mut writing = self.shared.writing();
                writing.threads.retain(|thread| !thread.is_finished());
                writing.threads.push(thread);
            }
            Err(error) => {
                tracing::warn!(%error, "unpacked kernel not kept");
                self.shared.writing().images.remove(&self.name);
            }
        }
    }
}

impl Drop for KernelCache {
    fn drop(&mut self) {
        self.settle();
    }
}

impl KernelCache {
    /// A cache in `directory`, which is made when first needed.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self::with_worker(directory, Worker::default())
    }

    /// A cache that unpacks with the given worker.
    #[must_use]
    pub fn with_worker(directory: &Path, worker: Worker) -> Self {
        let shared = Shared {
            store: Store::new(directory),
            writing: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            worker,
        }
    }

    /// Waits until everything that was dropped is on disk.
    pub fn settle(&self) {
        let threads = std::mem::take(&mut self.shared.writing().threads);
        for thread in threads {
            // A panic in it was reported there, and costs an entry of a cache.
            let _ = thread.join();
        }
    }

    /// The kernel at `path`, from the cache if it was seen before in this boot.
    ///
    /// # Errors
    /// The file is missing or bad, or could not be unpacked.
    pub fn load(&self, path: &Path) -> Result<LoadedKernel, ImageError> {
        let source = Source::open(Role::Kernel, path, MAX_KERNEL_FILE)?;
        let name = source.key().file_name();
        if let Some((meta, file)) = self.shared.store.find(&name) {
            return Ok(LoadedKernel::new(
                path,
                Arc::new(Image { meta, file }),
                None,
            ));
        }
        if let Some(image) = self.shared.writing().images.get(&name) {
            return Ok(LoadedKernel::new(path, Arc::clone(image), None));
        }
        let image = Arc::new(self.unpack(path, &source)?);
        self.shared
            .writing()
            .images
            .insert(name.clone(), Arc::clone(&image));
        let unsaved = Unsaved {
            shared: Arc::clone(&self.shared),
            name,
            image: Arc::clone(&image),
        };
        Ok(LoadedKernel::new(path, image, Some(unsaved)))
    }

    fn unpack(&self, path: &Path, source: &Source) -> Result<Image, ImageError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"kernel", flags)
            .map(File::from)
            .map_err(|errno| ImageError::Worker {
                path: path.to_owned(),
                what: format!("has no memory to unpack to: {errno}"),
            })?;
        let unpacked = self.worker.unpack(path, source, &file);
        // Whatever came of a file that changed meanwhile says nothing about it.
        if FileKey::of(source.file()).is_ok_and(|now| now != source.key()) {
            return Err(ImageError::Changed {
                role: Role::Kernel,
                path: path.to_owned(),
            });
        }
        Ok(Image {
            meta: unpacked?,
            file,
        })
    }
}
