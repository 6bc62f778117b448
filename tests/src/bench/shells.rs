//! `xl create` where a shell waits for the guest; and many guests in a row, the first beside the last.

use anyhow::{Context, Result, ensure};
use lab_delegate::{Measurement, Timing};

use crate::rig::{Host, deadline};
use crate::stock::{Guest, Kind, XL};
use crate::timeline::Timeline;

use super::commands::{Case, Step, add, measure, words};
use super::count;
use super::crowd;
use super::table::{CostRow, Figure, Table};
use super::{OUR_PARAPET, OUR_XL, tiny};

/// Most of stock's time for a guest from the pool that is aimed at.
const TARGET: f64 = 0.01;
/// Rounds at either end of a row of guests that are compared.
const ENDS: usize = 10;
/// Most that the last may cost of the first that is aimed at.
const LAST_TARGET: f64 = 1.05;

/// Configuration of the guests in a row, in dom0.
const ROW_CONFIG: &str = "/tmp/row.cfg";

/// Returns when a shell is there.
const FULL: &str = r#"until PARAPET shells list --json | grep -q '"ready": \[$'; do sleep 1; done"#;
/// What the agent holds, and what dom0 holds for guests; see [`HELD_NAMES`].
const HELD: &str = r#"
agent=$(pgrep -x dom0-agent)
echo $(ls /proc/$agent/fd | wc -l) $(ls /proc/$agent/task | wc -l) $(awk '/^VmRSS/ { print $2 }' /proc/$agent/status) \
    $(xenstore-ls -f | wc -l) $(find /var/lib/parapet /run/parapet /var/lib/xen -type f | wc -l)
"#;

/// The numbers of [`HELD`].
const HELD_NAMES: [&str; 5] = [
    "descriptors of the agent",
    "its threads",
    "its memory, KiB",
    "xenstore nodes",
    "files",
];

/// Times guests from the pool beside stock's, then `rounds` guests in a row.
///
/// # Errors
/// When the rig or the stock tools fail. What ours cannot do becomes a note.
pub fn run(
    host: &Host,
    ours: bool,
    rounds: u32,
    table: &mut Table,
    timeline: &mut Timeline,
) -> Result<()> {
    for devices in [false, true] {
        let what = if devices {
            "disk and vif"
        } else {
            "no devices"
        };
        let guest = match devices {
            true => Guest::minimal("bench-shell-dev", Kind::Pvh, 21),
            false => Guest::bare("bench-shell", Kind::Pvh),
        };
        guest.prepare(host)?;
        let case = case(&guest, what);
        let stock = timeline.step(&format!("stock: create, {what}"), || {
            measure(host, &case, XL)
        })?;
        let mine = if ours {
            pooled(host, &guest, &case, table, timeline)
        } else {
            Ok(Vec::new())
        };
        let mine = mine.unwrap_or_else(|error| {
            table.notes.push(format!("ours, shells, {what}: {error:#}"));
            Vec::new()
        });
        add(table, &case, &stock, &mine);
    }
    if ours && let Err(error) = row(host, rounds, table, timeline) {
        table
            .notes
            .push(format!("ours, guests in a row: {error:#}"));
    }
    Ok(())
}

fn case(guest: &Guest, what: &str) -> Case {
    let step = |name: String, line: String, target| Step {
        name,
        argv: words(&line),
        target,
    };
    Case {
        steps: vec![
            step(
                format!("create PVH 128 MiB from a shell, {what}"),
                format!("XL create -q {}", guest.config_path()),
                TARGET,
            ),
            step(
                format!("destroy it, {what}"),
                format!("XL destroy {}", guest.name),
                0.5,
            ),
        ],
        cold: None,
    }
}

