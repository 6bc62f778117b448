//! The `parapet` commands that are not xl's: status, events, availability, guests, protect, upgrade-drivers, settle, shells, link.
//!
//! ```text
//!   status, events, availability ──▶ ft-monitor's socket
//!   guests, protect, upgrade-drivers, settle, shells ──▶ dom0-agent's socket
//!   link ──▶ files, and parapet-link on another host
//!   anything else ──▶ the xl commands (forwarded by the binary)
//! ```
//!
//! Data goes to stdout, everything else to stderr. The exit codes are in [`Exit`] and in `parapet --help`.

mod client;
pub mod link;
mod protect;
pub mod shells;
mod show;
mod table;

use clap::{Args, Parser, Subcommand, ValueEnum};
use parapet_wire::agent::Protection;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it says.
    Done,
    /// It was refused, or failed; the message says why.
    Failed,
    /// The monitor or the agent does not run.
    NotRunning,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::NotRunning => ExitCode::from(3),
        }
    }
}

/// One message for stderr, and how to end.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct CliError {
    /// How to end.
    pub exit: Exit,
    /// What happened and what helps.
    pub text: String,
}

const EXAMPLES: &str = "\
Examples:
  parapet status                        guests, how they are, what is done about it
  parapet events --follow               what happens, as it happens
  parapet events --guest web1 --last 20 the last 20 events of one guest
  parapet availability --json           outages of all guests, for scripts
  parapet protect web1 restart --heartbeat 10 --probe tcp:10.0.0.5:80
  parapet shells add web.cfg --count 4  domains built in advance, so that create takes no time
  parapet link init                     this host's key, so that guests move without ssh
  parapet create web1.cfg               every xl command works here as well
  parapet migrate --with-disks web1 host2   moves a guest and its disks

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 monitor or agent not running;
xl commands keep xl's own.";

/// Looks after the guests of this host.
#[derive(Debug, Parser)]
#[command(name = "parapet", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Socket of the monitor.
    #[arg(long, global = true, env = "PARAPET_MONITOR_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::MONITOR_SOCKET)]
    pub monitor: PathBuf,
    /// Socket of the agent.
    #[arg(long, global = true, env = "PARAPET_AGENT_SOCKET", value_name = "PATH", default_value = parapet_wire::paths::AGENT_SOCKET)]
    pub agent: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows every guest: how it is, how it is watched, what is being done about it.
    Status(Output),
    /// Shows what happened to guests, agent and monitor.
    Events {
        /// Go on with what happens from now on, until interrupted.
        #[arg(short, long)]
        follow: bool,
        /// Only this guest (name or uuid).
        #[arg(short, long, value_name = "GUEST")]
        guest: Option<String>,
        /// At most this many of the past.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        last: u32,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Shows outages and what may honestly be said about availability.
    Availability {
        /// Only this guest (name or uuid).
        guest: Option<String>,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Lists the guests that the agent manages.
    Guests(Output),
    /// Changes how a running guest is protected and watched; it is not restarted.
    Protect(ProtectArguments),
    /// Replaces driver processes by new ones; the guests see a short pause.
    UpgradeDrivers {
        /// Only this guest's (name, domain id or uuid); all otherwise.
        guest: Option<String>,
    },
    /// Says where a guest runs that was given to another host, which then did not answer.
    ///
    /// `xl migrate` says when this is needed. Look at the other host first (`xl list`): a guest that runs at both ends destroys its disk.
    Settle {
        /// The guest as it is called here now: NAME--migratedaway, its domain id or uuid.
        guest: String,
        /// Where it runs.
        whereabouts: Whereabouts,
    },
    /// Keeps domains built in advance, which `create` only has to name and start.
    Shells(shells::ShellsArguments),
    /// Links this host with others, for moves of guests without ssh.
    Link(link::LinkArguments),
    /// Any xl command.
    #[command(external_subcommand)]
    Xl(Vec<String>),
}

/// How to print.
#[derive(Debug, Args)]
pub struct Output {
    /// As JSON, times in milliseconds.
    #[arg(long)]
    pub json: bool,
}

/// See [`Command::Protect`].
#[derive(Debug, Args)]
pub struct ProtectArguments {
    /// Name, domain id or uuid.
    pub guest: String,
    /// What is promised.
    pub class: Class,
    /// Silence of parapet-guest after which the guest counts as hung, in seconds; 0: not watched.
    #[arg(long, value_name = "SECONDS")]
    pub heartbeat: Option<u64>,
    /// A question from outside: `tcp:ADDR:PORT`, `http://ADDR[:PORT]/path` or `ping:ADDR`. Repeat for more; replaces the present ones.
    #[arg(long, value_name = "PROBE")]
    pub probe: Vec<String>,
    /// No questions from outside.
    #[arg(long, conflicts_with = "probe")]
    pub no_probe: bool,
    /// Restarts within an hour before the monitor gives up.
    #[arg(long, value_name = "N")]
    pub max_restarts: Option<u32>,
}

/// Where a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whereabouts {
    /// Not on the other host, and it never will: it goes on here.
    Here,
    /// On the other host: what is left of it here goes.
    There,
}

