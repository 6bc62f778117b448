//! One conversation: one request, done, answered.
//!
//! A command runs in a process group of its own and dies with the conversation: when the rig says Bye, hangs up, or
//! sends what is no frame, whatever still runs is killed. Never interprets a command line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab_delegate::{CHUNK, Frame, Kind, Request, read_frame, write_frame};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Exit code told for a program that could not be started, as shells do.
const CANNOT_RUN: i32 = 127;

/// Once a command has ended, its pipes may still be held by a daemon it left behind: they are given up
/// after this long without a byte.
const PIPE_IDLE: Duration = Duration::from_millis(300);
const PIPE_LOOK: Duration = Duration::from_millis(2);

/// Where answers go; `None` once the conversation is over, so that a late pump cannot write into the next one.
type Answers = Arc<Mutex<Option<Arc<File>>>>;

/// Serves the request in `opening` until the conversation ends.
pub fn converse(port: &mut impl Read, file: &Arc<File>, opening: &Frame) {
    let answers = Arc::new(Mutex::new(Some(Arc::clone(file))));
    if opening.kind != Kind::Request {
        return;
    }
    let outcome = match serde_json::from_slice(&opening.body) {
        Ok(Request::Exec { argv, env, tty }) => exec(port, &answers, &argv, &env, tty),
        Ok(Request::Put { path, mode }) => put(port, &path, mode).map(|()| {
            tell(&answers, Kind::Eof, &[]);
            wait_for_bye(port);
        }),
        Ok(Request::Get { path }) => get(&answers, &path).map(|()| wait_for_bye(port)),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    if let Err(error) = outcome {
        tell(&answers, Kind::Failed, error.to_string().as_bytes());
        wait_for_bye(port);
    }
    *answers.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The answer must be taken before the port counts as free, or the rig's next greeting would overtake it.
fn wait_for_bye(port: &mut impl Read) {
    while let Ok(frame) = read_frame(port) {
        if frame.kind == Kind::Bye {
            return;
        }
    }
}

/// Sends a frame; a rig that is gone is noticed by the reader, so failures need no second report.
fn tell(answers: &Answers, kind: Kind, body: &[u8]) {
    let to = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = &*to {
        drop(write_frame(&mut &**file, kind, body));
    }
}

fn put(port: &mut impl Read, path: &str, mode: u32) -> io::Result<()> {
    let partial = format!("{path}.lab-partial");
    let stored = receive(port, &partial, mode).and_then(|()| fs::rename(&partial, path));
    if stored.is_err() {
        drop(fs::remove_file(&partial));
    }
    stored
}

fn receive(port: &mut impl Read, path: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    loop {
        let frame = read_frame(port)?;
        match frame.kind {
            Kind::Data => file.write_all(&frame.body)?,
            Kind::Eof => return Ok(()),
            other => {
                return Err(io::Error::other(format!(
                    "{other:?} in the middle of a file"
                )));
            }
        }
    }
}

fn get(answers: &Answers, path: &str) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            tell(answers, Kind::Eof, &[]);
            return Ok(());
        }
        tell(answers, Kind::Data, &chunk[..count]);
    }
}

