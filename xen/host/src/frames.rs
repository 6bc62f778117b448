//! A file of frames that stands for the physical memory of a simulated machine.
//!
//! ```text
//!   frames asked   7 8 9 | 3 | 20 21        one reserved range of addresses
//!   file (memfd)   [0 1 2 3 ... 7 8 9 ... 20 21 ...]    each run is one MAP_FIXED mapping into it
//! ```
//!
//! A mapping is real shared memory: what one side writes the other side sees, as with foreign and grant maps on Xen. Frames that
//! were never written cost nothing. `xen-sim` builds on this; nothing else should.

use crate::error::Error;
use crate::eventfd::errno_of;
use crate::region::{Mapping, SharedRegion};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use xen_abi::ids::PAGE_SIZE;

/// Most frames one file may have: 64 GiB of simulated memory.
pub const MAX_FRAMES: u64 = 1 << 24;
/// Most frames one call of [`FrameFile::map`] takes.
pub const MAX_FRAMES_PER_MAP: usize = 1 << 20;

/// Simulated physical memory: frames `0..frames`, all zero at first.
#[derive(Debug)]
pub struct FrameFile {
    file: File,
    frames: u64,
}

impl FrameFile {
    /// Memory of `frames` frames.
    ///
    /// # Errors
    /// More than [`MAX_FRAMES`], or the kernel has no descriptor.
    pub fn new(name: &str, frames: u64) -> Result<Self, Error> {
        if frames == 0 || frames > MAX_FRAMES {
            return Err(Error::refused("size of a frame file", Errno::EINVAL));
        }
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| Error::refused("memfd_create", errno))?;
        let file = File::from(fd);
        file.set_len(frames * PAGE_SIZE as u64)
            .map_err(|error| Error::refused("size of a frame file", errno_of(&error)))?;
        Ok(Self { file, frames })
    }

    /// Frames it has.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Maps `frames`, in this order, as one region. A frame may stand more than once.
    ///
    /// # Errors
    /// A frame outside of the file (`EINVAL`), no frame at all, too many, or no address space.
    pub fn map(&self, frames: &[u64], writable: bool) -> Result<SharedRegion, Error> {
        if frames.len() > MAX_FRAMES_PER_MAP || frames.iter().any(|frame| *frame >= self.frames) {
            return Err(Error::refused("map of frames", Errno::EINVAL));
        }
        let Some(len) = NonZeroUsize::new(frames.len() * PAGE_SIZE) else {
            return Err(Error::refused("map of no frame", Errno::EINVAL));
        };
        let range = reserve(len)?;
        let mut done = 0;
        for run in frames.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            self.place(&range, done * PAGE_SIZE, run, writable)?;
            done += run.len();
        }
        let base = range.base;
        let keeper = Box::new(range);
        // SAFETY: the runs cover the whole reserved range with the file's pages; the keeper unmaps it, and no reference into it exists.
        Ok(unsafe { SharedRegion::with_access(base, len.get(), writable, keeper) })
    }

    /// Puts one run of frames into the reserved range.
    fn place(&self, range: &Mapping, at: usize, run: &[u64], writable: bool) -> Result<(), Error> {
        let (Some(first), Some(len)) = (run.first(), NonZeroUsize::new(run.len() * PAGE_SIZE))
        else {
            return Ok(());
        };
        let offset = i64::try_from(first * PAGE_SIZE as u64)
            .map_err(|_| Error::refused("map of frames", Errno::EOVERFLOW))?;
        let address = NonZeroUsize::new(range.base.addr().get() + at);
        let mut prot = ProtFlags::PROT_READ;
        if writable {
            prot |= ProtFlags::PROT_WRITE;
        }
        // SAFETY: MAP_FIXED replaces only pages of the range that `reserve` made for this call and nobody else knows yet.
        unsafe {
            mmap(
                address,
                len,
                prot,
                MapFlags::MAP_SHARED | MapFlags::MAP_FIXED,
                &self.file,
                offset,
            )
        }
        .map(drop)
        .map_err(|errno| Error::refused("map of frames", errno))
    }

    /// Copies out of one frame without mapping it.
    ///
    /// # Errors
    /// The range leaves the frame, or the frame the file.
    pub fn read(&self, frame: u64, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let at = self.position(frame, offset, into.len())?;
        self.file
            .read_exact_at(into, at)
            .map_err(|error| Error::refused("read of a frame", errno_of(&error)))
    }

    /// Copies into one frame without mapping it.
    ///
    /// # Errors
    /// As [`FrameFile::read`].
    pub fn write(&self, frame: u64, offset: usize, from: &[u8]) -> Result<(), Error> {
        let at = self.position(frame, offset, from.len())?;
        self.file
            .write_all_at(from, at)
            .map_err(|error| Error::refused("write of a frame", errno_of(&error)))
    }

    /// Makes a run of frames zero and gives their memory back.
    ///
    /// # Errors
    /// The run leaves the file.
    pub fn discard(&self, first: u64, count: u64) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        if first.checked_add(count).is_none_or(|end| end > self.frames) {
            return Err(Error::refused("discard of frames", Errno::EINVAL));
        }
        let page = PAGE_SIZE as u64;
        let (Ok(start), Ok(len)) = (i64::try_from(first * page), i64::try_from(count * page))
        else {
            return Err(Error::refused("discard of frames", Errno::EOVERFLOW));
        };
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, how, start, len)
            .map_err(|errno| Error::refused("discard of frames", errno))
    }

    fn position(&self, frame: u64, offset: usize, len: usize) -> Result<u64, Error> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= PAGE_SIZE);
        if frame >= self.frames || !inside {
            return Err(Error::refused("access to a frame", Errno::EINVAL));
        }
        Ok(frame * PAGE_SIZE as u64 + offset as u64)
    }
}

