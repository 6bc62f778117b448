//! Where the lab keeps things.
//!
//! ```text
//!   target/lab/images/<suite>-<key>/       base image: xen, vmlinuz, modules, root.raw, manifest
//!   target/lab/snapshots/<shape>-<key>/    a booted host: disks and memory
//!   target/lab/product/<key>.raw           target/dist as a disk
//!   target/lab/run/<name>/                 a running host: overlays, sockets, logs
//!   target/lab/failed/<name>/              what a failed test left
//! ```

use std::path::{Path, PathBuf};

/// Top of the source tree.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
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

/// The image recipes.
#[must_use]
pub fn recipes() -> PathBuf {
    workspace().join("images")
}
