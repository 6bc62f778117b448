//! The project's own commands, run as `cargo xtask NAME`.
//!
//! One file per task. This file only names them; what a lab host is and does is in the crate `stack-tests`.

#![forbid(unsafe_code)]

mod deps;
mod image;
mod lab;

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
    /// Check that the Debian packages the lab needs are there, and install what is missing
    Deps(deps::Arguments),
    /// Build the lab's images and boot each kind of host once
    Image(image::Arguments),
    /// Start, use and stop lab hosts by hand
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    perform(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Deps(arguments) => deps::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Lab(arguments) => lab::run(arguments),
    }
}
