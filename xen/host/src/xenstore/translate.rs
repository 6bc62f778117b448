//! Between the words of the seam ([`StoreOp`], [`StoreReply`], [`StoreError`]) and those of the wire.

use super::error::StoreError;
use super::store::{StoreOp, StoreReply};
use nix::errno::Errno;
use xen_abi::xs_wire::{Message, Op, Request, StoreErrno, WireError, check_path, reply};

/// What a request was about, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub op: Op,
    pub path: String,
}

impl Subject {
    pub fn new(op: Op, path: impl Into<String>) -> Self {
        Self {
            op,
            path: path.into(),
        }
    }

    /// xenstored's refusal.
    pub fn refused(&self, errno: &StoreErrno) -> StoreError {
        self.refused_with(Errno::from_raw(errno.errno()))
    }

    pub fn refused_with(&self, errno: Errno) -> StoreError {
        StoreError::Refused {
            op: name(self.op),
            path: self.path.clone(),
            errno,
        }
    }

    pub fn malformed(&self, what: impl ToString) -> StoreError {
        StoreError::Malformed {
            op: name(self.op),
            path: self.path.clone(),
            what: what.to_string(),
        }
    }

    pub fn lost(&self) -> StoreError {
        StoreError::Lost {
            op: name(self.op),
            path: self.path.clone(),
        }
    }

    pub fn late(&self, millis: u64) -> StoreError {
        StoreError::Deadline {
            op: name(self.op),
            path: self.path.clone(),
            millis,
        }
    }

    /// The payload of an answer to this, or why there is none.
    pub fn payload(&self, answer: Message) -> Result<Vec<u8>, StoreError> {
        if answer.op != self.op && answer.op != Op::Error {
            return Err(self.malformed(format!("answered with {:?}", answer.op)));
        }
        answer.into_result().map_err(|errno| self.refused(&errno))
    }
}

/// The wire's question for an operation.
pub(super) fn request(op: &StoreOp) -> Request {
    match op.clone() {
        StoreOp::Read(path) => Request::Read(path),
        StoreOp::List(path) => Request::Directory(path),
        StoreOp::Write(path, value) => Request::Write(path, value),
        StoreOp::Mkdir(path) => Request::Mkdir(path),
        StoreOp::Remove(path) => Request::Rm(path),
        StoreOp::GetPermissions(path) => Request::GetPerms(path),
        StoreOp::SetPermissions(path, permissions) => Request::SetPerms(path, permissions),
    }
}

/// The bytes of one operation, appended to `out`; refused here if xenstored could only answer a bare `EINVAL`, or would hang up.
pub(super) fn encode(
    op: &StoreOp,
    req_id: u32,
    tx_id: u32,
    out: &mut Vec<u8>,
) -> Result<Subject, StoreError> {
    let request = request(op);
    let subject = Subject::new(request.op(), op.path());
    check_path(op.path()).map_err(|error| subject.malformed(error))?;
    encode_request(&request, &subject, req_id, tx_id, out)?;
    Ok(subject)
}

/// The bytes of any request, appended to `out`.
pub(super) fn encode_request(
    request: &Request,
    subject: &Subject,
    req_id: u32,
    tx_id: u32,
    out: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let encoded: Result<(), WireError> = request
        .to_message(req_id, tx_id)
        .and_then(|message| message.encode_into(out));
    encoded.map_err(|error| subject.malformed(error))
}

/// The seam's answer from a payload.
pub(super) fn decode(
    op: &StoreOp,
    subject: &Subject,
    payload: Vec<u8>,
) -> Result<StoreReply, StoreError> {
    let answer = match op {
        StoreOp::Read(_) => Ok(StoreReply::Value(payload)),
        StoreOp::List(_) => reply::directory(&payload).map(StoreReply::Children),
        StoreOp::GetPermissions(_) => reply::permissions(&payload).map(StoreReply::Permissions),
        StoreOp::Write(..)
        | StoreOp::Mkdir(_)
        | StoreOp::Remove(_)
        | StoreOp::SetPermissions(..) => Ok(StoreReply::Done),
    };
    let answer = answer.map_err(|error| subject.malformed(error));
    missing_is_removed(op, answer)
}

/// Removing what is not there is no error.
pub(super) fn missing_is_removed(
    op: &StoreOp,
    answer: Result<StoreReply, StoreError>,
) -> Result<StoreReply, StoreError> {
    match answer {
        Err(error) if matches!(op, StoreOp::Remove(_)) && error.is_missing() => {
            Ok(StoreReply::Done)
        }
        answer => answer,
    }
}

/// What an operation is called in messages.
pub(super) fn name(op: Op) -> &'static str {
    match op {
        Op::Control => "control",
        Op::Directory | Op::DirectoryPart => "directory",
        Op::Read => "read",
        Op::GetPerms => "get-perms",
        Op::Watch => "watch",
        Op::Unwatch => "unwatch",
        Op::TransactionStart => "transaction-start",
        Op::TransactionEnd => "transaction-end",
        Op::Introduce => "introduce",
        Op::Release => "release",
        Op::GetDomainPath => "get-domain-path",
        Op::Write => "write",
        Op::Mkdir => "mkdir",
        Op::Rm => "rm",
        Op::SetPerms => "set-perms",
        Op::WatchEvent => "watch-event",
        Op::Error => "error",
        Op::IsDomainIntroduced => "is-domain-introduced",
        Op::Resume => "resume",
        Op::SetTarget => "set-target",
        Op::ResetWatches => "reset-watches",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_path_is_refused_here_with_its_reason() {
        let mut out = Vec::new();
        let error = encode(&StoreOp::Read("/a b".into()), 1, 0, &mut out).unwrap_err();
        assert!(error.to_string().contains("0x20"), "{error}");
        let long = StoreOp::Write("/a".into(), vec![0; 5000]);
        assert!(matches!(
            encode(&long, 1, 0, &mut out),
            Err(StoreError::Malformed { .. })
        ));
        assert!(out.is_empty(), "nothing of a refused request is sent");
    }

    #[test]
    fn an_answer_of_another_kind_is_malformed() {
        let subject = Subject::new(Op::Read, "/a");
        let answer = Message {
            op: Op::Write,
            req_id: 1,
            tx_id: 0,
            payload: vec![],
        };
        assert!(matches!(
            subject.payload(answer),
            Err(StoreError::Malformed { .. })
        ));
    }

    #[test]
    fn only_a_removal_may_miss_its_node() {
        let missing = || Subject::new(Op::Rm, "/a").refused(&StoreErrno::NoEnt);
        let remove = StoreOp::Remove("/a".into());
        assert_eq!(
            missing_is_removed(&remove, Err(missing())),
            Ok(StoreReply::Done)
        );
        let read = StoreOp::Read("/a".into());
        assert_eq!(missing_is_removed(&read, Err(missing())), Err(missing()));
    }
}
