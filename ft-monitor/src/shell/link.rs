//! The connection to the agent: kept, renewed, and seen to be alive.
//!
//! Two connections: one carries the events, the other a greeting now and then. A stopped agent still holds its sockets open; without the greeting
//! its silence would look like the silence of all guests.

use crate::act::Connection;
use crate::limits::{AGENT_HELLO_TIMEOUT, AGENT_PING_EVERY, RECONNECT_CAP, RECONNECT_FIRST};
use crate::monitor::Input;
use parapet_wire::agent::{Reply, Request};
use parapet_wire::frame::{FrameError, Kind, receive_async, send_async};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Sender;

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
    let events = listen(subscription.into_stream(), inputs);
    let pulse = async {
        loop {
            tokio::time::sleep(AGENT_PING_EVERY).await;
            match tokio::time::timeout(AGENT_HELLO_TIMEOUT, pulse.greet()).await {
                Ok(Ok(_)) => {}
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

async fn listen(mut stream: UnixStream, inputs: &Sender<Input>) -> Result<(), String> {
    let asked = send_async(&mut stream, Kind::AgentRequest, &Request::Subscribe).await;
    asked.map_err(|error| error.to_string())?;
    loop {
        match receive_async(&mut stream, Kind::AgentReply).await {
            Ok(Reply::Event(event)) => {
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
