//! Writes manual pages and shell completions below the folder given, from the programs' own definitions, and prints the files' names.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use dom0_agent::cli::table::{COMMANDS, Command};

fn main() -> Result<()> {
    let dist = PathBuf::from(
        std::env::args_os()
            .nth(1)
            .context("usage: manuals FOLDER")?,
    );
    let mut files = vec![
        (dist.join("man/xl.1"), xl_page()),
        (dist.join("completions/xl.bash"), xl_bash()),
    ];
    for program in [dom0_agent::daemon::options::Arguments::command()] {
        files.extend(of_program(&dist, program)?);
    }
    for (path, text) in files {
        if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
            fs::create_dir_all(path.parent().unwrap_or(&dist))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{}", path.display());
    }
    Ok(())
}

/// Page and completions of a program that describes itself to clap.
fn of_program(dist: &Path, mut program: clap::Command) -> Result<Vec<(PathBuf, String)>> {
    let name = program.get_name().to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(program.clone())
        .section("8")
        .render(&mut page)?;
    let mut files = vec![(dist.join(format!("man/{name}.8")), String::from_utf8(page)?)];
    for (shell, ending) in [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut program, &name, &mut text);
        files.push((
            dist.join(format!("completions/{name}.{ending}")),
            String::from_utf8(text)?,
        ));
    }
    Ok(files)
}

/// `xl` has its own grammar, and a table of commands instead of a clap definition.
fn xl_page() -> String {
    let mut page = String::from(
        ".TH xl 1\n.SH NAME\nxl \\- manage Xen guests\n.SH SYNOPSIS\n.B xl\n[\\-vfN] \\fIcommand\\fR [\\fIarguments\\fR]\n\
         .SH DESCRIPTION\nCommands, options, output and exit codes are those of Xen's own xl. \
         A prefix that only one command has stands for that command.\n.SH COMMANDS\n",
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
            ".SS \"xl {name} {}\"\n{}{absent}.",
            escaped(usage),
            escaped(summary)
        );
        for (form, what) in *option_help {
            let _ = writeln!(page, ".TP\n.B {}\n{}", escaped(form), escaped(what));
        }
    }
    page
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

fn xl_bash() -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    let mut cases = String::new();
    for command in COMMANDS {
        let options: Vec<String> = command
            .options
            .iter()
            .flat_map(|option| {
                let long = (!option.long.is_empty()).then(|| format!("--{}", option.long));
                [Some(format!("-{}", option.short)), long]
            })
            .flatten()
            .collect();
        if !options.is_empty() {
            let _ = writeln!(
                cases,
                "        {}) words='{}' ;;",
                command.name,
                options.join(" ")
            );
        }
    }
    format!(
        "_xl() {{\n    local current=${{COMP_WORDS[COMP_CWORD]}} words=\n    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='{}'\n    \
         else\n        case ${{COMP_WORDS[1]}} in\n{cases}        esac\n        \
         [[ $current == -* ]] || words=$(xl list 2>/dev/null | awk 'NR > 1 {{ print $1 }}')\n    fi\n    \
         COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}}\ncomplete -o default -F _xl xl\n",
        names.join(" ")
    )
}
