//! `cargo xtask bench`: our commands and Debian's side by side, timed in instructions on one host.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use stack_tests::bench;
use stack_tests::rig::{Host, Shape, dirs, snapshot};
use stack_tests::timeline::Timeline;

/// What may be left out.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use target/dist as it is
    #[arg(long)]
    as_is: bool,
}

/// Measures and prints; the figures are also left in `target/lab/bench.json`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    let shape = Shape::deterministic();
    timeline.step("booted deterministic host", || snapshot::of(&shape))?;
    let host = timeline.step("a fork of it", || Host::fork(&shape))?;
    let outcome = bench::run(&host, &mut timeline);
    let table = match outcome {
        Ok(table) => table,
        Err(error) => {
            host.keep_as_failed();
            return Err(error);
        }
    };
    timeline.print();
    print!("{table}");
    let path = dirs::lab().join("bench.json");
    fs::write(&path, serde_json::to_string_pretty(&table)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
