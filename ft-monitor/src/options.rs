//! The command line of `ft-monitor`. Its manual page and completions are made from it.

use clap::Parser;
use std::path::PathBuf;

/// Watches the guests of this host and restarts those that failed.
///
/// Runs in the foreground, with built-in defaults and no configuration file. Which guests are protected, and how they
/// are watched, is said in their configuration (`protect=`, `protect_heartbeat_timeout=`, `protect_probe=`) or with `parapet protect`.
#[derive(Debug, Parser)]
#[command(name = "ft-monitor", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Socket of the agent.
    #[arg(long, env = "PARAPET_AGENT_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::AGENT_SOCKET)]
    pub agent: PathBuf,
    /// Own socket, for `parapet status`, `events` and `availability`.
    #[arg(long, env = "PARAPET_MONITOR_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::MONITOR_SOCKET)]
    pub socket: PathBuf,
    /// Directory of the journal; made when it is not there.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/parapet/monitor")]
    pub state: PathBuf,
    /// Directory with ft-monitor.toml and ft-monitor.d/*.toml, all optional.
    #[arg(long, value_name = "DIR", default_value = parapet_wire::paths::CONFIG_DIR)]
    pub config: PathBuf,
    /// What to log: error, warn, info, debug or trace.
    #[arg(
        long,
        env = "PARAPET_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log: String,
}

const EXAMPLES: &str = "\
Examples:
  ft-monitor                              in the foreground, as systemd runs it
  ft-monitor --log debug --state /tmp/m   to try it out beside nothing else

Exit codes: 0 asked to stop (SIGTERM, SIGINT), 1 cannot run, 2 wrong usage.";
