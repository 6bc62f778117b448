//! Builds the delegate, statically, so that one binary runs in every dom0 whatever its libc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::key::Key;
use super::{dirs, lock};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The program's bytes, built when its source has changed.
///
/// # Errors
/// When cargo fails; its own words are printed.
pub fn program() -> Result<Vec<u8>> {
    let source = dirs::workspace().join("tests/delegate");
    let mut key = Key::default();
    for name in [
        "Cargo.toml",
        "src/lib.rs",
        "src/main.rs",
        "src/port.rs",
        "src/job.rs",
        "src/console.rs",
        "src/stopwatch.rs",
    ] {
        key = key.with(
            fs::read(source.join(name))
                .with_context(|| format!("cannot read the delegate's {name}"))?,
        );
    }
    let kept = dirs::part("delegate").join(key.digits());
    if !kept.exists() {
        let _turn = lock::lock(
            &dirs::part("delegate").join("lock"),
            "another process building the delegate",
        )?;
        if !kept.exists() {
            build(&kept)?;
        }
    }
    fs::read(&kept).with_context(|| format!("cannot read {}", kept.display()))
}

fn build(kept: &Path) -> Result<()> {
    eprintln!("lab: building the delegate");
    build_static("lab-delegate")?;
    let built = static_program("lab-delegate");
    let partial = kept.with_extension("partial");
    fs::copy(&built, &partial).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&partial, kept)?;
    Ok(())
}

/// A folder of its own, so that these small builds do not wait for a big one that holds cargo's lock.
fn target_dir() -> PathBuf {
    dirs::target().join("static")
}

/// Where [`build_static`] leaves a program.
#[must_use]
pub fn static_program(name: &str) -> PathBuf {
    target_dir().join(TRIPLE).join("release").join(name)
}

/// Builds the release binaries of `package` with the C library linked in; see [`static_program`].
///
/// Naming the target keeps the flag away from build scripts and procedural macros, which cannot be static.
///
/// # Errors
/// When cargo fails.
pub fn build_static(package: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(dirs::workspace())
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            package,
            "--bins",
            "--target",
            TRIPLE,
        ])
        .arg("--target-dir")
        .arg(target_dir())
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo could not build {package}");
    Ok(())
}
