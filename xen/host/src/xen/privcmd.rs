//! `/dev/xen/privcmd`: hypercalls, and how many were made.

use super::probe;
use crate::error::Error;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use xen_abi::privcmd::{Hypercall, IOCTL_HYPERCALL, PRIVCMD_PATH};

static HYPERCALLS: AtomicU64 = AtomicU64::new(0);

/// Hypercalls made by this process so far.
pub(super) fn hypercalls() -> u64 {
    HYPERCALLS.load(Ordering::Relaxed)
}

/// The open device.
#[derive(Debug)]
pub(super) struct Privcmd {
    fd: OwnedFd,
}

impl Privcmd {
    pub fn open() -> Result<Self, Error> {
        open(
            PRIVCMD_PATH,
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map(|fd| Self { fd })
        .map_err(|errno| probe::explain(PRIVCMD_PATH, errno))
    }

    /// One hypercall; gives its (not negative) result.
    ///
    /// # Safety
    /// Every address among the arguments, and inside of what they point to, is of memory that stays mapped through the call, is large
    /// enough for what the hypercall reads and writes, and has no Rust reference to it.
    pub unsafe fn hypercall(&self, op: u64, arg: [u64; 5]) -> Result<u64, Errno> {
        HYPERCALLS.fetch_add(1, Ordering::Relaxed);
        let mut argument = Hypercall { op, arg };
        // SAFETY: the driver reads the argument structure, which lives through the call; for what it points to see above.
        let result = unsafe { ioctl::hypercall(self.fd.as_raw_fd(), &raw mut argument) }?;
        Ok(u64::try_from(result).unwrap_or(0))
    }
}

impl AsFd for Privcmd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

mod ioctl {
    //! The call as the kernel takes it.
    use super::{Hypercall, IOCTL_HYPERCALL};
    nix::ioctl_readwrite_bad!(hypercall, IOCTL_HYPERCALL, Hypercall);
}
