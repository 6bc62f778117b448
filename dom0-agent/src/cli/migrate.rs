//! migrate and migrate-receive: the two commands make the connection, with the caller's rights, and begin it; what follows the header is the agents'.
//!
//! ```text
//!   xl migrate ──sh -c "exec ssh HOST xl migrate-receive"──▶ xl migrate-receive          (a linked host: parapet link connect HOST ...)
//!       │ ◀──────────────────── banner ─────────────────────────── │
//!       │ ───────────────── header of a save file ───────────────▶ │
//!   both ends of the pipe                              standard input and output
//!       ▼                                                          ▼
//!   agent ═══════════ libxl stream, then the handshake ═════════ agent
//! ```
//!
//! The transport ignores Ctrl-C: an agent that has given the guest away must be able to hear the answer although its command was interrupted. It ends
//! when the agent lets go of it.

use super::agent::AskError;
use super::extras::{Program, REPLACE_DISKS, WITH_DISKS};
use super::reach::{Failure, Wire};
use super::{Call, config_file, domain, save};
use crate::agent::receive::{INCOMING_SUFFIX, STALL};
use crate::config::unserved;
use crate::config::xlconf::XlConf;
use crate::format::json;
use crate::peer::Incoming;
use parapet_wire::agent::{
    Create, FailureKind, Migrate, Moved, Receive, ReceiveDisks, Reply, Request,
};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use xen_stream::handshake::{self, Message};
use xen_stream::xl_file::XlHeader;
use xen_stream::{Event, Layer, Mode, Reader};

/// Longest time for the other side's first word: somebody may have to type a password.
const BANNER_PATIENCE: Duration = Duration::from_secs(120);
/// Times the other host is asked what became of a guest that it was given, and the pause between them.
const QUESTIONS: u32 = 10;
const QUESTION_PAUSE: Duration = Duration::from_secs(1);
/// What connects hosts that are not linked unless somebody says otherwise.
const DEFAULT_SHELL: &str = "ssh";

/// `migrate`.
///
/// # Errors
/// No such domain, no connection, a guest that could not be moved; all end with 1.
pub fn migrate(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = domain::resolve(call.reach, call.operand(0))?;
    let config = match call.parsed.value('C').map(str::to_owned) {
        Some(path) => Some(save::other_config(call, &path)?),
        None => None,
    };
    let ignored = ['D', 'F']
        .into_iter()
        .filter(|option| call.parsed.has(*option));
    let ignored = ignored.map(|option| format!("-{option}"));
    if let Some(warning) = unserved::warning("command line", ignored) {
        writeln!(call.err, "{warning}")?;
    }
    let request = Request::Migrate(Migrate {
        domid,
        config,
        live: true,
        verify: call.parsed.has('d'),
        max_downtime_ms: max_downtime(call)?,
        with_disks: with_disks(call)?,
    });
    let name = domain::names(call.reach, &[domid])?;
    let name = name.into_iter().flatten().next().unwrap_or_default();
    let info = call.reach.domains()?.domain_info(domid)?;
    // The other host is not bothered for a guest that cannot be moved.
    let mut agent = call.reach.agent()?;
    let Reply::SendFile { config } = agent.ask(&request)? else {
        return Err(Failure::new("the agent answered something else"));
    };
    let mut transport = Transport::start(call)?;
    let asked = transport.greet(call, &config).map(|()| {
        let err = &mut call.err;
        agent.lend(
            &[transport.to.as_fd(), transport.from.as_fd()],
            &mut |line| drop(writeln!(err, "{line}")),
        )
    });
    transport.let_go();
    let asked = match asked? {
        Err(AskError::Refused(failure)) if failure.kind == FailureKind::Undefined => {
            let uuid = info.map(|info| info.handle.to_string()).unwrap_or_default();
            if runs_there(call, &name, &uuid)? {
                writeln!(
                    call.err,
                    "migration sender: the answer was lost, and {name} runs on the other host."
                )?;
                let mut agent = call.reach.agent()?;
                let settled = Request::SettleMove { domid, here: false };
                agent.ask(&settled).map(|_| None)
            } else {
                Err(AskError::Refused(failure))
            }
        }
        other => other.map(Some),
    };
    finish(call, asked)
}

