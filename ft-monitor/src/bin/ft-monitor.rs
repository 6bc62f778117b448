//! `ft-monitor`: watches the guests of this host and restarts those that failed; see `ft_monitor::shell`.

use clap::Parser;
use ft_monitor::shell::{self, Options};
use std::path::PathBuf;
use std::process::ExitCode;

/// Watches the guests of this host and restarts those that failed.
///
/// Runs in the foreground, with built-in defaults and no configuration file. Which guests are protected, and how they
/// are watched, is said in their configuration (`protect=`, `protect_heartbeat=`, `protect_probe=`) or with `parapet protect`.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Socket of the agent.
    #[arg(long, env = "PARAPET_AGENT_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::AGENT_SOCKET)]
    agent: PathBuf,
    /// Own socket, for `parapet status`, `events` and `availability`.
    #[arg(long, env = "PARAPET_MONITOR_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::MONITOR_SOCKET)]
    socket: PathBuf,
    /// Directory of the journal; made when it is not there.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/parapet/monitor")]
    state: PathBuf,
    /// Directory with ft-monitor.toml and ft-monitor.d/*.toml, all optional.
    #[arg(long, value_name = "DIR", default_value = parapet_wire::paths::CONFIG_DIR)]
    config: PathBuf,
    /// What to log: error, warn, info, debug or trace.
    #[arg(
        long,
        env = "PARAPET_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    log: String,
}

const EXAMPLES: &str = "\
Examples:
  ft-monitor                              in the foreground, as systemd runs it
  ft-monitor --log debug --state /tmp/m   to try it out beside nothing else

Exit codes: 0 asked to stop (SIGTERM, SIGINT), 1 cannot run, 2 wrong usage.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::new(&arguments.log);
    // The journal of systemd has its own time stamps.
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
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
