//! The `xl` command: stock names, options, output and exit codes.
//!
//! ```text
//!   argv ──globals──▶ command (exact, or the one prefix) ──getopt──▶ Call ──run──▶ exit code
//! ```
//!
//! [`table`] holds every command of stock xl; those that are not there yet say so and exit 1. Data goes to stdout, all chatter to stderr.

pub mod agent;
pub mod block;
pub mod config_file;
pub mod console;
pub mod create;
pub mod details;
pub mod domain;
pub mod dump;
pub mod extras;
pub mod follow;
pub mod getopt;
pub mod help;
pub mod info;
pub mod lifecycle;
pub mod list;
pub mod migrate;
pub mod network;
pub mod offline;
pub mod power;
pub mod reach;
pub mod save;
pub mod table;

use extras::{Program, extras};
use getopt::Parsed;
use reach::{Failure, Reach, RealHost};
use std::io::Write;
use std::process::ExitCode;
use table::Command;

/// Options before the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Globals {
    /// `-v`, repeatable.
    pub verbose: u8,
    /// `-N`: say what would be done.
    pub dry_run: bool,
    /// `-f`.
    pub force: bool,
}

/// One invocation of a command.
pub struct Call<'a> {
    /// The host.
    pub reach: &'a dyn Reach,
    /// Data.
    pub out: &'a mut dyn Write,
    /// Chatter and errors.
    pub err: &'a mut dyn Write,
    /// Options before the command.
    pub globals: Globals,
    /// Options and operands.
    pub parsed: Parsed,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("globals", &self.globals)
            .field("parsed", &self.parsed)
            .finish_non_exhaustive()
    }
}

impl Call<'_> {
    /// Operand `n`; the table's minimum guarantees those that a command needs.
    #[must_use]
    pub fn operand(&self, n: usize) -> &str {
        self.parsed.operands.get(n).map_or("", String::as_str)
    }
}

/// Exit code for a command line that cannot be understood.
pub const USAGE: u8 = 2;

/// Runs `xl` with the process's arguments on the real host.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    run(Program::Xl, &arguments)
}

/// Runs the xl commands by this name with these arguments on the real host.
#[must_use]
pub fn run(program: Program, arguments: &[String]) -> ExitCode {
    let reach = RealHost::default();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let code = dispatch_as(program, &reach, arguments, &mut out, &mut std::io::stderr());
    let flushed = out.flush();
    ExitCode::from(if flushed.is_err() && code == 0 {
        1
    } else {
        code
    })
}

/// Runs `xl` with these arguments; answers the exit code.
pub fn dispatch(
    reach: &dyn Reach,
    arguments: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    dispatch_as(Program::Xl, reach, arguments, out, err)
}

/// As [`dispatch`], by the name of this program.
pub fn dispatch_as(
    program: Program,
    reach: &dyn Reach,
    arguments: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (globals, rest) = match split_globals(arguments) {
        Ok(split) => split,
        Err(()) => {
            let _ = writeln!(err, "unknown global option");
            return 1;
        }
    };
    let Some((name, arguments)) = rest.split_first() else {
        let _ = write!(out, "{}", help::listing());
        return 1;
    };
    let Some(command) = table::lookup(name) else {
        let _ = writeln!(err, "command not implemented");
        return 1;
    };
    if globals.dry_run && !command.dry_run {
        let _ = writeln!(err, "command does not implement -N (dryrun) option");
        return 1;
    }
    let more = extras(program, command);
    let known = [command.options, more.options].concat();
    let parsed = match getopt::parse(&known, arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = writeln!(err, "{error}");
            return USAGE;
        }
    };
    if parsed.help {
        let _ = write!(out, "{}", help::of_as(program, command));
        return 0;
    }
    if parsed.operands.len() < command.least {
        let _ = writeln!(
            err,
            "'{} {}' requires at least {} argument{}.\n",
            program.name(),
            command.name,
            command.least,
            if command.least > 1 { "s" } else { "" }
        );
        let _ = write!(out, "{}", help::of_as(program, command));
        return USAGE;
    }
    perform(
        command,
        Call {
            reach,
            out,
            err,
            globals,
            parsed,
        },
    )
}

fn perform(command: &Command, mut call: Call<'_>) -> u8 {
    let Some(run) = command.run else {
        let _ = writeln!(
            call.err,
            "xl {}: not there yet in this release of Parapet",
            command.name
        );
        return 1;
    };
    match run(&mut call) {
        Ok(code) => code,
        Err(Failure { text, code }) => {
            if !text.is_empty() {
                let _ = writeln!(call.err, "{text}");
            }
            code
        }
    }
}

fn split_globals(arguments: &[String]) -> Result<(Globals, &[String]), ()> {
    let mut globals = Globals::default();
    let mut rest = arguments;
    while let Some((first, tail)) = rest.split_first() {
        let Some(letters) = first
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty())
        else {
            break;
        };
        for letter in letters.chars() {
            match letter {
                'v' => globals.verbose = globals.verbose.saturating_add(1),
                'N' => globals.dry_run = true,
                'f' => globals.force = true,
                't' | 'T' => {}
                _ => return Err(()),
            }
        }
        rest = tail;
    }
    Ok((globals, rest))
}
