//! The store seam: what agent and tests ask of xenstore.
//!
//! [`Store`] is small and pipelined: a call takes many operations and sends them at once, so that building a guest's whole tree costs one round trip.
//! [`StoreExt`] adds the usual words on top.

use super::error::StoreError;
use super::watch::Watch;
use nix::errno::Errno;
use std::fmt::Debug;
use xen_abi::ids::{DomId, Port};

pub use xen_abi::xs_wire::{Access, Permission};

/// Attempts of a transaction before [`StoreError::Conflict`].
pub const TRANSACTION_ATTEMPTS: u32 = 32;

/// An open transaction; 0 is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TxId(pub u32);

impl TxId {
    /// Outside of any transaction.
    pub const NONE: TxId = TxId(0);
}

/// One operation of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// Value of a node.
    Read(String),
    /// Children of a node (large directories are fetched in parts).
    List(String),
    /// Sets a value, making the node and its parents.
    Write(String, Vec<u8>),
    /// Makes an empty node.
    Mkdir(String),
    /// Removes a node and all below it; a missing node is not an error.
    Remove(String),
    /// Permissions of a node.
    GetPermissions(String),
    /// Sets the permissions of a node.
    SetPermissions(String, Vec<Permission>),
}

impl StoreOp {
    /// The node concerned.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Read(path)
            | Self::List(path)
            | Self::Write(path, _)
            | Self::Mkdir(path)
            | Self::Remove(path)
            | Self::GetPermissions(path)
            | Self::SetPermissions(path, _) => path,
        }
    }
}

/// The answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreReply {
    /// To a read.
    Value(Vec<u8>),
    /// To a list.
    Children(Vec<String>),
    /// To a get of permissions.
    Permissions(Vec<Permission>),
    /// To everything else.
    Done,
}

/// A xenstore connection, or its simulation.
pub trait Store: Debug + Send + Sync {
    /// Sends all operations at once; answers stand in the same order. The outer error means that nothing can be said about any of them.
    fn call(
        &self,
        tx: TxId,
        ops: &[StoreOp],
    ) -> Result<Vec<Result<StoreReply, StoreError>>, StoreError>;
    /// Opens a transaction.
    fn begin(&self) -> Result<TxId, StoreError>;
    /// Ends a transaction; `Ok(false)` means a conflict: nothing was changed, do it all again.
    fn end(&self, tx: TxId, commit: bool) -> Result<bool, StoreError>;
    /// Watches a node and all below it (or `@introduceDomain`, `@releaseDomain`). Fires once at registration, and again after a reconnect.
    fn watch(&self, path: &str) -> Result<Watch, StoreError>;
    /// Tells xenstored of a new guest: its xenstore page and port.
    fn introduce(&self, domid: DomId, gfn: u64, port: Port) -> Result<(), StoreError>;
    /// Tells xenstored that a guest which had suspended runs on, so that its next shutdown is reported.
    fn resume(&self, domid: DomId) -> Result<(), StoreError>;
    /// Tells xenstored that a guest is gone.
    fn release(&self, domid: DomId) -> Result<(), StoreError>;
}

/// The usual words on top of [`Store`].
pub trait StoreExt: Store {
    /// One operation.
    ///
    /// # Errors
    /// As xenstored says.
    fn one(&self, tx: TxId, op: StoreOp) -> Result<StoreReply, StoreError> {
        let path = op.path().to_owned();
        self.call(tx, std::slice::from_ref(&op))?
            .pop()
            .unwrap_or_else(|| {
                Err(StoreError::Malformed {
                    op: "call",
                    path,
                    what: "no answer".into(),
                })
            })
    }

    /// A value as text; `None` when the node does not exist.
    ///
    /// # Errors
    /// Anything but a missing node; a value that is not UTF-8 is [`StoreError::Malformed`].
    fn read_text(&self, tx: TxId, path: &str) -> Result<Option<String>, StoreError> {
        match self.one(tx, StoreOp::Read(path.to_owned())) {
            Ok(StoreReply::Value(bytes)) => text(path, bytes).map(Some),
            Ok(_) => Err(shape("read", path)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Children; empty when the node does not exist.
    ///
    /// # Errors
    /// Anything but a missing node.
    fn list(&self, tx: TxId, path: &str) -> Result<Vec<String>, StoreError> {
        match self.one(tx, StoreOp::List(path.to_owned())) {
            Ok(StoreReply::Children(names)) => Ok(names),
            Ok(_) => Err(shape("directory", path)),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// As xenstored says.
    fn write_text(&self, tx: TxId, path: &str, value: &str) -> Result<(), StoreError> {
        self.one(
            tx,
            StoreOp::Write(path.to_owned(), value.as_bytes().to_vec()),
        )
        .map(drop)
    }

    /// Removes a tree; a missing node is fine.
    ///
    /// # Errors
    /// As xenstored says.
    fn remove(&self, tx: TxId, path: &str) -> Result<(), StoreError> {
        match self.one(tx, StoreOp::Remove(path.to_owned())) {
            Err(error) if error.errno() != Some(Errno::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes all of `ops` in one transaction, each repeat from the start on a conflict. Every operation must succeed.
    ///
    /// # Errors
    /// The first refusal, or [`StoreError::Conflict`].
    fn commit(&self, purpose: &str, ops: &[StoreOp]) -> Result<(), StoreError> {
        self.transaction(purpose, |store, tx| {
            store
                .call(tx, ops)?
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .map(drop)
        })
    }

    /// Writes all of `ops`, one after the other, in one round trip: for nodes that nobody looks at before they are complete. Every operation must succeed.
    ///
    /// # Errors
    /// The first refusal; what stands before it is written.
    fn put(&self, ops: &[StoreOp]) -> Result<(), StoreError> {
        self.call(TxId::NONE, ops)?
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map(drop)
    }

    /// Runs `body` in a transaction until it meets no conflict, at most [`TRANSACTION_ATTEMPTS`] times.
    ///
    /// # Errors
    /// The body's error (the transaction is aborted), or [`StoreError::Conflict`].
    fn transaction<T>(
        &self,
        purpose: &str,
        mut body: impl FnMut(&Self, TxId) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..TRANSACTION_ATTEMPTS {
            let tx = self.begin()?;
            match body(self, tx) {
                Ok(value) => {
                    if self.end(tx, true)? {
                        return Ok(value);
                    }
                }
                Err(error) if error.errno() == Some(Errno::EAGAIN) => {
                    let _ = self.end(tx, false);
                }
                Err(error) => {
                    let _ = self.end(tx, false);
                    return Err(error);
                }
            }
        }
        Err(StoreError::Conflict {
            purpose: purpose.to_owned(),
            attempts: TRANSACTION_ATTEMPTS,
        })
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

fn text(path: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|_| StoreError::Malformed {
        op: "read",
        path: path.to_owned(),
        what: "value is not UTF-8".into(),
    })
}

fn shape(op: &'static str, path: &str) -> StoreError {
    StoreError::Malformed {
        op,
        path: path.to_owned(),
        what: "answer of another kind".into(),
    }
}
