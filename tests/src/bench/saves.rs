//! `xl save` and `xl restore` of a guest that runs, to a file in dom0's memory and back.

use anyhow::Result;
use lab_delegate::Timing;

use crate::rig::Host;
use crate::stock::{Kind, XL};
use crate::timeline::Timeline;

use super::OUR_XL;
use super::commands::{Case, Step, WARM_ROUNDS, add, measure_rounds, words};
use super::table::Table;

/// Memory of the guest.
const GUEST_MIB: u32 = 512;
/// Most of stock's time that is aimed at.
const TARGET: f64 = 0.4;
/// Where its file lies in dom0.
const FOLDER: &str = "/run/saves";

/// Times both commands with both tools; each saves and restores the guest that it made.
///
/// # Errors
/// When the rig or the stock tools fail. What ours cannot do becomes a note.
pub fn run(host: &Host, ours: bool, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    with_folder(host, || both_kinds(host, ours, table, timeline))
}

/// Does `work` with the folder for the files, in dom0's memory.
pub(super) fn with_folder(host: &Host, work: impl FnOnce() -> Result<()>) -> Result<()> {
    host.sh(&format!(
        "mkdir -p {FOLDER} && mount -t tmpfs -o size={}m saves {FOLDER}",
        GUEST_MIB + 32
    ))?;
    work()?;
    host.sh(&format!("umount {FOLDER}; rmdir {FOLDER}"))
        .map(drop)
}

fn both_kinds(host: &Host, ours: bool, table: &mut Table, timeline: &mut Timeline) -> Result<()> {
    for (label, kind) in [("PV", Kind::Pv), ("PVH", Kind::Pvh)] {
        let case = case(label, GUEST_MIB);
        let stock = timeline.step(&format!("stock: save and restore {label}"), || {
            rounds(host, kind, &case, XL, GUEST_MIB, WARM_ROUNDS).map(|(timings, _)| timings)
        })?;
        let mine = if ours {
            timeline.step(&format!("ours: save and restore {label}"), || {
                rounds(host, kind, &case, OUR_XL, GUEST_MIB, WARM_ROUNDS)
                    .map(|(timings, _)| timings)
            })
        } else {
            Ok(Vec::new())
        };
        let mine = mine.unwrap_or_else(|error| {
            table
                .notes
                .push(format!("ours, save and restore {label}: {error:#}"));
            Vec::new()
        });
        add(table, &case, &stock, &mine);
    }
    Ok(())
}

pub(super) fn case(label: &str, mib: u32) -> Case {
    let step = |command: &str, line: String| Step {
        name: format!("{command} {label} {mib} MiB"),
        argv: words(&line),
        target: TARGET,
    };
    Case {
        steps: vec![
            step("save", format!("XL save bench-save {FOLDER}/file")),
            step("restore", format!("XL restore {FOLDER}/file")),
        ],
        cold: None,
    }
}

/// A guest of `tool`, from its creation to its end: times, and bytes of the last file.
pub(super) fn rounds(
    host: &Host,
    kind: Kind,
    case: &Case,
    tool: &str,
    mib: u32,
    warm: u32,
) -> Result<(Vec<Timing>, f64)> {
    let kind = match kind {
        Kind::Pv => "",
        Kind::Pvh => "type=\"pvh\"\ntsc_mode=\"native\"\n",
    };
    let config = format!(
        "name=\"bench-save\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd\"\nmemory={mib}\n{kind}extra=\"console=hvc0 quiet\"\n"
    );
    host.write("/tmp/bench-save.cfg", config.as_bytes(), 0o644)?;
    host.ok(&[tool, "create", "-q", "/tmp/bench-save.cfg"])?;
    host.guest("bench-save").wait_up()?;
    let timings = measure_rounds(host, case, tool, warm);
    host.ok(&[tool, "destroy", "bench-save"])?;
    let size = host.ok(&["stat", "-c", "%s", &format!("{FOLDER}/file")]);
    host.sh(&format!("rm -f {FOLDER}/file"))?;
    Ok((timings?, size?.trim().parse()?))
}
