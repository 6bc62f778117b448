//! console: this terminal and a guest's pty, until the escape character or the guest's end.

use super::Call;
use super::domain::resolve;
use super::reach::Failure;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{StoreExt, TxId};

/// Ctrl-].
pub const DEFAULT_ESCAPE: u8 = 0x1d;
/// Longest wait for a guest's tty to be named.
const TTY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the guest's existence is looked at while nothing comes.
const ALIVE_CHECK_MS: u16 = 500;
/// Bytes taken at a time.
const CHUNK_BYTES: usize = 4096;

/// `console`.
///
/// # Errors
/// No such domain, a console that is not there, or a terminal that cannot be used.
pub fn run(call: &mut Call<'_>) -> Result<u8, Failure> {
    let domid = resolve(call.reach, call.operand(0))?;
    match call.parsed.value('t') {
        None | Some("pv") => {}
        Some(other) => {
            return Err(Failure::new(format!(
                "console type {other}: only pv is there yet"
            )));
        }
    }
    if call.parsed.value('n').is_some_and(|number| number != "0") {
        return Err(Failure::new("only console 0 is there yet"));
    }
    let escape = match call.parsed.value('e').map(str::as_bytes) {
        None => DEFAULT_ESCAPE,
        Some([b'^', letter]) => letter.to_ascii_uppercase() & 0x1f,
        Some([letter]) => *letter,
        Some(_) => {
            return Err(Failure::new(
                "the escape is one character, or ^ and one character",
            ));
        }
    };
    attach(call, domid, escape, |_| Ok(()))
}

/// Connects this terminal; `ready` runs once the pty is open.
///
/// # Errors
/// As [`run`].
pub fn attach(
    call: &mut Call<'_>,
    domid: DomId,
    escape: u8,
    ready: impl FnOnce(&mut Call<'_>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let tty = find_tty(call, domid)?;
    let mut pty = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits())
        .open(&tty)
        .map_err(|error| Failure::new(format!("cannot open {tty}: {error}")))?;
    call.out.flush()?;
    let _raw = RawTerminal::enter();
    ready(call)?;
    pump(call, domid, &mut pty, escape)?;
    Ok(0)
}

fn find_tty(call: &Call<'_>, domid: DomId) -> Result<String, Failure> {
    let path = format!("/local/domain/{domid}/console/tty");
    let read = || {
        call.reach
            .store()?
            .read_text(TxId::NONE, &path)
            .map_err(Failure::from)
    };
    if let Some(tty) = read()?.filter(|tty| !tty.is_empty()) {
        return Ok(tty);
    }
    if call.reach.domains()?.domain_info(domid)?.is_none() {
        return Err(Failure::new(format!("domain {domid} does not exist")));
    }
    let deadline = Instant::now() + TTY_TIMEOUT;
    let watch = call.reach.watching_store()?.watch(&path)?;
    loop {
        if let Some(tty) = read()?.filter(|tty| !tty.is_empty()) {
            return Ok(tty);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::new(format!(
                "domain {domid} has no console (nothing in {path})"
            )));
        }
        let _ = watch.next_timeout(left);
    }
}

/// Copies both ways.
fn pump(call: &mut Call<'_>, domid: DomId, pty: &mut File, escape: u8) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let mut input_open = true;
    let mut buffer = [0; CHUNK_BYTES];
    loop {
        let (from_pty, from_user) = {
            let mut fds = vec![PollFd::new(pty.as_fd(), PollFlags::POLLIN)];
            if input_open {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::from(ALIVE_CHECK_MS)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Failure::new(format!("poll: {errno}"))),
            }
            let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
            (ready(0), ready(1))
        };
        if from_pty {
            match pty.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => {
                    call.out.write_all(&buffer[..n])?;
                    call.out.flush()?;
                }
            }
        }
        if from_user {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) | Err(_) => input_open = false,
                Ok(n) => {
                    let typed = &buffer[..n];
                    if let Some(at) = typed.iter().position(|byte| *byte == escape) {
                        pty.write_all(&typed[..at])?;
                        return Ok(());
                    }
                    pty.write_all(typed)?;
                }
            }
        }
        if !from_pty
            && !from_user
            && call
                .reach
                .domains()?
                .domain_info(domid)?
                .is_none_or(|info| info.dying)
        {
            return Ok(());
        }
    }
}

/// The terminal without line editing; restored when dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw);
        }
        Self(before)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
