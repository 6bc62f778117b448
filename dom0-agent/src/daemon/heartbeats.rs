//! Looks at all heartbeats, and tells what moved.
//!
//! ```text
//!   pause ──▶ one write asks for all nodes ──▶ pause ──▶ what has come is collected ──▶ events
//! ```
//!
//! A look wakes this program twice, however many guests there are: the answers lie in the socket until all of them may be there.

use super::Shared;
use super::alive::Pulse;
use crate::agent::heartbeats::{Heartbeats, PAUSE_UNWATCHED};
use std::sync::Arc;
use std::time::Duration;
use xen_host::xenstore::endpoint::Endpoints;
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::gather::{Collected, Idle, Values};
use xen_host::xenstore::quick::MAX_IN_FLIGHT;
use xen_host::xenstore::store::{Store, StoreOp, StoreReply, TxId};

/// Time that xenstored gets for its answers before they are collected; doubles up to [`ANSWERS_MOST`]. Beats are told this much later.
const ANSWERS_FIRST: Duration = Duration::from_millis(20);
/// Longest time between two collections.
const ANSWERS_MOST: Duration = Duration::from_millis(320);

/// Looks at all heartbeats, for ever; only while somebody listens.
pub async fn look(shared: Shared, pulse: Pulse) {
    let mut heartbeats = Heartbeats::default();
    let mut connection = Connection::None;
    let mut pause = heartbeats.pause();
    loop {
        pulse.beat();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.look.notified() => {}
        }
        if shared.events.receiver_count() == 0 {
            pause = PAUSE_UNWATCHED;
            continue;
        }
        let agent = &shared.agent;
        let nodes = heartbeats.nodes(&agent.shared_guests(), agent.telling());
        match values(&mut connection, &agent.seams().store, nodes).await {
            Ok(values) => {
                for event in heartbeats.hear(values) {
                    let _ = shared.events.send(event);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look at heartbeats"),
        }
        pause = heartbeats.pause();
    }
}

/// How the nodes are read.
#[derive(Debug)]
enum Connection {
    /// Not connected (any more).
    None,
    /// By a connection of their own.
    Own(Idle),
    /// By the agent's: xenstored is in a domain of its own, and answers one request at a time.
    Agents,
}

/// Reads `nodes`. After an error there is a new connection at the next look.
async fn values(
    connection: &mut Connection,
    store: &Arc<dyn Store>,
    nodes: Vec<String>,
) -> Result<Values, StoreError> {
    if nodes.is_empty() {
        return Ok(Values::new());
    }
    let mut idle = match std::mem::replace(connection, Connection::None) {
        Connection::Own(idle) => idle,
        Connection::None => match blocking(|| Idle::connect(&Endpoints::usual())).await? {
            Some(idle) => idle,
            None => {
                *connection = Connection::Agents;
                return by_the_agent(store, nodes).await;
            }
        },
        Connection::Agents => {
            *connection = Connection::Agents;
            return by_the_agent(store, nodes).await;
        }
    };
    let mut values = Values::with_capacity(nodes.len());
    for window in nodes.chunks(MAX_IN_FLIGHT) {
        let mut asked = idle.ask(window)?;
        let mut pause = ANSWERS_FIRST;
        idle = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ANSWERS_MOST);
            match asked.collect()? {
                Collected::NotYet(still) => asked = still,
                Collected::All(idle, more) => {
                    values.extend(more);
                    break idle;
                }
            }
        };
    }
    *connection = Connection::Own(idle);
    Ok(values)
}

async fn by_the_agent(store: &Arc<dyn Store>, nodes: Vec<String>) -> Result<Values, StoreError> {
    let store = Arc::clone(store);
    let ops: Vec<StoreOp> = nodes.into_iter().map(StoreOp::Read).collect();
    let replies = blocking(move || store.call(TxId::NONE, &ops)).await?;
    let value = |reply| match reply {
        StoreReply::Value(value) => value,
        StoreReply::Children(_) | StoreReply::Permissions(_) | StoreReply::Done => Vec::new(),
    };
    Ok(replies.into_iter().map(|reply| reply.map(value)).collect())
}

/// Does what may wait where it delays nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(StoreError::Unreachable {
            endpoint: "xenstored".to_owned(),
            reason: error.to_string(),
        })
    })
}
