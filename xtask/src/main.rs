//! The project's own commands, run as `cargo xtask NAME`.
//!
//! One file per task. This file only names them; what a lab host is and does is in the crate `stack-tests`.

#![forbid(unsafe_code)]

mod bench;
mod beside;
mod demo;
mod deps;
mod dist;
mod image;
mod lab;
mod manuals;
mod soak;
mod test;
mod xen;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tests and shows Parapet.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show the main job on a Xen host in QEMU, from nothing, with a timeline at the end
    Demo(demo::Arguments),
    /// Run every test, nested ones included
    Test(test::Arguments),
    /// Time our commands and Debian's side by side
    Bench(bench::Arguments),
    /// Move a guest hundreds of times, with cuts
    Soak(soak::Arguments),
    /// Build release binaries, units and default configuration into target/dist
    Dist(dist::Arguments),
    /// Check that the Debian packages the lab needs are there, and install what is missing
    Deps(deps::Arguments),
    /// Build the lab's images and boot each kind of host once
    Image(image::Arguments),
    /// Start, use and stop lab hosts by hand
    Lab(lab::Arguments),
    /// Build Debian's hypervisor with the patches of xen-patches/, and boot it in the lab
    Xen(xen::Arguments),
}

fn main() -> ExitCode {
    perform(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Deps(arguments) => deps::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Lab(arguments) => lab::run(arguments),
        Task::Xen(arguments) => xen::run(&arguments),
    }
}