/// A range of addresses with nothing behind it.
fn reserve(len: NonZeroUsize) -> Result<Mapping, Error> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let base = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_NONE, flags) }
        .map_err(|errno| Error::refused("reserve of addresses", errno))?;
    let base: NonNull<u8> = base.cast();
    Ok(Mapping {
        base,
        len: len.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_frames_map_in_the_order_asked() {
        let memory = FrameFile::new("test", 64).unwrap();
        let frames = [7, 8, 9, 3, 20, 21, 3];
        for frame in frames {
            memory
                .write(frame, 5, &[u8::try_from(frame).unwrap()])
                .unwrap();
        }
        let region = memory.map(&frames, true).unwrap();
        assert_eq!(region.len(), frames.len() * PAGE_SIZE);
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(u64::from(region.load_u8(i * PAGE_SIZE + 5)), *frame);
        }
        region.write(3 * PAGE_SIZE, b"both");
        assert_eq!(
            region.read_vec(6 * PAGE_SIZE, 4),
            b"both",
            "the same frame twice is the same memory"
        );
        let mut back = [0; 4];
        memory.read(3, 0, &mut back).unwrap();
        assert_eq!(&back, b"both");
    }

    #[test]
    fn two_maps_of_a_frame_share_it_and_outlive_the_file() {
        let memory = FrameFile::new("test", 4).unwrap();
        let (one, two) = (
            memory.map(&[2], true).unwrap(),
            memory.map(&[2], false).unwrap(),
        );
        drop(memory);
        one.store_u32(8, 77);
        assert_eq!(two.load_u32(8), 77);
    }

    #[test]
    fn what_is_outside_is_refused() {
        let memory = FrameFile::new("test", 4).unwrap();
        assert_eq!(
            memory.map(&[3, 4], true).unwrap_err().errno(),
            Some(Errno::EINVAL)
        );
        assert_eq!(
            memory.map(&[], true).unwrap_err().errno(),
            Some(Errno::EINVAL)
        );
        assert!(memory.write(3, 4090, &[0; 7]).is_err());
        assert!(memory.discard(3, 2).is_err());
        assert!(FrameFile::new("test", 0).is_err());
    }

    #[test]
    fn discarded_frames_read_as_zero_through_an_old_map() {
        let memory = FrameFile::new("test", 4).unwrap();
        let region = memory.map(&[1, 2], true).unwrap();
        region.fill(0, 2 * PAGE_SIZE, 0xff);
        memory.discard(1, 1).unwrap();
        assert_eq!(region.load_u8(0), 0);
        assert_eq!(region.load_u8(PAGE_SIZE), 0xff);
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn a_read_only_map_refuses_writes() {
        let memory = FrameFile::new("test", 1).unwrap();
        memory.map(&[0], false).unwrap().write(0, b"no");
    }
}
