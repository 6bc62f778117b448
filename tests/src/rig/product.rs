//! `target/dist` as a read-only disk, so that every fork runs today's binaries whatever the age of its snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};

use super::key::Key;
use super::shape::PRODUCT_DISK_BYTES;
use super::{dirs, lock};

/// How many old product disks are left in place, for hosts that are being started with them.
const KEEP: usize = 4;

/// The disk, made anew when a file of `target/dist` has changed; an empty one when there is no `target/dist`.
///
/// # Errors
/// When the tree cannot be read or `mke2fs` fails.
pub fn disk() -> Result<PathBuf> {
    let dist = dirs::dist();
    let dir = dirs::part("product");
    let key = describe(&dist, Key::default().with(PRODUCT_DISK_BYTES.to_string()))?.digits();
    let path = dir.join(format!("{key}.raw"));
    if path.exists() {
        return Ok(path);
    }
    let _turn = lock::lock(&dir.join("lock"), "another process packing the product")?;
    if !path.exists() {
        make(&dist, &path)?;
        forget_old(&dir);
    }
    Ok(path)
}

/// Names, sizes and times of all files below `dir`, in order.
fn describe(dir: &Path, mut key: Key) -> Result<Key> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(key);
    };
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let about = entry.metadata()?;
        key = key.with(entry.path().as_os_str().as_encoded_bytes());
        if about.is_dir() {
            key = describe(&entry.path(), key)?;
        } else {
            let changed = about
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            key = key.with(format!("{} {}", about.len(), changed.as_nanos()));
        }
    }
    Ok(key)
}

fn make(dist: &Path, path: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    let file =
        fs::File::create(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    file.set_len(PRODUCT_DISK_BYTES)?;
    let mut command = Command::new("mke2fs");
    // No journal: it is mounted read-only. Root owns everything, whoever built it.
    command.args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "root_owner=0:0",
        "-L",
        "lab-product",
    ]);
    if dist.exists() {
        command.arg("-d").arg(dist);
    }
    let status = command
        .arg(&partial)
        .status()
        .context("cannot run mke2fs; `cargo xtask deps` installs it")?;
    ensure!(
        status.success(),
        "mke2fs could not pack {} into {PRODUCT_DISK_BYTES} bytes",
        dist.display()
    );
    fs::rename(&partial, path)?;
    Ok(())
}

fn forget_old(dir: &Path) {
    let mut disks: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "raw"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    disks.sort();
    let surplus = disks.len().saturating_sub(KEEP);
    for (_, path) in disks.into_iter().take(surplus) {
        // Left behind is only untidy.
        drop(fs::remove_file(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_changes_the_key() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("bin"))?;
        let empty = describe(dir.path(), Key::default())?.digits();
        fs::write(dir.path().join("bin/xl"), "one")?;
        let one = describe(dir.path(), Key::default())?.digits();
        fs::write(dir.path().join("bin/xl"), "three")?;
        let three = describe(dir.path(), Key::default())?.digits();
        assert!(empty != one && one != three);
        Ok(())
    }
}
