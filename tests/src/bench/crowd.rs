//! Fifty guests that do nothing: what `list` takes, and what it costs to have them there.
//!
//! The guests are PVH guests of [`super::tiny`], made by our agent, without devices but their console: Debian's kernels would need more memory than the
//! lab's host has. Wake-ups are the context switches of all threads of our processes, as the kernel counts them, over a stretch of idle time.

use anyhow::{Context, Result};

use crate::product;
use crate::rig::{Host, deadline};
use crate::stock::XL;
use crate::timeline::Timeline;

use super::OUR_XL;
use super::commands::{Case, Step, add, measure, words};
use super::table::{Figure, Table};
use super::tiny;

/// Guests.
pub const GUESTS: u32 = 50;
/// Memory of one, in MiB.
const GUEST_MIB: u32 = 4;
/// Where their kernel lies in dom0.
pub(super) const KERNEL: &str = "/run/tiny-kernel";
/// Idle time that is watched, in seconds of the host's clock.
const WATCHED_SECONDS: u32 = 120;
/// Time before, in which everything comes to rest.
const REST_SECONDS: u32 = 30;
/// Most of stock's time for `list` that is aimed at.
const LIST_TARGET: f64 = 0.15;
/// Most memory of the agent that is aimed at, in MiB.
const RSS_TARGET: f64 = 30.0;
/// Most wake-ups in a second that are aimed at.
const WAKEUPS_TARGET: f64 = 5.0;

/// Resident memory of each of our processes, in KiB.
const MEMORY: &str = r#"
for pid in $(pgrep -x 'dom0-agent|split-driver|ft-monitor'); do
    echo $(cat /proc/$pid/comm) $(awk '/^VmRSS/ { print $2 }' /proc/$pid/status)
done
"#;
/// Context switches of each of our processes so far.
const SWITCHES: &str = r#"
for pid in $(pgrep -x 'dom0-agent|split-driver|ft-monitor'); do
    echo $(cat /proc/$pid/comm) $(cat /proc/$pid/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum }')
done
"#;

/// Measures. Nothing without our agent.
///
/// # Errors
/// When the rig fails. What ours cannot do becomes a note.
pub fn run(host: &Host, ours: bool, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    if !ours {
        return Ok(());
    }
    let measured = crowd(host, table, timeline);
    if let Err(error) = measured {
        table
            .notes
            .push(format!("ours, {GUESTS} guests: {error:#}"));
    }
    timeline.step("their end", || {
        host.sh(&format!(
            "for n in $(seq {GUESTS}); do {OUR_XL} destroy crowd$n > /dev/null 2>&1; done; pkill -TERM -x ft-monitor; true"
        ))
    })?;
    Ok(())
}

fn crowd(host: &Host, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    host.write(KERNEL, &tiny::kernel(), 0o644)?;
    timeline.step(&format!("{GUESTS} guests"), || {
        for number in 1..=GUESTS {
            let path = "/tmp/crowd.cfg";
            host.write(path, config(&format!("crowd{number}")).as_bytes(), 0o644)?;
            host.ok(&[OUR_XL, "create", "-q", path])
                .with_context(|| format!("guest {number}"))?;
        }
        Ok(())
    })?;
    let case = Case {
        steps: vec![Step {
            name: format!("list, {GUESTS} guests"),
            argv: words("XL list"),
            target: LIST_TARGET,
        }],
        cold: None,
    };
    let stock = timeline.step("stock: list", || measure(host, &case, XL))?;
    let mine = timeline.step("ours: list", || measure(host, &case, OUR_XL))?;
    add(table, &case, &stock, &mine);

    timeline.step("our monitor starts", || product::start_monitor(host))?;
    let idle = timeline.step("nothing happens", || idle(host))?;
    let memory = sums(&host.sh(MEMORY)?);
    for (what, name, count) in [
        ("agent", "dom0-agent", 1.0),
        ("monitor", "ft-monitor", 1.0),
        ("a driver, mean", "split-driver", f64::from(GUESTS)),
    ] {
        table.figures.push(Figure {
            what: format!("memory with {GUESTS} guests: {what}, MiB"),
            value: sum_of(&memory, name) / 1024.0 / count,
            target: (name == "dom0-agent").then_some(RSS_TARGET),
        });
    }
    let all: f64 = idle.iter().map(|(_, wakeups)| wakeups).sum();
    for (what, value, target) in [
        ("all of ours", all, Some(WAKEUPS_TARGET)),
        ("agent", sum_of(&idle, "dom0-agent"), None),
        ("monitor", sum_of(&idle, "ft-monitor"), None),
        ("drivers", sum_of(&idle, "split-driver"), None),
    ] {
        table.figures.push(Figure {
            what: format!("wake-ups per second, {GUESTS} idle guests: {what}"),
            value,
            target,
        });
    }
    Ok(())
}

/// A guest of the tiny kernel.
pub(super) fn config(name: &str) -> String {
    format!("name=\"{name}\"\nkernel=\"{KERNEL}\"\ntype=\"pvh\"\nmemory={GUEST_MIB}\n")
}

/// Wake-ups in a second, by program.
fn idle(host: &Host) -> Result<Vec<(String, f64)>> {
    let script =
        format!("sleep {REST_SECONDS}\n{SWITCHES}\necho then\nsleep {WATCHED_SECONDS}\n{SWITCHES}");
    let output = host.run_with(&["sh", "-c", &script], &[], deadline::GUEST_BOOT * 4)?;
    let text = output.text();
    let (before, after) = text.split_once("then\n").context("no second count")?;
    let before = sums(before);
    let after = sums(after);
    Ok(after
        .into_iter()
        .map(|(name, count)| {
            let more = count - sum_of(&before, &name);
            (name, more / f64::from(WATCHED_SECONDS))
        })
        .collect())
}

/// Lines of a name and a number, added up by name.
fn sums(text: &str) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for line in text.lines() {
        let Some((name, number)) = line.split_once(' ') else {
            continue;
        };
        let number = number.trim().parse().unwrap_or(0.0);
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += number,
            None => sums.push((name.to_owned(), number)),
        }
    }
    sums
}

fn sum_of(sums: &[(String, f64)], name: &str) -> f64 {
    sums.iter()
        .find(|(known, _)| known == name)
        .map_or(0.0, |(_, sum)| *sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_name_are_added_up() {
        let all = sums("a 1\nb 2\na 3\n");
        assert_eq!(all, [("a".to_owned(), 4.0), ("b".to_owned(), 2.0)]);
        assert!(sum_of(&all, "c").abs() < 1e-9);
    }
}
