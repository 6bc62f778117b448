//! Granted pages through `/dev/xen/gntdev`: mapping and copying.
//!
//! Recording references and mapping them are two steps of the kernel; the second is all or nothing. A mapping's record is undone after its
//! `munmap`; the hypervisor may let go of the pages later still, so no answer to a guest may rest on it. One descriptor per ring: the
//! kernel searches its records one by one.

use crate::error::Error;
use crate::region::{Mapping, SharedRegion};
use crate::seam::{Direction, GrantCopy, Grants, Result};
use crate::xen::probe;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::stat::Mode;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use xen_abi::gntdev::{
    GNTDEV_PATH, GrantCopySegment, GrantEnd, UnmapGrantRef, decode_map_index, encode_map,
};
use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_abi::layout::UserPtr;

/// Segments copied by one call of the kernel, which works them off in groups of 16.
pub const SEGMENTS_PER_CALL: usize = 256;

/// Times in a row that a mapping may be interrupted before that is an error.
const MAX_INTERRUPTIONS: u32 = 1000;

/// An open grant device.
#[derive(Debug)]
pub struct GntDev {
    fd: Arc<OwnedFd>,
}

impl GntDev {
    /// Opens the device.
    ///
    /// # Errors
    /// Not on Xen, or not root.
    pub fn open() -> Result<Self> {
        open(GNTDEV_PATH, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map(Self::from_fd)
            .map_err(|errno| probe::explain(GNTDEV_PATH, errno))
    }

    /// Takes over a descriptor that was opened elsewhere (passed in by a parent).
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// The descriptor, to be passed on; `None` while something is mapped through it.
    #[must_use]
    pub fn into_fd(self) -> Option<OwnedFd> {
        Arc::into_inner(self.fd)
    }

    fn record(&self, grants: &[(DomId, GrantRef)]) -> std::result::Result<Recorded, Errno> {
        let mut argument = encode_map(grants).ok_or(Errno::E2BIG)?;
        // SAFETY: the driver reads a header and the entries it announces, and writes the header; all of it is in `argument`.
        unsafe { ioctl::map(self.fd.as_raw_fd(), argument.as_mut_ptr()) }?;
        Ok(Recorded {
            fd: Arc::clone(&self.fd),
            index: decode_map_index(&argument).ok_or(Errno::EIO)?,
            count: u32::try_from(grants.len()).map_err(|_| Errno::E2BIG)?,
        })
    }

    fn map_recorded(
        &self,
        recorded: Recorded,
        writable: bool,
    ) -> std::result::Result<SharedRegion, Errno> {
        let len = recorded.count as usize * PAGE_SIZE;
        let size = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let offset = i64::try_from(recorded.index).map_err(|_| Errno::EOVERFLOW)?;
        let mut prot = ProtFlags::PROT_READ;
        if writable {
            prot |= ProtFlags::PROT_WRITE;
        }
        // SAFETY: a fresh mapping of pages that nobody holds a reference to.
        let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, &*self.fd, offset) }?;
        let base: NonNull<u8> = base.cast();
        // Fields drop in order: first the mapping, then its record.
        let keeper = (Mapping { base, len }, recorded);
        // SAFETY: all pages are mapped (or mmap would have failed) and stay so until the keeper goes.
        Ok(unsafe { SharedRegion::with_access(base, len, writable, Box::new(keeper)) })
    }
}

/// Tries until nothing interrupts. Where dom0 is a PV domain, a process' first mapping takes every lock of its address space, which Linux gives up while anything
/// waits for the thread, be it only a completion of `io_uring`.
fn uninterrupted<T>(
    mut act: impl FnMut() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    for _ in 0..MAX_INTERRUPTIONS {
        match act() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
    Err(Errno::EINTR)
}

impl AsFd for GntDev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// References the kernel has noted down; forgotten when dropped.
#[derive(Debug)]
struct Recorded {
    fd: Arc<OwnedFd>,
    index: u64,
    count: u32,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let argument = UnmapGrantRef {
            index: self.index,
            count: self.count,
            pad: 0,
        };
        // SAFETY: the driver reads the structure through the pointer, which lives through the call.
        let result = unsafe { ioctl::unmap(self.fd.as_raw_fd(), &raw const argument) };
        if let Err(errno) = result {
            tracing::error!(%errno, count = self.count, "grant references were not forgotten");
        }
    }
}

impl Grants for GntDev {
    fn map(&self, domid: DomId, refs: &[GrantRef], writable: bool) -> Result<SharedRegion> {
        let grants: Vec<(DomId, GrantRef)> = refs.iter().map(|gref| (domid, *gref)).collect();
        uninterrupted(|| {
            let recorded = self.record(&grants)?;
            self.map_recorded(recorded, writable)
        })
        .map_err(|errno| Error::refused_for("map of grants", domid, errno))
    }

