//! What goes wrong while a disk is copied, for each side: which disk, where, and why.

use crate::agent::error::AgentError;
use std::io;
use std::path::PathBuf;

/// Why a disk could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The driver does not do what copying needs.
    #[error("disk {disk}: {source}")]
    Driver {
        /// Device number.
        disk: u32,
        /// What it said.
        source: Box<AgentError>,
    },
    /// The image cannot be read.
    #[error("disk {disk}: {what}: {source}")]
    Image {
        /// Device number.
        disk: u32,
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The image is shorter than it was.
    #[error("disk {disk}: the image ends at byte {at}; did it shrink while it was copied?")]
    Shrunk {
        /// Device number.
        disk: u32,
        /// Where.
        at: u64,
    },
    /// The other side is gone.
    #[error("disk {disk}: the connection broke: {source}")]
    Line {
        /// Device number.
        disk: u32,
        /// Why.
        source: io::Error,
    },
    /// The other side says something that makes no sense.
    #[error("disk {disk}: the receiver's report makes no sense: {what}")]
    Report {
        /// Device number.
        disk: u32,
        /// What.
        what: String,
    },
    /// A disk that cannot be copied this way.
    #[error("disk {disk}: {what}")]
    Unfit {
        /// Device number.
        disk: u32,
        /// Why not.
        what: String,
    },
    /// The last rounds do not end.
    #[error(
        "disk {disk}: after {rounds} rounds with the guest suspended {left} bytes are left to copy; somebody else writes to the disk, or the connection damages what it carries"
    )]
    NotQuiet {
        /// Device number.
        disk: u32,
        /// Rounds.
        rounds: u32,
        /// Bytes.
        left: u64,
    },
}

impl CopyError {
    /// Whether the copy may go on over a new connection ([`super::DiskCopy::reconnect`]).
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(self, Self::Line { .. } | Self::Report { .. })
    }
}

/// Why a disk could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream ended, or the connection broke.
    #[error("disk {disk}: the stream broke off: {source}")]
    Line {
        /// Device number.
        disk: u32,
        /// Why.
        source: io::Error,
    },
    /// The head of a record is damaged: nothing after it can be told apart any more.
    #[error("disk {disk}: the head of record {record} is damaged")]
    Damaged {
        /// Device number.
        disk: u32,
        /// Its number.
        record: u64,
    },
    /// The sender ends though it was told that records were damaged.
    #[error("disk {disk}: the stream ends, but {ranges} damaged ranges did not come again")]
    Incomplete {
        /// Device number.
        disk: u32,
        /// How many.
        ranges: usize,
    },
    /// What no sender of ours would say.
    #[error("disk {disk}: record {record}: {what}")]
    Hostile {
        /// Device number.
        disk: u32,
        /// Its number.
        record: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Not a disk section, or not the one that was expected.
    #[error("disk {disk}: {what}")]
    Header {
        /// Device number.
        disk: u32,
        /// What is wrong.
        what: String,
    },
    /// The place is taken.
    #[error("{path}: {what}")]
    Place {
        /// Where the disk was to be.
        path: PathBuf,
        /// Why it cannot, and the way out.
        what: String,
    },
    /// The file cannot be written.
    #[error("{what} {path}: {source}")]
    File {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ReceiveError {
    /// Whether the receiver may go on with a new stream from the same sender; everything that came is kept until then.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(self, Self::Line { .. } | Self::Damaged { .. })
    }
}
