//! The connection to the agent: kept, renewed, and seen to be alive.
//!
//! Two connections: one carries the events, the other a greeting whenever no event came for a while. A stopped agent still holds its sockets open; without
//! the greeting its silence would look like the silence of all guests. An agent that tells something is not stopped, and is not asked.

use crate::act::Connection;
use crate::limits::{AGENT_HELLO_TIMEOUT, AGENT_PING_EVERY, RECONNECT_CAP, RECONNECT_FIRST};
use crate::monitor::Input;
use parapet_wire::agent::{Reply, Request};
use parapet_wire::frame::{FrameError, Kind, receive_async, send_async};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

/// When the agent was heard last.
#[derive(Debug)]
struct Heard {
    last: Mutex<Instant>,
    /// Silence after which it is greeted.
    patience: Duration,
}

impl Heard {
    fn now(patience: Duration) -> Self {
        let last = Mutex::new(Instant::now());
        Self { last, patience }
    }

    fn again(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it is to be greeted, if nothing is heard until then.
    fn greet_at(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.patience
    }

    /// Waits until nothing was heard for so long that it is to be greeted.
    async fn silence(&self) {
        loop {
            let due = self.greet_at();
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Connects, feeds events in, and starts again, for ever.
pub async fn keep_connected(socket: PathBuf, inputs: Sender<Input>) {
    let mut delay = RECONNECT_FIRST;
    loop {
        let mut greeted = false;
        let why = match connected(&socket, &inputs, &mut greeted).await {
            Ok(()) => return,
            Err(why) => why,
        };
        if inputs.send(Input::AgentDown { why }).await.is_err() {
            return;
        }
        if greeted {
            delay = RECONNECT_FIRST;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RECONNECT_CAP);
    }
}

/// One life of the connection. `Ok` when the monitor itself is gone.
async fn connected(
    socket: &Path,
    inputs: &Sender<Input>,
    greeted: &mut bool,
) -> Result<(), String> {
    let (subscription, greeting) = Connection::open(socket).await?;
    let (mut pulse, _) = Connection::open(socket).await?;
    *greeted = true;
    let up = Input::AgentUp {
        release: greeting.release,
        xen: greeting.xen,
    };
    if inputs.send(up).await.is_err() {
        return Ok(());
    }
    let heard = Heard::now(AGENT_PING_EVERY);
    let events = listen(subscription.into_stream(), inputs, &heard);
    let pulse = async {
        loop {
            heard.silence().await;
            match tokio::time::timeout(AGENT_HELLO_TIMEOUT, pulse.greet()).await {
                Ok(Ok(_)) => heard.again(),
                Ok(Err(why)) => return why,
                Err(_) => return "the agent does not answer any more".to_owned(),
            }
        }
    };
    // Neither is used again when the other ends, so a frame cut in half harms nobody.
    tokio::select! {
        ended = events => ended,
        why = pulse => Err(why),
    }
}

async fn listen(
    mut stream: UnixStream,
    inputs: &Sender<Input>,
    heard: &Heard,
) -> Result<(), String> {
    let asked = send_async(&mut stream, Kind::AgentRequest, &Request::Subscribe).await;
    asked.map_err(|error| error.to_string())?;
    loop {
        match receive_async(&mut stream, Kind::AgentReply).await {
            Ok(Reply::Event(event)) => {
                heard.again();
                if inputs.send(Input::Event(event)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Reply::Failed(failure)) => return Err(failure.text),
            Ok(_) => return Err("the agent answers a subscription strangely".to_owned()),
            Err(FrameError::Closed) => return Err("the agent hung up".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_is_greeted_when_it_was_silent_and_only_then() {
        let heard = Heard::now(Duration::from_millis(40));
        let events = async {
            for _ in 0..100 {
                heard.again();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            std::future::pending::<()>().await;
        };
        let pulse = async {
            for _ in 0..5 {
                heard.silence().await;
                assert!(heard.greet_at() <= Instant::now(), "it had just been heard");
                heard.again();
            }
        };
        tokio::select! {
            () = events => unreachable!(),
            () = pulse => {}
        }
    }
}