    fn copy(&self, local: &SharedRegion, segments: &mut [GrantCopy]) -> Result<()> {
        let mut raw = segments
            .iter()
            .map(|segment| encode(local, segment))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::refused("copy of grants", Errno::EINVAL))?;
        for (raw, segments) in raw
            .chunks_mut(SEGMENTS_PER_CALL)
            .zip(segments.chunks_mut(SEGMENTS_PER_CALL))
        {
            let mut argument = xen_abi::gntdev::GrantCopy {
                count: u32::try_from(raw.len()).unwrap_or(0),
                pad: 0,
                segments: UserPtr(raw.as_mut_ptr().expose_provenance() as u64),
            };
            // SAFETY: `count` segments stand at the address given; each local range was checked to be inside of the region.
            unsafe { ioctl::copy(self.fd.as_raw_fd(), &raw mut argument) }
                .map_err(|errno| Error::refused("copy of grants", errno))?;
            for (segment, raw) in segments.iter_mut().zip(raw) {
                segment.status = raw.status;
            }
        }
        Ok(())
    }
}

/// A segment as the kernel takes it; `None` if it leaves its page or the region, or writes what may only be read.
fn encode(local: &SharedRegion, segment: &GrantCopy) -> Option<GrantCopySegment> {
    let within_page = usize::from(segment.offset) + usize::from(segment.len) <= PAGE_SIZE;
    let end = segment.local_offset.checked_add(segment.len.into())?;
    let allowed = local.is_writable() || segment.direction == Direction::ToGuest;
    if !within_page || end > local.len() || !allowed {
        return None;
    }
    let address = local.as_ptr().expose_provenance() + segment.local_offset;
    let address = UserPtr(address as u64);
    let grant = GrantEnd {
        domid: segment.domid,
        gref: segment.gref,
        offset: segment.offset,
    };
    Some(match segment.direction {
        Direction::FromGuest => GrantCopySegment::from_grant(grant, address, segment.len),
        Direction::ToGuest => GrantCopySegment::to_grant(address, grant, segment.len),
    })
}

mod ioctl {
    //! The calls as the kernel takes them.
    use xen_abi::gntdev::{
        GrantCopy, IOCTL_GRANT_COPY, IOCTL_MAP_GRANT_REF, IOCTL_UNMAP_GRANT_REF, UnmapGrantRef,
    };
    nix::ioctl_readwrite_bad!(map, IOCTL_MAP_GRANT_REF, u8);
    nix::ioctl_write_ptr_bad!(unmap, IOCTL_UNMAP_GRANT_REF, UnmapGrantRef);
    nix::ioctl_readwrite_bad!(copy, IOCTL_GRANT_COPY, GrantCopy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_interrupted_is_tried_again_and_not_for_ever() {
        let after = |interruptions: u32, last: Errno| {
            let mut tries = 0;
            let done: std::result::Result<(), _> = uninterrupted(|| {
                tries += 1;
                Err(if tries <= interruptions {
                    Errno::EINTR
                } else {
                    last
                })
            });
            (tries, done)
        };
        assert_eq!(after(0, Errno::ENOMEM), (1, Err(Errno::ENOMEM)));
        assert_eq!(after(5, Errno::ENOMEM), (6, Err(Errno::ENOMEM)));
        let (tries, done) = after(u32::MAX, Errno::ENOMEM);
        assert_eq!((tries, done), (MAX_INTERRUPTIONS, Err(Errno::EINTR)));
    }

    fn segment(direction: Direction, offset: u16, local_offset: usize, len: u16) -> GrantCopy {
        let (domid, gref) = (DomId(3), GrantRef(0x0102_0304));
        GrantCopy {
            direction,
            domid,
            gref,
            offset,
            local_offset,
            len,
            status: 0,
        }
    }

    #[test]
    fn a_segment_that_would_spoil_its_batch_is_refused_before() {
        let local = SharedRegion::anonymous(2).unwrap();
        for (offset, local_offset, len, fits) in [
            (0, 0, 4096, true),
            (4095, 8191, 1, true),
            (4095, 0, 2, false),
            (0, 8191, 2, false),
            (0, usize::MAX, 1, false),
        ] {
            let encoded = encode(
                &local,
                &segment(Direction::FromGuest, offset, local_offset, len),
            );
            assert_eq!(encoded.is_some(), fits, "{offset} {local_offset} {len}");
        }
    }

    #[test]
    fn the_grant_stands_on_the_side_of_the_guest() {
        let local = SharedRegion::anonymous(1).unwrap();
        let address = (local.as_ptr().addr() as u64 + 8).to_le_bytes();
        let from = encode(&local, &segment(Direction::FromGuest, 5, 8, 16)).unwrap();
        assert_eq!(
            (from.source, from.dest),
            ([4, 3, 2, 1, 5, 0, 3, 0], address)
        );
        let to = encode(&local, &segment(Direction::ToGuest, 5, 8, 16)).unwrap();
        assert_eq!((to.dest, to.source), (from.source, address));
    }

    #[test]
    fn read_only_memory_is_no_destination() {
        let file = crate::frames::FrameFile::new("test", 1).unwrap();
        let local = file.map(&[0], false).unwrap();
        assert!(encode(&local, &segment(Direction::FromGuest, 0, 0, 1)).is_none());
        assert!(encode(&local, &segment(Direction::ToGuest, 0, 0, 1)).is_some());
    }
}
