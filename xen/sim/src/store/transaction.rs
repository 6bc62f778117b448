//! Transactions: private copies, and the check at the end that nobody else touched what was seen.

use super::tree::Node;
use super::{Caller, Change, StoreState};
use crate::hypervisor::Outcome;
use crate::limits::QUOTA_TRANSACTIONS;
use nix::errno::Errno;
use std::collections::BTreeMap;

/// One open transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) owner: Caller,
    /// Generation of each node when first touched; `None` when it did not exist.
    seen: BTreeMap<String, Option<u64>>,
    /// Changed nodes; `None` for removed ones.
    changed: BTreeMap<String, Option<Node>>,
    changes: Vec<Change>,
}

impl StoreState {
    pub(crate) fn begin(&mut self, owner: Caller) -> Outcome<u32> {
        let open = self
            .transactions
            .values()
            .filter(|tx| tx.owner == owner)
            .count();
        if !owner.is_privileged() && open >= QUOTA_TRANSACTIONS {
            return Err(Errno::ENOSPC);
        }
        let id = self.next_transaction;
        self.next_transaction += 1;
        let (seen, changed) = (BTreeMap::new(), BTreeMap::new());
        self.transactions.insert(
            id,
            Transaction {
                owner,
                seen,
                changed,
                changes: Vec::new(),
            },
        );
        Ok(id)
    }

    /// `Ok(false)` on a conflict.
    pub(crate) fn end(&mut self, caller: Caller, id: u32, commit: bool) -> Outcome<bool> {
        self.own(caller, id)?;
        let Some(transaction) = self.transactions.remove(&id) else {
            return Err(Errno::ENOENT);
        };
        if !commit {
            return Ok(true);
        }
        let conflict = transaction
            .seen
            .iter()
            .any(|(path, seen)| self.nodes.get(path).map(|node| node.generation) != *seen);
        if conflict {
            return Ok(false);
        }
        for (path, node) in transaction.changed {
            self.store_node(path, node);
        }
        transaction
            .changes
            .iter()
            .for_each(|change| self.announce(change));
        Ok(true)
    }

    /// A transaction whose end was refused is over too.
    pub(crate) fn abandon(&mut self, caller: Caller, id: u32) {
        if self.own(caller, id).is_ok() {
            self.transactions.remove(&id);
        }
    }

    /// Whether the caller has this transaction open; 0 is none.
    pub(crate) fn own(&self, caller: Caller, id: u32) -> Outcome<()> {
        let owned = self
            .transactions
            .get(&id)
            .is_some_and(|tx| tx.owner == caller);
        if id == 0 || owned {
            Ok(())
        } else {
            Err(Errno::ENOENT)
        }
    }

    /// A node as the transaction sees it (0 for none). Remembers that it was looked at.
    pub(crate) fn look(&mut self, id: u32, path: &str) -> Option<Node> {
        let current = self.nodes.get(path);
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return current.cloned();
        };
        transaction
            .seen
            .entry(path.to_owned())
            .or_insert_with(|| current.map(|node| node.generation));
        match transaction.changed.get(path) {
            Some(changed) => changed.clone(),
            None => current.cloned(),
        }
    }

    /// Sets or removes (`None`) a node in the transaction or in the tree.
    pub(crate) fn put(&mut self, id: u32, path: &str, node: Option<Node>) {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.changed.insert(path.to_owned(), node);
        } else {
            self.store_node(path.to_owned(), node);
        }
    }

    /// Announces a change now, or when the transaction commits.
    pub(crate) fn tell(&mut self, id: u32, change: Change) {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.changes.push(change);
        } else {
            self.announce(&change);
        }
    }

    fn store_node(&mut self, path: String, node: Option<Node>) {
        self.generation += 1;
        match node {
            Some(mut node) => {
                node.generation = self.generation;
                self.nodes.insert(path, node);
            }
            None => {
                self.nodes.remove(&path);
            }
        }
    }
}
