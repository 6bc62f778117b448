//! Writes manual pages and shell completions below the folder given, from the programs' own definitions, and prints the files' names.
//!
//! | program | its definition |
//! |---|---|
//! | `xl` | the table of commands in `dom0_agent::cli::table` |
//! | `parapet`, `dom0-agent`, `ft-monitor`, `parapet-link`, `split-driver` | what clap parses |
//! | `parapet-guest` | its own `--help`, of the static program beside the others |

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::CommandFactory;
use clap_complete::Shell;
use dom0_agent::cli::table::{COMMANDS, Command};
use parapet_wire::agent::FailureKind;

/// Release that the pages are about.
const RELEASE: &str = concat!("Parapet ", env!("CARGO_PKG_VERSION"));
/// What `xl create` ends with when the agent says no.
const CREATE_CODES: [(FailureKind, &str); 7] = [
    (
        FailureKind::Failed,
        "a file that cannot be used, not enough memory, a name or uuid in use, any other failure",
    ),
    (
        FailureKind::NotImplemented,
        "the configuration asks for something that is not there yet",
    ),
    (FailureKind::Invalid, "the configuration cannot be used"),
    (
        FailureKind::GuestTimedOut,
        "the guest did not answer in time",
    ),
    (
        FailureKind::TimedOut,
        "something of the host did not answer in time",
    ),
    (
        FailureKind::NotPermitted,
        "the caller may not do this; it needs root",
    ),
    (FailureKind::NoDomain, "no such domain"),
];

fn main() -> Result<()> {
    let dist = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .context("usage: manuals FOLDER")?,
    );
    let mut files = BTreeMap::from([
        ("man/xl.1".to_owned(), xl_page()),
        ("completions/xl.bash".to_owned(), xl_bash()),
        ("man/parapet-guest.8".to_owned(), guest_page(&dist)?),
    ]);
    for (section, program) in [
        ("1", ft_monitor::cli::Cli::command()),
        ("8", dom0_agent::daemon::options::Arguments::command()),
        ("8", ft_monitor::options::Arguments::command()),
        ("8", parapet_link::options::Arguments::command()),
        ("8", split_drivers::control::options::Arguments::command()),
    ] {
        of_program(&mut files, section, program)?;
    }
    for (name, text) in files {
        let path = dist.join(name);
        if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
            fs::create_dir_all(path.parent().unwrap_or(&dist))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}", path.display());
    }
    Ok(())
}

/// Pages and completions of a program that describes itself to clap; a subcommand has a page of its own.
fn of_program(
    files: &mut BTreeMap<String, String>,
    section: &str,
    mut program: clap::Command,
) -> Result<()> {
    program = program.disable_help_subcommand(true);
    program.build();
    let name = program.get_name().to_owned();
    let mut pages = vec![(name.clone(), program.clone())];
    for sub in program.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages.push((format!("{name}-{}", sub.get_name()), sub.clone()));
    }
    for (title, command) in pages {
        let text = page(&title, section, command)?;
        files.insert(format!("man/{title}.{section}"), text);
    }
    for (shell, ending) in [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut program, &name, &mut text);
        files.insert(
            format!("completions/{name}.{ending}"),
            String::from_utf8(text)?,
        );
    }
    Ok(())
}

/// The page of one command. What stands behind the options in its help, examples and exit codes, gets sections of its own, line by line.
fn page(title: &str, section: &str, command: clap::Command) -> Result<String> {
    let behind = command
        .get_after_long_help()
        .or(command.get_after_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let (options, subcommands) = (
        command.get_arguments().next().is_some(),
        command.has_subcommands(),
    );
    let man = clap_mangen::Man::new(command)
        .title(title)
        .section(section)
        .source(RELEASE);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if options {
        man.render_options_section(&mut text)?;
    }
    if subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    Ok(String::from_utf8(text)? + &sections(&behind))
}

/// Paragraphs that begin with a heading and a colon, as sections. Examples keep their lines.
fn sections(text: &str) -> String {
    text.split("\n\n")
        .filter_map(|paragraph| paragraph.trim().split_once(':'))
        .map(|(heading, body)| {
            let lines: Vec<&str> = body.trim().lines().map(str::trim).collect();
            let body = escaped(&lines.join("\n"));
            match heading {
                "Examples" => format!(".SH EXAMPLES\n.nf\n{body}\n.fi\n"),
                "Exit codes" => format!(".SH EXIT STATUS\n{body}\n"),
                other => format!(".SH {}\n{body}\n", other.to_uppercase()),
            }
        })
        .collect()
}

/// `parapet-guest` parses its command line by hand, to stay small: its page shows what it says of itself.
fn guest_page(dist: &Path) -> Result<String> {
    let program = dist.join("bin/parapet-guest");
    let output = std::process::Command::new(&program)
        .arg("--help")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} --help failed",
        program.display()
    );
    let help = String::from_utf8(output.stdout)?;
    let (title, text) = help.split_once("\n\n").unwrap_or((&help, ""));
    let what = title.split_once(" - ").map_or(title, |(_, what)| what);
    Ok(format!(
        ".TH parapet\\-guest 8 \"\" \"{RELEASE}\"\n.SH NAME\nparapet\\-guest \\- {}\n.SH DESCRIPTION\n.nf\n{}.fi\n",
        escaped(what),
        escaped(text)
    ))
}

