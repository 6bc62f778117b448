//! Unpacked kernels, kept as files, so that the second guest of a kernel starts without unpacking or parsing anything.
//!
//! ```text
//!   <key>.image   the loadable bytes, end to end
//!   <key>.meta    "parapet-kernel 1 <crc32>\n" + JSON: boot, identity of the image file, segments, notes
//!   .tmp-*        being written; renamed when complete
//! ```
//!
//! The key is the source file's device, inode, times and size. Nothing is ever synced: an entry counts only in the boot
//! that wrote it, and only while its image file is exactly the one that was written (inode, change time, size).
//! Anything else, from a torn write to a foreign file, makes the entry invisible, and it is built anew. A cache that
//! cannot be written costs speed, never a guest.

use super::elf::KernelMeta;
use super::error::{ImageError, Role};
use super::limits::{
    CACHE_BYTES, CACHE_ENTRIES, CACHE_META_BYTES, CACHE_SCAN, CACHE_TEMP_AGE, MAX_KERNEL_FILE,
};
use super::loaded::LoadedKernel;
use super::source::{FileKey, Source};
use super::worker::Worker;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Where the daemon keeps its cache.
pub const DEFAULT_DIRECTORY: &str = "/var/cache/parapet/kernels";
const MAGIC: &str = "parapet-kernel 1";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const IMAGE: &str = "image";
const META: &str = "meta";
const TEMP_PREFIX: &str = ".tmp-";

/// Makes temporary names of one process distinct.
static TEMP_COUNTER: AtomicU64 = AtomicU64::new(0);

/// What a metadata file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    boot: String,
    image: (u64, i64, i64, u64),
    meta: KernelMeta,
}

/// A directory of unpacked kernels.
#[derive(Debug)]
pub struct KernelCache {
    directory: PathBuf,
    worker: Worker,
    boot: String,
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
        // Without a boot id nothing matches, so nothing is reused: slow and right.
        let boot = fs::read_to_string(BOOT_ID)
            .unwrap_or_default()
            .trim()
            .to_owned();
        Self {
            directory: directory.to_owned(),
            worker,
            boot,
        }
    }

    /// The kernel at `path`, from the cache if it was seen before in this boot.
    ///
    /// # Errors
    /// The file is missing or bad, or could not be unpacked.
    pub fn load(&self, path: &Path) -> Result<LoadedKernel, ImageError> {
        let source = Source::open(Role::Kernel, path, MAX_KERNEL_FILE)?;
        let name = source.key().file_name();
        if let Some((meta, image)) = self.find(&name) {
            return Ok(LoadedKernel::new(path, meta, image, true));
        }
        let (temporary, image) = self.new_image()?;
        let unpacked = self.worker.unpack(path, &source, &image);
        let unchanged = FileKey::of(source.file()).is_ok_and(|now| now == source.key());
        let kept = match (&unpacked, &temporary) {
            (Ok(meta), Some(temporary)) if unchanged => self.keep(&name, temporary, &image, meta),
            _ => Ok(()),
        };
        if let Some(temporary) = temporary {
            // Already renamed away when all went well.
            let _ = fs::remove_file(temporary);
        }
        if let Err(error) = kept {
            tracing::warn!(directory = %self.directory.display(), %error, "unpacked kernel not kept");
        }
        let meta = unpacked?;
        if !unchanged {
            return Err(ImageError::Changed {
                role: Role::Kernel,
                path: path.to_owned(),
            });
        }
        Ok(LoadedKernel::new(path, meta, image, false))
    }

    /// A valid entry, its age set back.
    fn find(&self, name: &str) -> Option<(KernelMeta, File)> {
        let meta_file = File::open(self.file(name, META)).ok()?;
        let mut bytes = Vec::new();
        (&meta_file)
            .take(CACHE_META_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        let entry = decode(&bytes)?;
        let image = File::open(self.file(name, IMAGE)).ok()?;
        let same = FileKey::of(&image).is_ok_and(|key| identity(&key) == entry.image);
        if self.boot.is_empty() || entry.boot != self.boot || !same || entry.meta.check().is_err() {
            return None;
        }
        // Only the order of eviction hangs on it.
        let _ = meta_file.set_modified(SystemTime::now());
        Some((entry.meta, image))
    }

    /// A fresh image file in the directory, or in memory where the directory cannot be written.
    fn new_image(&self) -> Result<(Option<PathBuf>, File), ImageError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory);
        let path = self.temporary();
        match made.and_then(|()| create(&path)) {
            Ok(file) => Ok((Some(path), file)),
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "kernel cache cannot be written");
                nix::sys::memfd::memfd_create(c"kernel", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
                    .map(|fd| (None, File::from(fd)))
                    .map_err(|errno| ImageError::Cache {
                        path: self.directory.clone(),
                        source: errno.into(),
                    })
            }
        }
    }

    /// Puts a complete image and its metadata in place.
    fn keep(
        &self,
        name: &str,
        temporary: &Path,
        image: &File,
        meta: &KernelMeta,
    ) -> io::Result<()> {
        // Renaming changes the change time, so the identity is taken after it.
        fs::rename(temporary, self.file(name, IMAGE))?;
        let entry = Entry {
            boot: self.boot.clone(),
            image: identity(&FileKey::of(image)?),
            meta: meta.clone(),
        };
        let temporary = self.temporary();
        let written = create(&temporary)
            .and_then(|mut file| file.write_all(&encode(&entry)?))
            .and_then(|()| fs::rename(&temporary, self.file(name, META)));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.evict(SystemTime::now())
    }

    /// Removes the entries used longest ago until the rest is within bounds, and what dead builds left behind.
    fn evict(&self, now: SystemTime) -> io::Result<()> {
        let mut entries = Vec::new();
        for found in fs::read_dir(&self.directory)?.take(CACHE_SCAN) {
            let path = found?.path();
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let old = now
                .duration_since(used)
                .is_ok_and(|age| age > CACHE_TEMP_AGE);
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_temporary = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(TEMP_PREFIX));
            if extension == Some(META) {
                let size =
                    fs::symlink_metadata(path.with_extension(IMAGE)).map_or(0, |meta| meta.len());
                entries.push((used, size, path));
            } else if old
                && (is_temporary
                    || (extension == Some(IMAGE) && !path.with_extension(META).exists()))
            {
                fs::remove_file(&path)?;
            }
        }
        entries.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (index, (_, size, path)) in entries.iter().enumerate() {
            bytes += size;
            if index >= CACHE_ENTRIES || (bytes > CACHE_BYTES && index > 0) {
                fs::remove_file(path)?;
                fs::remove_file(path.with_extension(IMAGE))?;
            }
        }
        Ok(())
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        // Not `with_extension`: names contain dots.
        self.directory.join(format!("{name}.{extension}"))
    }

    fn temporary(&self) -> PathBuf {
        let number = TEMP_COUNTER.fetch_add(1, Ordering::Relaxed);
        self.directory
            .join(format!("{TEMP_PREFIX}{}-{number}", std::process::id()))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn identity(key: &FileKey) -> (u64, i64, i64, u64) {
    (key.ino, key.ctime.0, key.ctime.1, key.size)
}

fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(entry)?;
    let mut bytes = format!("{MAGIC} {:08x}\n", crc32fast::hash(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (header, body) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
    let crc = u32::from_str_radix(header.strip_prefix(MAGIC)?.strip_prefix(' ')?, 16).ok()?;
    if crc32fast::hash(body) != crc {
        return None;
    }
    serde_json::from_slice(body).ok()
}
