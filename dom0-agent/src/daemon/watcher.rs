//! Tasks that wait for something to happen and wake the agent.

use super::Shared;
use super::alive::{NEWS_TURN, Pulse};
use crate::agent::bell::Bell;
use crate::agent::chatter::Chatter;
use crate::agent::drivers::DriverNews;
use crate::agent::guest::SharedGuest;
use crate::agent::{News, lock};
use crate::layout::paths;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_host::xenstore::watch::Watch;

/// First pause before a driver that could not be replaced is tried again; doubles up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between tries.
const RETRY_MOST: Duration = Duration::from_secs(10);
/// Tries to replace a driver.
const RETRIES: u32 = 30;
/// Pause before the pool of shells is filled up: guests that come in a burst find the host free.
const REFILL_AFTER: Duration = Duration::from_millis(500);
/// Longest time between two looks at all domains: what a lost event can cost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Deals with news from the agent and the drivers.
pub async fn news(shared: Shared, mut news: mpsc::UnboundedReceiver<News>, pulse: Pulse) {
    let refilling = Arc::new(AtomicBool::new(false));
    loop {
        pulse.beat();
        let Ok(item) = tokio::time::timeout(NEWS_TURN, news.recv()).await else {
            continue;
        };
        let Some(item) = item else { return };
        match item {
            News::Shells => {
                if !refilling.swap(true, Ordering::SeqCst) {
                    tokio::spawn(refill(shared.clone(), Arc::clone(&refilling)));
                }
            }
            News::Started { uuid, domid } => {
                tokio::spawn(watch_guest(shared.clone(), uuid, domid));
                listen(&shared, domid);
            }
            News::Driver(DriverNews::Died { uuid, pid }) => {
                tokio::spawn(replace(shared.clone(), uuid, pid));
            }
            News::Dump { uuid } => {
                let Some(guest) = shared.agent.by_key(uuid) else {
                    continue;
                };
                let agent = Arc::clone(&shared.agent);
                tokio::task::spawn_blocking(move || {
                    agent.make_dump(&guest);
                    if let Err(error) = agent.reap() {
                        tracing::error!(%error, "cannot look at domains");
                    }
                });
            }
            News::Driver(DriverNews::Fault { uuid, fault }) => {
                let Some(guest) = shared.agent.by_key(uuid) else {
                    continue;
                };
                let agent = Arc::clone(&shared.agent);
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = agent.device_fault(&guest, &fault)
                        && lock(&guest).speak()
                    {
                        tracing::error!(%error, "device fault");
                    }
                });
            }
        }
    }
}

/// Has Xen itself say when this domain stops, where it can.
fn listen(shared: &Shared, domid: DomId) {
    let Some(bell) = shared.bell.clone() else {
        return;
    };
    tokio::task::spawn_blocking(move || match bell.listen(domid) {
        Ok(heard) => tracing::debug!(%domid, heard, "shutdowns from Xen itself"),
        Err(error) => {
            tracing::debug!(%domid, %error, "no shutdowns of this domain from Xen itself")
        }
    });
}

