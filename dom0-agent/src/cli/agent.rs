//! The command's side of the agent's API.

use super::reach::Failure;
use parapet_wire::agent::{Reply, Request};
use parapet_wire::frame::{FrameError, Kind, receive, send};
use parapet_wire::paths;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Environment variable that names another socket.
const SOCKET_VARIABLE: &str = "PARAPET_AGENT_SOCKET";

/// A connection to the agent.
#[derive(Debug)]
pub struct AgentClient {
    stream: UnixStream,
    socket: PathBuf,
}

impl AgentClient {
    /// Connects to the agent of this host.
    ///
    /// # Errors
    /// The agent does not run, or the caller may not reach it.
    pub fn connect() -> Result<Self, Failure> {
        let socket = std::env::var_os(SOCKET_VARIABLE)
            .map_or_else(|| PathBuf::from(paths::AGENT_SOCKET), PathBuf::from);
        Self::connect_to(&socket)
    }

    /// Connects to the agent behind `socket`.
    ///
    /// # Errors
    /// As [`AgentClient::connect`].
    pub fn connect_to(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(format!(
                "the agent is not running (nothing answers on {}); start it with `systemctl start dom0-agent`",
                socket.display()
            )),
            _ => Failure::new(format!("cannot reach the agent on {}: {error}", socket.display())),
        })?;
        Ok(Self {
            stream,
            socket: socket.to_owned(),
        })
    }

    /// Asks, and waits for the final reply.
    ///
    /// # Errors
    /// The agent refused (its message, exit code 1 unless the caller maps it) or went away.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, AskError> {
        send(&mut self.stream, Kind::AgentRequest, request).map_err(|error| self.lost(&error))?;
        self.answer(&mut |text| eprintln!("{text}"))
    }

    /// Sends the file that the agent asked for by [`Reply::SendFile`], and waits for the final reply.
    ///
    /// # Errors
    /// As [`AgentClient::ask`].
    pub fn hand_over(&mut self, file: BorrowedFd<'_>) -> Result<Reply, AskError> {
        self.lend(&[file], &mut |text| eprintln!("{text}"))
    }

    /// As [`AgentClient::hand_over`], with several files; `tell` is given what the agent says meanwhile.
    ///
    /// # Errors
    /// As [`AgentClient::ask`].
    pub fn lend(
        &mut self,
        files: &[BorrowedFd<'_>],
        tell: &mut dyn FnMut(&str),
    ) -> Result<Reply, AskError> {
        xen_host::fdpass::send(&self.stream, &[], files)
            .map_err(|error| AskError::Lost(error.to_string()))?;
        self.answer(tell)
    }

    fn answer(&mut self, tell: &mut dyn FnMut(&str)) -> Result<Reply, AskError> {
        loop {
            match receive(&mut self.stream, Kind::AgentReply).map_err(|error| self.lost(&error))? {
                Reply::Progress(text) => tell(&text),
                Reply::Failed(failure) => return Err(AskError::Refused(failure)),
                reply => return Ok(reply),
            }
        }
    }

    fn lost(&self, error: &FrameError) -> AskError {
        AskError::Lost(format!(
            "the agent on {} went away: {error}",
            self.socket.display()
        ))
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The agent said no.
    #[error(transparent)]
    Refused(parapet_wire::agent::Failure),
    /// The connection broke.
    #[error("{0}")]
    Lost(String),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::new(error.to_string())
    }
}
