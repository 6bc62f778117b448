//! The `xl` commands of both toolstacks.

use anyhow::{Context, Result, ensure};
use lab_delegate::{Measurement, Timing};

use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind, XL};
use crate::timeline::Timeline;

use super::OUR_XL;
use super::count;
use super::table::{CostRow, Row, Table};

/// Timed rounds after the first.
pub(super) const WARM_ROUNDS: u32 = 3;

/// One command of a sequence.
pub(super) struct Step {
    /// For the table.
    pub(super) name: String,
    /// Its words; `XL` stands for the tool.
    pub(super) argv: Vec<String>,
    /// Most of stock's time that is aimed at.
    pub(super) target: f64,
}

/// A sequence of commands that is repeated, each step with its line in the table.
pub(super) struct Case {
    /// One after the other.
    pub(super) steps: Vec<Step>,
    /// The first step's first round has a line of its own, with this target.
    pub(super) cold: Option<f64>,
}

impl Case {
    fn one(name: &str, line: &str, target: f64) -> Self {
        let step = Step {
            name: name.into(),
            argv: words(line),
            target,
        };
        Self {
            steps: vec![step],
            cold: None,
        }
    }

    pub(super) fn title(&self) -> &str {
        self.steps.first().map_or("", |step| &step.name)
    }

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
            .map(|step| step.argv.iter().map(with_tool).collect())
            .collect()
    }
}

/// Times and counts every command with both tools.
///
/// # Errors
/// When the rig or the stock tools fail. What ours cannot do becomes a note.
pub fn run(host: &Host, ours: bool, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    for case in cases(host)? {
        let title = case.title().to_owned();
        let stock = timeline.step(&format!("stock: {title}"), || measure(host, &case, XL))?;
        count_both(host, &case, ours, table, timeline)?;
        let mine = if ours {
            timeline.step(&format!("ours: {title}"), || {
                forget_kernels(host)?;
                measure(host, &case, OUR_XL)
            })
        } else {
            Ok(Vec::new())
        };
        let mine = mine.unwrap_or_else(|error| {
            table.notes.push(format!("ours, {title}: {error:#}"));
            Vec::new()
        });
        add(table, &case, &stock, &mine);
    }
    Ok(())
}

/// Empties our cache of unpacked kernels, so that the first round is cold whatever ran before. What is still being written is waited for.
fn forget_kernels(host: &Host) -> Result<()> {
    host.wait_until(
        "! ls -A /var/cache/parapet/kernels | grep -q '^[.]tmp'",
        deadline::SETTLE,
    )?;
    host.sh("rm -f /var/cache/parapet/kernels/*").map(drop)
}

pub(super) fn words(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

fn cases(host: &Host) -> Result<Vec<Case>> {
    let mut cases = vec![
        Case::one("list, dom0 only", "XL list", 0.25),
        Case::one("info", "XL info", 0.25),
    ];
    for (label, kind) in [("PV", Kind::Pv), ("PVH", Kind::Pvh)] {
        for (what, guest) in [
            ("no devices", Guest::bare("bench", kind)),
            ("disk and vif", Guest::minimal("bench", kind, 20)),
        ] {
            let cold = (!guest.devices).then_some(0.8);
            let guest = Guest {
                name: format!("bench-{}-{}", label, guest.devices),
                ..guest
            };
            guest.prepare(host)?;
            let create = Step {
                name: format!("create {label} 128 MiB, {what}"),
                argv: words(&format!("XL create -q {}", guest.config_path())),
                target: 0.12,
            };
            let destroy = Step {
                name: format!("destroy {label}, {what}"),
                argv: words(&format!("XL destroy {}", guest.name)),
                target: 0.5,
            };
            cases.push(Case {
                steps: vec![create, destroy],
                cold,
            });
        }
    }
    Ok(cases)
}

/// Times of `case` with `tool` in place of `XL`.
pub(super) fn measure(host: &Host, case: &Case, tool: &str) -> Result<Vec<Timing>> {
    measure_rounds(host, case, tool, WARM_ROUNDS)
}

/// The same with another number of rounds after the first.
pub(super) fn measure_rounds(
    host: &Host,
    case: &Case,
    tool: &str,
    warm: u32,
) -> Result<Vec<Timing>> {
    let measurement = Measurement {
        rounds: 1 + warm,
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

/// Counts every step once with each tool; what ours cannot do becomes a note.
fn count_both(
    host: &Host,
    case: &Case,
    ours: bool,
    table: &mut Table,
    timeline: &mut Timeline,
) -> Result<()> {
    let title = case.title();
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
        table
            .notes
            .push(format!("count of ours, {title}: {error:#}"));
        Vec::new()
    });
    for (place, step) in case.steps.iter().enumerate() {
        table.costs.push(CostRow {
            operation: step.name.clone(),
            stock: stock.get(place).copied(),
            ours: mine.get(place).copied(),
        });
    }
    Ok(())
}

pub(super) fn add(table: &mut Table, case: &Case, stock: &[Timing], ours: &[Timing]) {
    if let Some(target) = case.cold {
        table.rows.push(Row {
            operation: format!("{}, first time", case.title()),
            stock: round_of(stock, 0, 0),
            ours: round_of(ours, 0, 0),
            target,
        });
    }
    for (place, step) in case.steps.iter().enumerate() {
        table.rows.push(Row {
            operation: step.name.clone(),
            stock: warm(stock, place),
            ours: warm(ours, place),
            target: step.target,
        });
    }
}

/// Milliseconds of one round.
fn round_of(timings: &[Timing], step: usize, round: u32) -> Option<f64> {
    timings
        .iter()
        .find(|timing| timing.step == step && timing.round == round)
        .map(milliseconds)
}

/// The median of the rounds after the first, in milliseconds.
pub(super) fn warm(timings: &[Timing], step: usize) -> Option<f64> {
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
}
