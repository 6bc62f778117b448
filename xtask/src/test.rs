//! `cargo xtask test`: every test, nested ones included.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use stack_tests::rig::{Shape, dirs, snapshot};
use stack_tests::timeline::Timeline;

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
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    timeline.step("dom0 image and booted host", || {
        snapshot::of(&Shape::default())
    })?;
    timeline.step("test binaries", build_tests)?;
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
