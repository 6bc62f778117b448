//! Times the toolstacks and the backends side by side on one deterministic host, where time is an instruction count.
//!
//! Figures repeat to a per cent whatever else the machine does. They say nothing about caches, memory latency or parallelism. Nothing
//! timed here may wait for a virtio disk: guests' files are in dom0's memory and programs have run once before.

pub mod block;
pub mod commands;
pub mod count;
pub mod crowd;
pub mod guest;
pub mod moves;
pub mod net;
pub mod patches;
pub mod sample;
pub mod saves;
pub mod shells;
pub mod table;
pub mod tiny;

use anyhow::{Context, Result, ensure};

use crate::rig::{Host, deadline};
use crate::stock::Kind;
use crate::timeline::Timeline;

use guest::{Backend, BenchGuest, Medium};
use table::{BlockRow, NetRow, Table};

/// Our `xl`, on the product disk.
const OUR_XL: &str = "/lab/dist/bin/xl";
/// Our `parapet`.
const OUR_PARAPET: &str = "/lab/dist/bin/parapet";
/// Rounds of every load on a device.
const DEVICE_ROUNDS: u32 = 2;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `xl` commands.
    Commands,
    /// Saving and restoring a guest.
    Saves,
    /// Moving a guest.
    Moves,
    /// Guests from the pool of shells, and many in a row.
    Shells,
    /// Fifty guests at once.
    Crowd,
    /// Disks.
    Block,
    /// Network interfaces.
    Net,
}

impl Part {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Commands,
        Self::Saves,
        Self::Moves,
        Self::Shells,
        Self::Crowd,
        Self::Block,
        Self::Net,
    ];
}

/// What to measure, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// What.
    pub parts: &'a [Part],
    /// Kinds of guest for devices.
    pub kinds: &'a [Kind],
    /// Where their disk lies.
    pub medium: Medium,
    /// Guests made and destroyed in a row.
    pub row: u32,
    /// What a guest that is moved writes, in per cent of what the link takes.
    pub loads: &'a [u32],
}

/// Does what `plan` says on `host`, which must be deterministic for the figures to mean anything.
///
/// # Errors
/// When the rig or the stock tools fail. When ours fail, the table says so instead.
pub fn run(host: &Host, plan: Plan<'_>, timeline: &mut Timeline) -> Result<Table> {
    let Plan {
        parts,
        kinds,
        medium,
        row,
        loads,
    } = plan;
    let mut table = Table {
        medium: medium.name(),
        ..Table::default()
    };
    let ours = match timeline.step("our agent starts", || start_our_agent(host)) {
        Ok(()) => true,
        Err(error) => {
            table.notes.push(format!("no figures of ours: {error:#}"));
            false
        }
    };
    if parts.contains(&Part::Commands) {
        commands::run(host, ours, &mut table, timeline)?;
    }
    if parts.contains(&Part::Saves) {
        saves::run(host, ours, &mut table, timeline)?;
    }
    if parts.contains(&Part::Moves) {
        moves::run(host, ours, loads, &mut table, timeline)?;
    }
    if parts.contains(&Part::Shells) {
        shells::run(host, ours, row, &mut table, timeline)?;
    }
    if parts.contains(&Part::Crowd) {
        crowd::run(host, ours, &mut table, timeline)?;
    }
    if parts.contains(&Part::Block) || parts.contains(&Part::Net) {
        timeline.step("disk and ramdisk of the timed guests", || {
            guest::prepare(host, medium)
        })?;
        for kind in kinds {
            devices(host, parts, *kind, ours, &mut table, timeline)?;
        }
    }
    Ok(table)
}

fn start_our_agent(host: &Host) -> Result<()> {
    host.mount_product()?;
    ensure!(
        host.run(&["test", "-x", OUR_XL])?.code == 0,
        "target/dist has no xl; `cargo xtask dist` makes it"
    );
    host.sh("setsid /lab/dist/bin/dom0-agent > /tmp/agent.log 2>&1 < /dev/null &")?;
    let up = host.wait_until("test -S /run/parapet/agent.sock", deadline::SETTLE);
    up.with_context(|| {
        format!(
            "dom0-agent does not come up: {}",
            host.sh("tail -n 5 /tmp/agent.log").unwrap_or_default()
        )
    })
}

/// One guest after another, each with another backend, and the same loads in each.
fn devices(
    host: &Host,
    parts: &[Part],
    kind: Kind,
    ours: bool,
    table: &mut Table,
    timeline: &mut Timeline,
) -> Result<()> {
    let mut blocks: Vec<BlockRow> = block::LOADS
        .iter()
        .map(|load| BlockRow::of(load, kind))
        .collect();
    let mut nets: Vec<NetRow> = net::Load::ALL
        .iter()
        .map(|load| NetRow::of(*load, kind))
        .collect();
    let backends = Backend::ALL
        .into_iter()
        .filter(|backend| ours || *backend != Backend::Ours)
        .filter(|backend| parts.contains(&Part::Block) || *backend != Backend::Qdisk);
    for backend in backends {
        let label = format!("{kind:?} guest, {backend}");
        let started = timeline.step(&label, || BenchGuest::start(host, kind, backend));
        let measured = started.and_then(|guest| {
            if parts.contains(&Part::Block) {
                let samples = block::run(&guest, DEVICE_ROUNDS)?;
                for ((load, row), sample) in block::LOADS.iter().zip(&mut blocks).zip(samples) {
                    timeline.fact(load.name, sample);
                    row.set(backend, sample);
                }
            }
            if parts.contains(&Part::Net) && backend != Backend::Qdisk {
                net::prepare(&guest)?;
                for (load, row) in net::Load::ALL.iter().zip(&mut nets) {
                    let sample = net::run(&guest, *load, DEVICE_ROUNDS)?;
                    timeline.fact(load.name(), sample);
                    row.set(backend, sample);
                }
            }
            timeline.step("its end", || guest.end())
        });
        match measured {
            Err(error) if backend == Backend::Ours => {
                table.notes.push(format!("ours, {label}: {error:#}"));
            }
            other => other?,
        }
    }
    if parts.contains(&Part::Block) {
        table.blocks.append(&mut blocks);
    }
    if parts.contains(&Part::Net) {
        table.nets.append(&mut nets);
    }
    Ok(())
}