/// Waits at the bell, in a thread of its own, and passes on that it rang.
fn at_the_bell(bell: Arc<Bell>) -> Arc<Notify> {
    let rang = Arc::new(Notify::new());
    let passed_on = Arc::clone(&rang);
    let waiting = std::thread::Builder::new().name("bell".into());
    let started = waiting.spawn(move || {
        loop {
            match bell.rang(None) {
                Ok(true) => passed_on.notify_one(),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "no more shutdowns from Xen itself; xenstored tells them");
                    return;
                }
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for shutdowns from Xen itself; xenstored tells them");
    }
    rang
}

/// Does what there is to do for the pool of shells, once those who create guests have had their turn.
async fn refill(shared: Shared, pending: Arc<AtomicBool>) {
    tokio::time::sleep(REFILL_AFTER).await;
    // What is asked from here on is another turn.
    pending.store(false, Ordering::SeqCst);
    let agent = Arc::clone(&shared.agent);
    if let Err(error) = tokio::task::spawn_blocking(move || agent.refill()).await {
        tracing::error!(%error, "filling up the pool of shells failed");
    }
}

async fn replace(shared: Shared, uuid: Uuid, pid: u32) {
    if let Some(guest) = shared.agent.by_key(uuid) {
        let agent = Arc::clone(&shared.agent);
        let pause = tokio::task::spawn_blocking(move || agent.driver_pause(&guest)).await;
        let pause = pause.unwrap_or_default();
        if !pause.is_zero() {
            tracing::warn!(%uuid, ?pause, "the driver dies again and again; waiting before the next one");
            tokio::time::sleep(pause).await;
        }
    }
    shared.agent.shell_driver_died(uuid);
    let mut pause = RETRY_FIRST;
    for _ in 0..RETRIES {
        let Some(guest) = shared.agent.by_key(uuid) else {
            return;
        };
        let agent = Arc::clone(&shared.agent);
        let result = tokio::task::spawn_blocking(move || agent.driver_died(&guest, pid)).await;
        match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%uuid, %error, "driver not replaced; trying again"),
            Err(error) => tracing::error!(%uuid, %error, "driver not replaced; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
    tracing::error!(%uuid, "driver given up; `parapet upgrade-drivers` tries again");
}

/// Reaps at every `@releaseDomain`, whenever Xen itself says that a guest stopped, and when a waiting decision is due.
pub async fn releases(shared: Shared, pulse: Pulse) {
    let agent = Arc::clone(&shared.agent);
    let watch =
        tokio::task::spawn_blocking(move || agent.seams().store.watch("@releaseDomain")).await;
    let watch = match watch {
        Ok(Ok(watch)) => watch,
        other => {
            tracing::error!(?other, "cannot watch for dying domains");
            return;
        }
    };
    let rang = shared.bell.clone().map(at_the_bell).unwrap_or_default();
    let mut due = Instant::now();
    loop {
        pulse.beat();
        tokio::select! {
            path = watch.next() => if path.is_none() { return },
            () = rang.notified() => tracing::info!("Xen says that a guest stopped"),
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let agent = Arc::clone(&shared.agent);
        let reaped = tokio::task::spawn_blocking(move || agent.reap()).await;
        let latest = Instant::now() + LOOK_AGAIN;
        due = match reaped {
            Ok(Ok(wanted)) => wanted.map_or(latest, |at| at.min(latest)),
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot look at domains");
                Instant::now() + RETRY_MOST
            }
            Err(error) => {
                tracing::error!(%error, "reaper failed");
                Instant::now() + RETRY_MOST
            }
        };
    }
}

/// Watches one guest's nodes until its domain is another one or gone.
async fn watch_guest(shared: Shared, uuid: Uuid, domid: DomId) {
    let root = paths::domain(domid);
    let agent = Arc::clone(&shared.agent);
    let device = format!("{root}/device");
    let backends: Vec<String> = [
        crate::layout::device::DISK_BACKEND,
        crate::layout::device::NET_BACKEND,
    ]
    .map(|kind| paths::backends(kind, domid))
    .into();
    let registered = tokio::task::spawn_blocking(move || {
        let store = &agent.seams().store;
        let mut nodes = vec![store.watch(&device)?];
        for path in &backends {
            nodes.push(store.watch(path)?);
        }
        Ok::<_, xen_host::xenstore::error::StoreError>(nodes)
    })
    .await;
    let nodes = match registered {
        Ok(Ok(nodes)) => nodes,
        other => {
            tracing::error!(%domid, ?other, "cannot watch a guest");
            return;
        }
    };
    let mut chatter = Chatter::default();
    while any(&nodes).await {
        let Some(guest) = shared.agent.by_key(uuid) else {
            return;
        };
        if !still(&guest, domid) {
            return;
        }
        let agent = Arc::clone(&shared.agent);
        let settled = tokio::task::spawn_blocking(move || agent.settle(&guest)).await;
        // A guest can write as often as it likes, and fail each time.
        if !matches!(settled, Ok(Ok(())))
            && let Some(left_out) = chatter.speak(Instant::now())
        {
            tracing::error!(%domid, ?settled, left_out, "devices not settled");
        }
    }
}

/// Waits for any of the watches; false when one ended.
async fn any(watches: &[Watch]) -> bool {
    let waiting = watches.iter().map(|watch| Box::pin(watch.next()));
    let (path, _, _) = futures_util::future::select_all(waiting).await;
    for watch in watches {
        while watch.try_next().is_some() {}
    }
    path.is_some()
}

/// A busy guest is not waited for: it is there.
fn still(guest: &SharedGuest, domid: DomId) -> bool {
    guest
        .try_lock()
        .map_or(true, |guest| guest.record.domid == Some(domid))
}
