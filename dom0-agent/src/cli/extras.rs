//! Options that xl commands have where `parapet` runs them, and nowhere else: stock's command line stays stock's.
//!
//! They have long forms only, so that no letter of a later release of stock's is taken.

use super::getopt::{Opt, flag};
use super::table::Command;

/// By which name the commands are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// As stock has them.
    Xl,
    /// With [`extras`].
    Parapet,
}

impl Program {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xl => "xl",
            Self::Parapet => "parapet",
        }
    }
}

/// `--with-disks`, by a letter that nobody types (of the private use area).
pub const WITH_DISKS: char = '\u{e000}';
/// `--replace-disks`.
pub const REPLACE_DISKS: char = '\u{e001}';

/// What one command has besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// Options.
    pub options: &'static [Opt],
    /// A line of help for each.
    pub help: &'static [(&'static str, &'static str)],
}

const DISKS: &[Opt] = &[
    flag(WITH_DISKS, "with-disks"),
    flag(REPLACE_DISKS, "replace-disks"),
];
const NONE: Extras = Extras {
    options: &[],
    help: &[],
};

/// The options that a command has besides stock's.
#[must_use]
pub fn extras(program: Program, command: &Command) -> Extras {
    match (program, command.name) {
        (Program::Parapet, "migrate") => Extras {
            options: DISKS,
            help: &[
                (
                    "--with-disks",
                    "copy its disks there while it runs; `parapet` must be there as well",
                ),
                (
                    "--replace-disks",
                    "with it: replace images that are there and not empty",
                ),
            ],
        },
        (Program::Parapet, "migrate-receive") => Extras {
            options: DISKS,
            help: &[
                ("--with-disks", "its disks come along"),
                (
                    "--replace-disks",
                    "replace images that are there and not empty",
                ),
            ],
        },
        (Program::Xl | Program::Parapet, _) => NONE,
    }
}
