//! A small xenstored in this process, with switches for what can go wrong.
//!
//! It speaks the wire protocol over a real socket: nodes, permissions, transactions (any change meanwhile is a conflict), watches,
//! `@introduceDomain`/`@releaseDomain`, directories in parts. Faults are counted down, so that a test says exactly which request suffers.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test programs"
)]

mod tree;

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tree::Tree;
use xen_abi::xs_wire::{Message, Op, Request, StoreErrno};

/// What shall go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Commits to answer with a conflict.
    pub conflicts: u32,
    /// Requests to answer before every connection is dropped.
    pub drop_after: Option<u32>,
    /// Paths whose reads are never answered.
    pub silent: Vec<String>,
    /// Refuse new connections.
    pub away: bool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    watches: Vec<(String, String)>,
    transactions: HashMap<u32, (Tree, u64)>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    faults: Faults,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    next_transaction: u32,
    introduced: Vec<u16>,
    requests: Vec<Request>,
    stopped: bool,
}

/// The server; stops with its handle.
#[derive(Debug)]
pub struct FakeXenstored {
    shared: Arc<(Mutex<State>, Condvar)>,
    socket: PathBuf,
    directory: Option<tempfile::TempDir>,
}

impl Drop for FakeXenstored {
    fn drop(&mut self) {
        self.with(|state| state.stopped = true);
        self.drop_connections();
        let _ = UnixStream::connect(self.socket());
    }
}

impl FakeXenstored {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self::start_at(&directory.path().join("socket"));
        server.directory = Some(directory);
        server
    }

    pub fn start_at(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let for_accept = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &for_accept));
        Self {
            shared,
            socket: socket.to_owned(),
            directory: None,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    pub fn endpoints(&self) -> xen_host::xenstore::endpoint::Endpoints {
        xen_host::xenstore::endpoint::Endpoints::only(self.socket())
    }

    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        let result = body(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
        result
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        self.with(|state| change(&mut state.faults));
    }

    /// As if the daemon had died: every connection ends, nothing else is forgotten.
    pub fn drop_connections(&self) {
        self.with(|state| {
            for (_, connection) in state.connections.drain() {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            }
        });
    }

    /// Writes a node behind everybody's back, firing watches.
    pub fn set(&self, path: &str, value: &str) {
        self.with(|state| {
            state.tree.write(path, value.as_bytes());
            state.fire(path);
        });
    }

    pub fn value(&self, path: &str) -> Option<String> {
        self.with(|state| {
            state
                .tree
                .value(path)
                .map(|value| String::from_utf8(value).unwrap())
        })
    }

    pub fn connections(&self) -> usize {
        self.with(|state| state.connections.len())
    }

    pub fn watches(&self) -> usize {
        self.with(|state| {
            state
                .connections
                .values()
                .map(|each| each.watches.len())
                .sum()
        })
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.with(|state| state.requests.clone())
    }

    /// Waits until `done` holds; the server's state changes only under its lock, so nothing is missed.
    pub fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if done(self) {
                return;
            }
            let guard = self.shared.0.lock().unwrap();
            let _ = self
                .shared
                .1
                .wait_timeout(guard, Duration::from_millis(10))
                .unwrap();
        }
        panic!("the fake xenstored never got there");
    }
}

type Shared = Arc<(Mutex<State>, Condvar)>;

fn accept(listener: &UnixListener, shared: &Shared) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let mut state = shared.0.lock().unwrap();
        if state.stopped {
            return;
        }
        if state.faults.away {
            continue;
        }
        let id = state.next_connection;
        state.next_connection += 1;
        let kept = stream.try_clone().unwrap();
        let connection = Connection {
            stream: kept,
            watches: Vec::new(),
            transactions: HashMap::new(),
        };
        state.connections.insert(id, connection);
        drop(state);
        shared.1.notify_all();
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(id, stream, &shared));
    }
}

fn serve(id: u64, mut stream: UnixStream, shared: &Shared) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = std::io::Read::read(&mut stream, &mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
        while let Some((message, used)) = Message::decode(&bytes).unwrap() {
            bytes.drain(..used);
            let mut state = shared.0.lock().unwrap();
            let go_on = state.handle(id, &message);
            drop(state);
            shared.1.notify_all();
            if !go_on {
                return;
            }
        }
    }
    let mut state = shared.0.lock().unwrap();
    state.connections.remove(&id);
    drop(state);
    shared.1.notify_all();
}

impl State {
    fn handle(&mut self, id: u64, message: &Message) -> bool {
        if self.faults.drop_after == Some(0) {
            self.faults.drop_after = None;
            for (_, connection) in self.connections.drain() {
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            }
            return false;
        }
        self.faults.drop_after = self.faults.drop_after.map(|left| left - 1);
        let request = Request::decode(message).unwrap();
        self.requests.push(request.clone());
        if let Request::Read(path) = &request
            && self.faults.silent.contains(path)
        {
            return true;
        }
        let answer = match self.answer(id, message.tx_id, &request) {
            Ok(payload) => Message {
                op: message.op,
                payload,
                ..message.clone()
            },
            Err(errno) => Message::error_reply(message, &errno),
        };
        self.send(id, &answer);
        self.after(id, &request);
        true
    }

