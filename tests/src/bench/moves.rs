//! `xl migrate` of a PVH guest that runs, to the host it is on, over a link of a given rate; and what a client of the guest sees of it.
//!
//! ```text
//!   xl migrate ──▶ link.py (so many MiB a second) ──▶ xl migrate-receive
//!   client in dom0 ◀── one TCP connection, a word every 20 ms ──▶ echo in the guest, which dirties its memory meanwhile
//! ```

use anyhow::{Context, Result};

use crate::rig::Host;
use crate::scenario::continuity::Client;
use crate::stock::{Guest, Kind, XL};
use crate::timeline::Timeline;

use super::OUR_XL;
use super::commands::{Case, Step, measure, warm};
use super::table::{Row, Table};

/// Memory of the guest.
const GUEST_MIB: u32 = 256;
/// What goes over the link in a second, in MiB.
const LINK_MIB: u32 = 64;
/// Most of stock's time, and of its client's silence, that is aimed at.
const TARGET: f64 = 0.3;
/// Where the link is in dom0.
const LINK: &str = "/tmp/link.py";

/// Carries standard input to a command and the command's output back, no faster than so many MiB a second on the way there, without touching the bytes.
const LINK_PROGRAM: &str = r"import os, subprocess, sys, threading, time
rate = float(sys.argv[1]) * (1 << 20)
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE)
into, part = child.stdin.fileno(), 1 << 16
free = time.monotonic()
try:
    while True:
        moved = os.splice(0, into, part)
        if not moved:
            break
        free = max(free, time.monotonic() - 0.02) + moved / rate
        ahead = free - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
except BrokenPipeError:
    pass
child.stdin.close()
sys.exit(child.wait())
";

/// What the guest writes meanwhile, in per cent of what the link takes.
pub const LOADS: [u32; 4] = [0, 10, 50, 90];

/// Moves a guest of each toolstack back and forth.
///
/// # Errors
/// When the rig or the stock tools fail. What ours cannot do becomes a note.
pub fn run(
    host: &Host,
    ours: bool,
    loads: &[u32],
    table: &mut Table,
    timeline: &mut Timeline,
) -> Result<()> {
    host.write(LINK, LINK_PROGRAM.as_bytes(), 0o755)?;
    for load in loads.iter().copied() {
        let stock = timeline.step(
            &format!("stock: move, writing {load} % of the link"),
            || rounds(host, load, XL),
        )?;
        let mine = if ours {
            timeline.step(&format!("ours: move, writing {load} % of the link"), || {
                rounds(host, load, OUR_XL).map(Some)
            })
        } else {
            Ok(None)
        };
        let mine = mine.unwrap_or_else(|error| {
            table
                .notes
                .push(format!("ours, move at {load} %: {error:#}"));
            None
        });
        let guest = format!("move PVH {GUEST_MIB} MiB, writing {load} %");
        table.rows.push(Row {
            operation: format!("{guest}: in all"),
            stock: Some(stock.total),
            ours: mine.as_ref().map(|mine| mine.total),
            target: TARGET,
        });
        table.rows.push(Row {
            operation: format!("{guest}: client's silence"),
            stock: Some(stock.silence),
            ours: mine.as_ref().map(|mine| mine.silence),
            target: TARGET,
        });
    }
    host.sh(&format!("rm -f {LINK}")).map(drop)
}

/// In milliseconds.
struct Figures {
    /// Median of the command.
    total: f64,
    /// Longest in all rounds.
    silence: f64,
}

fn rounds(host: &Host, load: u32, tool: &str) -> Result<Figures> {
    let guest = Guest {
        name: format!("bench-move-{load}"),
        ..Guest::minimal("", Kind::Pvh, 60)
    };
    guest.prepare(host)?;
    let config = guest
        .config()
        .replace("memory=128", &format!("memory={GUEST_MIB}"));
    host.write(&guest.config_path(), config.as_bytes(), 0o644)?;
    host.ok(&[tool, "create", "-q", &guest.config_path()])?;
    let inside = host.guest(&guest.name);
    inside.wait_up()?;
    if load > 0 {
        inside.sh(&writer(load))?;
    }
    let client = Client::start(host, &guest)?;
    let line = format!("python3 {LINK} {LINK_MIB} {tool} migrate-receive");
    let argv = [tool, "migrate", "-s", "", &guest.name, &line];
    let case = Case {
        steps: vec![Step {
            name: String::new(),
            argv: argv.map(String::from).to_vec(),
            target: TARGET,
        }],
        cold: None,
    };
    let timings = measure(host, &case, tool)?;
    let (_, silence) = client.stop()?;
    host.ok(&[tool, "destroy", &guest.name])?;
    host.sh(&format!("rm -f {} {}", guest.disk(), guest.config_path()))?;
    Ok(Figures {
        total: warm(&timings, 0).context("no timing")?,
        silence: silence * 1000.0,
    })
}

/// Writes again and again to 32 MiB of the guest's memory, a MiB at a time.
fn writer(load: u32) -> String {
    let pause_us = 100_000_000 / (LINK_MIB * load);
    format!(
        "dd if=/dev/urandom of=/run/from bs=1M count=1 2> /dev/null; dd if=/dev/zero of=/run/into bs=1M count=32 2> /dev/null; \
         (i=0; while :; do dd if=/run/from of=/run/into bs=1M seek=$((i % 32)) conv=notrunc 2> /dev/null; i=$((i + 1)); usleep {pause_us}; done) > /dev/null 2>&1 &"
    )
}
