//! Unpacked kernels on disk.
//!
//! ```text
//!   <key>.image   the loadable bytes, end to end
//!   <key>.meta    "parapet-kernel 1 <crc32>\n" + JSON: boot, identity of the image file, segments, notes
//!   .tmp-*        being written; renamed when complete
//! ```
//!
//! The key is the source file's device, inode, times and size. Nothing is ever synced: an entry counts only in the boot
//! that wrote it, and only while its image file is exactly the one that was written (inode, change time, size).
//! Anything else, from a torn write to a foreign file, makes the entry invisible, and it is built anew.

use super::elf::KernelMeta;
use super::limits::{
    CACHE_BYTES, CACHE_ENTRIES, CACHE_META_BYTES, CACHE_SCAN, CACHE_TEMP_AGE, COPY_CHUNK,
};
use super::loaded::Image;
use super::source::FileKey;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

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
pub(super) struct Store {
    directory: PathBuf,
    boot: String,
}

impl Store {
    pub(super) fn new(directory: &Path) -> Self {
        // Without a boot id nothing matches, so nothing is reused: slow and right.
        let boot = fs::read_to_string(BOOT_ID)
            .unwrap_or_default()
            .trim()
            .to_owned();
        Self {
            directory: directory.to_owned(),
            boot,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A valid entry, its age set back.
    pub(super) fn find(&self, name: &str) -> Option<(KernelMeta, File)> {
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

    /// Writes the loadable bytes of `image`, to be found with the metadata `compact`.
    pub(super) fn keep(&self, name: &str, image: &Image, compact: KernelMeta) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let key = self.put(&self.file(name, IMAGE), |file| {
            for segment in &image.meta.segments {
                copy(&image.file, segment.file_offset, segment.file_size, file)?;
            }
            Ok(())
        })?;
        let entry = Entry {
            boot: self.boot.clone(),
            image: identity(&key),
            meta: compact,
        };
        let bytes = encode(&entry)?;
        self.put(&self.file(name, META), |file| file.write_all(&bytes))?;
        self.evict(SystemTime::now())
    }

    /// Writes a file under a temporary name and renames it; answers its identity under the final name.
    fn put(
        &self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<FileKey> {
        let number = TEMP_COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .directory
            .join(format!("{TEMP_PREFIX}{}-{number}", std::process::id()));
        let written = || -> io::Result<FileKey> {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            write(&mut file)?;
            // Renaming changes the change time, so the identity is taken after it.
            fs::rename(&temporary, path)?;
            FileKey::of(&file)
        };
        written().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
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
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let is_temporary = name.is_some_and(|name| name.starts_with(TEMP_PREFIX));
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
}

fn copy(from: &File, mut offset: u64, size: u64, to: &mut File) -> io::Result<()> {
    let end = offset + size;
    let mut buffer = vec![0; COPY_CHUNK];
    while offset < end {
        let length = usize::try_from(end - offset)
            .unwrap_or(COPY_CHUNK)
            .min(COPY_CHUNK);
        from.read_exact_at(&mut buffer[..length], offset)?;
        to.write_all(&buffer[..length])?;
        offset += length as u64;
    }
    Ok(())
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
