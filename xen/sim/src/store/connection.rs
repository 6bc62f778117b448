//! A connection to the simulated xenstored: the [`Store`] of a dom0 process, or of a guest's kernel.

use super::Caller;
use super::session::Session;
use super::tree::{absolute, is_within};
use crate::fault::FaultKind;
use crate::hypervisor::Outcome;
use crate::limits::QUOTA_WATCHES;
use crate::state::{DEAD, ProcessId, Shared, State};
use nix::errno::Errno;
use std::sync::Arc;
use xen_abi::ids::{DomId, Port};
use xen_host::xenstore::error::StoreError;
use xen_host::xenstore::store::{Store, StoreOp, StoreReply, TxId};
use xen_host::xenstore::watch::{Watch, channel};

/// One connection. Clones share it.
#[derive(Debug, Clone)]
pub struct SimStore {
    shared: Arc<Shared>,
    caller: Caller,
}

fn name(op: &StoreOp) -> &'static str {
    match op {
        StoreOp::Read(_) => "read",
        StoreOp::List(_) => "directory",
        StoreOp::Write(..) => "write",
        StoreOp::Mkdir(_) => "mkdir",
        StoreOp::Remove(_) => "rm",
        StoreOp::GetPermissions(_) => "get_perms",
        StoreOp::SetPermissions(..) => "set_perms",
    }
}

fn error(op: &'static str, path: &str, errno: Errno) -> StoreError {
    match errno {
        DEAD => StoreError::Lost {
            op,
            path: path.to_owned(),
        },
        Errno::ECONNREFUSED => StoreError::Unreachable {
            endpoint: "/run/xenstored/socket".to_owned(),
            reason: "connection refused".to_owned(),
        },
        errno => StoreError::Refused {
            op,
            path: path.to_owned(),
            errno,
        },
    }
}

impl SimStore {
    pub(crate) fn new(shared: Arc<Shared>, process: ProcessId, domid: DomId) -> Self {
        Self {
            shared,
            caller: Caller { process, domid },
        }
    }

    /// One message exchange with xenstored.
    fn exchange<T>(
        &self,
        fault_name: &'static str,
        op: &'static str,
        path: &str,
        act: impl FnOnce(&mut State, Option<FaultKind>) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        let caller = self.caller;
        self.shared
            .call(caller.process, fault_name, |state, fault| {
                let known =
                    caller.is_privileged() || state.store.introduced.contains_key(&caller.domid);
                if state.store_down || !known {
                    return Err(Errno::ECONNREFUSED);
                }
                state.store.round_trips += 1;
                act(state, fault)
            })
            .map_err(|errno| error(op, path, errno))
    }
}

impl Store for SimStore {
    fn call(
        &self,
        tx: TxId,
        ops: &[StoreOp],
    ) -> Result<Vec<Result<StoreReply, StoreError>>, StoreError> {
        let Some(first) = ops.first() else {
            return Ok(Vec::new());
        };
        let caller = self.caller;
        self.exchange("xs.call", name(first), first.path(), |state, fault| {
            let torn = fault == Some(FaultKind::CrashTorn);
            let count = if torn {
                state.rng.index(ops.len())
            } else {
                ops.len()
            };
            let mut session = Session {
                store: &mut state.store,
                caller,
                tx: tx.0,
            };
            Ok(ops[..count]
                .iter()
                .map(|op| {
                    session
                        .perform(op)
                        .map_err(|errno| error(name(op), op.path(), errno))
                })
                .collect())
        })
    }

    fn begin(&self) -> Result<TxId, StoreError> {
        let caller = self.caller;
        self.exchange("xs.begin", "transaction_start", "", |state, _| {
            state.store.begin(caller)
        })
        .map(TxId)
    }

    fn end(&self, tx: TxId, commit: bool) -> Result<bool, StoreError> {
        let caller = self.caller;
        let answer = self.exchange("xs.end", "transaction_end", "", |state, _| {
            state.store.end(caller, tx.0, commit)
        });
        if matches!(&answer, Err(StoreError::Refused { .. })) {
            self.shared
                .change(|state| state.store.abandon(caller, tx.0));
        }
        answer
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        let (caller, shared) = (self.caller, Arc::downgrade(&self.shared));
        let (id_to, id_from) = std::sync::mpsc::channel::<u64>();
        let id_from = std::sync::Mutex::new(id_from);
        let unregister = Box::new(move || {
            let id = id_from.lock().ok().and_then(|from| from.try_recv().ok());
            if let (Some(shared), Some(id)) = (shared.upgrade(), id) {
                shared.change(|state| state.store.remove_watch(id));
            }
        });
        let (sender, watch) = channel(path, unregister);
        let id = self.exchange("xs.watch", "watch", path, |state, _| {
            let special = path.starts_with('@');
            let full = if special {
                path.to_owned()
            } else {
                absolute(caller.domid, path)?
            };
            if special && !caller.is_privileged() {
                return Err(Errno::EACCES);
            }
            let mine = state
                .store
                .watches()
                .filter(|watch| watch.caller == caller)
                .count();
            if !caller.is_privileged() && mine >= QUOTA_WATCHES {
                return Err(Errno::E2BIG);
            }
            let home = format!("/local/domain/{}", caller.domid);
            let relative = !special && !path.starts_with('/') && is_within(&full, &home);
            Ok(state
                .store
                .add_watch(caller, full, relative.then_some(home), sender))
        })?;
        let _ = id_to.send(id);
        Ok(watch)
    }

    fn introduce(&self, domid: DomId, _gfn: u64, port: Port) -> Result<(), StoreError> {
        let caller = self.caller;
        let path = format!("/local/domain/{domid}");
        self.exchange("xs.introduce", "introduce", &path, |state, _| {
            state.introduce(caller, domid, port)
        })
    }

    fn resume(&self, domid: DomId) -> Result<(), StoreError> {
        let caller = self.caller;
        let path = format!("/local/domain/{domid}");
        self.exchange("xs.resume", "resume", &path, |state, _| {
            state.resume_domain(caller, domid)
        })
    }

    fn release(&self, domid: DomId) -> Result<(), StoreError> {
        let caller = self.caller;
        let path = format!("/local/domain/{domid}");
        self.exchange("xs.release", "release", &path, |state, _| {
            state.release_domain(caller, domid)
        })
    }
}
