//! `xl save` and `xl restore` of a guest that runs, to a file in dom0's memory and back.

use anyhow::Result;
use lab_delegate::Timing;

use crate::rig::Host;
use crate::stock::{Kind, XL};
use crate::timeline::Timeline;

use super::OUR_XL;
use super::commands::{Case, Step, add, measure, words};
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
    host.sh(&format!(
        "mkdir -p {FOLDER} && mount -t tmpfs -o size={}m saves {FOLDER}",
        GUEST_MIB + 32
    ))?;
    for (label, kind) in [("PV", Kind::Pv), ("PVH", Kind::Pvh)] {
        let case = case(label);
        let stock = timeline.step(&format!("stock: save and restore {label}"), || {
            rounds(host, kind, &case, XL)
        })?;
        let mine = if ours {
            timeline.step(&format!("ours: save and restore {label}"), || {
                rounds(host, kind, &case, OUR_XL)
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
    host.sh(&format!("umount {FOLDER}; rmdir {FOLDER}"))
        .map(drop)
}

fn case(label: &str) -> Case {
    let step = |command: &str, line: String| Step {
        name: format!("{command} {label} {GUEST_MIB} MiB"),
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

/// A guest of `tool`, from its creation to its end.
fn rounds(host: &Host, kind: Kind, case: &Case, tool: &str) -> Result<Vec<Timing>> {
    let kind = match kind {
        Kind::Pv => "",
        Kind::Pvh => "type=\"pvh\"\ntsc_mode=\"native\"\n",
    };
    let config = format!(
        "name=\"bench-save\"\nkernel=\"/lab/guest/vmlinuz\"\nramdisk=\"/lab/guest/initrd\"\nmemory={GUEST_MIB}\n{kind}extra=\"console=hvc0 quiet\"\n"
    );
    host.write("/tmp/bench-save.cfg", config.as_bytes(), 0o644)?;
    host.ok(&[tool, "create", "-q", "/tmp/bench-save.cfg"])?;
    host.guest("bench-save").wait_up()?;
    let timings = measure(host, case, tool);
    host.ok(&[tool, "destroy", "bench-save"])?;
    host.sh(&format!("rm -f {FOLDER}/file"))?;
    timings
}
