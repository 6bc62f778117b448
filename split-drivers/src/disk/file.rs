//! Raw files and block devices, on io_uring: fixed-buffer transfers from a private pool, and the one place where a ring's thread sleeps.
//!
//! [`Image`] is the opened medium: it holds the lock that fences a predecessor's I/O. The lock lives on the open file description that
//! all I/O uses, and the kernel lets go of that description only after its last request has ended, whatever happened to the process
//! (`docs/recovery.md`). So who gets the lock knows that no old write can land any more. [`FileDisk`] is one ring's opening of it.

use super::{Disk, Done, Step};
use crate::limits::{LOCK_RETRY, LOCK_TIMEOUT_MAX};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parapet_wire::driver::{Medium, OpenDisk};
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use xen_host::blockdev;
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::uring::{Discard, DiskRing, Transfer};

/// Granularity of a hole in a file, in bytes.
const FILE_HOLE_BYTES: u32 = 4096;
/// Alignments that direct I/O may ask for, in bytes.
const DIRECT_ALIGNMENTS: [u32; 2] = [512, 4096];

/// Why a medium cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else uses it, or a dead predecessor's I/O is still on its way.
    #[error(
        "the disk is still locked after {0:?}: another program uses it, or I/O of a predecessor does not end"
    )]
    Locked(Duration),
    /// A read-only device for a disk that is to be written.
    #[error("the device is read-only and the disk is not")]
    ReadOnly,
    /// A size that is not whole sectors.
    #[error("its size of {bytes} bytes holds no sector of {sector_size}")]
    Size {
        /// Size.
        bytes: u64,
        /// Smallest I/O.
        sector_size: u32,
    },
    /// The kernel refused.
    #[error(transparent)]
    Host(#[from] Error),
    /// The kernel refused.
    #[error("{what}: {errno}")]
    System {
        /// What was asked.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
}

/// An opened and locked medium.
#[derive(Debug)]
pub struct Image {
    file: File,
    medium: Medium,
    read_only: bool,
    /// Rings that may have I/O under way here.
    users: AtomicU32,
    locked: bool,
}

impl Image {
    /// Locks and measures the medium behind a descriptor whose open file description nobody else keeps.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(fd: OwnedFd, order: &OpenDisk) -> Result<Self, OpenError> {
        let file = File::from(fd);
        lock(&file, order)?;
        Self::measured(file, order, true)
    }

    /// Measures a medium that somebody else may still use.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn prepare(fd: OwnedFd, order: &OpenDisk) -> Result<Self, OpenError> {
        Self::measured(File::from(fd), order, false)
    }

    /// Locks a prepared medium, and measures it again: whoever had it may have changed its size.
    ///
    /// # Errors
    /// See [`OpenError`]; it is prepared as before then.
    pub fn claim(&self, order: &OpenDisk) -> Result<Self, OpenError> {
        lock(&self.file, order)?;
        let file = self.file.try_clone().map_err(|error| OpenError::System {
            what: "another descriptor of the disk",
            errno: errno_of(&error),
        })?;
        Self::measured(file, order, true)
    }

    /// Whether nobody else may use it.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    fn measured(file: File, order: &OpenDisk, locked: bool) -> Result<Self, OpenError> {
        set_direct(&file, !order.buffered)?;
        let geometry = blockdev::Geometry::of(file.as_fd())?;
        if geometry.read_only && !order.read_only {
            return Err(OpenError::ReadOnly);
        }
        let sector_size = if order.buffered {
            geometry.logical_sector
        } else {
            direct_alignment(&file, geometry.logical_sector)?
        };
        let bytes = geometry.bytes - geometry.bytes % u64::from(sector_size);
        if bytes == 0 {
            return Err(OpenError::Size {
                bytes: geometry.bytes,
                sector_size,
            });
        }
        let physical_sector_size = geometry.physical_sector.max(sector_size);
        let granularity = if geometry.block_device {
            physical_sector_size
        } else {
            FILE_HOLE_BYTES
        };
        let medium = Medium {
            sectors: bytes / 512,
            sector_size,
            physical_sector_size,
            discard_granularity: (order.discard && !order.read_only).then_some(granularity),
        };
        Ok(Self {
            file,
            medium,
            read_only: order.read_only,
            users: AtomicU32::new(0),
            locked,
        })
    }

    /// A ring begins to use it.
    pub fn begin_use(&self) {
        self.users.fetch_add(1, Ordering::SeqCst);
    }

    /// A ring has ended all that it had under way.
    pub fn end_use(&self) {
        self.users.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives the lock up at once if no I/O can be under way. Otherwise it goes when the kernel has ended that: rings keep the description for a while
    /// after they are closed, which a successor on this host or another would have to wait for.
    pub fn unlock(&self) {
        if self.users.load(Ordering::SeqCst) != 0 {
            return;
        }
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the disk's lock goes with its last user");
        }
    }

    /// What it is.
    #[must_use]
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// Whether it may be changed.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

