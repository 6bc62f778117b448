//! Why xenstore said no.

use nix::errno::Errno;

/// Failure of a xenstore call.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// xenstored cannot be reached.
    #[error("cannot reach xenstored at {endpoint}: {reason}; is xenstored running?")]
    Unreachable {
        /// Socket or device tried last.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The connection ended while a call was waiting.
    #[error("xenstored closed the connection during {op} {path}")]
    Lost {
        /// Operation.
        op: &'static str,
        /// Node.
        path: String,
    },
    /// No answer within the deadline.
    #[error("xenstored did not answer {op} {path} within {millis} ms")]
    Deadline {
        /// Operation.
        op: &'static str,
        /// Node.
        path: String,
        /// The deadline.
        millis: u64,
    },
    /// xenstored refused.
    #[error("xenstore {op} {path}: {errno}")]
    Refused {
        /// Operation.
        op: &'static str,
        /// Node.
        path: String,
        /// Its error.
        errno: Errno,
    },
    /// A reply or a value did not have the promised shape.
    #[error("xenstore {op} {path}: {what}")]
    Malformed {
        /// Operation.
        op: &'static str,
        /// Node.
        path: String,
        /// What was wrong.
        what: String,
    },
    /// A transaction met a conflict more often than is sane.
    #[error("xenstore transaction for {purpose} met a conflict {attempts} times in a row")]
    Conflict {
        /// What it was for.
        purpose: String,
        /// Attempts made.
        attempts: u32,
    },
}

impl StoreError {
    /// The errno, where xenstored gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// The node does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }
}
