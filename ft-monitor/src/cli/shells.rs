//! `shells`: the pool of domains that are built in advance.

use super::client::Client;
use super::{CliError, Exit, Output, json, table, written};
use clap::{Args, Subcommand};
use parapet_wire::agent::{Reply, Request, ShellRequest, ShellTemplate};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Reads a guest's xl.cfg for the agent: `DomainConfig` as JSON, or what is wrong with it.
pub type ReadConfig<'a> = &'a dyn Fn(&str) -> Result<String, String>;

const EXAMPLES: &str = "\
Examples:
  parapet shells add web.cfg --count 4  keep four domains ready for guests like this one
  parapet shells list                   what is ready, and why something is missing
  parapet shells drop web               give this kind up
  parapet shells drop                   keep none at all

A guest takes a shell when kernel, ramdisk, command line, kind, memory, vcpus and scheduling
are the same; name, uuid, disks, interfaces and event actions may differ.
Shells are shown by xl list as paused domains named parapet-shell-N.";

/// See [`super::Command::Shells`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct ShellsArguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the pool.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows what is kept ready.
    List(Output),
    /// Keeps domains ready for guests of this configuration; again with the same name changes what is kept.
    Add {
        /// The guests' xl.cfg. Its disks and interfaces do not matter.
        config: String,
        /// How many.
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        count: u32,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Removes what is kept ready, and keeps none any more.
    Drop {
        /// Only what was made from the configuration of this name.
        name: Option<String>,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
}

/// One kind, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    count: u32,
    ready: Vec<u16>,
    memory_kib: u64,
    kernel: &'a str,
    trouble: Option<&'a str>,
}

pub(super) fn run(
    socket: &Path,
    arguments: &ShellsArguments,
    read: ReadConfig<'_>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let (request, output) = match &arguments.action {
        Action::List(output) => (ShellRequest::List, output),
        Action::Add {
            config,
            count,
            output,
        } => {
            let config = read(config).map_err(|text| CliError {
                exit: Exit::Failed,
                text,
            })?;
            let count = *count;
            (ShellRequest::Add { config, count }, output)
        }
        Action::Drop { name, output } => (ShellRequest::Drop { name: name.clone() }, output),
    };
    let mut client = Client::agent(socket)?;
    let Reply::Shells(kinds) = client.ask_agent(&Request::Shells(request))? else {
        return Err(client.strange());
    };
    print(&kinds, output.json, out)
}

fn print(kinds: &[ShellTemplate], as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    if as_json {
        let lines: Vec<Line<'_>> = kinds.iter().map(line).collect();
        return json(out, &lines, true);
    }
    if kinds.is_empty() {
        return writeln!(out, "no shells are kept").map_err(|error| written(&error));
    }
    let rows: Vec<Vec<String>> = kinds.iter().map(row).collect();
    let head = ["Name", "Ready", "Kept", "Mem", "IDs", "Kernel"];
    table::print(out, &head, &rows).map_err(|error| written(&error))?;
    for kind in kinds {
        if let Some(why) = &kind.trouble {
            writeln!(out, "{}: {why}", kind.name).map_err(|error| written(&error))?;
        }
    }
    Ok(())
}

fn line(kind: &ShellTemplate) -> Line<'_> {
    Line {
        name: &kind.name,
        count: kind.count,
        ready: kind.ready.iter().map(|domid| domid.0).collect(),
        memory_kib: kind.memory_kib,
        kernel: &kind.kernel,
        trouble: kind.trouble.as_deref(),
    }
}

fn row(kind: &ShellTemplate) -> Vec<String> {
    let ids: Vec<String> = kind.ready.iter().map(ToString::to_string).collect();
    vec![
        kind.name.clone(),
        kind.ready.len().to_string(),
        kind.count.to_string(),
        (kind.memory_kib / 1024).to_string(),
        if ids.is_empty() {
            "-".to_owned()
        } else {
            ids.join(",")
        },
        kind.kernel.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use xen_abi::ids::DomId;

    fn kinds() -> Vec<ShellTemplate> {
        vec![ShellTemplate {
            name: "web".into(),
            count: 3,
            ready: vec![DomId(4), DomId(7)],
            memory_kib: 131_072,
            kernel: "/boot/vmlinuz".into(),
            trouble: Some("the host is full".into()),
        }]
    }

    #[test]
    fn what_is_missing_is_shown_with_its_reason() {
        let mut out = Vec::new();
        print(&kinds(), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("web   2      3     128  4,7  /boot/vmlinuz"),
            "{text}"
        );
        assert!(text.ends_with("web: the host is full\n"), "{text}");
        let mut out = Vec::new();
        print(&kinds(), true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value[0]["ready"], serde_json::json!([4, 7]));
        let mut out = Vec::new();
        print(&[], false, &mut out).unwrap();
        assert_eq!(out, b"no shells are kept\n");
    }

    #[test]
    fn numbers_beyond_the_bound_are_wrong_usage() {
        for count in ["0", "65", "x"] {
            let words = ["parapet", "shells", "add", "a.cfg", "--count", count];
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2);
        }
        let cli = Cli::try_parse_from(["parapet", "shells", "drop"]).unwrap();
        assert!(matches!(
            cli.command,
            Command::Shells(ShellsArguments {
                action: Action::Drop { name: None, .. }
            })
        ));
    }
}
