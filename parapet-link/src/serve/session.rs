//! One line of a host that is trusted: what it asks for, and that being done.
//!
//! ```text
//!        the line                 this program                              agent
//!   ═══ TLS ═══▶ inbound  ─▶ socketpair ─▶ migrate-receive, descriptors ─▶ the guest's stream
//!   ◀══ TLS ════ outbound ◀─ socketpair ◀────────────────────────────────── the handshake
//! ```

use super::reach::{Lines, LinkReach};
use super::splice::splice;
use super::{Listener, linger};
use crate::book::Host;
use crate::dial::{HearError, hear};
use crate::error::LinkError;
use crate::frame::{self, FrameError, Kind};
use crate::greeting::Greeting;
use crate::limits::{
    GREETING_PATIENCE, MAX_LINES, MAX_REQUEST_BYTES, MAX_TEST_BYTES, SAID_BACKLOG,
};
use crate::pump;
use crate::request::{Receive, Request};
use dom0_agent::cli::agent::AgentClient;
use dom0_agent::cli::dispatch;
use parapet_wire::agent::{GuestState, Reply, Request as Ask};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Exit code of what could not be done.
const FAILED: u8 = 1;

impl Listener {
    /// Does what the other host asks for, to the end of the line.
    pub(super) async fn session(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &Host,
    ) -> Result<(), LinkError> {
        let broken = |error| LinkError::Broken {
            name: host.name.clone(),
            error,
        };
        let asked = timeout(GREETING_PATIENCE, asked(&mut stream, host)).await;
        let silent = |_| LinkError::Silent {
            name: host.name.clone(),
            seconds: GREETING_PATIENCE.as_secs(),
            step: "greeting",
        };
        let refusal = match asked.map_err(silent)? {
            Ok(request) => match self.lines.try_acquire() {
                Ok(_place) => {
                    frame::write(&mut stream, Kind::Accepted, &[])
                        .await
                        .map_err(broken)?;
                    tracing::info!(host = host.name, ?request, "a line is open");
                    return self.perform(&mut stream, request).await.map_err(broken);
                }
                Err(_) => LinkError::Refused {
                    name: host.name.clone(),
                    why: format!("{MAX_LINES} lines are open here, which is as many as can be"),
                },
            },
            Err(error) => error,
        };
        let why = match &refusal {
            LinkError::Refused { why, .. } => why.clone(),
            other => other.to_string(),
        };
        let _ = frame::write(&mut stream, Kind::Refused, pump::said(&why).as_bytes()).await;
        linger(&mut stream).await;
        Err(refusal)
    }

    async fn perform(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        request: Request,
    ) -> Result<(), FrameError> {
        match request {
            Request::Receive(how) => receive(stream, self.agent.clone(), how).await?,
            Request::Guests => guests(stream, self.agent.clone()).await?,
            Request::Test => test(stream, self.agent.clone()).await?,
        }
        linger(stream).await;
        Ok(())
    }
}

/// Greets, and hears what is asked for.
async fn asked(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &Host,
) -> Result<Request, LinkError> {
    let broken = |error| LinkError::Broken {
        name: host.name.clone(),
        error,
    };
    // First, whatever the other side is: it should know with whom it has nothing in common.
    let words = Greeting::own().encode();
    let told = stream.write_all(&words).await;
    told.map_err(|error| broken(error.into()))?;
    hear(&host.name, stream)
        .await
        .map_err(|error| match error {
            HearError::Io(error) => broken(error.into()),
            HearError::Link(error) => error,
        })?;
    let mut contents = Vec::new();
    let kind = frame::read(stream, &mut contents).await.map_err(broken)?;
    if kind != Kind::Request {
        return Err(broken(FrameError::Unexpected(kind)));
    }
    contents.truncate(MAX_REQUEST_BYTES);
    Ok(Request::decode(&contents)?)
}

/// `xl migrate-receive` between the line and the agent.
async fn receive(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: PathBuf,
    how: Receive,
) -> Result<(), FrameError> {
    let (ours, theirs) = UnixStream::pair()?;
    let (say, lines) = mpsc::channel(SAID_BACKLOG);
    let work = tokio::task::spawn_blocking(move || {
        let mut err = Lines::new(say);
        match LinkReach::new(agent, theirs) {
            Ok(reach) => dispatch(&reach, &how.words(), &mut io::sink(), &mut err),
            Err(error) => {
                let _ = writeln!(err, "migration target: cannot begin: {error}");
                FAILED
            }
        }
    });
    let code = async { work.await.unwrap_or(FAILED) };
    splice(stream, ours, lines, code).await
}

/// `xl list -v`, of the agent's guests: name and uuid, as far as a sender asks for them.
async fn guests(stream: &mut (impl AsyncWrite + Unpin), agent: PathBuf) -> Result<(), FrameError> {
    let asked = tokio::task::spawn_blocking(move || listing(&agent)).await;
    let code = match asked.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(lines) => {
            for line in lines {
                frame::write(stream, Kind::Data, line.as_bytes()).await?;
            }
            0
        }
        Err(why) => {
            frame::write(stream, Kind::Said, pump::said(&why).as_bytes()).await?;
            FAILED
        }
    };
    frame::write(stream, Kind::End, &[code]).await
}

fn listing(agent: &Path) -> Result<Vec<String>, String> {
    let mut agent = AgentClient::connect_to(agent).map_err(|error| error.to_string())?;
    match agent.ask(&Ask::Guests) {
        Ok(Reply::Guests(guests)) => Ok(guests
            .iter()
            // One that was given away is not here; one without a domain does not run.
            .filter(|guest| guest.state != GuestState::Leaving && guest.domid.is_some())
            .map(|guest| format!("{} {}\n", guest.name, guest.uuid))
            .collect()),
        Ok(_) => Err("the agent answered something else".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Each frame is answered by its length.
async fn test(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    agent: PathBuf,
) -> Result<(), FrameError> {
    let reached = tokio::task::spawn_blocking(move || AgentClient::connect_to(&agent)).await;
    if let Ok(Err(error)) = reached {
        let line = pump::said(&error.to_string());
        frame::write(stream, Kind::Said, line.as_bytes()).await?;
    }
    let (mut contents, mut total) = (Vec::new(), 0_u64);
    loop {
        match frame::read(stream, &mut contents).await? {
            Kind::Data if total <= MAX_TEST_BYTES => {
                total += contents.len() as u64;
                // A frame is far shorter than that.
                let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
                frame::write(stream, Kind::Data, &length.to_le_bytes()).await?;
            }
            Kind::End => return frame::write(stream, Kind::End, &[0]).await,
            other => return Err(FrameError::Unexpected(other)),
        }
    }
}
