//! The API socket: greets, checks who asks, answers.

use super::Shared;
use super::transfer::Transfer;
use crate::agent::create::CreateOptions;
use crate::agent::error::AgentError;
use crate::agent::lock;
use crate::agent::record::Stage;
use crate::agent::whereabouts::Whereabouts;
use anyhow::Context;
use parapet_wire::agent::{
    Cost, Create, Event, Failure, FailureKind, Reply, Request, ShellRequest,
};
use parapet_wire::driver::DeviceKind;
use parapet_wire::frame::{FrameError, Kind, receive_async, send_async};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast};
use uuid::Uuid;
use xen_abi::ids::{DomId, Handle};

/// Clients served at the same time; more wait.
const MAX_CLIENTS: usize = 256;

/// Binds the API socket, in place of one that a dead agent left.
///
/// # Errors
/// Another agent answers on it, or it cannot be made.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!(
            "another agent is running on {}; stop it first",
            path.display()
        );
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    // Anybody may connect; who may do what is decided by the caller's uid.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot open {} to callers", path.display()))?;
    Ok(listener)
}

/// Takes the socket that systemd listens on: callers wait in it while there is no agent.
///
/// # Errors
/// The runtime cannot use it.
pub fn adopt(listener: std::os::unix::net::UnixListener) -> anyhow::Result<UnixListener> {
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .context("cannot use the socket that systemd passed")
}

