//! The daemon's program: arguments, logging, run.

#![forbid(unsafe_code)]

use clap::Parser;
use dom0_agent::daemon::options::{Arguments, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(dom0_agent::image::WORKER_ARGUMENT) {
        return dom0_agent::image::worker_main();
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
