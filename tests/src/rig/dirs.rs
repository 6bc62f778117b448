//! Where the lab keeps things.
//!
//! ```text
//!   target/lab/images/<suite>-<key>/       base image: xen, vmlinuz, modules, root.raw, manifest
//!   target/lab/snapshots/<shape>-<key>/    a booted host: disks and memory
//!   target/lab/product/<key>.raw           target/dist as a disk
//!   target/lab/run/<name>/                 a running host: overlays, sockets, logs
//!   target/lab/failed/<name>/              what a failed test left
//!   target/xen/                            Debian's hypervisor with our patches, and its source
//! ```

use std::fs;
use std::path::{Path, PathBuf};

/// Ends the name of what is still being made.
const UNFINISHED: &str = ".partial";

/// Top of the source tree.
///
/// Cargo says at run time which package it runs; only a program started by hand relies on where it was compiled, which two
/// checkouts that share a target directory would get wrong.
#[must_use]
pub fn workspace() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let candidates = running
        .into_iter()
        .chain([PathBuf::from(env!("CARGO_MANIFEST_DIR"))]);
    top_of(candidates).unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// The first parent of a package that holds the recipes.
fn top_of(packages: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    packages
        .filter_map(|package| package.parent().map(Path::to_path_buf))
        .find(|top| top.join("images/dom0/packages").exists())
}

/// Cargo's target directory.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// What `cargo xtask dist` makes.
#[must_use]
pub fn dist() -> PathBuf {
    target().join("dist")
}

/// Everything of the lab.
#[must_use]
pub fn lab() -> PathBuf {
    target().join("lab")
}

/// One of the folders drawn above.
#[must_use]
pub fn part(name: &str) -> PathBuf {
    lab().join(name)
}

/// Where the patched hypervisor is made.
#[must_use]
pub fn xen() -> PathBuf {
    target().join("xen")
}

/// The hypervisor that `cargo xtask xen` made last.
#[must_use]
pub fn patched_xen() -> PathBuf {
    xen().join("hypervisor")
}

/// The patches to Xen.
#[must_use]
pub fn xen_patches() -> PathBuf {
    workspace().join("xen-patches")
}

/// The image recipes.
#[must_use]
pub fn recipes() -> PathBuf {
    workspace().join("images")
}

/// Removes the oldest entries of `folder` whose names begin with `prefix`, all but `count`. Running hosts keep their files open, and the entry before
/// the newest serves whoever goes back and forth between two recipes.
pub fn keep_newest(folder: &Path, prefix: &str, count: usize) {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(prefix) && !name.ends_with(UNFINISHED)
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let surplus = found.len().saturating_sub(count);
    for (_, path) in found.into_iter().take(surplus) {
        // Left behind is only untidy.
        drop(fs::remove_dir_all(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_so_does_what_is_not_finished_or_not_ours() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let ages = ["x-1", "x-2", "x-3", "x-0.partial", "y-1"];
        for (age, name) in ages.iter().enumerate() {
            let made = fs::create_dir(dir.path().join(name));
            made.and_then(|()| fs::File::open(dir.path().join(name)))?
                .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(age as u64))?;
        }
        keep_newest(dir.path(), "x-", 2);
        let left = |name: &&&str| dir.path().join(name).exists();
        let left: Vec<&str> = ages.iter().filter(left).copied().collect();
        assert_eq!(left, ["x-2", "x-3", "x-0.partial", "y-1"]);
        Ok(())
    }

    #[test]
    fn the_checkout_that_runs_wins_over_the_one_that_compiled() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        for top in [&here, &there] {
            std::fs::create_dir_all(top.join("images/dom0"))?;
            std::fs::write(top.join("images/dom0/packages"), "")?;
        }
        let order = [here.join("tests"), there.join("tests")];
        assert_eq!(top_of(order.into_iter()), Some(here));
        let foreign = [dir.path().join("elsewhere/crate"), there.join("tests")];
        assert_eq!(top_of(foreign.into_iter()), Some(there));
        Ok(())
    }
}
