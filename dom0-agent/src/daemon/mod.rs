//! The daemon around the agent: watches, driver news, the API socket, systemd.
//!
//! ```text
//!   @releaseDomain ──▶ reap task ──┐
//!   Xen's own event ─────┘         │
//!   guest's nodes ──▶ guest task ──┼──▶ blocking pool ──▶ Agent
//!   every second ──▶ heartbeats    │  (without waiting for anything)
//!   driver news ──▶ news task ─────┤
//!   agent.sock ──▶ client tasks ───┘
//! ```
//!
//! All tasks share one thread, so that an event is one wake-up: whatever may take its time is the blocking pool's.
//!
//! The socket is systemd's where it was passed one, and the daemon's own otherwise.
//!
//! Crash-only: there is no orderly end. On SIGTERM it just stops; guests and drivers go on, and the next agent adopts them.

pub mod alive;
mod heartbeats;
pub mod options;
pub mod server;
mod transfer;
pub mod watcher;

use crate::agent::bell::Bell;
use crate::agent::heartbeats::matters;
use crate::agent::process::Processes;
use crate::agent::{Agent, Dirs, News, Outlets, Seams};
use crate::build::Hypervisor;
use crate::device::{bridge::Bridges, userdata};
use crate::image::{KernelCache, Worker};
use alive::Pulses;
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use options::Options;
use parapet_wire::agent::Event;
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, mpsc};
use xen_host::devices::HostDevices;
use xen_host::xen::Xen;
use xen_host::xenstore::client::Client;

/// Events a slow subscriber may lag behind before it is told to start over.
const EVENT_BACKLOG: usize = 1024;

/// How long an agent that is ending is waited for.
const OTHER_AGENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often.
const OTHER_AGENT_LOOK: Duration = Duration::from_millis(50);

/// The agent and its channels, shared by all tasks.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Where subscribers listen.
    pub events: broadcast::Sender<Event>,
    /// Xen's release, for greetings.
    pub xen: String,
    /// Shutdowns straight from Xen, where event channels can be had.
    pub bell: Option<Arc<Bell>>,
    /// Heartbeats are to be looked at now: somebody began to listen, or a guest came whose beats matter.
    pub look: Arc<Notify>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Something it cannot work without is missing: Xen, xenstored, its directories, its socket.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // First of all, while the numbers of descriptors are still those that systemd means.
    let passed = xen_host::activation::take_listener().context("socket activation")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let _alone = alone(&options.state, OTHER_AGENT_TIMEOUT)?;
    let served = runtime.block_on(serve(options, passed));
    // What is underway ends with this process, as if it had been killed: its successor must not meet it.
    runtime.shutdown_background();
    served
}

/// Takes the state directory for the life of this process. An agent that is ending has it still, for a moment.
fn alone(state: &Path, patience: Duration) -> anyhow::Result<Flock<File>> {
    fs::create_dir_all(state).with_context(|| format!("cannot make {}", state.display()))?;
    let mut folder =
        File::open(state).with_context(|| format!("cannot open {}", state.display()))?;
    let give_up = Instant::now() + patience;
    loop {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < give_up => folder = back,
            Err((_, Errno::EWOULDBLOCK)) => anyhow::bail!(
                "another agent works on {}; stop it first, or give this one another `state` in its configuration file",
                state.display()
            ),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", state.display()));
            }
        }
        std::thread::sleep(OTHER_AGENT_LOOK);
    }
}

async fn serve(options: &Options, passed: Option<UnixListener>) -> anyhow::Result<()> {
    let (news_in, news_out) = mpsc::unbounded_channel::<News>();
    let (events, _) = broadcast::channel(EVENT_BACKLOG);
    let shared = {
        let (options, events) = (options.clone(), events.clone());
        tokio::task::spawn_blocking(move || assemble(&options, news_in, events)).await??
    };
    let listener = match passed {
        Some(passed) => server::adopt(passed)?,
        None => server::listen(&options.socket)?,
    };
    let agent = Arc::clone(&shared.agent);
    tokio::task::spawn_blocking(move || agent.recover())
        .await?
        .context("cannot take over what an earlier agent left")?;
    let pulses = Pulses::default();
    tokio::spawn(watcher::news(shared.clone(), news_out, pulses.news.clone()));
    tokio::spawn(watcher::releases(shared.clone(), pulses.releases.clone()));
    tokio::spawn(heartbeats::look(shared.clone(), pulses.heartbeats.clone()));
    if let Some(timeout) = sd_notify::watchdog_enabled() {
        let pet = || drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
        tokio::spawn(alive::prove(shared.clone(), pulses, timeout / 3, pet));
    }
    tokio::spawn(server::accept(shared.clone(), listener));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(xen = shared.xen, socket = %options.socket.display(), "ready");
    stopped().await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping; guests go on");
    Ok(())
}

/// Opens Xen, xenstore and the directories.
fn assemble(
    options: &Options,
    news: mpsc::UnboundedSender<News>,
    events: broadcast::Sender<Event>,
) -> anyhow::Result<Shared> {
    let xen = match options.xen_patches {
        true => Xen::open()?,
        false => Xen::open()?.without_extras(),
    };
    let xen = Arc::new(xen.with_mover(Path::new("/proc/self/exe")));
    let store = Arc::new(Client::connect()?);
    let version = xen_host::seam::HostControl::version(xen.as_ref()).to_string();
    for bridge in &options.bridges {
        Bridges::ensure_bridge(bridge).map_err(anyhow::Error::msg)?;
    }
    let bell = Bell::hang(&HostDevices, Arc::clone(&xen) as Arc<dyn Hypervisor>)
        .inspect_err(|error| tracing::info!(%error, "no shutdowns from Xen itself"))
        .ok()
        .map(Arc::new);
    let seams = Seams { xen, store };
    let dirs = Dirs {
        state: options.state.clone(),
        run: options.run.clone(),
        logs: options.logs.clone(),
        userdata: PathBuf::from(userdata::DIRECTORY),
        dumps: PathBuf::from(crate::agent::dump::DIRECTORY),
    };
    let drivers = Processes::new(options.driver.clone(), &options.run, &options.logs)
        .with_context(|| format!("cannot prepare {}", options.run.display()))?;
    let events_in = events.clone();
    let look = Arc::new(Notify::new());
    let look_in = Arc::clone(&look);
    let outlets = Outlets {
        news: Arc::new(move |item| drop(news.send(item))),
        events: Arc::new(move |event| {
            if let Event::Started(guest) | Event::Changed(guest) = &event
                && matters(guest)
            {
                look_in.notify_one();
            }
            drop(events_in.send(event));
        }),
    };
    let kernels = KernelCache::with_worker(&options.cache.join("kernels"), Worker::default());
    let links = Arc::new(Bridges::new(&options.default_bridge));
    let agent = Arc::new(Agent::new(
        seams,
        dirs,
        kernels,
        Arc::new(drivers),
        links,
        outlets,
    )?);
    Ok(Shared {
        agent,
        events,
        look,
        xen: version,
        bell,
    })
}

/// Waits for SIGTERM or SIGINT.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_by_the_directory_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = alone(&state, Duration::ZERO).unwrap();
        let refused = alone(&state, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains(&state.display().to_string()), "{refused}");
        drop(first);
        alone(&state, Duration::ZERO).unwrap();
    }
}
