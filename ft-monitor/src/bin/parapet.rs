//! `parapet`: our own commands, and every xl command under the same name; see `ft_monitor::cli`.

#![forbid(unsafe_code)]

use clap::Parser;
use dom0_agent::cli::extras::Program;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = ft_monitor::cli::Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    ft_monitor::cli::run(
        cli,
        &mut out,
        |words| dom0_agent::cli::run(Program::Parapet, words),
        &dom0_agent::cli::offline::guest_as_json,
    )
}
