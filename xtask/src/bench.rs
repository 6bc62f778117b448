//! `cargo xtask bench`: our commands and drivers beside their peers, timed in instructions on one host.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use stack_tests::bench;
use stack_tests::rig::{Host, Shape, dirs, snapshot};
use stack_tests::stock::Kind;
use stack_tests::timeline::Timeline;

/// What may be left out or added.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use target/dist as it is
    #[arg(long)]
    as_is: bool,
    /// Measure only this; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Measure devices in a PV guest as well as in a PVH guest
    #[arg(long)]
    pv: bool,
    /// What the file behind a guest's disk lies on, in dom0's memory
    #[arg(long, value_enum, default_value = "ext4")]
    medium: Medium,
    /// Guests that are made and destroyed in a row by `--only shells`
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    row: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Medium {
    Ext4,
    Tmpfs,
}

impl From<Medium> for bench::guest::Medium {
    fn from(medium: Medium) -> Self {
        match medium {
            Medium::Ext4 => Self::Ext4,
            Medium::Tmpfs => Self::Tmpfs,
        }
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    Commands,
    Saves,
    Shells,
    Crowd,
    Block,
    Net,
}

impl From<Part> for bench::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Commands => Self::Commands,
            Part::Saves => Self::Saves,
            Part::Shells => Self::Shells,
            Part::Crowd => Self::Crowd,
            Part::Block => Self::Block,
            Part::Net => Self::Net,
        }
    }
}

/// Measures and prints; the figures are also left in `target/lab/bench.json`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    let mut parts: Vec<bench::Part> = arguments.only.iter().copied().map(Into::into).collect();
    if parts.is_empty() {
        parts.extend(bench::Part::ALL);
    }
    let kinds: &[Kind] = if arguments.pv {
        &[Kind::Pvh, Kind::Pv]
    } else {
        &[Kind::Pvh]
    };
    let plan = bench::Plan {
        parts: &parts,
        kinds,
        medium: arguments.medium.into(),
        row: arguments.row,
    };
    let shape = Shape::measured();
    timeline.step("booted Xen host", || snapshot::of(&shape))?;
    let host = timeline.step("a fork of it", || Host::fork(&shape))?;
    let outcome = bench::run(&host, plan, &mut timeline);
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
