//! Pages of other domains in our address space.
//!
//! The kernel fills a fresh mapping frame by frame and reports each failure in a list of its own: a call that succeeded may still have
//! failures. A frame that is paged out is asked for again, for a bounded time. A writable mapping of a page table makes the hypervisor
//! refuse to pin it, so mappings go away with their region, at once.

use super::Xen;
use crate::error::Error;
use crate::region::{Mapping, SharedRegion};
use crate::seam::Result;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::time::Duration;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_abi::layout::UserPtr;
use xen_abi::memory::{RESOURCE_GRANT_TABLE, RESOURCE_GRANT_TABLE_SHARED};
use xen_abi::privcmd::{MmapBatchV2, MmapResource};

/// Frames one mapping may have: 4 GiB.
pub const MAX_FRAMES: usize = 1 << 20;
/// Pause before a frame that is paged out is asked for again.
const PAGED_OUT_PAUSE: Duration = Duration::from_micros(100);
/// Times it is asked for: a second in all.
const PAGED_OUT_ATTEMPTS: usize = 10_000;

impl Xen {
    /// Maps frames of a domain, all or nothing.
    pub(crate) fn map_frames(
        &self,
        domid: DomId,
        frames: &[u64],
        writable: bool,
    ) -> Result<SharedRegion> {
        let op = "map of foreign frames";
        if frames.len() > MAX_FRAMES {
            return Err(Error::refused_for(op, domid, Errno::E2BIG));
        }
        let mapping = self.reserve(op, domid, frames.len(), writable)?;
        let mut errors = vec![0_i32; frames.len()];
        self.map_batch(domid, mapping.base, frames, &mut errors)
            .map_err(|errno| Error::refused_for(op, domid, errno))?;
        self.map_paged_out(domid, mapping.base, frames, &mut errors);
        if let Some((frame, error)) = frames.iter().zip(&errors).find(|(_, error)| **error != 0) {
            tracing::debug!(%domid, frame, error, "frame cannot be mapped");
            return Err(Error::refused_for(
                op,
                domid,
                Errno::from_raw(error.saturating_neg()),
            ));
        }
        Ok(into_region(mapping, writable))
    }

    /// Maps the first frames of a domain's grant table.
    pub(super) fn map_resource_grant_table(
        &self,
        domid: DomId,
        frames: u32,
    ) -> Result<SharedRegion> {
        let op = "map of the grant table";
        let mapping = self.reserve(op, domid, frames as usize, true)?;
        let mut argument = MmapResource {
            dom: domid.0,
            pad: 0,
            kind: RESOURCE_GRANT_TABLE,
            id: RESOURCE_GRANT_TABLE_SHARED,
            idx: 0,
            num: frames.into(),
            addr: mapping.base.addr().get() as u64,
        };
        // SAFETY: the driver fills exactly the mapping made just above, which nobody else knows.
        unsafe { ioctl::map_resource(self.privcmd.as_fd().as_raw_fd(), &raw mut argument) }
            .map_err(|errno| Error::refused_for(op, domid, errno))?;
        Ok(into_region(mapping, true))
    }

    /// An empty mapping of the device, to be filled.
    fn reserve(
        &self,
        op: &'static str,
        domid: DomId,
        frames: usize,
        writable: bool,
    ) -> Result<Mapping> {
        let refused = |errno| Error::refused_for(op, domid, errno);
        let size = NonZeroUsize::new(frames * PAGE_SIZE).ok_or_else(|| refused(Errno::EINVAL))?;
        let mut prot = ProtFlags::PROT_READ;
        if writable {
            prot |= ProtFlags::PROT_WRITE;
        }
        // SAFETY: a fresh mapping of the device has nothing behind it yet.
        let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, &self.privcmd, 0) };
        let base: NonNull<u8> = base.map_err(refused)?.cast();
        Ok(Mapping {
            base,
            len: size.get(),
        })
    }

    /// One call; what fails stands in `errors` as a negative errno.
    fn map_batch(
        &self,
        domid: DomId,
        base: NonNull<u8>,
        frames: &[u64],
        errors: &mut [i32],
    ) -> std::result::Result<(), Errno> {
        let mut argument = MmapBatchV2 {
            num: u32::try_from(frames.len()).map_err(|_| Errno::E2BIG)?,
            dom: domid.0,
            pad: 0,
            addr: base.addr().get() as u64,
            arr: UserPtr(frames.as_ptr().expose_provenance() as u64),
            err: UserPtr(errors.as_mut_ptr().expose_provenance() as u64),
        };
        debug_assert_eq!(frames.len(), errors.len());
        // SAFETY: the lists have `num` entries each and live through the call; the driver fills pages of our own mapping only.
        let result =
            unsafe { ioctl::map_batch(self.privcmd.as_fd().as_raw_fd(), &raw mut argument) };
        match result {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Asks again for what is paged out. Only holes may be filled, so each goes by itself.
    fn map_paged_out(&self, domid: DomId, base: NonNull<u8>, frames: &[u64], errors: &mut [i32]) {
        let paged_out = -(Errno::ENOENT as i32);
        for _ in 0..PAGED_OUT_ATTEMPTS {
            let missing = errors
                .iter()
                .enumerate()
                .filter(|(_, error)| **error == paged_out);
            let missing: Vec<usize> = missing.map(|(index, _)| index).collect();
            if missing.is_empty() {
                return;
            }
            std::thread::sleep(PAGED_OUT_PAUSE);
            for index in missing {
                let (frame, error) = (&frames[index..=index], &mut errors[index..=index]);
                // SAFETY: the index is of a frame of this mapping, so the address stays inside of it.
                let at = unsafe { base.add(index * PAGE_SIZE) };
                if let Err(errno) = self.map_batch(domid, at, frame, error) {
                    error[0] = -(errno as i32);
                }
            }
        }
    }
}

fn into_region(mapping: Mapping, writable: bool) -> SharedRegion {
    let (base, len) = (mapping.base, mapping.len);
    // SAFETY: every page of the mapping is filled, and the keeper unmaps it when the region goes away.
    unsafe { SharedRegion::with_access(base, len, writable, Box::new(mapping)) }
}

mod ioctl {
    //! The calls as the kernel takes them.
    use xen_abi::privcmd::{IOCTL_MMAP_RESOURCE, IOCTL_MMAPBATCH_V2, MmapBatchV2, MmapResource};
    nix::ioctl_readwrite_bad!(map_batch, IOCTL_MMAPBATCH_V2, MmapBatchV2);
    nix::ioctl_readwrite_bad!(map_resource, IOCTL_MMAP_RESOURCE, MmapResource);
}
