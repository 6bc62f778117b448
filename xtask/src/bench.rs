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
    /// What the moved guest of `--only moves` writes, in per cent of what the link takes; may be given several times
    #[arg(long, value_name = "PERCENT", default_values_t = bench::moves::LOADS, value_parser = clap::value_parser!(u32).range(0..=100))]
    load: Vec<u32>,
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
    Moves,
    Shells,
    Crowd,
    Block,
    Net,
    /// Saving, restoring and crashes with and without the patches of Xen; only where it is asked for, after `cargo xtask xen`
    Patches,
}

impl Part {
    /// What is measured on Debian's hypervisor; the patches are measured on another host.
    fn on_debians(self) -> Option<bench::Part> {
        match self {
            Self::Commands => Some(bench::Part::Commands),
            Self::Saves => Some(bench::Part::Saves),
            Self::Moves => Some(bench::Part::Moves),
            Self::Shells => Some(bench::Part::Shells),
            Self::Crowd => Some(bench::Part::Crowd),
            Self::Block => Some(bench::Part::Block),
            Self::Net => Some(bench::Part::Net),
            Self::Patches => None,
        }
    }
}

/// Measures on the patched hypervisor; the figures are also left in `target/lab/bench-patches.json`.
fn patches(timeline: &mut Timeline) -> Result<()> {
    let shape = Shape::timed_patched();
    timeline.step("booted patched host", || snapshot::of(&shape))?;
    let host = timeline.step("a fork of it", || Host::fork(&shape))?;
    let measured = bench::patches::run(&host, timeline);
    let figures = match measured {
        Ok(figures) => figures,
        Err(error) => {
            host.keep_as_failed();
            return Err(error);
        }
    };
    print!("{figures}");
    let path = dirs::lab().join("bench-patches.json");
    fs::write(&path, serde_json::to_string_pretty(&figures)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Measures and prints; the figures are also left in `target/lab/bench.json`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    if !arguments.as_is {
        timeline.step("release binaries", crate::dist::build)?;
    }
    if arguments
        .only
        .iter()
        .any(|part| matches!(part, Part::Patches))
    {
        patches(&mut timeline)?;
    }
    let mut parts: Vec<bench::Part> = arguments
        .only
        .iter()
        .filter_map(|part| part.on_debians())
        .collect();
    if arguments.only.is_empty() {
        parts.extend(bench::Part::ALL);
    }
    if parts.is_empty() {
        timeline.print();
        return Ok(ExitCode::SUCCESS);
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
        loads: &arguments.load,
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
