//! One ring thread's I/O: an io_uring over a private pool of memory and a fixed set of files.
//!
//! ```text
//!   guest page --copy--> pool slot --WRITE_FIXED--> file 0..n      (registered buffer, registered files)
//!   event channel, stop event ------POLL_ADD------> completion     (the thread sleeps in one place only)
//! ```
//!
//! Memory of a guest is never given to the kernel for I/O: on a PV control domain a page pinned at the moment of death corrupts
//! the kernel. All transfers go to or from the pool, which outlives them: a ring that is dropped with transfers in
//! flight leaves its pool mapped for good. Before the first request the ring restricts itself to the operations below on its registered
//! files; nobody, whatever they do to this process, can make it do anything else.

mod setup;

use crate::error::Error;
use crate::eventfd::errno_of;
use crate::region::SharedRegion;
use io_uring::types::{Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::errno::Errno;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// Most requests a ring takes at once.
pub const MAX_ENTRIES: u32 = 4096;
/// Most files a ring knows.
pub const MAX_FILES: usize = 64;
/// Highest token, exclusive: the top bit tells polls from transfers.
pub const TOKEN_LIMIT: u64 = 1 << 63;

/// A piece of the pool and a piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Which registered file.
    pub file: usize,
    /// First byte in the pool.
    pub pool_offset: usize,
    /// Bytes.
    pub len: u32,
    /// First byte in the file; ignored by files that do not seek.
    pub file_offset: u64,
}

/// What to do with a range that the guest does not need any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Give the space back; reads give zeroes.
    PunchHole,
    /// Keep the space; reads give zeroes.
    Zero,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// As given with the request.
    pub token: u64,
    /// Bytes done (0 for flush and discard, event bits for polls), or a negated errno.
    pub result: i32,
    /// Whether this request will complete again (multishot polls).
    pub more: bool,
}

impl Completion {
    /// The count, or the error.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn into_result(self) -> Result<u32, Errno> {
        u32::try_from(self.result).map_err(|_| Errno::from_raw(self.result.saturating_neg()))
    }
}

/// See the module. Made and used by one thread.
pub struct DiskRing {
    ring: ManuallyDrop<IoUring>,
    pool: ManuallyDrop<SharedRegion>,
    files: usize,
    /// The pool is registered: fixed-buffer operations are used.
    fixed: bool,
    capacity: usize,
    transfers: usize,
    polls: usize,
    _one_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for DiskRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskRing")
            .field("pool", &self.pool.len())
            .field("files", &self.files)
            .field("fixed", &self.fixed)
            .field("transfers", &self.transfers)
            .field("polls", &self.polls)
            .finish_non_exhaustive()
    }
}

