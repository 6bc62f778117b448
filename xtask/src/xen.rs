//! `cargo xtask xen`: Debian's hypervisor with the patches of `xen-patches/`, built and booted in the lab.
//!
//! ```text
//!   suite's Sources ─▶ archives, by checksum ─▶ Debian's patches ─▶ ours ─▶ build ─▶ target/xen/hypervisor ─▶ lab shape "patched"
//!   (signed)        └▶ not there: the release recorded in xen-patches/source
//! ```
//!
//! What is there already is used again: a source tree is named by its release and by every patch that went into it.

mod build;
mod source;

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use stack_tests::rig::{Host, Shape, dirs, snapshot};
use stack_tests::timeline::Timeline;

/// How far to go; all the way to a booted host unless told otherwise.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Stop when the patched source is there
    #[arg(long, conflicts_with_all = ["build", "boot", "test"])]
    fetch_only: bool,
    /// Stop when the hypervisor is built
    #[arg(long, conflicts_with_all = ["boot", "test"])]
    build: bool,
    /// Boot it in the lab and show what it says of itself (what happens anyway)
    #[arg(long)]
    boot: bool,
    /// Then run the tests that need it (builds release binaries first)
    #[arg(long)]
    test: bool,
    /// With --test: use target/dist as it is
    #[arg(long, requires = "test")]
    as_is: bool,
}

/// Does it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    timeline.step("Debian packages", crate::deps::ensure_installed_for_xen)?;
    let tree = timeline.step("source of Xen", || source::patched(&dirs::xen()))?;
    println!("source      {}", tree.dir.display());
    if arguments.fetch_only {
        return Ok(ExitCode::SUCCESS);
    }
    let hypervisor = timeline.step("hypervisor", || build::hypervisor(&tree))?;
    println!("hypervisor  {}", hypervisor.display());
    if arguments.build {
        return Ok(ExitCode::SUCCESS);
    }
    let shape = Shape::patched();
    timeline.step("booted Xen host", || snapshot::of(&shape))?;
    let info = timeline.step("a fork of it", || {
        Host::fork(&shape)?.ok(&["/usr/sbin/xl", "info"])
    })?;
    for line in info.lines().filter(|line| is_about_the_build(line)) {
        println!("{line}");
    }
    if !arguments.test {
        println!("\ncargo xtask lab up NAME --shape {}", shape.name);
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    timeline.print();
    let status = crate::dist::cargo()
        .args([
            "test",
            "-p",
            "stack-tests",
            "--test",
            "patched",
            "--",
            "--ignored",
            // One emulated host at a time is enough for a machine that has just built Xen.
            "--test-threads=1",
        ])
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lines of `xl info` that tell one hypervisor from another.
fn is_about_the_build(line: &str) -> bool {
    ["xen_version", "cc_compiler", "cc_compile_date"]
        .iter()
        .any(|field| line.starts_with(field))
}

/// Runs a program to its end; what it said is in the error.
fn quietly(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