/// Waits for the lock, with a deadline: a thread that sleeps in the kernel's own lock could not give up.
fn lock(file: &File, order: &OpenDisk) -> Result<(), OpenError> {
    let patience = Duration::from_millis(order.lock_timeout_ms).min(LOCK_TIMEOUT_MAX);
    let deadline = Instant::now() + patience;
    loop {
        let result = if order.read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match result {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(OpenError::Locked(patience));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(error)) => {
                return Err(OpenError::System {
                    what: "lock of the disk",
                    errno: errno_of(&error),
                });
            }
        }
    }
}

fn set_direct(file: &File, direct: bool) -> Result<(), OpenError> {
    let refused = |errno| OpenError::System {
        what: "direct I/O on the disk (a medium that cannot needs `buffered`)",
        errno,
    };
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).map_err(refused)?);
    let mut wanted = flags;
    wanted.set(OFlag::O_DIRECT, direct);
    if wanted != flags {
        fcntl(file, FcntlArg::F_SETFL(wanted)).map_err(refused)?;
    }
    Ok(())
}

/// The smallest read that direct I/O takes: a file can need more than its 512 bytes, by the device under its filesystem.
fn direct_alignment(file: &File, at_least: u32) -> Result<u32, OpenError> {
    let mut ring = DiskRing::new(&[file.as_fd()], 1, 1)?;
    for len in DIRECT_ALIGNMENTS.into_iter().filter(|len| *len >= at_least) {
        ring.read(
            Transfer {
                file: 0,
                pool_offset: 0,
                len,
                file_offset: 0,
            },
            0,
        )?;
        let mut result = Ok(0);
        ring.drain(LOCK_TIMEOUT_MAX, |completion| {
            result = completion.into_result()
        })?;
        match result {
            Ok(_) => return Ok(len),
            Err(Errno::EINVAL) => {}
            Err(errno) => {
                return Err(OpenError::System {
                    what: "first read of the disk",
                    errno,
                });
            }
        }
    }
    Err(OpenError::System {
        what: "direct I/O on the disk (a medium that cannot needs `buffered`)",
        errno: Errno::EINVAL,
    })
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Files of a ring, by place.
const DISK: usize = 0;
const EVENT: usize = 1;
const STOP: usize = 2;
/// Tokens of polls start here; those of transfers are below.
const POLL_TOKENS: u64 = 1 << 32;

/// Why a thread woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wake {
    /// The guest sent an event.
    pub event: bool,
    /// The control thread wants something.
    pub stop: bool,
}

/// One ring's opening of an [`Image`]. Made and used by the ring's thread.
#[derive(Debug)]
pub struct FileDisk {
    ring: DiskRing,
    done: Vec<Done>,
    queued: bool,
    /// Which of [`EVENT`], [`STOP`] are being polled.
    polled: [bool; 3],
    woke: Wake,
}

impl FileDisk {
    /// Opens with `pages` pages of buffer for `operations` at once, and the two descriptors that wake its thread.
    ///
    /// # Errors
    /// No memory, or io_uring is not to be had.
    pub fn open(
        image: &Image,
        event: BorrowedFd<'_>,
        stop: BorrowedFd<'_>,
        pages: usize,
        operations: u32,
    ) -> Result<Self, Error> {
        // Two polls beside the operations, and a flush that no request asked for.
        let ring = DiskRing::new(&[image.file.as_fd(), event, stop], pages, operations + 3)?;
        Ok(Self {
            ring,
            done: Vec::new(),
            queued: false,
            polled: [false; 3],
            woke: Wake::default(),
        })
    }