/// `xl` has its own grammar, and a table of commands instead of a clap definition.
fn xl_page() -> String {
    let mut page = format!(
        ".TH xl 1 \"\" \"{RELEASE}\"\n.SH NAME\nxl \\- manage Xen guests\n.SH SYNOPSIS\n.B xl\n[\\-vfN] \\fIcommand\\fR [\\fIarguments\\fR]\n\
         .SH DESCRIPTION\nCommands, options, output and exit codes are those of Xen's own xl. \
         A prefix that only one command has stands for that command. Options may stand anywhere among the arguments; \\-\\- ends them.\n\
         .PP\nCommands that only read ask Xen and xenstore. Those that create, change or destroy ask the agent, dom0\\-agent(8). \
         All of them need root.\n\
         .SH GLOBAL OPTIONS\n\
         .TP\n.B \\-v\nsay more; create tells what it cost\n\
         .TP\n.B \\-N\nsay what would be done and do nothing, where the command can\n\
         .TP\n.B \\-f, \\-t, \\-T\naccepted, without effect\n\
         .SH COMMANDS\n"
    );
    for command in COMMANDS {
        let Command {
            name,
            usage,
            summary,
            option_help,
            run,
            ..
        } = command;
        let absent = if run.is_none() {
            " (not there yet)"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            ".SS \"xl {} {}\"\n{}{absent}.",
            escaped(name),
            escaped(usage),
            escaped(summary.trim_end_matches('.'))
        );
        for (form, what) in *option_help {
            let _ = writeln!(page, ".TP\n.B {}\n{}", escaped(form), escaped(what));
        }
    }
    page.push_str(
        ".SH EXIT STATUS\n.TP\n.B 0\ndone\n.TP\n.B 1\nfailed, or not there yet\n.TP\n.B 2\nwrong usage\n.PP\n\
         When the agent refuses a guest, create ends with the number of the libxl error:\n",
    );
    for (kind, what) in CREATE_CODES {
        let _ = writeln!(page, ".TP\n.B {}\n{what}", kind.create_exit_code());
    }
    page.push_str(
        ".SH ENVIRONMENT\n.TP\n.B PARAPET_AGENT_SOCKET\nanother socket of the agent than /run/parapet/agent.sock\n\
         .TP\n.B XENSTORED_PATH\nanother socket of xenstored\n\
         .SH FILES\n.TP\n.I /etc/xen/xl.conf\nhost\\-wide settings, see xl.conf(5)\n\
         .SH SEE ALSO\nxl.cfg(5), parapet(1), dom0\\-agent(8), ft\\-monitor(8)\n",
    );
    page
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A line that begins with a dot or a quote would be a request.
    text.lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
        + if text.ends_with('\n') { "\n" } else { "" }
}

/// Completes commands, their options, and names of domains where a command takes one; files everywhere else.
fn xl_bash() -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let mut options = String::new();
    for command in COMMANDS {
        let forms: Vec<String> = command
            .options
            .iter()
            .flat_map(|option| {
                let long = (!option.long.is_empty()).then(|| format!("--{}", option.long));
                [Some(format!("-{}", option.short)), long]
            })
            .flatten()
            .collect();
        if !forms.is_empty() {
            let _ = writeln!(
                options,
                "            {}) words='{}' ;;",
                command.name,
                forms.join(" ")
            );
        }
    }
    let with_domain: Vec<&str> = COMMANDS
        .iter()
        .filter(|command| command.usage.contains("Domain"))
        .map(|command| command.name)
        .collect();
    format!(
        "_xl() {{\n    local current=${{COMP_WORDS[COMP_CWORD]}} words= at=1\n    \
         while [[ $at -lt $COMP_CWORD && ${{COMP_WORDS[at]}} == -* ]]; do at=$((at + 1)); done\n    \
         if [[ $at -eq $COMP_CWORD ]]; then\n        words='{}'\n    \
         elif [[ $current == -* ]]; then\n        case ${{COMP_WORDS[at]}} in\n{options}        esac\n    \
         else\n        case ${{COMP_WORDS[at]}} in\n            \
         {}) words=$(xl list 2>/dev/null | awk 'NR > 1 {{ print $1 }}') ;;\n            \
         help) words='{0}' ;;\n        esac\n    fi\n    \
         COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}}\ncomplete -o default -F _xl xl\n",
        names.join(" "),
        with_domain.join("|")
    )
}
