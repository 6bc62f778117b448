//! The client of long-lived programs: shared by threads, pipelined, with transactions, watches, deadlines and reconnect.
//!
//! A call is one write and one wait, however many operations it carries. When xenstored goes away, what was under way fails, open
//! transactions answer `EAGAIN` so that their owners start over, and calls made meanwhile wait for its return up to their
//! deadline. A commit that ends in [`StoreError::Lost`] or [`StoreError::Deadline`] may have happened or not. Dropping the last handle ends the reader thread and the connection.

use super::batch::Answer;
use super::connection::{Requests, Shared};
use super::endpoint::Endpoints;
use super::error::StoreError;
use super::parts::list_in_parts;
use super::store::{Store, StoreOp, StoreReply, TxId};
use super::translate::{Subject, decode, encode, encode_request, missing_is_removed};
use super::watch::{Watch, channel};
use nix::errno::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xen_abi::ids::{DomId, Gfn, Port};
use xen_abi::xs_wire::{Op, Request, check_path, reply};

/// Longest that xenstored may stay silent while a call waits for it (or away, before it begins), unless set otherwise.
///
/// Generous on purpose: on an overloaded emulated host the commit of 300 nodes was seen to take more than 5 s.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(20);
/// Requests sent in one write; a longer call is several writes.
pub const MAX_REQUESTS_PER_WRITE: usize = 1024;

/// A connection to xenstored. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Closes the connection with the last clone.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    deadline_millis: AtomicU64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What became of each operation of a call.
pub(super) type Answers = Vec<Result<StoreReply, StoreError>>;
/// A call that was encoded: what to send, and what each operation is about (or why it is not sent).
type Encoded = (Requests, Vec<Result<Subject, StoreError>>);

impl Client {
    /// Connects to the host's xenstored.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], which names the place tried.
    pub fn connect() -> Result<Self, StoreError> {
        Self::connect_to(Endpoints::usual())
    }