/// Protection classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// Only the event actions of its configuration.
    None,
    /// Restarted in place when it fails.
    Restart,
    /// As restart; also on the other host when this one fails, once there is a pair.
    Failover,
    /// As failover, without losing work, once there is a pair.
    Continuous,
}

impl From<Class> for Protection {
    fn from(class: Class) -> Self {
        match class {
            Class::None => Self::None,
            Class::Restart => Self::Restart,
            Class::Failover => Self::Failover,
            Class::Continuous => Self::Continuous,
        }
    }
}

/// Runs one of our own commands; `xl` is given the words of any other, and `read` reads guests' configurations.
pub fn run(
    cli: Cli,
    out: &mut dyn Write,
    xl: impl FnOnce(&[String]) -> ExitCode,
    read: shells::ReadConfig<'_>,
) -> ExitCode {
    let result = match &cli.command {
        Command::Xl(words) => return xl(words),
        Command::Status(output) => show::status(&cli.monitor, output.json, out),
        Command::Events {
            follow,
            guest,
            last,
            json,
        } => show::events(&cli.monitor, *last, guest.clone(), *follow, *json, out),
        Command::Availability { guest, output } => {
            show::availability(&cli.monitor, guest.clone(), output.json, out)
        }
        Command::Guests(output) => protect::guests(&cli.agent, output.json, out),
        Command::Protect(arguments) => protect::protect(&cli.agent, arguments, out),
        Command::UpgradeDrivers { guest } => {
            protect::upgrade_drivers(&cli.agent, guest.as_deref(), out)
        }
        Command::Settle { guest, whereabouts } => {
            protect::settle(&cli.agent, guest, *whereabouts, out)
        }
        Command::Shells(arguments) => shells::run(&cli.agent, arguments, read, out),
        Command::Link(arguments) => match link::run(arguments, out) {
            Ok(None) => Ok(()),
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
    };
    match result.and_then(|()| out.flush().map_err(|error| written(&error))) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            // A reader that has seen enough (`| head`) is no failure worth a word.
            if !error.text.is_empty() {
                eprintln!("parapet: {error}");
            }
            error.exit.into()
        }
    }
}

fn written(error: &std::io::Error) -> CliError {
    let text = match error.kind() {
        std::io::ErrorKind::BrokenPipe => String::new(),
        _ => format!("cannot write the answer: {error}"),
    };
    CliError {
        exit: Exit::Failed,
        text,
    }
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize, pretty: bool) -> Result<(), CliError> {
    let text = match pretty {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    let text = text.map_err(|error| CliError {
        exit: Exit::Failed,
        text: format!("JSON: {error}"),
    })?;
    writeln!(out, "{text}").map_err(|error| written(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn any_other_command_is_xls_with_all_its_options() {
        let cli = Cli::try_parse_from(["parapet", "create", "-p", "a.cfg", "memory=1"]).unwrap();
        let Command::Xl(words) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(words, ["create", "-p", "a.cfg", "memory=1"]);
    }

    #[test]
    fn wrong_usage_is_told_from_failure() {
        let error = Cli::try_parse_from(["parapet", "protect", "web1", "sometimes"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("continuous"), "{error}");
    }
}