/// The case with a pool of one shell, which is filled up between the rounds.
fn pooled(
    host: &Host,
    guest: &Guest,
    case: &Case,
    table: &mut Table,
    timeline: &mut Timeline,
) -> Result<Vec<Timing>> {
    let full = FULL.replace("PARAPET", OUR_PARAPET);
    let path = guest.config_path();
    timeline.step("a shell is built", || {
        host.ok(&[OUR_PARAPET, "shells", "add", &path, "--count", "1"])?;
        host.sh(&full)
    })?;
    let with_pause = Case {
        steps: case
            .steps
            .iter()
            .map(|step| (step.name.clone(), step.argv.clone(), step.target))
            .chain([(
                String::new(),
                vec!["sh".into(), "-c".into(), full.clone()],
                1.0,
            )])
            .map(|(name, argv, target)| Step { name, argv, target })
            .collect(),
        cold: None,
    };
    let timings = timeline.step(&format!("ours: {}", case.title()), || {
        measure(host, &with_pause, OUR_XL)
    });
    let cost = timeline.step(&format!("count, ours: {}", case.title()), || {
        let cost = count::cost(host, &words(&format!("{OUR_XL} create -q {path}")))?;
        host.ok(&[OUR_XL, "destroy", &guest.name])?;
        Ok(cost)
    });
    if let Ok(cost) = cost {
        table.costs.push(CostRow {
            operation: case.title().to_owned(),
            stock: None,
            ours: Some(cost),
        });
    }
    host.ok(&[OUR_PARAPET, "shells", "drop"])?;
    timings
}

/// `rounds` tiny guests made and destroyed in a row, without shells.
fn row(host: &Host, rounds: u32, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    host.write(crowd::KERNEL, &tiny::kernel(), 0o644)?;
    host.write(ROW_CONFIG, crowd::config("row").as_bytes(), 0o644)?;
    // The first few warm up what is warm for the last.
    let warm = u32::try_from(ENDS).unwrap_or(u32::MAX);
    timeline.step("guests before the row", || in_a_row(host, warm))?;
    let before = host.sh(HELD)?;
    let timings = timeline.step(&format!("{rounds} guests in a row"), || {
        in_a_row(host, rounds)
    })?;
    let after = host.sh(HELD)?;
    for (step, what) in [(0, "create"), (1, "destroy")] {
        let (first, last) = ends(&timings, step)?;
        timeline.fact(
            &format!("{what}, first and last {ENDS}, ms"),
            format!("{first:.2} {last:.2}"),
        );
        table.figures.push(Figure {
            what: format!("{rounds} guests in a row, {what}: mean of the first {ENDS}, ms"),
            value: first,
            target: None,
        });
        table.figures.push(Figure {
            what: format!("{rounds} guests in a row, {what}: last {ENDS} / first {ENDS}"),
            value: last / first,
            target: Some(LAST_TARGET),
        });
    }
    for (name, (before, after)) in HELD_NAMES
        .iter()
        .zip(numbers(&before).into_iter().zip(numbers(&after)))
    {
        table.figures.push(Figure {
            what: format!("{rounds} guests in a row, more than before: {name}"),
            value: after - before,
            target: None,
        });
    }
    Ok(())
}

fn in_a_row(host: &Host, rounds: u32) -> Result<Vec<Timing>> {
    let measurement = Measurement {
        rounds,
        steps: vec![
            words(&format!("{OUR_XL} create -q {ROW_CONFIG}")),
            words(&format!("{OUR_XL} destroy row")),
        ],
    };
    let input = serde_json::to_vec(&measurement)?;
    let output = host.run_with(&["/lab/delegate", "time"], &input, deadline::GUEST_BOOT)?;
    ensure!(output.code == 0, "{}", output.errors().trim());
    let text = output.text();
    let timings: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    timings.context("malformed timing")
}

/// Mean times of the first and of the last rounds of a step, in milliseconds.
fn ends(timings: &[Timing], step: usize) -> Result<(f64, f64)> {
    let times: Vec<f64> = timings
        .iter()
        .filter(|timing| timing.step == step)
        .map(|timing| std::time::Duration::from_nanos(timing.nanoseconds).as_secs_f64() * 1e3)
        .collect();
    ensure!(
        times.len() >= 2 * ENDS,
        "{} rounds are too few",
        times.len()
    );
    let (first, last) = (&times[..ENDS], &times[times.len() - ENDS..]);
    Ok((mean(first), mean(last)))
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace()
        .map(|number| number.parse().unwrap_or(f64::NAN))
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    values.iter().sum::<f64>() / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_row_are_its_first_and_last_rounds() {
        let timing = |round: u32| Timing {
            round,
            step: 0,
            nanoseconds: if round < 15 { 1_000_000 } else { 2_000_000 },
            code: 0,
        };
        let timings: Vec<Timing> = (0..30).map(timing).collect();
        let (first, last) = ends(&timings, 0).expect("enough rounds");
        assert!((first - 1.0).abs() < 1e-9 && (last - 2.0).abs() < 1e-9);
        assert!(ends(&timings[..5], 0).is_err() && ends(&timings, 1).is_err());
    }
}