    fn send(&mut self, id: u64, message: &Message) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let _ = connection.stream.write_all(&message.encode().unwrap());
        }
    }

    fn send_event(&mut self, id: u64, path: &str, token: &str) {
        let payload = format!("{path}\0{token}\0").into_bytes();
        self.send(
            id,
            &Message {
                op: Op::WatchEvent,
                req_id: 0,
                tx_id: 0,
                payload,
            },
        );
    }

    fn fire(&mut self, path: &str) {
        let below =
            |watch: &str| path == watch || path.starts_with(&format!("{watch}/")) || watch == "/";
        let hits: Vec<(u64, String)> = self
            .connections
            .iter()
            .flat_map(|(id, connection)| connection.watches.iter().map(move |watch| (*id, watch)))
            .filter(|(_, (watch, _))| below(watch))
            .map(|(id, (_, token))| (id, token.clone()))
            .collect();
        for (id, token) in hits {
            self.send_event(id, path, &token);
        }
    }

    /// What follows an answer.
    fn after(&mut self, id: u64, request: &Request) {
        match request {
            Request::Watch { path, token } => self.send_event(id, path, token),
            Request::Introduce(..) => self.fire("@introduceDomain"),
            Request::Release(_) => self.fire("@releaseDomain"),
            _ => {}
        }
    }

    fn answer(&mut self, id: u64, tx: u32, request: &Request) -> Result<Vec<u8>, StoreErrno> {
        match request {
            Request::TransactionStart => {
                self.next_transaction += 1;
                let snapshot = (self.tree.clone(), self.tree.generation());
                let connection = self.connections.get_mut(&id).ok_or(StoreErrno::Io)?;
                connection
                    .transactions
                    .insert(self.next_transaction, snapshot);
                Ok(format!("{}\0", self.next_transaction).into_bytes())
            }
            Request::TransactionEnd(commit) => self.end(id, tx, *commit),
            Request::Watch { path, token } => {
                let connection = self.connections.get_mut(&id).ok_or(StoreErrno::Io)?;
                let watch = (path.clone(), token.clone());
                if connection.watches.contains(&watch) {
                    return Err(StoreErrno::Exist);
                }
                connection.watches.push(watch);
                Ok(b"OK\0".to_vec())
            }
            Request::Unwatch { path, token } => {
                let connection = self.connections.get_mut(&id).ok_or(StoreErrno::Io)?;
                let before = connection.watches.len();
                connection
                    .watches
                    .retain(|watch| watch != &(path.clone(), token.clone()));
                if connection.watches.len() == before {
                    return Err(StoreErrno::NoEnt);
                }
                Ok(b"OK\0".to_vec())
            }
            Request::Introduce(domid, ..) => {
                self.introduced.push(domid.0);
                Ok(b"OK\0".to_vec())
            }
            Request::Release(domid) => {
                self.introduced.retain(|each| *each != domid.0);
                Ok(b"OK\0".to_vec())
            }
            Request::IsDomainIntroduced(domid) => Ok(if self.introduced.contains(&domid.0) {
                b"T\0"
            } else {
                b"F\0"
            }
            .to_vec()),
            Request::Resume(_) => Ok(b"OK\0".to_vec()),
            _ if tx != 0 => {
                let connection = self.connections.get_mut(&id).ok_or(StoreErrno::Io)?;
                let (tree, _) = connection
                    .transactions
                    .get_mut(&tx)
                    .ok_or(StoreErrno::NoEnt)?;
                tree.apply(request).map(|(payload, _)| payload)
            }
            _ => {
                let (payload, changed) = self.tree.apply(request)?;
                if let Some(path) = changed {
                    self.fire(&path);
                }
                Ok(payload)
            }
        }
    }

    fn end(&mut self, id: u64, tx: u32, commit: bool) -> Result<Vec<u8>, StoreErrno> {
        let connection = self.connections.get_mut(&id).ok_or(StoreErrno::Io)?;
        let (tree, started) = connection
            .transactions
            .remove(&tx)
            .ok_or(StoreErrno::NoEnt)?;
        if !commit {
            return Ok(b"OK\0".to_vec());
        }
        if self.faults.conflicts > 0 || self.tree.generation() != started {
            self.faults.conflicts = self.faults.conflicts.saturating_sub(1);
            return Err(StoreErrno::Again);
        }
        let changed = tree.changes_since(started);
        self.tree = tree;
        for path in changed {
            self.fire(&path);
        }
        Ok(b"OK\0".to_vec())
    }
}
