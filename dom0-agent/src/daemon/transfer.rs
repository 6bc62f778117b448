//! Requests that come with a file or a connection: it is opened by the client, with the client's rights, and its descriptors follow the request.
//!
//! ```text
//!   client                     agent
//!     │ ── Save, Restore ──────▶ │  may it be done at all?
//!     │ ◀──── SendFile ───────── │
//!     │ ── descriptor ─────────▶ │  the work
//!     │ ◀── Written | Created ── │
//!     │ ── Keep ───────────────▶ │  a guest that was saved is let go; without this it runs on
//!     │ ◀── Done ─────────────── │
//! ```
//!
//! A move is the same with two descriptors, any number of `Progress` on the way, and no `Keep`: whether the guest is let go is between the two hosts.
//!
//! The file's bytes never travel over the socket. The connection is a plain blocking one from the request on, and ends with the answer.

use super::Shared;
use super::server::{json, measured};
use crate::agent::create::CreateOptions;
use crate::agent::error::AgentError;
use crate::agent::landing::LandingOptions;
use crate::agent::luggage::LuggageOptions;
use crate::agent::migrate::{Connection, Escort, MoveOptions};
use crate::agent::receive::ArrivalOptions;
use crate::agent::save::{AfterSave, Keeper, SaveOptions};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parapet_wire::agent::{self as wire, Create, Migrate, Receive, Reply, Request, Save};
use parapet_wire::frame::{FrameError, Kind, receive, send};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use xen_host::fdpass;

/// Longest time a client may take to send its descriptor, and to keep its file.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that comes with a file.
#[derive(Debug)]
pub(super) enum Transfer {
    Save(Save),
    Restore(Create),
    Migrate(Migrate),
    Receive(Receive),
}

impl Transfer {
    /// Takes such a request; any other comes back.
    pub(super) fn of(request: Request) -> Result<Self, Request> {
        match request {
            Request::Save(save) => Ok(Self::Save(save)),
            Request::Restore(create) => Ok(Self::Restore(create)),
            Request::Migrate(migrate) => Ok(Self::Migrate(migrate)),
            Request::Receive(receive) => Ok(Self::Receive(receive)),
            other => Err(other),
        }
    }
}

/// Serves one such request, to the end of the connection.
pub(super) async fn serve(
    shared: Shared,
    stream: tokio::net::UnixStream,
    transfer: Transfer,
) -> Result<(), FrameError> {
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let work = tokio::task::spawn_blocking(move || {
        let reply = act(&shared, &mut stream, transfer).unwrap_or_else(|error| {
            tracing::warn!(%error, "request refused");
            Reply::Failed(error.failure())
        });
        send(&mut stream, Kind::AgentReply, &reply)
    });
    work.await
        .unwrap_or_else(|error| Err(FrameError::Io(std::io::Error::other(error))))
}

fn act(shared: &Shared, stream: &mut UnixStream, transfer: Transfer) -> Result<Reply, AgentError> {
    match transfer {
        Transfer::Save(save) => self::save(shared, stream, &save),
        Transfer::Restore(create) => restore(shared, stream, &create),
        Transfer::Migrate(migrate) => self::migrate(shared, stream, &migrate),
        Transfer::Receive(receive) => receive_guest(shared, stream, &receive),
    }
}

fn save(shared: &Shared, stream: &mut UnixStream, save: &Save) -> Result<Reply, AgentError> {
    let instead = match &save.config {
        Some(text) => Some(json("configuration", text)?),
        None => None,
    };
    let config = shared.agent.saved_config(save.domid, instead.as_ref())?;
    let [file] = files(stream, config)?;
    let after = match save.after {
        wire::AfterSave::Destroy => AfterSave::Destroy,
        wire::AfterSave::Resume => AfterSave::Resume,
        wire::AfterSave::Pause => AfterSave::Pause,
    };
    let options = SaveOptions::then(after);
    let mut client = Client(stream);
    shared
        .agent
        .save_guest(save.domid, options, file, &mut client)?;
    Ok(Reply::Done)
}

/// A client that waits for its save file.
struct Client<'a>(&'a mut UnixStream);

