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
    let mut command = cargo("build");
    for package in packages {
        command.args(["--package", package]);
    }
    for program in programs {
        command.args(["--bin", program]);
    }
    run(command, &programs.join(", "))
}

/// Builds `program` of `package`, a command that is there for milliseconds, for one fixed address.
///
/// A program that may be anywhere begins by writing its own addresses into its tables: 20 page faults of `xl` (75 and 55 for its help, measured), at about 10,000 instructions each in a PV
/// dom0. What is not ours to trust is read by the daemons, which keep their random addresses.
///
/// # Errors
/// As [`build`].
pub fn build_command(package: &str, program: &str) -> Result<()> {
    let mut command = cargo("rustc");
    command.args(["--package", package, "--bin", program]);
    command.args(["--", "-C", "relocation-model=static"]);
    run(command, program)
}

fn cargo(verb: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(dirs::workspace())
        .args([verb, "--release", "--target", TRIPLE, "--target-dir"])
        .arg(target_dir())
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        );
    command
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo could not build {what}");
    Ok(())
}
