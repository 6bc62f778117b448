//! Times the toolstacks side by side on one deterministic host, where time is an instruction count.
//!
//! Figures repeat to a per cent whatever else the machine does. They say nothing about caches, memory latency or parallelism. Nothing
//! timed here may wait for a virtio disk: guests' files are in dom0's memory and programs have run once before.

pub mod count;

use std::fmt;

use anyhow::{Context, Result, ensure};
use lab_delegate::{Measurement, Timing};
use serde::Serialize;

use count::Cost;

use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind, XL};
use crate::timeline::Timeline;

/// Timed rounds after the first.
const WARM_ROUNDS: u32 = 3;
/// Our `xl`, on the product disk.
const OUR_XL: &str = "/lab/dist/bin/xl";

/// One line of the table; times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// By Debian's tools.
    pub stock: Option<f64>,
    /// By ours, if they can.
    pub ours: Option<f64>,
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

/// The figures of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// In the order of the runs.
    pub rows: Vec<Row>,
    /// Counts, in the same order.
    pub costs: Vec<CostRow>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// A sequence of commands that is repeated, each step with its line in the table.
struct Case {
    /// Names of the timed steps; the first also gets a line for its first round if `cold`.
    steps: Vec<(String, Vec<String>)>,
    cold: bool,
}

impl Case {
    /// The commands, with `tool` in place of `XL`.
    fn commands(&self, tool: &str) -> Vec<Vec<String>> {
        let with_tool = |word: &String| {
            if word == "XL" {
                tool.to_owned()
            } else {
                word.clone()
            }
        };
        self.steps
            .iter()
            .map(|(_, argv)| argv.iter().map(with_tool).collect())
            .collect()
    }
}

/// Runs everything on `host`, which must be deterministic for the figures to mean anything.
///
/// # Errors
/// When the rig or the stock tools fail. When ours fail, the table says so instead.
pub fn run(host: &Host, timeline: &mut Timeline) -> Result<Table> {
    let mut table = Table::default();
    let ours = match timeline.step("our agent starts", || start_our_agent(host)) {
        Ok(()) => true,
        Err(error) => {
            table.notes.push(format!("no figures of ours: {error:#}"));
            false
        }
    };
    for case in cases(host)? {
        let title = case.steps[0].0.clone();
        let stock = timeline.step(&format!("stock: {title}"), || measure(host, &case, XL))?;
        table.count(host, &case, timeline, ours)?;
        let mine = if ours {
            timeline.step(&format!("ours: {title}"), || measure(host, &case, OUR_XL))
        } else {
            Ok(Vec::new())
        };
        let mine = mine.unwrap_or_else(|error| {
            table.notes.push(format!("ours, {title}: {error:#}"));
            Vec::new()
        });
        table.add(&case, &stock, &mine);
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

fn cases(host: &Host) -> Result<Vec<Case>> {
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    let mut cases = vec![
        Case {
            steps: vec![("list, dom0 only".into(), words("XL list"))],
            cold: false,
        },
        Case {
            steps: vec![("info".into(), words("XL info"))],
            cold: false,
        },
    ];
    for (label, kind) in [("PV", Kind::Pv), ("PVH", Kind::Pvh)] {
        for (what, guest) in [
            ("no devices", Guest::bare("bench", kind)),
            ("disk and vif", Guest::minimal("bench", kind, 20)),
        ] {
            let guest = Guest {
                name: format!("bench-{}-{}", label, guest.devices),
                ..guest
            };
            guest.prepare(host)?;
            let create = words(&format!("XL create -q {}", guest.config_path()));
            let destroy = words(&format!("XL destroy {}", guest.name));
            let steps = vec![
                (format!("create {label} 128 MiB, {what}"), create),
                (format!("destroy {label}, {what}"), destroy),
            ];
            cases.push(Case { steps, cold: true });
        }
    }
    Ok(cases)
}

/// Times of `case` with `tool` in place of `XL`.
fn measure(host: &Host, case: &Case, tool: &str) -> Result<Vec<Timing>> {
    let measurement = Measurement {
        rounds: 1 + WARM_ROUNDS,
        steps: case.commands(tool),
    };
    let input = serde_json::to_vec(&measurement)?;
    let output = host.run_with(&["/lab/delegate", "time"], &input, deadline::GUEST_BOOT)?;
    ensure!(output.code == 0, "{}", output.errors().trim());
    output
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).context("malformed timing"))
        .collect()
}

/// Milliseconds of one round.
fn round_of(timings: &[Timing], step: usize, round: u32) -> Option<f64> {
    timings
        .iter()
        .find(|timing| timing.step == step && timing.round == round)
        .map(milliseconds)
}