/// Serves clients for ever.
pub async fn accept(shared: Shared, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = client(shared, stream).await {
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

async fn client(shared: Shared, mut stream: UnixStream) -> Result<(), FrameError> {
    let uid = stream.peer_cred()?.uid();
    loop {
        let request: Request = match receive_async(&mut stream, Kind::AgentRequest).await {
            Ok(request) => request,
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !permitted(uid, &request) {
            let text = format!("uid {uid} may not do this; it needs root");
            let failure = Failure {
                kind: FailureKind::NotPermitted,
                text,
            };
            send_async(&mut stream, Kind::AgentReply, &Reply::Failed(failure)).await?;
            continue;
        }
        // The monitor asks every few seconds: this is worth no second thread.
        if let Request::Hello { client } = request {
            send_async(&mut stream, Kind::AgentReply, &hello(&shared, &client)).await?;
            continue;
        }
        let request = match Transfer::of(request) {
            Ok(transfer) => return super::transfer::serve(shared, stream, transfer).await,
            Err(request) => request,
        };
        if matches!(request, Request::Subscribe) {
            shared.agent.listener_came();
            let ended = subscribe(&shared, &mut stream).await;
            shared.agent.listener_left();
            return ended;
        }
        let for_work = shared.clone();
        let reply = tokio::task::spawn_blocking(move || answer(&for_work, request))
            .await
            .unwrap_or_else(|error| {
                Reply::Failed(Failure {
                    kind: FailureKind::Failed,
                    text: format!("the agent failed: {error}"),
                })
            });
        send_async(&mut stream, Kind::AgentReply, &reply).await?;
    }
}

/// Root and whoever the agent runs as (root, but for tests) may do everything; the monitor's user may do what the monitor does, the link's may bring guests;
/// everybody may ask how things are.
fn permitted(uid: u32, request: &Request) -> bool {
    let agent = nix::unistd::geteuid().as_raw();
    let named = |name: &str| xen_host::users::find(name).map(|user| user.uid);
    may(uid, agent, named, request)
}

/// User of the monitor.
const MONITOR: &str = "parapet-monitor";
/// User of the link's listener, which hands over guests that other hosts send.
const LINK: &str = "parapet-link";

/// As [`permitted`], for an agent of this uid; uids of services are looked up by name only where they matter. A request that is not named here takes root,
/// and one that names a service takes root where there is no such user.
fn may(uid: u32, agent: u32, named: impl Fn(&str) -> Option<u32>, request: &Request) -> bool {
    let owner = uid == 0 || uid == agent;
    match request {
        Request::Hello { .. } | Request::Guests | Request::Status => true,
        Request::Shells(ShellRequest::List) => true,
        Request::Subscribe | Request::Restart { .. } | Request::GiveUp { .. } => {
            owner || named(MONITOR) == Some(uid)
        }
        // Whoever brings disks says where they land.
        Request::Receive(receive) if receive.disks.is_some() => owner,
        Request::Receive(_) => owner || named(LINK) == Some(uid),
        _ => owner,
    }
}

async fn subscribe(shared: &Shared, stream: &mut UnixStream) -> Result<(), FrameError> {
    let mut events = shared.events.subscribe();
    let mut snapshot = true;
    loop {
        if std::mem::take(&mut snapshot) {
            shared.agent.tell_anew();
            shared.look.notify_one();
            let agent = Arc::clone(&shared.agent);
            let guests = tokio::task::spawn_blocking(move || agent.guests())
                .await
                .unwrap_or_default();
            send_async(
                stream,
                Kind::AgentReply,
                &Reply::Event(Event::Snapshot(guests)),
            )
            .await?;
        }
        match events.recv().await {
            Ok(event) => send_async(stream, Kind::AgentReply, &Reply::Event(event)).await?,
            Err(broadcast::error::RecvError::Lagged(_)) => snapshot = true,
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

fn answer(shared: &Shared, request: Request) -> Reply {
    match act(shared, request) {
        Ok(reply) => reply,
        Err(error) => {
            tracing::warn!(%error, "request refused");
            Reply::Failed(error.failure())
        }
    }
}

fn act(shared: &Shared, request: Request) -> Result<Reply, AgentError> {
    let agent = &shared.agent;
    match request {
        Request::Create(create) => return self::create(shared, &create),
        Request::Destroy { domid } => agent.destroy(domid)?,
        Request::AttachDisk { domid, spec } => agent.attach_disk(domid, &json("disk", &spec)?)?,
        Request::DetachDisk {
            domid,
            devid,
            force,
        } => agent.detach(domid, DeviceKind::Disk, devid, force)?,
        Request::AttachNet { domid, spec } => {
            agent.attach_net(domid, &json("vif", &spec)?).map(drop)?
        }
        Request::DetachNet { domid, devid } => {
            agent.detach(domid, DeviceKind::Net, devid, false)?
        }
        Request::Rename { domid, name } => agent.rename(domid, &name)?,
        Request::Guests => return Ok(Reply::Guests(agent.guests())),
        Request::Restart { uuid, domid, why } => {
            let (restarted, cost) =
                measured(|| agent.restart(Uuid::from_bytes(uuid.0), domid, &why));
            if let Some(domid) = restarted? {
                return Ok(Reply::Created { domid, cost });
            }
        }
        Request::GiveUp { uuid, domid, why } => give_up(shared, uuid, domid, &why)?,
        Request::Protect {
            uuid,
            protection,
            watching,
        } => {
            agent.protect(Uuid::from_bytes(uuid.0), protection, watching.as_ref())?;
        }
        Request::ReplaceDrivers { domid } => {
            let count = agent.replace_drivers(domid)?;
            return Ok(Reply::Status(format!("{{\"replaced\": {count}}}")));
        }
        Request::SettleMove { domid, here } => agent.settle_move(domid, whereabouts(here))?,
        Request::Status => return Ok(Reply::Status(status(shared))),
        Request::Shells(ShellRequest::List) => return Ok(Reply::Shells(agent.list_shells())),
        Request::Shells(ShellRequest::Add { config, count }) => {
            agent.add_shells(json("configuration", &config)?, count)?;
            return Ok(Reply::Shells(agent.list_shells()));
        }
        Request::Shells(ShellRequest::Drop { name }) => {
            agent.drop_shells(name.as_deref())?;
            return Ok(Reply::Shells(agent.list_shells()));
        }
        // Dealt with before: the greeting, and what takes the whole connection. There is nothing to keep outside of one.
        Request::Hello { .. }
        | Request::Subscribe
        | Request::Save(_)
        | Request::Restore(_)
        | Request::Migrate(_)
        | Request::Receive(_)
        | Request::Keep => {}
    }
    Ok(Reply::Done)
}

fn hello(shared: &Shared, client: &str) -> Reply {
    tracing::debug!(client, "hello");
    Reply::Hello {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        xen: shared.xen.clone(),
    }
}

fn whereabouts(here: bool) -> Whereabouts {
    if here {
        Whereabouts::Here
    } else {
        Whereabouts::There
    }
}

/// Forgets a guest if its domain is still the one that this was decided about.
fn give_up(
    shared: &Shared,
    uuid: Handle,
    domid: Option<DomId>,
    why: &str,
) -> Result<(), AgentError> {
    let uuid = Uuid::from_bytes(uuid.0);
    let found = shared
        .agent
        .by_uuid(uuid)
        .ok_or_else(|| AgentError::NoGuest(uuid.to_string()))?;
    let guest = lock(&found);
    // While it is saved or moved its silence means nothing.
    let away = matches!(
        guest.record.stage,
        Stage::Saving | Stage::Leaving | Stage::HandedOver
    );
    if guest.record.domid == domid && !away {
        tracing::warn!(%uuid, why, "given up");
        shared.agent.give_up(guest)?;
    }
    Ok(())
}

fn create(shared: &Shared, create: &Create) -> Result<Reply, AgentError> {
    let config = json("configuration", &create.config)?;
    let options = CreateOptions {
        paused: create.paused,
        unmanaged: create.unmanaged,
    };
    let (domid, cost) = measured(|| shared.agent.create(config, options));
    Ok(Reply::Created {
        domid: domid?,
        cost,
    })
}

/// Runs an operation and says what it cost. The counters are the whole process's: exact when nothing else happens.
pub(super) fn measured<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = (
        xen_host::xen::Xen::hypercalls(),
        xen_host::xenstore::round_trips(),
        Instant::now(),
    );
    let value = work();
    let cost = Cost {
        hypercalls: xen_host::xen::Xen::hypercalls() - before.0,
        store_round_trips: xen_host::xenstore::round_trips() - before.1,
        micros: u64::try_from(before.2.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    (value, cost)
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    what: &str,
    text: &str,
) -> Result<T, AgentError> {
    serde_json::from_str(text)
        .map_err(|error| AgentError::Invalid(format!("{what} from the client: {error}")))
}

fn status(shared: &Shared) -> String {
    let guests = shared.agent.guests();
    serde_json::json!({
        "release": env!("CARGO_PKG_VERSION"),
        "xen": shared.xen,
        "guests": guests.len(),
        "hypercalls": xen_host::xen::Xen::hypercalls(),
        "store_round_trips": xen_host::xenstore::round_trips(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::{LINK, MONITOR as MONITOR_NAME, may};
    use parapet_wire::agent::{
        AfterSave, Create, Protection, Receive, ReceiveDisks, Request, Save,
    };
    use xen_abi::ids::{DomId, Handle};

    const ROOT: u32 = 0;
    const AGENT: u32 = 700;
    const MONITOR: u32 = 998;
    const LISTENER: u32 = 997;
    const STRANGER: u32 = 65_534;

    const DOMID: DomId = DomId(1);
    const UUID: Handle = Handle([1; 16]);

    fn text() -> String {
        "x".to_owned()
    }

    fn create() -> Create {
        Create {
            config: text(),
            paused: false,
            unmanaged: false,
        }
    }

    fn receive(disks: Option<ReceiveDisks>) -> Request {
        let start = create();
        Request::Receive(Receive { start, disks })
    }

    /// What everybody may ask, what the monitor may beside, what the link's listener may, and what takes root.
    fn requests() -> [Vec<Request>; 4] {
        let (uuid, why) = (UUID, text());
        let everybody = vec![
            Request::Hello { client: text() },
            Request::Guests,
            Request::Status,
        ];
        let restart = Request::Restart {
            uuid,
            domid: None,
            why: why.clone(),
        };
        let give_up = Request::GiveUp {
            uuid,
            domid: None,
            why,
        };
        [
            everybody,
            vec![Request::Subscribe, restart, give_up],
            vec![receive(None)],
            root(),
        ]
    }

    fn root() -> Vec<Request> {
        let (domid, uuid, spec, name) = (DOMID, UUID, text(), text());
        let create = create();
        let save = Save {
            domid,
            after: AfterSave::Destroy,
            config: None,
        };
        let detach_disk = Request::DetachDisk {
            domid,
            devid: 0,
            force: true,
        };
        let protect = Request::Protect {
            uuid,
            protection: Protection::None,
            watching: None,
        };
        let attach_disk = Request::AttachDisk {
            domid,
            spec: spec.clone(),
        };
        vec![
            Request::Create(create.clone()),
            Request::Destroy { domid },
            attach_disk,
            detach_disk,
            Request::AttachNet { domid, spec },
            Request::DetachNet { domid, devid: 0 },
            Request::Rename { domid, name },
            Request::ReplaceDrivers { domid: None },
            protect,
            Request::Save(save),
            Request::Restore(create),
            receive(Some(ReceiveDisks::default())),
            Request::Keep,
        ]
    }

    #[test]
    fn who_may_ask_for_what() {
        let named = |name: &str| match name {
            MONITOR_NAME => Some(MONITOR),
            LINK => Some(LISTENER),
            _ => None,
        };
        let rights = [
            [true, true, true],
            [true, false, false],
            [false, true, false],
            [false, false, false],
        ];
        for (requests, [monitor, listener, stranger]) in requests().iter().zip(rights) {
            for request in requests {
                for (uid, expected) in [
                    (ROOT, true),
                    (AGENT, true),
                    (MONITOR, monitor),
                    (LISTENER, listener),
                    (STRANGER, stranger),
                ] {
                    let allowed = may(uid, AGENT, named, request);
                    assert_eq!(allowed, expected, "uid {uid}: {request:?}");
                }
                // Where there are no such users, nobody gains anything.
                for uid in [MONITOR, LISTENER] {
                    let without = may(uid, AGENT, |_| None, request);
                    assert_eq!(without, stranger, "{request:?}");
                }
            }
        }
    }
}
