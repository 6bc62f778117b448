//! Simulated xenstored: a tree with permissions, transactions that conflict, watches, quotas, and the domains it was told of.
//!
//! ```text
//!   Session { who, in which transaction }
//!      read ─▶ the transaction's own copy, else the tree      every node touched is remembered with its generation
//!      write ─▶ the transaction's own copy                    commit: all generations still the same? then all at once
//!      outside of a transaction: straight to the tree, watch events at once
//! ```
//!
//! Follows xenstored in C of 4.20: inheritance of permissions, `EACCES` where a missing node must stay unknown, exact watch events below a
//! removed node, message and path limits. What it does not have: live update, per-path quotas of 4.22.

pub(crate) mod connection;
pub(crate) mod domains;
pub(crate) mod session;
pub(crate) mod transaction;
pub(crate) mod tree;

#[cfg(test)]
mod tests;

pub use connection::SimStore;

use crate::state::ProcessId;
use std::collections::{BTreeMap, BTreeSet};
use transaction::Transaction;
use tree::{Node, is_within};
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{Access, Permission};
use xen_host::xenstore::watch::WatchSender;

/// Who asks: a process of dom0, or a guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) process: ProcessId,
    pub(crate) domid: DomId,
}

impl Caller {
    pub(crate) fn is_privileged(self) -> bool {
        self.domid == DomId::DOM0
    }
}

#[derive(Debug)]
pub(crate) struct RegisteredWatch {
    pub(crate) caller: Caller,
    /// Absolute path, or a special one.
    pub(crate) path: String,
    /// The path as the caller wrote it when relative: events come back in that form.
    relative_to: Option<String>,
    sender: WatchSender,
}

/// A change that watchers must hear of.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    path: String,
    /// Only watches on exactly this path (nodes below a removed one).
    exact: bool,
    permissions: Vec<Permission>,
}

/// All of xenstored.
#[derive(Debug)]
pub(crate) struct StoreState {
    nodes: BTreeMap<String, Node>,
    generation: u64,
    transactions: BTreeMap<u32, Transaction>,
    next_transaction: u32,
    watches: BTreeMap<u64, RegisteredWatch>,
    next_watch: u64,
    pub(crate) introduced: BTreeMap<DomId, domains::Introduced>,
    outbox: Vec<(ProcessId, WatchSender, String)>,
    /// Messages (one per pipelined call): round trips.
    pub(crate) round_trips: u64,
}

impl StoreState {
    pub(crate) fn new() -> Self {
        let mut store = Self {
            nodes: BTreeMap::new(),
            generation: 1,
            transactions: BTreeMap::new(),
            next_transaction: 1,
            watches: BTreeMap::new(),
            next_watch: 1,
            introduced: BTreeMap::new(),
            outbox: Vec::new(),
            round_trips: 0,
        };
        let dom0_only = vec![Permission {
            domid: DomId::DOM0,
            access: Access::None,
        }];
        for (path, children) in [
            ("/", &["local", "tool"][..]),
            ("/local", &[]),
            ("/tool", &["xenstored"]),
            ("/tool/xenstored", &[]),
        ] {
            let node = Node {
                value: Vec::new(),
                permissions: dom0_only.clone(),
                children: children.iter().map(|name| (*name).to_owned()).collect(),
                generation: 1,
            };
            store.nodes.insert(path.to_owned(), node);
        }
        store
    }

    pub(crate) fn watches(&self) -> impl Iterator<Item = &RegisteredWatch> {
        self.watches.values()
    }

    pub(crate) fn open_transactions(&self) -> impl Iterator<Item = Caller> {
        self.transactions
            .values()
            .map(|transaction| transaction.owner)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    pub(crate) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn take_outbox(&mut self) -> Vec<(ProcessId, WatchSender, String)> {
        std::mem::take(&mut self.outbox)
    }

    pub(crate) fn add_watch(
        &mut self,
        caller: Caller,
        path: String,
        relative_to: Option<String>,
        sender: WatchSender,
    ) -> u64 {
        let id = self.next_watch;
        self.next_watch += 1;
        let watch = RegisteredWatch {
            caller,
            path,
            relative_to,
            sender,
        };
        self.queue(&watch, &watch.path.clone());
        self.watches.insert(id, watch);
        id
    }

    pub(crate) fn remove_watch(&mut self, id: u64) {
        self.watches.remove(&id);
    }

    fn queue(&mut self, watch: &RegisteredWatch, path: &str) {
        let shown = watch
            .relative_to
            .as_ref()
            .and_then(|root| path.strip_prefix(root.as_str()))
            .map_or(path, |rest| rest.trim_start_matches('/'));
        self.outbox
            .push((watch.caller.process, watch.sender.clone(), shown.to_owned()));
    }

    /// Tells every watcher that may know.
    pub(crate) fn announce(&mut self, change: &Change) {
        let node = Node {
            value: Vec::new(),
            permissions: change.permissions.clone(),
            children: BTreeSet::new(),
            generation: 0,
        };
        let watches = std::mem::take(&mut self.watches);
        for watch in watches.values() {
            let concerned = if change.exact {
                watch.path == change.path
            } else {
                is_within(&change.path, &watch.path)
            };
            if concerned && node.allows(watch.caller.domid, Access::Read) {
                self.queue(watch, &change.path);
            }
        }
        self.watches = watches;
    }

    /// `@introduceDomain` or `@releaseDomain`.
    pub(crate) fn announce_special(&mut self, name: &str) {
        let permissions = vec![Permission {
            domid: DomId::DOM0,
            access: Access::None,
        }];
        self.announce(&Change {
            path: name.to_owned(),
            exact: true,
            permissions,
        });
    }

    /// The connection of a process ended: its watches and transactions are gone, its nodes stay.
    pub(crate) fn disconnect(&mut self, process: ProcessId) {
        self.transactions
            .retain(|_, transaction| transaction.owner.process != process);
        let gone: Vec<u64> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.caller.process == process)
            .map(|(id, _)| *id)
            .collect();
        for watch in gone.into_iter().filter_map(|id| self.watches.remove(&id)) {
            watch.sender.close();
        }
    }

    /// Nodes a domain owns.
    fn nodes_of(&self, domid: DomId) -> usize {
        self.nodes
            .values()
            .filter(|node| node.owner() == domid)
            .count()
    }
}
