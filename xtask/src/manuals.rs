//! Manual pages and shell completions of the product.
//!
//! They are made from the programs' own command definitions by a second program of this package (`src/bin/manuals.rs`), so that `cargo xtask`
//! itself need not wait until the whole product compiles.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Writes them below `dist`; the files that are there afterwards.
pub fn write(dist: &Path) -> Result<Vec<PathBuf>> {
    let output = crate::dist::cargo()
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--features",
            "manuals",
            "--bin",
            "manuals",
            "--",
        ])
        .arg(dist)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the manual pages could not be made"
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .collect())
}