    /// Sleeps until an operation ends, a descriptor wakes the thread, or the time is over. What was queued is started.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn wait(&mut self, timeout: Duration) -> Result<Wake, Error> {
        for place in [EVENT, STOP] {
            if !self.polled[place] {
                self.ring.poll(place, POLL_TOKENS + place as u64)?;
                self.polled[place] = true;
            }
        }
        self.ring.submit_and_wait(Some(timeout))?;
        self.queued = false;
        self.sort();
        Ok(std::mem::take(&mut self.woke))
    }

    /// Operations at the medium.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ring.transfers_in_flight()
    }

    /// Puts completions where they belong.
    fn sort(&mut self) {
        while let Some(completion) = self.ring.next_completion() {
            match completion.token.checked_sub(POLL_TOKENS) {
                Some(place) => {
                    let place = usize::try_from(place).unwrap_or(0);
                    if let Some(polled) = self.polled.get_mut(place) {
                        *polled = false;
                    }
                    self.woke.event |= place == EVENT;
                    self.woke.stop |= place == STOP;
                }
                None => {
                    let token = u32::try_from(completion.token).unwrap_or(u32::MAX);
                    let result = completion.into_result().map(|bytes| bytes as usize);
                    self.done.push(Done { token, result });
                }
            }
        }
    }
}

impl Disk for FileDisk {
    fn buffer(&self) -> &SharedRegion {
        self.ring.pool()
    }

    fn submit(&mut self, token: u32, step: Step, at: usize) -> Result<(), Errno> {
        let transfer = |offset, len: usize| {
            let len = u32::try_from(len).map_err(|_| Errno::EINVAL)?;
            Ok(Transfer {
                file: DISK,
                pool_offset: at,
                len,
                file_offset: offset,
            })
        };
        let token = u64::from(token);
        self.queued = true;
        match step {
            Step::Read { offset, len } => self.ring.read(transfer(offset, len)?, token),
            Step::Write { offset, len } => self.ring.write(transfer(offset, len)?, false, token),
            Step::Sync => self.ring.flush(DISK, true, token),
            Step::Discard { offset, len } => {
                self.ring
                    .discard(DISK, Discard::PunchHole, offset, len, token)
            }
        }
        .map_err(|error| error.errno().unwrap_or(Errno::EIO))
    }

    fn start(&mut self) -> Result<(), Errno> {
        if self.queued || self.ring.transfers_in_flight() > 0 {
            self.queued = false;
            self.ring
                .submit()
                .map_err(|error| error.errno().unwrap_or(Errno::EIO))?;
        }
        Ok(())
    }

    fn reap(&mut self, into: &mut Vec<Done>) -> Result<(), Errno> {
        self.sort();
        into.append(&mut self.done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> OpenDisk {
        OpenDisk {
            devid: 51712,
            read_only: false,
            discard: true,
            buffered: true,
            lock_timeout_ms: 0,
        }
    }

    fn opened(file: &tempfile::NamedTempFile) -> Result<Image, OpenError> {
        Image::open(OwnedFd::from(file.reopen().unwrap()), &order())
    }

    #[test]
    fn a_lock_is_given_up_at_once_but_not_while_io_may_be_under_way() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let image = opened(&file).unwrap();
        assert!(matches!(opened(&file), Err(OpenError::Locked(_))));
        // A second ring ended, the first did not.
        image.begin_use();
        image.begin_use();
        image.end_use();
        image.unlock();
        assert!(matches!(opened(&file), Err(OpenError::Locked(_))));
        image.end_use();
        image.unlock();
        opened(&file).unwrap();
    }

    #[test]
    fn a_disk_is_prepared_while_another_has_it_and_claimed_when_that_is_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let other = opened(&file).unwrap();
        let prepared = Image::prepare(OwnedFd::from(file.reopen().unwrap()), &order()).unwrap();
        assert!(!prepared.is_locked());
        assert!(matches!(
            prepared.claim(&order()),
            Err(OpenError::Locked(_))
        ));
        file.as_file().set_len(1 << 21).unwrap();
        drop(other);
        let claimed = prepared.claim(&order()).unwrap();
        assert!(claimed.is_locked());
        drop(prepared);
        assert_eq!(claimed.medium().sectors, (1 << 21) / 512);
        assert!(matches!(opened(&file), Err(OpenError::Locked(_))));
    }
}