/// The median of the rounds after the first, in milliseconds.
fn warm(timings: &[Timing], step: usize) -> Option<f64> {
    let mut values: Vec<f64> = timings
        .iter()
        .filter(|timing| timing.step == step && timing.round > 0)
        .map(milliseconds)
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn milliseconds(timing: &Timing) -> f64 {
    std::time::Duration::from_nanos(timing.nanoseconds).as_secs_f64() * 1e3
}

impl Table {
    /// Counts every step once with each tool; what ours cannot do becomes a note.
    fn count(
        &mut self,
        host: &Host,
        case: &Case,
        timeline: &mut Timeline,
        ours: bool,
    ) -> Result<()> {
        let title = &case.steps[0].0;
        let all = |tool| {
            case.commands(tool)
                .iter()
                .map(|argv| count::cost(host, argv))
                .collect::<Result<Vec<_>>>()
        };
        let stock = timeline.step(&format!("count, stock: {title}"), || all(XL))?;
        let mine = if ours {
            timeline.step(&format!("count, ours: {title}"), || all(OUR_XL))
        } else {
            Ok(Vec::new())
        };
        let mine = mine.unwrap_or_else(|error| {
            self.notes
                .push(format!("count of ours, {title}: {error:#}"));
            Vec::new()
        });
        for (step, (name, _)) in case.steps.iter().enumerate() {
            let (stock, ours) = (stock.get(step).copied(), mine.get(step).copied());
            self.costs.push(CostRow {
                operation: name.clone(),
                stock,
                ours,
            });
        }
        Ok(())
    }

    fn add(&mut self, case: &Case, stock: &[Timing], ours: &[Timing]) {
        if case.cold {
            let operation = format!("{}, first time", case.steps[0].0);
            self.rows.push(Row {
                operation,
                stock: round_of(stock, 0, 0),
                ours: round_of(ours, 0, 0),
            });
        }
        for (step, (name, _)) in case.steps.iter().enumerate() {
            self.rows.push(Row {
                operation: name.clone(),
                stock: warm(stock, step),
                ours: warm(ours, step),
            });
        }
    }
}

impl Table {
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |cost: Option<Cost>| {
            cost.map_or(("-".into(), "-".into()), |cost| {
                (cost.hypercalls.to_string(), cost.xenstore.to_string())
            })
        };
        let (head, rule) = ("hypercalls and xenstore requests", "");
        writeln!(f, "\n| {head:<44} | {:>14} | {:>14} |", "stock", "ours")?;
        writeln!(f, "|{rule:-<46}|{:->16}|{:->16}|", ":", ":")?;
        for row in &self.costs {
            let ((stock_calls, stock_asks), (our_calls, our_asks)) =
                (cells(row.stock), cells(row.ours));
            writeln!(
                f,
                "| {:<44} | {stock_calls:>6} {stock_asks:>7} | {our_calls:>6} {our_asks:>7} |",
                row.operation
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell =
            |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        writeln!(
            f,
            "\n| {:<44} | {:>11} | {:>11} | {:>6} |",
            "operation", "stock", "ours", "ratio"
        )?;
        writeln!(f, "|{:-<46}|{:->13}|{:->13}|{:->8}|", "", ":", ":", ":")?;
        for row in &self.rows {
            let ratio = match (row.stock, row.ours) {
                (Some(stock), Some(ours)) => format!("{:.3}", ours / stock),
                _ => "-".into(),
            };
            let (stock, ours) = (cell(row.stock), cell(row.ours));
            writeln!(
                f,
                "| {:<44} | {stock:>11} | {ours:>11} | {ratio:>6} |",
                row.operation
            )?;
        }
        self.write_costs(f)?;
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

    fn timing(round: u32, milliseconds: u64) -> Timing {
        Timing {
            round,
            step: 0,
            nanoseconds: milliseconds * 1_000_000,
            code: 0,
        }
    }

    #[test]
    fn the_first_round_does_not_count_as_warm() {
        let timings = [timing(0, 900), timing(1, 12), timing(2, 10), timing(3, 11)];
        assert_eq!(warm(&timings, 0), Some(11.0));
        assert_eq!(round_of(&timings, 0, 0), Some(900.0));
        assert_eq!(warm(&timings, 1), None);
    }

    #[test]
    fn what_was_not_measured_is_shown_as_missing() {
        let row = Row {
            operation: "x".into(),
            stock: Some(2.0),
            ours: None,
        };
        let table = Table {
            rows: vec![row],
            notes: vec!["why".into()],
            ..Table::default()
        };
        let text = table.to_string();
        assert!(
            text.contains("2.0 ms |           - |      - |") && text.contains("note: why"),
            "{text}"
        );
    }
}
