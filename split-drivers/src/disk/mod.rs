//! Media, as a ring's queue sees them: numbered operations go in, numbered outcomes come out in any order, data passes through one
//! private buffer.
//!
//! * [`mod@file`]: raw files and block devices, on io_uring.
//! * [`memory`], [`faulty`]: for tests; the first completes in a seeded order, the second fails on purpose.
//!
//! No grant-mapped page ever reaches a medium: only the private buffer does.

pub mod faulty;
pub mod file;
pub mod memory;

use nix::errno::Errno;
use xen_host::region::SharedRegion;

/// One operation at a medium. Offsets and lengths in bytes, multiples of the medium's sector size and within its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Into the buffer.
    Read {
        /// From here.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Out of the buffer.
    Write {
        /// To here.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Makes every write that was completed before durable (`fdatasync`).
    Sync,
    /// Gives a range back; it reads as zeros or as before.
    Discard {
        /// From here.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// Outcome of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// As given to [`Disk::submit`].
    pub token: u32,
    /// Bytes moved (0 for [`Step::Sync`] and [`Step::Discard`]); may be fewer than asked.
    pub result: Result<usize, Errno>,
}

/// A medium, opened for one ring.
pub trait Disk: std::fmt::Debug {
    /// The private buffer that reads fill and writes empty.
    fn buffer(&self) -> &SharedRegion;
    /// Queues an operation on bytes of the buffer from `at` on. At most one per token is in flight, and no more tokens than the disk was opened for.
    ///
    /// # Errors
    /// The medium takes no more; nothing was queued.
    fn submit(&mut self, token: u32, step: Step, at: usize) -> Result<(), Errno>;
    /// Starts everything that was queued.
    ///
    /// # Errors
    /// The medium is lost for good.
    fn start(&mut self) -> Result<(), Errno>;
    /// Appends outcomes. Never blocks.
    ///
    /// # Errors
    /// The medium is lost for good.
    fn reap(&mut self, into: &mut Vec<Done>) -> Result<(), Errno>;
}
