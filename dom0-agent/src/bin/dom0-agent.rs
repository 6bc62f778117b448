//! The daemon's program: arguments, logging, run.

#![forbid(unsafe_code)]

use clap::Parser;
use dom0_agent::daemon::options::{Arguments, Options};
use std::process::ExitCode;
use xen_host::mover;

fn main() -> ExitCode {
    let words = std::env::args_os().skip(1);
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match words
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        Some((dom0_agent::image::WORKER_ARGUMENT, _)) => return dom0_agent::image::worker_main(),
        Some((mover::MOVER_ARGUMENT, rest)) => return mover::mover_main(rest),
        _ => {}
    }
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let result = Options::load(arguments).and_then(|options| dom0_agent::daemon::run(&options));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dom0-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
