//! The commands' side of both sockets: connect, ask, and say clearly what is not running.

use super::{CliError, Exit};
use crate::api;
use parapet_wire::agent;
use parapet_wire::frame::{FrameError, Kind, receive, send};
use serde::{Serialize, de::DeserializeOwned};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to the monitor or the agent.
pub(super) struct Client {
    stream: UnixStream,
    who: &'static str,
}

impl Client {
    fn connect(socket: &Path, who: &'static str) -> Result<Self, CliError> {
        let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => CliError {
                exit: Exit::NotRunning,
                text: format!(
                    "{who} is not running (nothing answers on {}); `systemctl start {who}` starts it",
                    socket.display()
                ),
            },
            _ => CliError {
                exit: Exit::Failed,
                text: format!("cannot reach {who} on {}: {error}", socket.display()),
            },
        })?;
        Ok(Self { stream, who })
    }

    fn send(&mut self, kind: Kind, message: &impl Serialize) -> Result<(), CliError> {
        send(&mut self.stream, kind, message).map_err(|error| self.lost(&error))
    }

    fn receive<T: DeserializeOwned>(&mut self, kind: Kind) -> Result<T, CliError> {
        receive(&mut self.stream, kind).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &FrameError) -> CliError {
        CliError {
            exit: Exit::Failed,
            text: format!("{} went away: {error}", self.who),
        }
    }

    /// An answer that the question does not have.
    pub(super) fn strange(&self) -> CliError {
        let text = format!(
            "{} answered something else; is it of the same release?",
            self.who
        );
        CliError {
            exit: Exit::Failed,
            text,
        }
    }

    /// Asks the monitor.
    pub(super) fn monitor(
        socket: &Path,
        request: &api::Request,
    ) -> Result<(Self, api::Reply), CliError> {
        let mut client = Self::connect(socket, "ft-monitor")?;
        client.send(Kind::MonitorRequest, request)?;
        let reply = client.next_from_monitor()?;
        Ok((client, reply))
    }

    /// The next reply of the monitor, for followers.
    pub(super) fn next_from_monitor(&mut self) -> Result<api::Reply, CliError> {
        match self.receive(Kind::MonitorReply)? {
            api::Reply::Failed(text) => Err(CliError {
                exit: Exit::Failed,
                text,
            }),
            reply => Ok(reply),
        }
    }

    /// A connection to the agent.
    pub(super) fn agent(socket: &Path) -> Result<Self, CliError> {
        let mut client = Self::connect(socket, "dom0-agent")?;
        client.ask_agent(&agent::Request::Hello {
            client: "parapet".to_owned(),
        })?;
        Ok(client)
    }

    /// Asks the agent.
    pub(super) fn ask_agent(&mut self, request: &agent::Request) -> Result<agent::Reply, CliError> {
        self.send(Kind::AgentRequest, request)?;
        loop {
            match self.receive(Kind::AgentReply)? {
                agent::Reply::Progress(text) => eprintln!("{text}"),
                agent::Reply::Failed(failure) => {
                    return Err(CliError {
                        exit: Exit::Failed,
                        text: failure.text,
                    });
                }
                reply => return Ok(reply),
            }
        }
    }
}
