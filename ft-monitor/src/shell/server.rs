//! The monitor's own socket. Anybody on the host may look; nobody can change anything here.

use super::ShellError;
use crate::api::{Availability, EventLine, Reply, Request, Status};
use crate::limits::{CLIENT_TIMEOUT, CLIENTS_MAX, EVENTS_KEPT_MAX};
use parapet_wire::frame::{FrameError, Kind, receive_async, send_async};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

/// What a client wants from the main loop.
pub(super) enum Query {
    Status(oneshot::Sender<Status>),
    Availability(Option<String>, oneshot::Sender<Vec<Availability>>),
    Events(
        usize,
        oneshot::Sender<(Vec<EventLine>, broadcast::Receiver<EventLine>)>,
    ),
}

/// Binds the socket, in place of one that a dead monitor left.
pub(super) fn bind(path: &Path) -> Result<UnixListener, ShellError> {
    let fail = |source| ShellError::Socket {
        path: path.to_owned(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(fail(io::Error::other(
            "another ft-monitor answers there; stop it first",
        )));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(listener)
}

/// Serves clients for ever.
pub(super) async fn serve(listener: UnixListener, queries: mpsc::Sender<Query>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let queries = queries.clone();
                tokio::spawn(async move {
                    if let Err(error) = client(stream, queries).await {
                        tracing::debug!(%error, "client left");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a client");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(mut stream: UnixStream, queries: mpsc::Sender<Query>) -> Result<(), FrameError> {
    let received = receive_async::<Request>(&mut stream, Kind::MonitorRequest);
    let request = match tokio::time::timeout(CLIENT_TIMEOUT, received).await {
        Ok(request) => request?,
        Err(_) => return Ok(()),
    };
    match request {
        Request::Status => {
            let (reply, answer) = oneshot::channel();
            let _ = queries.send(Query::Status(reply)).await;
            send(
                &mut stream,
                &answer.await.map_or_else(|_| ending(), Reply::Status),
            )
            .await
        }
        Request::Availability { guest } => {
            let (reply, answer) = oneshot::channel();
            let _ = queries
                .send(Query::Availability(guest.clone(), reply))
                .await;
            let reply = match (answer.await, guest) {
                (Ok(lines), Some(guest)) if lines.is_empty() => unknown(&guest),
                (Ok(lines), _) => Reply::Availability(lines),
                (Err(_), _) => ending(),
            };
            send(&mut stream, &reply).await
        }
        Request::Events {
            last,
            guest,
            follow,
        } => events(stream, queries, last, guest, follow).await,
    }
}

async fn events(
    mut stream: UnixStream,
    queries: mpsc::Sender<Query>,
    last: u32,
    guest: Option<String>,
    follow: bool,
) -> Result<(), FrameError> {
    let (reply, answer) = oneshot::channel();
    let _ = queries.send(Query::Events(EVENTS_KEPT_MAX, reply)).await;
    let Ok((mut lines, mut news)) = answer.await else {
        return send(&mut stream, &ending()).await;
    };
    let wanted = |line: &EventLine| match &guest {
        Some(name) => line.guest.as_ref() == Some(name) || line.uuid.as_ref() == Some(name),
        None => true,
    };
    lines.retain(wanted);
    lines.drain(..lines.len().saturating_sub(last as usize));
    send(&mut stream, &Reply::Events(lines)).await?;
    if !follow {
        return Ok(());
    }
    loop {
        match news.recv().await {
            Ok(line) if wanted(&line) => send(&mut stream, &Reply::Event(line)).await?,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let text = format!("too slow: {missed} events were missed; ask again");
                return send(&mut stream, &Reply::Failed(text)).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

/// A client that does not take its answer is left.
async fn send(stream: &mut UnixStream, reply: &Reply) -> Result<(), FrameError> {
    let sent = send_async(stream, Kind::MonitorReply, reply);
    tokio::time::timeout(CLIENT_TIMEOUT, sent)
        .await
        .unwrap_or(Ok(()))
}

fn ending() -> Reply {
    Reply::Failed("the monitor is stopping".to_owned())
}

fn unknown(guest: &str) -> Reply {
    Reply::Failed(format!(
        "the monitor knows no guest {guest}; `parapet availability` lists all"
    ))
}
