//! Help texts, made from the command table.

use super::Call;
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
    let mut text = format!(
        "Usage: xl [-v{}] {} {}\n\n{}.\n\n",
        if command.dry_run { "N" } else { "" },
        command.name,
        command.usage,
        command.summary
    );
    if !command.option_help.is_empty() {
        text.push_str("Options:\n\n");
        for (form, what) in command.option_help {
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
