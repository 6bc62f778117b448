//! `ft-monitor`: watches the guests of this host and restarts those that failed; see `ft_monitor::shell`.

#![forbid(unsafe_code)]

use clap::Parser;
use ft_monitor::options::Arguments;
use ft_monitor::shell::{self, Options};
use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::new(&arguments.log);
    // The journal of systemd has its own time stamps.
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if journald {
        log.without_time().with_ansi(false).init();
    } else {
        log.init();
    }
    let options = Options {
        agent: arguments.agent,
        socket: arguments.socket,
        state: arguments.state,
        config: arguments.config,
    };
    // One thread, so that an event is one wake-up: one task decides everything, and the others wait.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime
            .block_on(shell::run(options))
            .map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ft-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}
