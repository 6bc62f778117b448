//! The connection behind a client: one reader thread, which also reconnects.
//!
//! ```text
//!   callers ──▶ register ids, one write ──▶ xenstored ──▶ reader thread ──▶ batches (by id), watches (by token)
//!                                              │ end of stream
//!                                              ▼
//!              all pending calls fail; open transactions are dead; back-off; connect; register every watch again
//! ```
//!
//! xenstored fires a watch once when it is registered, so after a reconnect every consumer looks again: nothing that changed in between is
//! missed. The reader never waits for a consumer.

use super::batch::{Answer, Batch};
use super::endpoint::Endpoints;
use super::error::StoreError;
use super::frame::Frames;
use super::translate::{Subject, encode_request};
use super::watch::WatchSender;
use super::wire::Wire;
use crate::eventfd::EventFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xen_abi::xs_wire::{Message, Op, Request, reply};

/// First pause before a reconnect; doubles up to [`RECONNECT_MAX`].
pub const RECONNECT_FIRST: Duration = Duration::from_millis(5);
/// Longest pause before a reconnect.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// Transactions one client may have open.
pub const MAX_TRANSACTIONS: usize = 1024;

/// What all handles of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    endpoints: Endpoints,
    state: Mutex<State>,
    linked: Condvar,
    linked_async: tokio::sync::Notify,
    stop: EventFd,
    next_request: AtomicU32,
    next_token: AtomicU64,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Wire>>,
    /// Counts connections, so that a transaction of an older one is recognised.
    epoch: u64,
    closed: bool,
    pending: HashMap<u32, (Arc<Batch>, usize)>,
    watches: HashMap<String, (String, WatchSender)>,
    transactions: HashMap<u32, Transaction>,
    next_transaction: u32,
}

/// An open transaction: which connection it belongs to, and its id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transaction {
    pub epoch: u64,
    pub wire_id: u32,
}

/// Encoded requests on their way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub bytes: Vec<u8>,
    pub ids: Vec<u32>,
    /// The connection they must use, because of their transaction.
    pub epoch: Option<u64>,
}

impl Shared {
    /// Connects and starts the reader.
    pub fn connect(endpoints: Endpoints) -> Result<Arc<Self>, StoreError> {
        let wire = Arc::new(Wire::new(endpoints.connect()?));
        let unreachable = |reason: String| StoreError::Unreachable {
            endpoint: "a reader of xenstore".to_owned(),
            reason,
        };
        let shared = Arc::new(Self {
            endpoints,
            state: Mutex::new(State {
                link: Some(Arc::clone(&wire)),
                epoch: 1,
                closed: false,
                pending: HashMap::new(),
                watches: HashMap::new(),
                transactions: HashMap::new(),
                next_transaction: 1,
            }),
            linked: Condvar::new(),
            linked_async: tokio::sync::Notify::new(),
            stop: EventFd::new().map_err(|error| unreachable(error.to_string()))?,
            next_request: AtomicU32::new(1),
            next_token: AtomicU64::new(1),
        });
        let for_reader = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("xenstore".into())
            .spawn(move || for_reader.run(wire))
            .map_err(|error| unreachable(error.to_string()))?;
        Ok(shared)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of `count` request ids.
    pub fn request_ids(&self, count: usize) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.next_request.fetch_add(count, Ordering::Relaxed)
    }

