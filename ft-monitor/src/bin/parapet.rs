//! `parapet`: our own commands, and every xl command under the same name; see `ft_monitor::cli`.

#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = ft_monitor::cli::Cli::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    ft_monitor::cli::run(
        cli,
        &mut out,
        dom0_agent::cli::run,
        &dom0_agent::cli::offline::guest_as_json,
    )
}