impl DiskRing {
    /// A ring for at most `entries` requests in flight on `files`, with a pool of `pool_pages` pages.
    ///
    /// The ring holds the open file descriptions of `files` until it is dropped and its last request has ended (a lock on them is a fence).
    /// Must be called by the thread that will use the ring.
    ///
    /// # Errors
    /// Arguments out of range (`EINVAL`), io_uring switched off (`EPERM`) or without an operation needed here (`ENOSYS`), no memory.
    pub fn new(files: &[BorrowedFd<'_>], pool_pages: usize, entries: u32) -> Result<Self, Error> {
        if files.is_empty() || files.len() > MAX_FILES || entries == 0 || entries > MAX_ENTRIES {
            return Err(Error::refused("io_uring", Errno::EINVAL));
        }
        let pool = SharedRegion::anonymous(pool_pages)?;
        let ring = setup::build(entries)?;
        setup::check_operations(&ring)?;
        let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter()
            .register_files(&raw)
            .map_err(|error| Error::refused("io_uring files", errno_of(&error)))?;
        let fixed = setup::register_pool(&ring, &pool);
        setup::restrict(&ring)?;
        ring.submitter()
            .register_enable_rings()
            .map_err(|error| Error::refused("io_uring enable", errno_of(&error)))?;
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            pool: ManuallyDrop::new(pool),
            files: files.len(),
            fixed,
            capacity: entries as usize,
            transfers: 0,
            polls: 0,
            _one_thread: PhantomData,
        })
    }

    /// The memory that transfers use. A slot belongs to its transfer until that has completed.
    #[must_use]
    pub fn pool(&self) -> &SharedRegion {
        &self.pool
    }

    /// Whether the pool is registered with the kernel (it is not where `RLIMIT_MEMLOCK` is too low).
    #[must_use]
    pub fn has_registered_pool(&self) -> bool {
        self.fixed
    }

    /// Requests that may be in flight at once.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Transfers, flushes and discards that have not completed.
    #[must_use]
    pub fn transfers_in_flight(&self) -> usize {
        self.transfers
    }

    /// Reads from a file into the pool.
    ///
    /// # Errors
    /// A range outside of the pool or a file that is not registered (`EINVAL`), or a full ring (`EBUSY`).
    pub fn read(&mut self, transfer: Transfer, token: u64) -> Result<(), Error> {
        self.push_read(transfer, 0, token)
    }

    /// As [`DiskRing::read`], but completes at once, with `EAGAIN` if there is nothing to read: for taps and the like.
    ///
    /// # Errors
    /// As [`DiskRing::read`].
    pub fn read_now(&mut self, transfer: Transfer, token: u64) -> Result<(), Error> {
        self.push_read(transfer, libc::RWF_NOWAIT, token)
    }

    fn push_read(&mut self, transfer: Transfer, flags: i32, token: u64) -> Result<(), Error> {
        let address = self.check(transfer)?;
        let file = fixed_file(transfer.file)?;
        let entry = if self.fixed {
            opcode::ReadFixed::new(file, address, transfer.len, 0)
                .offset(transfer.file_offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Read::new(file, address, transfer.len)
                .offset(transfer.file_offset)
                .rw_flags(flags)
                .build()
        };
        self.push(&entry, token, Kind::Transfer)
    }

    /// Writes from the pool to a file. `durable` asks for stable storage before completion (a write with FUA).
    ///
    /// # Errors
    /// As [`DiskRing::read`].
    pub fn write(&mut self, transfer: Transfer, durable: bool, token: u64) -> Result<(), Error> {
        let address = self.check(transfer)?.cast_const();
        let file = fixed_file(transfer.file)?;
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = if self.fixed {
            opcode::WriteFixed::new(file, address, transfer.len, 0)
                .offset(transfer.file_offset)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(file, address, transfer.len)
                .offset(transfer.file_offset)
                .rw_flags(flags)
                .build()
        };
        self.push(&entry, token, Kind::Transfer)
    }

    /// Makes everything that completed before durable. `data_only` leaves out metadata that reading back does not need.
    ///
    /// # Errors
    /// As [`DiskRing::read`].
    pub fn flush(&mut self, file: usize, data_only: bool, token: u64) -> Result<(), Error> {
        self.check_file(file)?;
        let flags = if data_only {
            FsyncFlags::DATASYNC
        } else {
            FsyncFlags::empty()
        };
        let entry = opcode::Fsync::new(fixed_file(file)?).flags(flags).build();
        self.push(&entry, token, Kind::Transfer)
    }

    /// Gives a range of a file or block device back, or makes it zero.
    ///
    /// # Errors
    /// As [`DiskRing::read`]; the completion says `EOPNOTSUPP` where the storage cannot.
    pub fn discard(
        &mut self,
        file: usize,
        how: Discard,
        offset: u64,
        len: u64,
        token: u64,
    ) -> Result<(), Error> {
        self.check_file(file)?;
        let mode = libc::FALLOC_FL_KEEP_SIZE
            | match how {
                Discard::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                Discard::Zero => libc::FALLOC_FL_ZERO_RANGE,
            };
        let entry = opcode::Fallocate::new(fixed_file(file)?, len)
            .offset(offset)
            .mode(mode)
            .build();
        self.push(&entry, token, Kind::Transfer)
    }

    /// Completes once `file` is readable, at once if it is already.
    ///
    /// # Errors
    /// A file that is not registered (`EINVAL`), or a full ring (`EBUSY`).
    pub fn poll(&mut self, file: usize, token: u64) -> Result<(), Error> {
        self.push_poll(file, false, token)
    }

    /// As [`DiskRing::poll`], and again each time it becomes readable anew, until a completion without `more`.
    ///
    /// # Errors
    /// As [`DiskRing::poll`].
    pub fn poll_repeatedly(&mut self, file: usize, token: u64) -> Result<(), Error> {
        self.push_poll(file, true, token)
    }

    /// Hands queued requests to the kernel without waiting.
    ///
    /// # Errors
    /// The kernel has no memory; nothing was lost, try again.
    pub fn submit(&mut self) -> Result<(), Error> {
        settle(self.ring.submit())
    }

    /// Hands queued requests to the kernel and waits until one completes, at most `timeout`.
    ///
    /// # Errors
    /// As [`DiskRing::submit`]. Running out of time is none.
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        if !self.ring.completion().is_empty() {
            return self.submit();
        }
        let Some(timeout) = timeout else {
            return settle(self.ring.submit_and_wait(1));
        };
        let spec = Timespec::from(timeout);
        settle(
            self.ring
                .submitter()
                .submit_with_args(1, &SubmitArgs::new().timespec(&spec)),
        )
    }

    /// The next request that ended, if one did.
    pub fn next_completion(&mut self) -> Option<Completion> {
        let entry: cqueue::Entry = self.ring.completion().next()?;
        let more = cqueue::more(entry.flags());
        let (token, kind) = Kind::split(entry.user_data());
        if !more {
            let count = match kind {
                Kind::Transfer => &mut self.transfers,
                Kind::Poll => &mut self.polls,
            };
            *count = count.saturating_sub(1);
        }
        Some(Completion {
            token,
            result: entry.result(),
            more,
        })
    }

    /// Waits until no transfer is in flight, at most `timeout`; the completions seen are handed to `seen`. False on timeout.
    ///
    /// # Errors
    /// As [`DiskRing::submit`].
    pub fn drain(
        &mut self,
        timeout: Duration,
        mut seen: impl FnMut(Completion),
    ) -> Result<bool, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(completion) = self.next_completion() {
                seen(completion);
            }
            if self.transfers == 0 {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.submit_and_wait(Some(left))?;
        }
    }

    fn push_poll(&mut self, file: usize, again: bool, token: u64) -> Result<(), Error> {
        self.check_file(file)?;
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(fixed_file(file)?, events)
            .multi(again)
            .build();
        self.push(&entry, token, Kind::Poll)
    }

    fn check_file(&self, file: usize) -> Result<(), Error> {
        if file < self.files {
            return Ok(());
        }
        Err(Error::refused(
            "io_uring request on an unknown file",
            Errno::EINVAL,
        ))
    }

    /// The address of a transfer's piece of the pool.
    fn check(&self, transfer: Transfer) -> Result<*mut u8, Error> {
        self.check_file(transfer.file)?;
        let end = transfer.pool_offset.checked_add(transfer.len as usize);
        if end.is_none_or(|end| end > self.pool.len()) {
            return Err(Error::refused(
                "io_uring request outside of the pool",
                Errno::EINVAL,
            ));
        }
        Ok(self.pool.as_ptr().wrapping_add(transfer.pool_offset))
    }

    fn push(&mut self, entry: &squeue::Entry, token: u64, kind: Kind) -> Result<(), Error> {
        if token >= TOKEN_LIMIT {
            return Err(Error::refused("io_uring token", Errno::EINVAL));
        }
        if self.transfers + self.polls >= self.capacity {
            return Err(Error::refused("io_uring request", Errno::EBUSY));
        }
        let entry = entry.clone().user_data(kind.join(token));
        if self.ring.submission().is_full() {
            self.submit()?;
        }
        // SAFETY: the entry names registered files and, where it names memory, a range inside of the pool that `check` has verified; the
        // pool stays mapped until no transfer is in flight (see Drop).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| Error::refused("io_uring request", Errno::EBUSY))?;
        match kind {
            Kind::Transfer => self.transfers += 1,
            Kind::Poll => self.polls += 1,
        }
        Ok(())
    }
}