    /// Ends the connection; waiting calls fail, watches end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(wire) = &state.link {
            wire.link().shut_down();
        }
        drop(state);
        self.linked.notify_all();
        self.linked_async.notify_waiters();
        if let Err(error) = self.stop.signal() {
            tracing::error!(%error, "the xenstore reader cannot be told to end");
        }
    }

    /// Sends requests as soon as there is a connection, at most after `patience`.
    pub fn send(&self, requests: &Requests, patience: Duration) -> Result<Arc<Batch>, StoreError> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.link.is_none() && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.linked.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.send_now(state, requests)
    }

    /// As [`Shared::send`], inside of a tokio runtime.
    pub async fn send_async(
        &self,
        requests: &Requests,
        patience: Duration,
    ) -> Result<Arc<Batch>, StoreError> {
        let linked = async {
            loop {
                let notified = self.linked_async.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.lock().is_settled() {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(patience, linked).await;
        self.send_now(self.lock(), requests)
    }

    fn send_now(
        &self,
        mut state: MutexGuard<'_, State>,
        requests: &Requests,
    ) -> Result<Arc<Batch>, StoreError> {
        let Some(wire) = state.link.clone() else {
            let reason = if state.closed {
                "this client was closed"
            } else {
                "the connection was lost"
            };
            let endpoint = "any known place".to_owned();
            return Err(StoreError::Unreachable {
                endpoint,
                reason: reason.to_owned(),
            });
        };
        let batch = Batch::new(requests.ids.len());
        if requests.epoch.is_some_and(|epoch| epoch != state.epoch) {
            (0..requests.ids.len()).for_each(|position| batch.put(position, Answer::Lost));
            return Ok(batch);
        }
        for (position, id) in requests.ids.iter().enumerate() {
            state.pending.insert(*id, (Arc::clone(&batch), position));
        }
        drop(state);
        wire.send(&requests.bytes);
        Ok(batch)
    }

    /// Stops waiting for answers; they are dropped when they come.
    pub fn forget(&self, ids: &[u32]) {
        let mut state = self.lock();
        for id in ids {
            state.pending.remove(id);
        }
    }

    /// Remembers a transaction under a number of ours, which no reconnect can make ambiguous.
    pub fn open_transaction(&self, wire_id: u32, epoch: u64) -> Option<u32> {
        let mut state = self.lock();
        if state.transactions.len() >= MAX_TRANSACTIONS {
            return None;
        }
        let id = state.next_transaction;
        state.next_transaction = id.wrapping_add(1).max(1);
        state
            .transactions
            .insert(id, Transaction { epoch, wire_id });
        Some(id)
    }

    /// The number of the connection in use, 0 without one.
    pub fn epoch(&self) -> u64 {
        let state = self.lock();
        if state.link.is_some() { state.epoch } else { 0 }
    }

    pub fn transaction(&self, id: u32) -> Option<Transaction> {
        self.lock().transactions.get(&id).copied()
    }

    pub fn close_transaction(&self, id: u32) -> Option<Transaction> {
        self.lock().transactions.remove(&id)
    }

    /// A token under which events of `path` go to `sender`.
    pub fn add_watch(&self, path: &str, sender: WatchSender) -> String {
        let token = format!("p{}", self.next_token.fetch_add(1, Ordering::Relaxed));
        self.lock()
            .watches
            .insert(token.clone(), (path.to_owned(), sender));
        token
    }

    /// Takes a watch away here and, without waiting, in xenstored.
    pub fn remove_watch(&self, token: &str) {
        let mut state = self.lock();
        let Some((path, sender)) = state.watches.remove(token) else {
            return;
        };
        let wire = state.link.clone();
        drop(state);
        sender.close();
        let request = Request::Unwatch {
            path: path.clone(),
            token: token.to_owned(),
        };
        let mut bytes = Vec::new();
        let subject = Subject::new(Op::Unwatch, path);
        let encoded = encode_request(&request, &subject, self.request_ids(1), 0, &mut bytes);
        if let (Some(wire), Ok(())) = (wire, encoded) {
            wire.send(&bytes);
        }
    }

    /// The reader thread.
    fn run(&self, mut wire: Arc<Wire>) {
        loop {
            self.read_to_end(&wire);
            wire.end();
            self.lost();
            match self.reconnect() {
                Some(next) => wire = next,
                None => break,
            }
        }
        for (_, sender) in self.lock().watches.drain().map(|(_, watch)| watch) {
            sender.close();
        }
    }

    /// Hands out what arrives until the stream ends or the client is closed.
    fn read_to_end(&self, wire: &Wire) {
        let mut frames = Frames::default();
        while self.wait_readable(wire) {
            match frames.fill(&mut wire.link()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return tracing::warn!(%error, "reading from xenstored failed"),
            }
            loop {
                match frames.next() {
                    Ok(Some(message)) => {
                        if message.op != Op::WatchEvent {
                            wire.answered();
                        }
                        self.deliver(message);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        return tracing::warn!(%error, "xenstored does not speak its protocol");
                    }
                }
            }
        }
    }

    /// False once the client is closed. A socket's reads end with its shutdown; a device has to be polled.
    fn wait_readable(&self, wire: &Wire) -> bool {
        if !wire.link().is_device() {
            return !self.lock().closed;
        }
        let mut fds = [
            PollFd::new(wire.link().as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => !self.lock().closed,
            Err(errno) => {
                tracing::error!(%errno, "poll on xenstore failed");
                false
            }
        }
    }

    fn deliver(&self, message: Message) {
        if message.op == Op::WatchEvent {
            let event = match reply::watch_event(&message.payload) {
                Ok(event) => event,
                Err(error) => return tracing::warn!(%error, "unreadable watch event"),
            };
            if let Some((_, sender)) = self.lock().watches.get(&event.token) {
                sender.send(&event.path);
            }
            return;
        }
        let waiting = self.lock().pending.remove(&message.req_id);
        if let Some((batch, position)) = waiting {
            batch.put(position, Answer::Came(message));
        }
    }

    /// The connection is gone: nobody shall wait for it.
    fn lost(&self) {
        let mut state = self.lock();
        state.link = None;
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        for (batch, position) in pending.into_values() {
            batch.put(position, Answer::Lost);
        }
    }

    /// Connects again, until it works; `None` once the client is closed.
    fn reconnect(&self) -> Option<Arc<Wire>> {
        let mut pause = RECONNECT_FIRST;
        loop {
            if self.lock().closed {
                return None;
            }
            match self.endpoints.connect() {
                Ok(link) => return self.relink(Wire::new(link)),
                Err(error) => tracing::debug!(%error, "xenstored is still away"),
            }
            let _ = self.stop.wait(Some(pause));
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    /// Puts a new connection in use, after every watch was registered on it; `None` if the client was closed meanwhile.
    fn relink(&self, wire: Wire) -> Option<Arc<Wire>> {
        let wire = Arc::new(wire);
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let mut bytes = Vec::new();
        for (token, (path, _)) in &state.watches {
            let request = Request::Watch {
                path: path.clone(),
                token: token.clone(),
            };
            let subject = Subject::new(Op::Watch, path.clone());
            if let Err(error) =
                encode_request(&request, &subject, self.request_ids(1), 0, &mut bytes)
            {
                tracing::error!(%error, "a watch cannot be registered again");
            }
        }
        wire.send(&bytes);
        state.link = Some(Arc::clone(&wire));
        state.epoch += 1;
        let (epoch, watches) = (state.epoch, state.watches.len());
        drop(state);
        tracing::info!(epoch, watches, "connected to xenstored again");
        self.linked.notify_all();
        self.linked_async.notify_waiters();
        Some(wire)
    }
}

impl State {
    /// There is no point in waiting for a connection.
    fn is_settled(&self) -> bool {
        self.link.is_some() || self.closed
    }
}