    /// Connects to a xenstored elsewhere.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_to(endpoints: Endpoints) -> Result<Self, StoreError> {
        let shared = Shared::connect(endpoints)?;
        let deadline_millis = AtomicU64::new(millis(DEFAULT_DEADLINE));
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                deadline_millis,
            }),
        })
    }

    /// Changes how long xenstored may stay silent in each later call, for all clones.
    pub fn set_deadline(&self, deadline: Duration) {
        self.handle
            .deadline_millis
            .store(millis(deadline), Ordering::Relaxed);
    }

    /// Whether a domain is connected to xenstored.
    ///
    /// # Errors
    /// As xenstored says.
    pub fn is_introduced(&self, domid: DomId) -> Result<bool, StoreError> {
        let subject = Subject::new(Op::IsDomainIntroduced, domid.to_string());
        let payload = self.ask(TxId::NONE, &Request::IsDomainIntroduced(domid), &subject)?;
        reply::is_introduced(&payload).map_err(|error| subject.malformed(error))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn deadline(&self) -> (Duration, u64) {
        let millis = self.handle.deadline_millis.load(Ordering::Relaxed);
        (Duration::from_millis(millis), millis)
    }

    /// The transaction's id on this connection and the connection's number; `Err` if it died with an older one.
    fn wire_transaction(&self, tx: TxId) -> Result<(u32, Option<u64>), Errno> {
        if tx == TxId::NONE {
            return Ok((0, None));
        }
        let transaction = self.shared().transaction(tx.0).ok_or(Errno::ENOENT)?;
        if transaction.epoch == self.shared().epoch() {
            Ok((transaction.wire_id, Some(transaction.epoch)))
        } else {
            Err(Errno::EAGAIN)
        }
    }

    /// One request that is no [`StoreOp`]; gives the payload of its answer.
    fn ask(&self, tx: TxId, request: &Request, subject: &Subject) -> Result<Vec<u8>, StoreError> {
        let (wire_id, epoch) = self
            .wire_transaction(tx)
            .map_err(|errno| subject.refused_with(errno))?;
        let (deadline, millis) = self.deadline();
        let id = self.shared().request_ids(1);
        let mut requests = Requests {
            bytes: Vec::new(),
            ids: vec![id],
            epoch,
        };
        encode_request(request, subject, id, wire_id, &mut requests.bytes)?;
        let mut answers = self.shared().send(&requests, deadline)?.wait(deadline);
        let answer = answers.pop().unwrap_or(Answer::Missing);
        if matches!(answer, Answer::Missing) {
            self.shared().forget(&requests.ids);
        }
        settle(answer, subject, tx, millis)
    }

    fn encode(&self, tx: TxId, ops: &[StoreOp]) -> Result<Encoded, Errno> {
        let (wire_id, epoch) = self.wire_transaction(tx)?;
        let first = self.shared().request_ids(ops.len());
        let mut requests = Requests {
            bytes: Vec::new(),
            ids: Vec::new(),
            epoch,
        };
        let subjects = ops.iter().zip(0..).map(|(op, offset)| {
            let id = first.wrapping_add(offset);
            let subject = encode(op, id, wire_id, &mut requests.bytes)?;
            requests.ids.push(id);
            Ok(subject)
        });
        let subjects = subjects.collect();
        Ok((requests, subjects))
    }

    /// Matches answers with operations; directories that are too long are fetched in parts.
    fn decode(
        &self,
        tx: TxId,
        ops: &[StoreOp],
        (requests, subjects): Encoded,
        answers: Vec<Answer>,
        millis: u64,
    ) -> Answers {
        if answers
            .iter()
            .any(|answer| matches!(answer, Answer::Missing))
        {
            self.shared().forget(&requests.ids);
        }
        let mut answers = answers.into_iter();
        let results = ops.iter().zip(subjects).map(|(op, subject)| {
            let subject = subject?;
            let answer = answers.next().unwrap_or(Answer::Missing);
            let result = settle(answer, &subject, tx, millis);
            missing_is_removed(op, result.and_then(|payload| decode(op, &subject, payload)))
        });
        results.collect()
    }

    fn call_window(&self, tx: TxId, ops: &[StoreOp]) -> Result<Answers, StoreError> {
        let (deadline, millis) = self.deadline();
        let encoded = match self.encode(tx, ops) {
            Ok(encoded) => encoded,
            Err(errno) => return Ok(refuse_all(ops, errno)),
        };
        let answers = if encoded.0.ids.is_empty() {
            Vec::new()
        } else {
            self.shared().send(&encoded.0, deadline)?.wait(deadline)
        };
        let mut results = self.decode(tx, ops, encoded, answers, millis);
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

    /// One operation inside of a tokio runtime, outside of any transaction.
    ///
    /// # Errors
    /// As xenstored says. A directory too long for one message is read on a blocking thread.
    pub async fn one_async(&self, op: StoreOp) -> Result<StoreReply, StoreError> {
        let (deadline, millis) = self.deadline();
        let ops = [op];
        let subject = Subject::new(super::translate::request(&ops[0]).op(), ops[0].path());
        let encoded = self
            .encode(TxId::NONE, &ops)
            .map_err(|errno| subject.refused_with(errno))?;
        let answers = if encoded.0.ids.is_empty() {
            Vec::new()
        } else {
            let batch = self.shared().send_async(&encoded.0, deadline).await?;
            batch.wait_async(deadline).await
        };
        let result = self
            .decode(TxId::NONE, &ops, encoded, answers, millis)
            .pop();
        let result = result.unwrap_or_else(|| Err(subject.malformed("no answer")));
        match &result {
            Err(error) if error.errno() == Some(Errno::E2BIG) => self.clone().long_list(ops).await,
            _ => result,
        }
    }

    async fn long_list(self, ops: [StoreOp; 1]) -> Result<StoreReply, StoreError> {
        let subject = Subject::new(Op::DirectoryPart, ops[0].path());
        let answers = tokio::task::spawn_blocking(move || self.call_window(TxId::NONE, &ops)).await;
        let answer = answers.map_err(|error| subject.malformed(error))??.pop();
        answer.unwrap_or_else(|| Err(subject.malformed("no answer")))
    }

    /// A watch that is not yet known to xenstored, and the request that makes it known.
    fn prepare_watch(&self, path: &str) -> Result<(Watch, Request, Subject), StoreError> {
        let subject = Subject::new(Op::Watch, path);
        check_path(path).map_err(|error| subject.malformed(error))?;
        let token_cell = Arc::new(std::sync::OnceLock::<String>::new());
        let (shared, token) = (Arc::downgrade(self.shared()), Arc::clone(&token_cell));
        let unregister = move || {
            if let (Some(shared), Some(token)) = (shared.upgrade(), token.get()) {
                shared.remove_watch(token);
            }
        };
        let (sender, watch) = channel(path, Box::new(unregister));
        let token = self.shared().add_watch(path, sender);
        let token = token_cell.get_or_init(|| token).clone();
        Ok((
            watch,
            Request::Watch {
                path: path.to_owned(),
                token,
            },
            subject,
        ))
    }

    /// As [`Store::watch`], inside of a tokio runtime.
    ///
    /// # Errors
    /// As xenstored says.
    pub async fn watch_async(&self, path: &str) -> Result<Watch, StoreError> {
        let (watch, request, subject) = self.prepare_watch(path)?;
        let (deadline, millis) = self.deadline();
        let id = self.shared().request_ids(1);
        let mut requests = Requests {
            bytes: Vec::new(),
            ids: vec![id],
            epoch: None,
        };
        encode_request(&request, &subject, id, 0, &mut requests.bytes)?;
        let batch = self.shared().send_async(&requests, deadline).await?;
        let mut answers = batch.wait_async(deadline).await;
        let answer = answers.pop().unwrap_or(Answer::Missing);
        registered(settle(answer, &subject, TxId::NONE, millis)).map(|()| watch)
    }
}

impl Store for Client {
    fn call(&self, tx: TxId, ops: &[StoreOp]) -> Result<Answers, StoreError> {
        let mut results = Vec::with_capacity(ops.len());
        for window in ops.chunks(MAX_REQUESTS_PER_WRITE) {
            results.extend(self.call_window(tx, window)?);
        }
        Ok(results)
    }

    fn begin(&self) -> Result<TxId, StoreError> {
        let subject = Subject::new(Op::TransactionStart, "");
        // A connection that changes between the two makes the transaction look dead, which is what it is.
        let epoch = self.shared().epoch();
        let payload = self.ask(TxId::NONE, &Request::TransactionStart, &subject)?;
        let wire_id = reply::transaction_id(&payload).map_err(|error| subject.malformed(error))?;
        let epoch = if epoch == 0 {
            self.shared().epoch()
        } else {
            epoch
        };
        self.shared()
            .open_transaction(wire_id, epoch)
            .map(TxId)
            .ok_or_else(|| subject.refused_with(Errno::ENOSPC))
    }

    fn end(&self, tx: TxId, commit: bool) -> Result<bool, StoreError> {
        let subject = Subject::new(Op::TransactionEnd, "");
        let alive = self.wire_transaction(tx);
        let result = match alive {
            Err(Errno::EAGAIN) => Ok(!commit),
            Err(errno) => Err(subject.refused_with(errno)),
            Ok(_) => match self.ask(tx, &Request::TransactionEnd(commit), &subject) {
                Ok(_) => Ok(true),
                Err(error) if error.errno() == Some(Errno::EAGAIN) => Ok(!commit),
                Err(error) => Err(error),
            },
        };
        self.shared().close_transaction(tx.0);
        result
    }

    fn watch(&self, path: &str) -> Result<Watch, StoreError> {
        let (watch, request, subject) = self.prepare_watch(path)?;
        registered(self.ask(TxId::NONE, &request, &subject)).map(|()| watch)
    }

    fn introduce(&self, domid: DomId, gfn: u64, port: Port) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Introduce, domid.to_string());
        self.ask(
            TxId::NONE,
            &Request::Introduce(domid, Gfn(gfn), port),
            &subject,
        )
        .map(drop)
    }

    fn resume(&self, domid: DomId) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Resume, domid.to_string());
        self.ask(TxId::NONE, &Request::Resume(domid), &subject)
            .map(drop)
    }

    fn release(&self, domid: DomId) -> Result<(), StoreError> {
        let subject = Subject::new(Op::Release, domid.to_string());
        self.ask(TxId::NONE, &Request::Release(domid), &subject)
            .map(drop)
    }
}

/// A watch that the reconnect registered already is registered.
fn registered(result: Result<Vec<u8>, StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
        result => result.map(drop),
    }
}

/// The payload of an answer. What a transaction loses with its connection can simply be done again, except its commit.
fn settle(answer: Answer, subject: &Subject, tx: TxId, millis: u64) -> Result<Vec<u8>, StoreError> {
    match answer {
        Answer::Came(message) => subject.payload(message),
        Answer::Lost if tx != TxId::NONE && subject.op != Op::TransactionEnd => {
            Err(subject.refused_with(Errno::EAGAIN))
        }
        Answer::Lost => Err(subject.lost()),
        Answer::Missing => Err(subject.late(millis)),
    }
}

fn refuse_all(ops: &[StoreOp], errno: Errno) -> Answers {
    ops.iter()
        .map(|op| {
            Err(Subject::new(super::translate::request(op).op(), op.path()).refused_with(errno))
        })
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
