//! Help texts, made from the command table.

use super::Call;
use super::extras::{Program, extras};
use super::reach::Failure;
use super::table::{self, COMMANDS, Command};
use crate::format::help as text;
use std::fmt::Write;

/// Widest option form that still leaves its explanation on the same line.
const OPTION_COLUMN: usize = 30;

/// `xl help`.
#[must_use]
pub fn listing() -> String {
    text::listing(
        COMMANDS
            .iter()
            .map(|command| (command.name, command.summary)),
    )
}

/// `xl help <command>`.
#[must_use]
pub fn of(command: &Command) -> String {
    of_as(Program::Xl, command)
}

/// As [`of`], by the name of this program, with what it has besides.
#[must_use]
pub fn of_as(program: Program, command: &Command) -> String {
    let mut text = format!(
        "Usage: {} [-v{}] {} {}\n\n{}.\n\n",
        program.name(),
        if command.dry_run { "N" } else { "" },
        command.name,
        command.usage,
        command.summary
    );
    let more = extras(program, command).help;
    if !command.option_help.is_empty() {
        text.push_str("Options:\n\n");
        for (form, what) in command.option_help.iter().chain(more) {
            let _ = writeln!(text, "{form:<OPTION_COLUMN$} {what}");
        }
        text.push('\n');
    }
    text
}

/// The `help` command.
///
/// # Errors
/// stdout is gone.
pub fn run(call: &mut Call<'_>) -> Result<u8, Failure> {
    let text = match call.parsed.operands.first() {
        None => listing(),
        Some(name) => match table::lookup(name) {
            Some(command) => of(command),
            None => format!("command \"{name}\" not implemented\n"),
        },
    };
    call.out.write_all(text.as_bytes())?;
    Ok(0)
}
