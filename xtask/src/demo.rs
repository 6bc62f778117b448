//! `cargo xtask demo`: the main job on a Xen host in QEMU, from nothing, with a timeline at the end.

use std::process::ExitCode;

use anyhow::Result;
use stack_tests::rig::{Host, Shape, host, image, snapshot};
use stack_tests::scenario::main_job;
use stack_tests::timeline::Timeline;

use crate::beside::beside;

/// Name of the host that the demo runs on.
const HOST: &str = "demo";

/// What to do afterwards.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Use target/dist as it is
    #[arg(long)]
    as_is: bool,
    /// Leave the host running, and say how to get a shell in dom0 and a guest's console
    #[arg(long)]
    keep: bool,
}

/// Prepares everything, tells the story, prints the timeline.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut timeline = Timeline::default();
    let outcome = prepare(arguments, &mut timeline).and_then(|()| tell(&mut timeline));
    if outcome.is_ok() && !arguments.keep {
        host::take_down(HOST)?;
    }
    timeline.print();
    if host::run_dir(HOST).exists() {
        println!("\nThe host is still running:");
        println!("  cargo xtask lab shell {HOST}           a shell in dom0");
        println!("  cargo xtask lab console {HOST} pvh1    also pv1, debian; leave with ^]");
        println!("  cargo xtask lab log {HOST}             what Xen and dom0's kernel said");
        println!("  cargo xtask lab down {HOST}            ends it");
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn prepare(arguments: &Arguments, timeline: &mut Timeline) -> Result<()> {
    timeline.step("Debian packages", crate::deps::ensure_installed)?;
    timeline.step("release binaries, and dom0's image beside", || {
        beside(
            || image::base(&Shape::default().suite).map(drop),
            || {
                if arguments.as_is {
                    Ok(())
                } else {
                    crate::dist::build()
                }
            },
        )
    })?;
    timeline.step("booted Xen host", || snapshot::of(&Shape::default()))?;
    if host::run_dir(HOST).exists() {
        timeline.step("the host of the last demo goes", || host::take_down(HOST))?;
    }
    timeline.step("a fork of it", || {
        Host::start_named(HOST, &Shape::default())
    })
}

fn tell(timeline: &mut Timeline) -> Result<()> {
    let host = Host::open(HOST)?;
    main_job::with_parapet(&host, timeline)
}
