//! What the patches of `xen-patches/` are worth: the same agent on the same patched host, told to use them and told not to.
//!
//! Crashes are made and timed by `lab-probe`, which hears of each from Xen and from xenstored.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind};
use crate::timeline::Timeline;
use crate::{probe, product};

use super::OUR_XL;
use super::commands::warm;
use super::saves;

/// Crashes that are timed.
const CRASHES: usize = 3;
/// Memory of the guests that are saved.
const GUEST_MIB: u32 = 128;
/// Rounds after the first; here as elsewhere they differ by less than a per cent.
const WARM_ROUNDS: u32 = 1;
/// Configuration of the agent that leaves the patches alone.
const CONFIG: &str = "/etc/parapet/agent.toml";

/// One thing with and without the patches; less is better.
#[derive(Debug, Clone, Serialize)]
pub struct PatchRow {
    /// What was done.
    pub what: String,
    /// ms, us or MiB.
    pub unit: &'static str,
    /// The ordinary way.
    pub without: Option<f64>,
    /// The patched way.
    pub with: Option<f64>,
}

/// All of them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Patches {
    /// In the order of the runs.
    pub rows: Vec<PatchRow>,
}

/// Measures on `host`, whose hypervisor is patched.
///
/// # Errors
/// When the rig or the product fails: there is no peer to go on with.
pub fn run(host: &Host, timeline: &mut Timeline) -> Result<Patches> {
    host.mount_product()?;
    timeline.step("the probe", || probe::put(host))?;
    let mut patches = Patches::default();
    let without = timeline.step("without the patches", || all_saves(host, false))?;
    let with = timeline.step("with the patches", || all_saves(host, true))?;
    for (without, with) in without.into_iter().zip(with) {
        patches.rows.push(PatchRow {
            what: without.0,
            unit: without.1,
            without: without.2,
            with: with.2,
        });
    }
    let crashes = timeline.step("crashes", || crashes(host))?;
    patches.rows.push(PatchRow {
        what: "crash of a PVH guest to its news in dom0".into(),
        unit: "us",
        without: median(crashes.iter().filter_map(|told| told.xenstored)),
        with: median(crashes.iter().filter_map(|told| told.xen)),
    });
    Ok(patches)
}

/// Name, unit and figure of everything that is measured with one agent.
type Figure = (String, &'static str, Option<f64>);

fn all_saves(host: &Host, patches: bool) -> Result<Vec<Figure>> {
    start_agent(host, patches)?;
    let mut figures = Vec::new();
    saves::with_folder(host, || {
        for (label, kind) in [("PV", Kind::Pv), ("PVH", Kind::Pvh)] {
            let case = saves::case(label, GUEST_MIB);
            let (timings, bytes) =
                saves::rounds(host, kind, &case, OUR_XL, GUEST_MIB, WARM_ROUNDS)?;
            for (place, step) in case.steps.iter().enumerate() {
                figures.push((step.name.clone(), "ms", warm(&timings, place)));
            }
            let mib = bytes / f64::from(1 << 20);
            figures.push((format!("file of {label}"), "MiB", Some(mib)));
        }
        Ok(())
    })?;
    stop_agent(host)?;
    Ok(figures)
}

fn start_agent(host: &Host, patches: bool) -> Result<()> {
    host.sh("mkdir -p /etc/parapet")?;
    host.write(
        CONFIG,
        format!("xen_patches = {patches}\n").as_bytes(),
        0o644,
    )?;
    product::start_agent(host)
}

fn stop_agent(host: &Host) -> Result<()> {
    host.sh("kill $(pidof dom0-agent)")?;
    host.wait_until("! pidof dom0-agent > /dev/null", deadline::SETTLE)?;
    host.sh(&format!("rm -f {CONFIG} /run/parapet/agent.sock"))
        .map(drop)
}

/// Each crash needs a guest of its own; stock's tools make it and clear it away.
fn crashes(host: &Host) -> Result<Vec<probe::Noticed>> {
    let guest = Guest::bare("bench-crash", Kind::Pvh);
    let crash = |_| {
        guest.create(host)?;
        host.guest(&guest.name).wait_up()?;
        let told = probe::crash(host, host.guest(&guest.name).domid()?)?;
        ensure!(told.xen.is_some(), "this hypervisor is not patched");
        let gone = format!(
            "! xl domid {0} 2>/dev/null || {{ xl destroy {0}; false; }}",
            guest.name
        );
        host.wait_until(&gone, deadline::SETTLE)
            .context("the crashed guest stays")?;
        Ok(told)
    };
    (0..CRASHES).map(crash).collect()
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl fmt::Display for Patches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, rule) = ("patches of Xen", "");
        writeln!(
            f,
            "\n| {head:<42} | {:>12} | {:>12} | {:>6} |",
            "without", "with", "ratio"
        )?;
        writeln!(f, "|{rule:-<44}|{:->14}|{:->14}|{:->8}|", ":", ":", ":")?;
        for row in &self.rows {
            let cell = |value: Option<f64>| {
                value.map_or_else(|| "-".into(), |value| format!("{value:.1} {}", row.unit))
            };
            let ratio = row
                .with
                .zip(row.without)
                .map(|(with, without)| with / without);
            let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.3}"));
            let (without, with) = (cell(row.without), cell(row.with));
            writeln!(
                f,
                "| {:<42} | {without:>12} | {with:>12} | {ratio:>6} |",
                row.what
            )?;
        }
        writeln!(
            f,
            "\nTime is an instruction count (2 ns each): no caches, no memory latency, one CPU for dom0 and guests."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_figures_stand_side_by_side_and_a_missing_one_is_missing() {
        let row = |with| PatchRow {
            what: "save".into(),
            unit: "ms",
            without: Some(10.0),
            with,
        };
        let rows = vec![row(Some(4.0)), row(None)];
        let text = Patches { rows }.to_string();
        assert!(text.contains("10.0 ms |       4.0 ms |  0.400 |"), "{text}");
        assert!(text.contains("10.0 ms |            - |      - |"), "{text}");
    }
}
