//! The command line of `parapet-link`. Its manual page and completions are made from it.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// User that the listener runs as. The agent knows this name: it may ask for guests to be taken.
pub const USER: &str = "parapet-link";

const EXAMPLES: &str = "\
Examples:
  parapet-link                               in the foreground; started by root, it becomes parapet-link
  parapet-link --listen 192.0.2.1:8402       at one address only

Exit codes: 0 asked to stop (SIGTERM, SIGINT), 1 cannot run, 2 wrong usage.";

/// Takes guests that linked hosts send.
///
/// Runs in the foreground, with no configuration file. Which hosts are linked, and with which certificates, is said by `parapet link`. A socket that
/// systemd passes (parapet-link.socket) is taken in place of one of its own, and the key among systemd's credentials in place of the one in the folder.
#[derive(Debug, Parser)]
#[command(name = "parapet-link", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Address and port to listen at; default: port 8402 of every address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Socket of the agent.
    #[arg(long, env = "PARAPET_AGENT_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::AGENT_SOCKET)]
    pub agent: PathBuf,
    /// Folder of this host's key and of the hosts it is linked with.
    #[arg(long, env = parapet_wire::link::FOLDER_VARIABLE, value_name = "DIR", default_value = parapet_wire::paths::LINK_DIR)]
    pub folder: PathBuf,
    /// What to log: error, warn, info, debug or trace.
    #[arg(
        long,
        env = "PARAPET_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log: String,
}
