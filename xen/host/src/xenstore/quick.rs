//! A connection for commands that read a few nodes and end: no thread, one write per batch, answers read back in order.

use super::endpoint::{Endpoints, Link};
use super::error::StoreError;
use super::frame::Frames;
use super::parts::list_in_parts;
use super::store::{Store, StoreOp, StoreReply, TxId};
use super::translate::{Subject, decode, encode, encode_request, missing_is_removed};
use super::watch::Watch;
use crate::sched::Patient;
use nix::errno::Errno;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xen_abi::ids::{DomId, Gfn, Port};
use xen_abi::xs_wire::{Message, Op, Request, reply};

/// Longest that xenstored may stay silent.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Requests in flight at once: they, and their answers, fit the socket's buffers, so that neither side waits for the other.
pub const MAX_IN_FLIGHT: usize = 128;
/// Answers from which on it is worth two system calls not to be woken by each of them.
const PATIENT_FROM: usize = 8;

/// A connection used by one thread.
#[derive(Debug)]
pub struct Quick {
    link: Link,
    frames: Frames,
    next_id: u32,
    /// After a failed or unanswered request the stream cannot be trusted any more.
    broken: bool,
}

impl Quick {
    /// Connects to the host's xenstored.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], which names the place tried.
    pub fn connect() -> Result<Self, StoreError> {
        Self::connect_to(&Endpoints::usual())
    }

    /// Connects to a xenstored elsewhere.
    ///
    /// # Errors
    /// As [`Quick::connect`].
    pub fn connect_to(endpoints: &Endpoints) -> Result<Self, StoreError> {
        let link = endpoints.connect()?;
        link.set_read_timeout(TIMEOUT)
            .map_err(|error| StoreError::Unreachable {
                endpoint: "xenstored".to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            link,
            frames: Frames::default(),
            next_id: 1,
            broken: false,
        })
    }

    /// Values of many nodes at once; `None` where there is no node (or none that may be read).
    ///
    /// # Errors
    /// The connection's, and what xenstored says of nodes that do exist.
    pub fn read_many<P: AsRef<str>>(
        &mut self,
        paths: &[P],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let ops: Vec<StoreOp> = paths
            .iter()
            .map(|path| StoreOp::Read(path.as_ref().to_owned()))
            .collect();
        let answers = self.call(TxId::NONE, &ops)?;
        let values = answers.into_iter().map(|answer| match answer {
            Ok(StoreReply::Value(value)) => Ok(Some(value)),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EACCES)) => Ok(None),
            Err(error) => Err(error),
        });
        values.collect()
    }

    /// As [`Store::call`].
    ///
    /// # Errors
    /// The connection's; of each operation, what xenstored says.
    pub fn call(
        &mut self,
        tx: TxId,
        ops: &[StoreOp],
    ) -> Result<Vec<Result<StoreReply, StoreError>>, StoreError> {
        let mut results = Vec::with_capacity(ops.len());
        let in_flight = if self.link.is_device() {
            1
        } else {
            MAX_IN_FLIGHT
        };
        for window in ops.chunks(in_flight) {
            self.call_window(tx, window, &mut results)?;
        }
        for (op, result) in ops.iter().zip(&mut results) {
            if let (StoreOp::List(path), Err(error)) = (op, &*result)
                && error.errno() == Some(Errno::E2BIG)
            {
                let children =
                    list_in_parts(path, |request, subject| self.ask(tx, request, subject));
                *result = children.map(StoreReply::Children);
            }
        }
        Ok(results)
    }

    fn call_window(
        &mut self,
        tx: TxId,
        ops: &[StoreOp],
        results: &mut Vec<Result<StoreReply, StoreError>>,
    ) -> Result<(), StoreError> {
        let _patient = (ops.len() >= PATIENT_FROM).then(Patient::begin);
        let mut bytes = Vec::new();
        let first = self.next_id;
        let subjects: Vec<_> = ops
            .iter()
            .map(|op| encode(op, self.take_id(), tx.0, &mut bytes))
            .collect();
        if let Some(subject) = subjects.iter().find_map(|subject| subject.as_ref().ok()) {
            self.send(&bytes, subject)?;
        }
        for ((op, subject), offset) in ops.iter().zip(subjects).zip(0..) {
            let answer = match subject {
                Ok(subject) => {
                    let message = self.receive(first.wrapping_add(offset), &subject)?;
                    let payload = subject.payload(message);
                    payload.and_then(|payload| decode(op, &subject, payload))
                }
                Err(error) => Err(error),
            };
            results.push(missing_is_removed(op, answer));
        }
        Ok(())
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// One request that is no [`StoreOp`]; gives the payload of its answer.
    fn ask(
        &mut self,
        tx: TxId,
        request: &Request,
        subject: &Subject,
    ) -> Result<Vec<u8>, StoreError> {
        let id = self.take_id();
        let mut bytes = Vec::new();
        encode_request(request, subject, id, tx.0, &mut bytes)?;
        self.send(&bytes, subject)?;
        subject.payload(self.receive(id, subject)?)
    }

    fn send(&mut self, bytes: &[u8], subject: &Subject) -> Result<(), StoreError> {
        if self.broken {
            return Err(subject.lost());
        }
        super::count_round_trip();
        self.link
            .send(bytes)
            .map_err(|error| self.failed(&error, subject))
    }

    /// The answer to request `id`; answers keep the order of the requests.
    fn receive(&mut self, id: u32, subject: &Subject) -> Result<Message, StoreError> {
        loop {
            match self.frames.next() {
                Ok(Some(message)) if message.op == Op::WatchEvent => continue,
                Ok(Some(message)) if message.req_id == id => return Ok(message),
                Ok(Some(message)) => {
                    self.broken = true;
                    return Err(
                        subject.malformed(format!("answer {} instead of {id}", message.req_id))
                    );
                }
                Ok(None) => {}
                Err(error) => {
                    self.broken = true;
                    return Err(subject.malformed(error));
                }
            }
            match self.frames.fill(&mut &self.link) {
                Ok(0) => {
                    self.broken = true;
                    return Err(subject.lost());
                }
                Ok(_) => {}
                Err(error) => return Err(self.failed(&error, subject)),
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error, subject: &Subject) -> StoreError {
        self.broken = true;
        match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                subject.late(u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX))
            }
            _ => subject.lost(),
        }
    }
}

