//! Release builds with the C library linked in: such a program runs in every dom0 and every guest whatever its C library, and starts faster.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::dirs;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// A folder of its own, so that `cargo build --release` by hand and this one do not undo each other's work.
fn target_dir() -> PathBuf {
    dirs::target().join("static")
}

/// Where [`build`] leaves a program.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    target_dir().join(TRIPLE).join("release").join(name)
}

/// Builds `programs` of `packages`; see [`program`].
///
/// Naming the target keeps the flag away from build scripts and procedural macros, which cannot be static.
///
/// # Errors
/// When cargo fails; its own words are printed.
pub fn build(packages: &[&str], programs: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(dirs::workspace())
        .args(["build", "--release", "--target", TRIPLE, "--target-dir"])
        .arg(target_dir());
    for package in packages {
        command.args(["--package", package]);
    }
    for program in programs {
        command.args(["--bin", program]);
    }
    let status = command
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo could not build {}",
        programs.join(", ")
    );
    Ok(())
}