/// Whether the other host says that it runs the guest. Only this is taken for an answer: one that is not there may have run and ended.
fn runs_there(call: &mut Call<'_>, name: &str, uuid: &str) -> Result<bool, Failure> {
    let Some(line) = remote(call, Program::Xl, "list -v") else {
        return Ok(false);
    };
    for turn in 0..QUESTIONS {
        if turn > 0 {
            std::thread::sleep(QUESTION_PAUSE);
        }
        let asked = Command::new("sh")
            .args(["-c", &format!("exec {line}")])
            .stdin(Stdio::null())
            .output();
        let Ok(answer) = asked else {
            continue;
        };
        let listing = String::from_utf8_lossy(&answer.stdout);
        match name_in(&listing, uuid) {
            Some(found) if found == name => return Ok(true),
            // It has not decided yet, or does not answer.
            Some(found) if found == format!("{name}{INCOMING_SUFFIX}") => {}
            _ if !answer.status.success() => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// The name of the domain of this uuid in the listing of `xl list -v`.
fn name_in<'a>(listing: &'a str, uuid: &str) -> Option<&'a str> {
    let mut lines = listing.lines();
    let line = lines.find(|line| line.split_whitespace().any(|word| word == uuid))?;
    line.split_whitespace().next()
}

/// Whether disks go along; one of the two options means nothing without the other.
fn with_disks(call: &Call<'_>) -> Result<bool, Failure> {
    let with = call.parsed.has(WITH_DISKS);
    if call.parsed.has(REPLACE_DISKS) && !with {
        return Err(Failure::new("--replace-disks goes with --with-disks"));
    }
    Ok(with)
}

/// Milliseconds that the guest should stand still at most for the sake of its memory.
fn max_downtime(call: &Call<'_>) -> Result<Option<u64>, Failure> {
    let text = call.parsed.value('m');
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| {
        let text = text.unwrap_or_default();
        Failure::new(format!(
            "--max-downtime {text}: give a number of milliseconds"
        ))
    })
}

/// Says how it ended.
fn finish(call: &mut Call<'_>, answer: Result<Option<Reply>, AskError>) -> Result<u8, Failure> {
    match answer {
        Ok(None) => {
            writeln!(call.err, "Migration successful.")?;
            Ok(0)
        }
        Ok(Some(Reply::Moved(moved))) => {
            writeln!(call.err, "Migration successful.")?;
            writeln!(call.err, "{}", told(&moved))?;
            Ok(0)
        }
        Ok(Some(_)) => Err(Failure::new("the agent answered something else")),
        Err(AskError::Refused(failure)) if failure.kind == FailureKind::Undefined => {
            writeln!(call.err, "** Migration failed during final handshake **")?;
            writeln!(call.err, "Domain state is now undefined !")?;
            Err(Failure::new(failure.text))
        }
        Err(AskError::Refused(failure)) => {
            writeln!(call.err, "migration sender: {}", failure.text)?;
            Err(Failure::new("Migration failed, resuming at sender."))
        }
        Err(AskError::Lost(text)) => Err(Failure::new(text)),
    }
}

/// Total time, rounds, bytes, pause.
fn told(moved: &Moved) -> String {
    let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
    format!(
        "migration sender: {:.2} s in all, {} round{} of memory, {} bytes; the guest stood still for at most {:.3} s, {:.3} s of which it took to suspend.",
        seconds(moved.total_micros),
        moved.rounds,
        if moved.rounds == 1 { "" } else { "s" },
        moved.bytes,
        seconds(moved.pause_micros),
        seconds(moved.suspend_micros),
    )
}

/// A command that leads to the other host.
struct Transport {
    child: Child,
    to: File,
    from: File,
}

