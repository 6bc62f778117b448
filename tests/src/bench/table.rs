//! What a run of the benchmarks prints: ours beside its peers, the ratio, and whether the target is met.

use std::fmt;

use serde::Serialize;

use crate::stock::Kind;

use super::block;
use super::count::Cost;
use super::guest::Backend;
use super::net;
use super::sample::Sample;

/// A command; times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// By Debian's tools.
    pub stock: Option<f64>,
    /// By ours, if they can.
    pub ours: Option<f64>,
    /// Most of stock's time that is aimed at.
    pub target: f64,
}

/// What one command asks of Xen and xenstore.
#[derive(Debug, Clone, Serialize)]
pub struct CostRow {
    /// What was done.
    pub operation: String,
    /// By Debian's tools.
    pub stock: Option<Cost>,
    /// By ours, if they can.
    pub ours: Option<Cost>,
}

/// A figure of ours that has no peer; less is better.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What, and in which unit.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Most that is aimed at.
    pub target: Option<f64>,
}

/// One load on a disk; more is better.
#[derive(Debug, Clone, Serialize)]
pub struct BlockRow {
    /// Kind of guest, load and unit.
    pub load: String,
    /// Our split driver.
    pub ours: Option<Sample>,
    /// QEMU.
    pub qdisk: Option<Sample>,
    /// blkback on a loop device.
    pub blkback: Option<Sample>,
    /// Least ratio to qdisk and to blkback that is aimed at.
    pub target: Option<(f64, f64)>,
}

impl BlockRow {
    /// Nothing measured yet.
    #[must_use]
    pub fn of(load: &block::Load, kind: Kind) -> Self {
        Self {
            load: format!("{}: {}", label(kind), load.name),
            ours: None,
            qdisk: None,
            blkback: None,
            target: load.target,
        }
    }

    /// Puts a figure in its place.
    pub fn set(&mut self, backend: Backend, sample: Sample) {
        *match backend {
            Backend::Ours => &mut self.ours,
            Backend::Qdisk => &mut self.qdisk,
            Backend::Kernel => &mut self.blkback,
        } = Some(sample);
    }
}

/// One load on an interface.
#[derive(Debug, Clone, Serialize)]
pub struct NetRow {
    /// Kind of guest, load and unit.
    pub load: String,
    /// Our split driver.
    pub ours: Option<Sample>,
    /// netback.
    pub netback: Option<Sample>,
    /// Least ratio to netback that is aimed at.
    pub target: Option<f64>,
}

impl NetRow {
    /// Nothing measured yet.
    #[must_use]
    pub fn of(load: net::Load, kind: Kind) -> Self {
        Self {
            load: format!("{}: {}", label(kind), load.name()),
            ours: None,
            netback: None,
            target: load.target(),
        }
    }

    /// Puts a figure in its place; QEMU has none here.
    pub fn set(&mut self, backend: Backend, sample: Sample) {
        match backend {
            Backend::Ours => self.ours = Some(sample),
            Backend::Kernel => self.netback = Some(sample),
            Backend::Qdisk => {}
        }
    }
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Pv => "PV",
        Kind::Pvh => "PVH",
    }
}

/// The figures of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// Commands, in the order of the runs.
    pub rows: Vec<Row>,
    /// Counts, in the same order.
    pub costs: Vec<CostRow>,
    /// What only ours is asked for.
    pub figures: Vec<Figure>,
    /// Disks.
    pub blocks: Vec<BlockRow>,
    /// What the file behind them lies on.
    pub medium: &'static str,
    /// Interfaces.
    pub nets: Vec<NetRow>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

impl Table {
    fn write_commands(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell =
            |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        writeln!(
            f,
            "\n| {:<42} | {:>10} | {:>10} | {:>6} | {:>15} |",
            "command", "stock", "ours", "ratio", "target"
        )?;
        writeln!(
            f,
            "|{:-<44}|{:->12}|{:->12}|{:->8}|{:->17}|",
            "", ":", ":", ":", ":"
        )?;
        for row in &self.rows {
            let ratio = ratio(row.ours, row.stock);
            let verdict = verdict("<=", row.target, ratio, |ratio, target| ratio <= target);
            let (stock, ours) = (cell(row.stock), cell(row.ours));
            writeln!(
                f,
                "| {:<42} | {stock:>10} | {ours:>10} | {:>6} | {verdict:>15} |",
                row.operation,
                number(ratio, 3)
            )?;
        }
        Ok(())
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |cost: Option<Cost>| {
            cost.map_or(("-".into(), "-".into()), |cost| {
                (cost.hypercalls.to_string(), cost.xenstore.to_string())
            })
        };
        let (head, rule) = ("hypercalls and xenstore requests", "");
        writeln!(f, "\n| {head:<42} | {:>14} | {:>14} |", "stock", "ours")?;
        writeln!(f, "|{rule:-<44}|{:->16}|{:->16}|", ":", ":")?;
        for row in &self.costs {
            let ((stock_calls, stock_asks), (our_calls, our_asks)) =
                (cells(row.stock), cells(row.ours));
            writeln!(
                f,
                "| {:<42} | {stock_calls:>6} {stock_asks:>7} | {our_calls:>6} {our_asks:>7} |",
                row.operation
            )?;
        }
        Ok(())
    }

    fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| {:<74} | {:>10} | {:>15} |",
            "figure", "ours", "target"
        )?;
        writeln!(f, "|{:-<76}|{:->12}|{:->17}|", "", ":", ":")?;
        for row in &self.figures {
            let meets = |value, target| value <= target;
            let verdict = row
                .target
                .map(|target| verdict("<=", target, Some(row.value), meets));
            writeln!(
                f,
                "| {:<74} | {:>10.2} | {:>15} |",
                row.what,
                row.value,
                verdict.unwrap_or_default()
            )?;
        }
        Ok(())
    }

    fn write_blocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| {:<46} | {:>14} | {:>14} | {:>14} | {:>21} | {:>21} |",
            format!("disk: a raw file on {}", self.medium),
            "ours",
            "qdisk",
            "blkback, loop",
            "ours / qdisk",
            "ours / blkback"
        )?;
        writeln!(
            f,
            "|{:-<48}|{:->16}|{:->16}|{:->16}|{:->23}|{:->23}|",
            "", ":", ":", ":", ":", ":"
        )?;
        for row in &self.blocks {
            let to_qdisk = at_least(row.ours, row.qdisk, row.target.map(|both| both.0));
            let to_blkback = at_least(row.ours, row.blkback, row.target.map(|both| both.1));
            writeln!(
                f,
                "| {:<46} | {:>14} | {:>14} | {:>14} | {to_qdisk:>21} | {to_blkback:>21} |",
                row.load,
                figure(row.ours),
                figure(row.qdisk),
                figure(row.blkback)
            )?;
        }
        Ok(())
    }

    fn write_nets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| {:<46} | {:>14} | {:>14} | {:>21} |",
            "network", "ours", "netback", "ours / netback"
        )?;
        writeln!(f, "|{:-<48}|{:->16}|{:->16}|{:->23}|", "", ":", ":", ":")?;
        for row in &self.nets {
            let to_netback = at_least(row.ours, row.netback, row.target);
            writeln!(
                f,
                "| {:<46} | {:>14} | {:>14} | {to_netback:>21} |",
                row.load,
                figure(row.ours),
                figure(row.netback)
            )?;
        }
        Ok(())
    }
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

/// The target, and whether `ratio` meets it.
fn verdict(
    sign: &str,
    target: f64,
    ratio: Option<f64>,
    meets: impl Fn(f64, f64) -> bool,
) -> String {
    let word = match ratio {
        None => "-",
        Some(ratio) if meets(ratio, target) => "met",
        Some(_) => "not met",
    };
    format!("{sign} {target}: {word}")
}

/// The ratio, with the verdict if there is a target.
fn at_least(ours: Option<Sample>, theirs: Option<Sample>, target: Option<f64>) -> String {
    let ratio = ratio(
        ours.map(|sample| sample.median),
        theirs.map(|sample| sample.median),
    );
    let verdict =
        target.map(|target| verdict(">=", target, ratio, |ratio, target| ratio >= target));
    format!("{} {}", number(ratio, 2), verdict.unwrap_or_default())
        .trim()
        .to_owned()
}

fn figure(sample: Option<Sample>) -> String {
    sample.map_or_else(|| "-".into(), |sample| sample.to_string())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rows.is_empty() {
            self.write_commands(f)?;
        }
        if !self.costs.is_empty() {
            self.write_costs(f)?;
        }
        if !self.figures.is_empty() {
            self.write_figures(f)?;
        }
        if !self.blocks.is_empty() {
            self.write_blocks(f)?;
        }
        if !self.nets.is_empty() {
            self.write_nets(f)?;
        }
        writeln!(
            f,
            "\nTime is an instruction count (2 ns each): no caches, no memory latency, one CPU for dom0 and guests."
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_shown_as_missing() {
        let row = Row {
            operation: "x".into(),
            stock: Some(2.0),
            ours: None,
            target: 0.5,
        };
        let table = Table {
            rows: vec![row],
            notes: vec!["why".into()],
            ..Table::default()
        };
        let text = table.to_string();
        assert!(
            text.contains("2.0 ms |          - |      - |       <= 0.5: - |")
                && text.contains("note: why"),
            "{text}"
        );
    }

    #[test]
    fn a_target_is_met_or_it_is_not() {
        let sample = |median| {
            Some(Sample {
                median,
                spread: 0.0,
            })
        };
        assert_eq!(
            at_least(sample(8.0), sample(10.0), Some(0.8)),
            "0.80 >= 0.8: met"
        );
        assert_eq!(
            at_least(sample(7.9), sample(10.0), Some(0.8)),
            "0.79 >= 0.8: not met"
        );
        assert_eq!(at_least(sample(1.0), sample(2.0), None), "0.50");
        assert_eq!(at_least(None, sample(2.0), Some(1.0)), "- >= 1: -");
    }
}
