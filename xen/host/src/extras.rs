//! What only a hypervisor with the patches of `xen-patches/` offers, as a trait of the seam.
//!
//! Nothing needs it. Each method either does what it says or answers [`Offer::NotThere`], which is no failure: whoever calls does the same thing
//! the ordinary way. Whether it is there is found out by the first call that tries, and remembered.

use crate::region::SharedRegion;
use crate::seam::Result;
use nix::errno::Errno;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use xen_abi::ids::{DomId, Port};

/// Answer of a call that not every hypervisor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Offer<T> {
    /// It is there, and this is what it did.
    Done(T),
    /// The hypervisor does not have it.
    NotThere,
}

/// What became of one page of [`Extras::copy_out`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It is in its place in the buffer.
    Copied,
    /// It holds nothing but zeroes; its place in the buffer is as it was.
    Zero,
    /// Not copied: `EINVAL` no memory of the domain, `ENOENT` paged out, `EBUSY` not to be written.
    Refused(Errno),
}

/// Calls of a patched hypervisor.
pub trait Extras: Debug + Send + Sync {
    /// Whether the copies below are there, found out by one of no page.
    ///
    /// # Errors
    /// There is no such domain.
    fn offers_copies(&self, domid: DomId) -> Result<bool>;

    /// Memory for the copies below, of this many pages: the hypervisor reads and writes it during a call, which ordinary memory may not bear.
    ///
    /// # Errors
    /// The kernel has no memory.
    fn copy_buffer(&self, pages: usize) -> Result<SharedRegion>;

    /// Copies pages of a domain (mfns for PV, gfns for PVH and HVM): frame N to page N of `into`, which [`Extras::copy_buffer`] made. Pages of zeroes
    /// are told and not copied. One answer for each frame.
    ///
    /// # Errors
    /// There is no such domain, or the buffer is too small.
    fn copy_out(
        &self,
        domid: DomId,
        frames: &[u64],
        into: &SharedRegion,
    ) -> Result<Offer<Vec<Copied>>>;

    /// The other way round: page N of `from` into frame N. All or an error; a dirty log sees the pages.
    ///
    /// # Errors
    /// As [`Extras::copy_out`]; a frame that cannot be written.
    fn copy_in(&self, domid: DomId, frames: &[u64], from: &SharedRegion) -> Result<Offer<()>>;

    /// Asks for an event at every shutdown of a domain, whatever its code, through `port`, one end of [`crate::seam::Events::loopback`]. At once
    /// if it is shut down already. It does not say what happened.
    ///
    /// # Errors
    /// There is no such domain, or too many listen already.
    fn notify_shutdown(&self, domid: DomId, port: Port) -> Result<Offer<()>>;
}

/// Whether something is there, as far as is known.
#[derive(Debug, Default)]
pub struct Found {
    missing: AtomicBool,
}

impl Found {
    /// Makes the call unless it is known to be missing, and learns from its answer.
    ///
    /// # Errors
    /// The call's, all but those that say that there is no such call.
    pub fn try_it<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<Offer<T>> {
        if self.missing.load(Ordering::Relaxed) {
            return Ok(Offer::NotThere);
        }
        match call() {
            Ok(answer) => Ok(Offer::Done(answer)),
            Err(error) if error.errno().is_some_and(says_missing) => {
                tracing::debug!(%error, "not offered; going on without it");
                self.missing.store(true, Ordering::Relaxed);
                Ok(Offer::NotThere)
            }
            Err(error) => Err(error),
        }
    }
}

/// Xen's answers to a number that it does not know.
fn says_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::cell::Cell;

    #[test]
    fn a_missing_call_is_tried_once_and_remembered() {
        for errno in [Errno::ENOSYS, Errno::EOPNOTSUPP] {
            let (found, tries) = (Found::default(), Cell::new(0));
            let call = || {
                tries.set(tries.get() + 1);
                Err::<(), _>(Error::refused("x", errno))
            };
            assert_eq!(found.try_it(call).unwrap(), Offer::NotThere);
            assert_eq!(found.try_it(call).unwrap(), Offer::NotThere);
            assert_eq!(tries.get(), 1);
        }
    }

    #[test]
    fn another_failure_says_nothing_about_whether_it_is_there() {
        let found = Found::default();
        let gone = || Err::<(), _>(Error::refused_for("x", DomId(3), Errno::ESRCH));
        assert!(found.try_it(gone).is_err());
        assert_eq!(found.try_it(|| Ok(5)).unwrap(), Offer::Done(5));
    }
}