impl Transport {
    fn start(call: &Call<'_>) -> Result<Self, Failure> {
        let line = command_line(call);
        let failed = |error: std::io::Error| Failure::new(format!("cannot run `{line}`: {error}"));
        let mut child = Command::new("sh")
            .args(["-c", &format!("trap '' INT; exec {line}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("the connection has no ends"));
        };
        Ok(Self {
            child,
            to: File::from(OwnedFd::from(to)),
            from: File::from(OwnedFd::from(from)),
        })
    }

    /// Waits for the other side's first word, and sends it the guest's configuration.
    fn greet(&mut self, call: &mut Call<'_>, config: &str) -> Result<(), Failure> {
        let always = || true;
        let from = self.from.try_clone()?;
        handshake::expect(
            &mut Incoming::new(from, BANNER_PATIENCE, &always),
            Message::Banner,
        )
        .map_err(|error| Failure::new(format!("migration sender: {error}")))?;
        let header = XlHeader::with_json(config);
        let mut bytes = Vec::new();
        header
            .encode(&mut bytes)
            .map_err(|problem| Failure::new(format!("migration sender: {problem}")))?;
        writeln!(
            call.err,
            "Saving to migration stream new xl format (info {})",
            save::info(&header)
        )?;
        self.to.write_all(&bytes).map_err(|error| {
            Failure::new(format!(
                "migration sender: cannot write to the other side: {error}"
            ))
        })
    }

    /// Ends it: the other side sees the end of its input, and says its last words.
    fn let_go(self) {
        let Self {
            mut child,
            to,
            from,
        } = self;
        drop((to, from));
        if let Err(error) = child.wait() {
            tracing::debug!(%error, "the transport");
        }
    }
}

/// A command on the other host; `None` where the operand is a whole command of its own.
fn remote(call: &Call<'_>, program: Program, command: &str) -> Option<String> {
    let host = call.operand(1);
    // A link carries no disks: whoever sends them says where they land.
    let link = || {
        (program == Program::Xl)
            .then(|| call.reach.link(host))
            .flatten()
    };
    let shell = match call.parsed.value('s') {
        Some(shell) => shell.to_owned(),
        None => link().unwrap_or_else(|| DEFAULT_SHELL.to_owned()),
    };
    if shell.is_empty() {
        return None;
    }
    let verbose = "v".repeat(call.globals.verbose.into());
    let verbose = if verbose.is_empty() {
        verbose
    } else {
        format!(" -{verbose}")
    };
    let program = program.name();
    Some(format!("{shell} {host} {program}{verbose} {command}"))
}

/// What the shell is to run. A `#` at the end of the -s option hides the rest, as scripts for stock's command expect.
fn command_line(call: &Call<'_>) -> String {
    // Only ours knows of disks that come along.
    let with_disks = call.parsed.has(WITH_DISKS);
    let program = if with_disks {
        Program::Parapet
    } else {
        Program::Xl
    };
    let Some(mut line) = remote(call, program, "migrate-receive") else {
        return call.operand(1).to_owned();
    };
    for (option, word) in [
        (WITH_DISKS, " --with-disks"),
        (REPLACE_DISKS, " --replace-disks"),
    ] {
        if call.parsed.has(option) {
            line.push_str(word);
        }
    }
    for option in ['e', 'p'] {
        if call.parsed.has(option) {
            line.push_str(&format!(" -{option}"));
        }
    }
    line
}

/// `migrate-receive`.
///
/// # Errors
/// A stream or a guest that cannot be used, a sender that went away; all end with 1. Nothing of the guest is left then.
pub fn receive(call: &mut Call<'_>) -> Result<u8, Failure> {
    if call.parsed.has('r') {
        return Err(Failure::new(
            "migration target: checkpointed streams are not there yet",
        ));
    }
    // Before the banner: a sender that hears it suspends its guest, sooner or later.
    let mut agent = call.reach.agent()?;
    let Wire { input, mut output } = call.reach.wire()?;
    writeln!(call.err, "migration target: Ready to receive domain.")?;
    output.write_all(Message::Banner.bytes())?;
    let always = || true;
    let (input, header) = begin(call, Incoming::new(input, STALL, &always))?;
    let config = save::saved_config(call, &header)?;
    if call.parsed.has('d') {
        let text = json::dry_run(&config, &XlConf::default());
        writeln!(call.err, "{}", text.trim_end())?;
    }
    let name = config.name.clone();
    let config = serde_json::to_string(&config).map_err(|error| Failure::new(error.to_string()))?;
    let disks = with_disks(call)?.then(|| ReceiveDisks {
        replace: call.parsed.has(REPLACE_DISKS),
    });
    let start = Create {
        config,
        paused: call.parsed.has('p'),
        unmanaged: call.parsed.has('e'),
    };
    let request = Request::Receive(Receive { start, disks });
    let strange = || Failure::new("the agent answered something else");
    let failed = |error: AskError| Failure::new(format!("migration target: {error}"));
    let Reply::SendFile { .. } = agent.ask(&request).map_err(failed)? else {
        return Err(strange());
    };
    let err = &mut call.err;
    let answer = agent.lend(&[input.as_fd(), output.as_fd()], &mut |line| {
        drop(writeln!(err, "{line}"));
    });
    match answer {
        Ok(Reply::Created { .. }) => {
            // As stock spells it.
            writeln!(call.err, "migration target: Domain started successsfully.")?;
            Ok(0)
        }
        Ok(_) => Err(strange()),
        Err(error) => {
            let copy = format!("{name}{INCOMING_SUFFIX}");
            writeln!(call.err, "migration target: nothing is left of {copy}.")?;
            Err(failed(error))
        }
    }
}

/// Reads the header, and not a byte more.
fn begin(call: &mut Call<'_>, input: Incoming<'_>) -> Result<(File, XlHeader), Failure> {
    const STREAM: &str = "incoming migration stream";
    let mut reader = Reader::new(input, Layer::Xl, Mode::Plain);
    let header = match reader.next() {
        Ok(Event::File(header)) => header,
        Ok(_) => return Err(Failure::new(format!("{STREAM} is none"))),
        Err(error) => return Err(Failure::new(save::refusal(STREAM, &error))),
    };
    writeln!(
        call.err,
        "Loading new save file <{STREAM}> (new xl fmt info {})",
        save::info(&header)
    )?;
    if header.config.is_none() {
        return Err(Failure::new(config_file::missing().text));
    }
    Ok((reader.into_source().into_file(), header))
}