fn exec(
    port: &mut impl Read,
    answers: &Answers,
    argv: &[String],
    env: &[(String, String)],
    tty: bool,
) -> io::Result<()> {
    let started = if tty {
        start_on_terminal(argv, env, answers)
    } else {
        start_on_pipes(argv, env, answers)
    };
    let (mut child, mut input, pumps) = match started {
        Ok(started) => started,
        Err(error) => {
            let name = argv.first().map_or("", String::as_str);
            tell(
                answers,
                Kind::Stderr,
                format!("{name}: {error}\n").as_bytes(),
            );
            tell(answers, Kind::Exit, &CANNOT_RUN.to_le_bytes());
            wait_for_bye(port);
            return Ok(());
        }
    };
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let exited = Arc::new(AtomicBool::new(false));
    let waiter = {
        let answers = Arc::clone(answers);
        let exited = Arc::clone(&exited);
        std::thread::spawn(move || {
            let status = child.wait();
            exited.store(true, Ordering::Release);
            let late = || pumps.iter().any(|pump| !pump.thread.is_finished());
            let moved = || {
                pumps
                    .iter()
                    .map(|pump| pump.moved.load(Ordering::Relaxed))
                    .sum::<usize>()
            };
            let (mut before, mut since) = (moved(), Instant::now());
            while late() && since.elapsed() < PIPE_IDLE {
                std::thread::sleep(PIPE_LOOK);
                if moved() != before {
                    (before, since) = (moved(), Instant::now());
                }
            }
            let code = status.map_or(CANNOT_RUN, exit_code);
            tell(&answers, Kind::Exit, &code.to_le_bytes());
        })
    };
    feed(port, &mut input);
    drop(input);
    // What a command that has ended left running stays: its group is no longer ours to kill.
    if !exited.load(Ordering::Acquire) {
        // Already gone is as good as killed.
        killpg(group, Signal::SIGKILL).unwrap_or_default();
    }
    drop(waiter.join());
    Ok(())
}

/// Hands input on until the conversation ends.
fn feed(port: &mut impl Read, input: &mut Option<File>) {
    while let Ok(frame) = read_frame(port) {
        match frame.kind {
            Kind::Data => {
                // A program that closed its input is not an error of ours.
                if input
                    .as_mut()
                    .is_some_and(|input| input.write_all(&frame.body).is_err())
                {
                    *input = None;
                }
            }
            Kind::Eof => *input = None,
            Kind::Resize => {}
            _ => return,
        }
    }
}

/// One stream on its way into frames.
struct Pump {
    thread: JoinHandle<()>,
    /// Bytes so far.
    moved: Arc<AtomicUsize>,
}

type Started = (Child, Option<File>, Vec<Pump>);

fn start_on_pipes(
    argv: &[String],
    env: &[(String, String)],
    answers: &Answers,
) -> io::Result<Started> {
    let mut child = command(argv, env)?
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = child
        .stdin
        .take()
        .map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe)));
    let mut pumps = Vec::new();
    if let Some(out) = child.stdout.take() {
        pumps.push(pump(out, answers, Kind::Stdout));
    }
    if let Some(err) = child.stderr.take() {
        pumps.push(pump(err, answers, Kind::Stderr));
    }
    Ok((child, input, pumps))
}

/// `setsid --ctty` makes the terminal the command's own; its process group is then its session.
fn start_on_terminal(
    argv: &[String],
    env: &[(String, String)],
    answers: &Answers,
) -> io::Result<Started> {
    let OpenptyResult { master, slave } = openpty(None, None)?;
    let wrapped: Vec<String> = ["setsid", "--ctty", "--wait"]
        .iter()
        .map(ToString::to_string)
        .chain(argv.iter().cloned())
        .collect();
    let child = command(&wrapped, env)?
        .process_group(0)
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(slave)
        .spawn()?;
    let input = File::from(master);
    let output = input.try_clone()?;
    Ok((
        child,
        Some(input),
        vec![pump(output, answers, Kind::Stdout)],
    ))
}

fn command(argv: &[String], env: &[(String, String)]) -> io::Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no program named",
        ));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(env.iter().cloned())
        .current_dir("/root");
    Ok(command)
}

/// Copies one stream of the command into frames until it ends (a terminal ends with an error).
fn pump(mut from: impl Read + Send + 'static, answers: &Answers, kind: Kind) -> Pump {
    let answers = Arc::clone(answers);
    let moved = Arc::new(AtomicUsize::new(0));
    let count_moved = Arc::clone(&moved);
    let thread = std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            tell(&answers, kind, &chunk[..count]);
            count_moved.fetch_add(count, Ordering::Relaxed);
        }
    });
    Pump { thread, moved }
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(CANNOT_RUN)
}
