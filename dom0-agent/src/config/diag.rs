//! What is said about a configuration, in the wording of stock xl, and the error that ends its reading.
//!
//! A [`Diagnostic`] is one or more lines for standard error. Messages that stock xl prints start with the same bytes
//! as there (`FILE:LINE: config parsing error near ...`), so scripts that match them still work; the column that
//! stock does not know comes last, in parentheses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where something stands in a configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
}

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For the debug log only.
    Debug,
    /// Printed; the configuration is still good.
    Warning,
    /// Printed; the configuration cannot be used.
    Error,
}

/// One message for the person who wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Where it is about, when that is one place.
    pub pos: Option<Pos>,
    /// The text, complete, without a final newline.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything said about one configuration, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The messages in the order in which stock xl would print them.
    pub items: Vec<Diagnostic>,
}

impl Report {
    /// Adds a warning.
    pub fn warn(&mut self, pos: Option<Pos>, text: impl Into<String>) {
        self.push(Severity::Warning, pos, text.into());
    }

    /// Adds an error.
    pub fn error(&mut self, pos: Option<Pos>, text: impl Into<String>) {
        self.push(Severity::Error, pos, text.into());
    }

    /// Adds a note for the debug log.
    pub fn debug(&mut self, pos: Option<Pos>, text: impl Into<String>) {
        self.push(Severity::Debug, pos, text.into());
    }

    fn push(&mut self, severity: Severity, pos: Option<Pos>, text: String) {
        self.items.push(Diagnostic {
            severity,
            pos,
            text,
        });
    }

    /// Whether any message is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|d| d.severity == Severity::Error)
    }

    /// What goes to standard error: every warning and error, one per line, each line ended.
    #[must_use]
    pub fn printed(&self) -> String {
        let shown = self.items.iter().filter(|d| d.severity > Severity::Debug);
        shown.fold(String::new(), |all, d| all + &d.text + "\n")
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .report.printed().trim_end())]
pub struct ConfigError {
    /// What was said, the fatal message last.
    pub report: Report,
    /// Exit code that stock xl ends with: 1, or 3 where it exits with a negated libxl error.
    pub exit_code: u8,
}

/// The reason for which reading stopped, before it is joined to what was said earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// Where, when that is one place.
    pub pos: Option<Pos>,
    /// The complete text.
    pub text: String,
    /// As in [`ConfigError`].
    pub exit_code: u8,
}

impl Fatal {
    /// A fatal message with the usual exit code 1.
    pub fn new(pos: Option<Pos>, text: impl Into<String>) -> Self {
        Self {
            pos,
            text: text.into(),
            exit_code: 1,
        }
    }

    /// The same message with libxl's `ERROR_FAIL` as exit code, as stock does in a few places.
    #[must_use]
    pub fn exiting_3(mut self) -> Self {
        self.exit_code = 3;
        self
    }

    /// Joins this to what was said before.
    #[must_use]
    pub fn after(self, mut report: Report) -> ConfigError {
        report.error(self.pos, self.text);
        ConfigError {
            report,
            exit_code: self.exit_code,
        }
    }
}