/// [`Quick`] behind the seam, for code that takes a [`Store`]. It has no watches.
#[derive(Debug)]
pub struct QuickStore {
    quick: Mutex<Quick>,
}

impl From<Quick> for QuickStore {
    fn from(quick: Quick) -> Self {
        Self {
            quick: Mutex::new(quick),
        }
    }
}

impl QuickStore {
    fn lock(&self) -> MutexGuard<'_, Quick> {
        self.quick.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for QuickStore {
    fn call(
        &self,
        tx: TxId,
        ops: &[StoreOp],
    ) -> Result<Vec<Result<StoreReply, StoreError>>, StoreError> {
        self.lock().call(tx, ops)
    }

    fn begin(&self) -> Result<TxId, StoreError> {
        let subject = Subject::new(Op::TransactionStart, "");
        let payload = self
            .lock()
            .ask(TxId::NONE, &Request::TransactionStart, &subject)?;
        reply::transaction_id(&payload)
            .map(TxId)
            .map_err(|error| subject.malformed(error))
    }

    fn end(&self, tx: TxId, commit: bool) -> Result<bool, StoreError> {
        let subject = Subject::new(Op::TransactionEnd, "");
        match self
            .lock()
            .ask(tx, &Request::TransactionEnd(commit), &subject)
        {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(Errno::EAGAIN) => Ok(!commit),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        Err(Subject::new(Op::Watch, path).refused_with(Errno::ENOSYS))
    }

    fn introduce(&self, domid: DomId, gfn: u64, port: Port) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Introduce, domid.to_string());
        let request = Request::Introduce(domid, Gfn(gfn), port);
        self.lock().ask(TxId::NONE, &request, &subject).map(drop)
    }

    fn resume(&self, domid: DomId) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Resume, domid.to_string());
        self.lock()
            .ask(TxId::NONE, &Request::Resume(domid), &subject)
            .map(drop)
    }

    fn release(&self, domid: DomId) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Release, domid.to_string());
        self.lock()
            .ask(TxId::NONE, &Request::Release(domid), &subject)
            .map(drop)
    }
}