impl Drop for DiskRing {
    fn drop(&mut self) {
        // SAFETY: the ring is not used again; closing it cancels polls and lets transfers end by themselves.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if self.transfers > 0 {
            tracing::warn!(
                transfers = self.transfers,
                "ring dropped in flight; its pool stays mapped"
            );
            return;
        }
        // SAFETY: no transfer is in flight, so the kernel does not use the pool any more, and neither do we.
        unsafe { ManuallyDrop::drop(&mut self.pool) };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transfer,
    Poll,
}

impl Kind {
    fn join(self, token: u64) -> u64 {
        match self {
            Kind::Transfer => token,
            Kind::Poll => token | TOKEN_LIMIT,
        }
    }

    fn split(user_data: u64) -> (u64, Self) {
        let kind = if user_data < TOKEN_LIMIT {
            Kind::Transfer
        } else {
            Kind::Poll
        };
        (user_data & (TOKEN_LIMIT - 1), kind)
    }
}

fn fixed_file(file: usize) -> Result<Fixed, Error> {
    u32::try_from(file)
        .map(Fixed)
        .map_err(|_| Error::refused("io_uring request on an unknown file", Errno::EINVAL))
}

/// Reasons to come back early that are no failures: a signal, the timeout, completions waiting to be taken.
fn settle(result: std::io::Result<usize>) -> Result<(), Error> {
    match result.map_err(|error| errno_of(&error)) {
        Ok(_) | Err(Errno::EINTR | Errno::ETIME | Errno::EBUSY) => Ok(()),
        Err(errno) => Err(Error::refused("io_uring_enter", errno)),
    }
}

#[cfg(test)]
mod tests;
