//! `cargo xtask test`: every test, nested ones included.
//!
//! ```text
//!   packages ─▶ release binaries ─▶ test binaries ─▶ the runner
//!           └▶ dom0's image ──────▶ booted host ──┘
//! ```
//!
//! Compiling fills the cores only now and then, installing packages and emulating a CPU fill one: side by side they take little longer than compiling alone.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use stack_tests::rig::{Shape, dirs, image, snapshot};
use stack_tests::timeline::Timeline;

use crate::beside::beside;

/// Which tests.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use target/dist as it is
    #[arg(long)]
    as_is: bool,
    /// Handed to the test runner: a filter, or options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner: Vec<String>,
}

/// Prepares what nested tests need, lets the runner speak, and then says what it could not: which checks were left out on this machine.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    let shape = Shape::default();
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    timeline.step("release binaries, and dom0's image beside", || {
        beside(
            || image::base(&shape.suite).map(drop),
            || {
                if arguments.as_is {
                    Ok(())
                } else {
                    crate::dist::build()
                }
            },
        )
    })?;
    timeline.step("test binaries, and a booted host beside", || {
        beside(|| snapshot::of(&shape).map(drop), build_tests)
    })?;
    timeline.print();
    let skips = dirs::workspace().join("target/skipped.txt");
    // Of an earlier run; that there is none is fine, and one that cannot be removed cannot be read below either.
    let _ = std::fs::remove_file(&skips);
    let status = runner()
        .env(test_skips::FILE, &skips)
        .arg("--no-fail-fast")
        .args(&arguments.runner)
        .status()
        .context("cannot run cargo")?;
    let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
    print!("{}", test_skips::summary(&skipped));
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Nextest where it is installed, the plain runner otherwise.
fn runner() -> Command {
    let mut cargo = crate::dist::cargo();
    if has_nextest() {
        cargo.args(["nextest", "run", "--workspace"]);
    } else {
        cargo.args(["test", "--workspace", "--quiet"]);
    }
    cargo
}

/// Compiling is done first so that its time is told apart from the tests'.
fn build_tests() -> Result<()> {
    let status = runner()
        .arg("--no-run")
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "the tests do not compile");
    Ok(())
}

fn has_nextest() -> bool {
    let mut cargo = crate::dist::cargo();
    cargo
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cargo.status().is_ok_and(|status| status.success())
}
