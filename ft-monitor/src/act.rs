//! Carrying out an order through the agent.
//!
//! ```text
//!   connect, greet ──▶ is it still the domain we decided about? ──no──▶ found done
//!                                   │ yes
//!                                   ▼
//!                  Restart / GiveUp { uuid, domid } ──▶ done, failed, or unknown
//! ```
//!
//! Asking twice does it once: both this file and the agent compare the domain. Everything before the request is sent fails as "failed" (nothing happened),
//! everything after as "unknown" (the next snapshot shows). This module decides nothing.

use crate::limits::{AGENT_HELLO_TIMEOUT, SILENCE_STALE_AFTER};
use crate::monitor::{Order, Performed};
use crate::record::Deed;
use parapet_wire::agent::{FailureKind, Guest, Reply, Request};
use parapet_wire::frame::{FrameError, Kind, receive_async, send_async};
use std::path::Path;
use std::time::Instant;
use tokio::net::UnixStream;

/// A greeted connection to the agent.
#[derive(Debug)]
pub struct Connection(UnixStream);

/// Releases, as the agent greeted.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The agent's release.
    pub release: String,
    /// Xen's release.
    pub xen: String,
}

impl Connection {
    /// Connects and greets within [`AGENT_HELLO_TIMEOUT`].
    ///
    /// # Errors
    /// One line for the user.
    pub async fn open(socket: &Path) -> Result<(Self, Greeting), String> {
        let greeted = async {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|error| format!("{}: {error}", socket.display()))?;
            let mut connection = Self(stream);
            let greeting = connection.greet().await?;
            Ok((connection, greeting))
        };
        tokio::time::timeout(AGENT_HELLO_TIMEOUT, greeted)
            .await
            .unwrap_or_else(|_| Err("the agent does not answer".to_owned()))
    }

    /// Greets (again): the cheapest way to see that the agent answers.
    ///
    /// # Errors
    /// One line for the user.
    pub async fn greet(&mut self) -> Result<Greeting, String> {
        match self
            .ask(&Request::Hello {
                client: "ft-monitor".to_owned(),
            })
            .await
        {
            Ok(Reply::Hello { release, xen }) => Ok(Greeting { release, xen }),
            Ok(Reply::Failed(failure)) => Err(failure.text),
            Ok(_) => Err("the agent greets strangely".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks, and waits for the final reply.
    ///
    /// # Errors
    /// Transport.
    pub async fn ask(&mut self, request: &Request) -> Result<Reply, FrameError> {
        send_async(&mut self.0, Kind::AgentRequest, request).await?;
        loop {
            match receive_async(&mut self.0, Kind::AgentReply).await? {
                Reply::Progress(text) => tracing::debug!(text, "the agent goes on"),
                reply => return Ok(reply),
            }
        }
    }

    /// All guests, and how the one in question is now.
    async fn look(&mut self, order: &Order) -> Result<Option<Guest>, String> {
        match self.ask(&Request::Guests).await {
            Ok(Reply::Guests(guests)) => Ok(guests.into_iter().find(|g| g.uuid == order.guest)),
            Ok(Reply::Failed(failure)) => Err(failure.text),
            Ok(_) => Err("the agent answers strangely".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The stream, for a subscription.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

/// Carries out an order.
pub async fn perform(socket: &Path, order: &Order) -> Performed {
    let began = Instant::now();
    let looked = async {
        let (mut connection, _) = Connection::open(socket).await?;
        let guest = connection.look(order).await?;
        Ok::<_, String>((connection, guest))
    };
    let (mut connection, guest) = match tokio::time::timeout(order.timeout, looked).await {
        Ok(Ok(looked)) => looked,
        Ok(Err(why)) => return Performed::Failed(why),
        Err(_) => return Performed::Failed("the agent does not answer".to_owned()),
    };
    let still = guest
        .as_ref()
        .is_some_and(|guest| guest.domid == order.domid);
    if !still {
        return Performed::FoundDone(guest);
    }
    if order.by_silence && began.elapsed() > SILENCE_STALE_AFTER {
        // What looked like the guest's silence may have been the agent's; its news come first.
        return Performed::Failed("the agent was slow to answer: looking again first".to_owned());
    }
    match tokio::time::timeout(order.timeout, connection.ask(&request(order))).await {
        Ok(Ok(Reply::Created { domid, .. })) => Performed::Done(Some(domid)),
        Ok(Ok(Reply::Done)) if order.deed == Deed::GiveUp => Performed::Done(None),
        Ok(Ok(Reply::Done)) => match connection.look(order).await {
            Ok(guest) => Performed::FoundDone(guest),
            Err(why) => Performed::Unknown(why),
        },
        Ok(Ok(Reply::Failed(failure))) if failure.kind == FailureKind::NoDomain => {
            match connection.look(order).await {
                Ok(None) => Performed::FoundDone(None),
                _ => Performed::Failed(failure.text),
            }
        }
        Ok(Ok(Reply::Failed(failure))) => Performed::Failed(failure.text),
        Ok(Ok(_)) => Performed::Unknown("the agent answers strangely".to_owned()),
        Ok(Err(error)) => Performed::Unknown(error.to_string()),
        Err(_) => Performed::Unknown(format!("no answer within {} s", order.timeout.as_secs())),
    }
}

fn request(order: &Order) -> Request {
    let (uuid, domid, why) = (order.guest, order.domid, order.why.clone());
    match order.deed {
        Deed::Restart => Request::Restart { uuid, domid, why },
        Deed::GiveUp => Request::GiveUp { uuid, domid, why },
    }
}
