//! `cargo xtask lab`: hosts for people. Each is a fork of a booted host and lives until `down`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use stack_tests::rig::port::Conversation;
use stack_tests::rig::{Host, Shape, dirs, host, qemu};

/// How long a person waits for a delegate that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do with which host.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start a host: a fork of the snapshot, ready in about two seconds (the first ever takes minutes)
    Up {
        /// Its name
        name: String,
        /// plain, measured, systemd, debian12, patched or timed-patched
        #[arg(long, default_value = "plain")]
        shape: String,
        /// Mount target/dist at /lab/dist
        #[arg(long)]
        product: bool,
    },
    /// Run a command in dom0; streams and exit code come back
    Exec {
        /// The host
        name: String,
        /// Program and arguments, no shell in between
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// A shell in dom0
    Shell {
        /// The host
        name: String,
    },
    /// The console of a guest, with stock xl (leave with ^])
    Console {
        /// The host
        name: String,
        /// The guest
        guest: String,
    },
    /// Run a shell command in a guest, typed at its console
    Guest {
        /// The host
        name: String,
        /// The guest
        guest: String,
        /// The command
        command: String,
    },
    /// Copy a file into dom0
    Put {
        /// The host
        name: String,
        /// Here
        local: PathBuf,
        /// There
        remote: String,
    },
    /// Copy a file out of dom0
    Get {
        /// The host
        name: String,
        /// There
        remote: String,
        /// Here; - for standard output
        local: PathBuf,
    },
    /// What Xen and dom0's kernel have said
    Log {
        /// The host
        name: String,
    },
    /// End a host and forget its disks
    Down {
        /// The host
        name: String,
    },
    /// The hosts there are
    List,
}

/// Does it.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.verb {
        Verb::Up {
            name,
            shape,
            product,
        } => up(&name, &shape, product)?,
        Verb::Exec { name, command } => return attach(&name, &command, false),
        Verb::Shell { name } => {
            return with_raw_terminal(|tty| attach(&name, &["bash".into(), "-i".into()], tty));
        }
        Verb::Console { name, guest } => {
            let command = ["/usr/sbin/xl".into(), "console".into(), guest];
            return with_raw_terminal(|tty| attach(&name, &command, tty));
        }
        Verb::Guest {
            name,
            guest,
            command,
        } => {
            let output = Host::open(&name)?.guest(&guest).run(&command)?;
            std::io::stdout().write_all(&output.stdout)?;
            std::io::stderr().write_all(&output.stderr)?;
            return Ok(exit_code(output.code));
        }
        Verb::Put {
            name,
            local,
            remote,
        } => Host::open(&name)?.put(&local, &remote)?,
        Verb::Get {
            name,
            remote,
            local,
        } => {
            let content = Host::open(&name)?.read(&remote)?;
            if local.as_os_str() == "-" {
                std::io::stdout().write_all(&content)?;
            } else {
                std::fs::write(&local, content)
                    .with_context(|| format!("cannot write {}", local.display()))?;
            }
        }
        Verb::Log { name } => print!("{}", Host::open(&name)?.serial()),
        Verb::Down { name } => host::take_down(&name)?,
        Verb::List => list()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, shape: &str, product: bool) -> Result<()> {
    crate::deps::ensure_installed()?;
    let Some(shape) = Shape::named(shape) else {
        bail!("no kind of host is called {shape}")
    };
    Host::start_named(name, &shape)?;
    let host = Host::open(name)?;
    if product {
        host.mount_product()?;
    }
    print!("{}", host.ok(&["/usr/sbin/xl", "list"])?);
    println!(
        "\ncargo xtask lab exec {name} COMMAND…   cargo xtask lab shell {name}   cargo xtask lab down {name}"
    );
    Ok(())
}

fn list() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dirs::part("run")) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let pid = std::fs::read_to_string(path.join("pid")).unwrap_or_default();
        let running = pid
            .trim()
            .parse()
            .is_ok_and(|pid| qemu::is_machine_of(pid, &path));
        let state = if running {
            format!("process {}", pid.trim())
        } else {
            "not running".into()
        };
        println!(
            "{:24} {state}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
    }
    Ok(())
}

fn attach(name: &str, command: &[String], tty: bool) -> Result<ExitCode> {
    let dir = host::run_dir(name);
    if !dir.exists() {
        bail!("no host named {name}; `cargo xtask lab up {name}` makes one");
    }
    Ok(exit_code(
        Conversation::open(&dir, PATIENCE)?.attach(command, tty)?,
    ))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Puts this terminal, if it is one, into raw mode while `work` runs, by way of `stty`.
fn with_raw_terminal(work: impl FnOnce(bool) -> Result<ExitCode>) -> Result<ExitCode> {
    let tty = std::io::stdin().is_terminal();
    if tty {
        Command::new("stty")
            .args(["raw", "-echo"])
            .status()
            .context("cannot run stty")?;
    }
    let outcome = work(tty);
    if tty {
        Command::new("stty")
            .arg("sane")
            .status()
            .context("cannot run stty")?;
    }
    outcome
}