/// Whether the client is still there.
fn is_there(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => !polled[0]
            .revents()
            .is_some_and(|seen| seen.intersects(gone)),
        Err(_) => true,
    }
}

impl Keeper for Client<'_> {
    fn waits(&self) -> bool {
        is_there(self.0)
    }

    fn keep(&mut self) -> bool {
        let sent = send(self.0, Kind::AgentReply, &Reply::Written);
        // The deadline of the descriptor stands.
        sent.is_ok() && matches!(receive(self.0, Kind::AgentRequest), Ok(Request::Keep))
    }
}

fn restore(shared: &Shared, stream: &mut UnixStream, create: &Create) -> Result<Reply, AgentError> {
    let config = json("configuration", &create.config)?;
    let [file] = files(stream, String::new())?;
    let options = CreateOptions {
        paused: create.paused,
        unmanaged: create.unmanaged,
    };
    let (domid, cost) = measured(|| shared.agent.restore_guest(config, options, file));
    let domid = domid?;
    Ok(Reply::Created { domid, cost })
}

/// A client that watches a move.
struct Watcher<'a>(&'a UnixStream);

impl Escort for Watcher<'_> {
    fn waits(&self) -> bool {
        is_there(self.0)
    }

    fn tell(&self, line: String) {
        // Whoever does not listen is noticed by `waits`.
        let _ = send(&mut &*self.0, Kind::AgentReply, &Reply::Progress(line));
    }
}

fn migrate(
    shared: &Shared,
    stream: &mut UnixStream,
    migrate: &Migrate,
) -> Result<Reply, AgentError> {
    let instead = match &migrate.config {
        Some(text) => Some(json("configuration", text)?),
        None => None,
    };
    let config = shared.agent.saved_config(migrate.domid, instead.as_ref())?;
    let [to, from] = files(stream, config)?;
    let mut options = MoveOptions {
        live: migrate.live,
        verify: migrate.verify,
        disks: migrate.with_disks.then(LuggageOptions::default),
        ..MoveOptions::default()
    };
    if let Some(most) = migrate.max_downtime_ms {
        options.max_downtime = Duration::from_millis(most);
    }
    let connection = Connection { to, from };
    let moved = shared
        .agent
        .move_guest(migrate.domid, &options, connection, &Watcher(stream))?;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(Reply::Moved(wire::Moved {
        total_micros: micros(moved.total),
        pause_micros: micros(moved.pause),
        suspend_micros: micros(moved.suspending),
        rounds: moved.rounds,
        bytes: moved.bytes,
    }))
}

fn receive_guest(
    shared: &Shared,
    stream: &mut UnixStream,
    receive: &Receive,
) -> Result<Reply, AgentError> {
    let create = &receive.start;
    let config = json("configuration", &create.config)?;
    let [input, output] = files(stream, String::new())?;
    let options = ArrivalOptions {
        start: CreateOptions {
            paused: create.paused,
            unmanaged: create.unmanaged,
        },
        disks: receive.disks.map(|disks| LandingOptions {
            replace: disks.replace,
        }),
        ..ArrivalOptions::default()
    };
    let escort = Watcher(stream);
    let (domid, cost) = measured(|| {
        shared
            .agent
            .receive_guest(config, &options, input, output, &escort)
    });
    let domid = domid?;
    Ok(Reply::Created { domid, cost })
}

/// Asks for the client's files.
fn files<const N: usize>(stream: &mut UnixStream, config: String) -> Result<[File; N], AgentError> {
    let none = |why: String| AgentError::Invalid(format!("the client sent no file: {why}"));
    send(stream, Kind::AgentReply, &Reply::SendFile { config })
        .map_err(|error| none(error.to_string()))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| none(error.to_string()))?;
    let message = fdpass::receive(stream).map_err(|error| none(error.to_string()))?;
    let fds = message.map(|message| message.fds).unwrap_or_default();
    match <[_; N]>::try_from(fds) {
        Ok(fds) => Ok(fds.map(File::from)),
        Err(fds) => Err(none(format!("{} descriptors came", fds.len()))),
    }
}
