//! Shared memory behind a descriptor: what two of our processes map together, and what a driver's successor finds again.
//!
//! A journal must outlive the process that writes it and the one that started it, so it is a file on a tmpfs or a memfd whose
//! descriptor somebody else holds. A mapping of a file that shrinks faults; a sealed memfd cannot shrink.

use crate::error::Error;
use crate::eventfd::errno_of;
use crate::region::{Mapping, SharedRegion};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Largest mapping made here, in bytes.
pub const MAX_MAP_BYTES: usize = 1 << 30;

/// Memory of a fixed size behind a descriptor.
#[derive(Debug)]
pub struct MemFd {
    file: File,
    len: usize,
}

impl MemFd {
    /// Zeroed memory of `len` bytes that can neither grow nor shrink.
    ///
    /// # Errors
    /// No memory, no descriptor, or a size of 0 or above [`MAX_MAP_BYTES`] (`EINVAL`).
    pub fn create(name: &str, len: usize) -> Result<Self, Error> {
        let refused = |errno| Error::named("make of shared memory", name, errno);
        if len == 0 || len > MAX_MAP_BYTES {
            return Err(refused(Errno::EINVAL));
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create(name, flags).map_err(refused)?);
        file.set_len(len as u64)
            .map_err(|error| refused(errno_of(&error)))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(refused)?;
        Ok(Self { file, len })
    }

    /// Takes over a descriptor made by [`MemFd::create`] elsewhere.
    ///
    /// # Errors
    /// It is no memfd, can still shrink, or has another size than `len`.
    pub fn from_fd(fd: OwnedFd, len: usize) -> Result<Self, Error> {
        let refused = |errno| Error::refused("use of passed shared memory", errno);
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(refused)?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(refused(Errno::EPERM));
        }
        let file = File::from(fd);
        let size = file
            .metadata()
            .map_err(|error| refused(errno_of(&error)))?
            .len();
        if size != len as u64 || len > MAX_MAP_BYTES {
            return Err(refused(Errno::EINVAL));
        }
        Ok(Self { file, len })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte; never, see [`MemFd::create`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps all of it.
    ///
    /// # Errors
    /// No address space.
    pub fn map(&self) -> Result<SharedRegion, Error> {
        map_file(self.file.as_fd(), self.len)
    }
}

impl AsFd for MemFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Maps the first `len` bytes of a file for reading and writing. The file must not shrink while it is mapped.
///
/// # Errors
/// The file is shorter than that (`EOVERFLOW`), cannot be mapped, or `len` is 0 or above [`MAX_MAP_BYTES`] (`EINVAL`).
pub fn map_file(fd: BorrowedFd<'_>, len: usize) -> Result<SharedRegion, Error> {
    let refused = |errno| Error::refused("map of a file", errno);
    let stat = nix::sys::stat::fstat(fd).map_err(refused)?;
    let size = NonZeroUsize::new(len).filter(|_| len <= MAX_MAP_BYTES);
    let size = size.ok_or_else(|| refused(Errno::EINVAL))?;
    if usize::try_from(stat.st_size).is_ok_and(|have| have < len) {
        return Err(refused(Errno::EOVERFLOW));
    }
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh shared mapping; whoever else writes the file is why the result is a SharedRegion.
    let base = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, fd, 0) }
        .map_err(refused)?
        .cast::<u8>();
    // SAFETY: the mapping is readable and writable and lives until the keeper unmaps it.
    Ok(unsafe { SharedRegion::new(base, len, Box::new(Mapping { base, len })) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_of_one_memfd_share_and_the_size_is_sealed() {
        let memory = MemFd::create("journal", 8192).unwrap();
        let passed = memory.as_fd().try_clone_to_owned().unwrap();
        let other = MemFd::from_fd(passed, 8192).unwrap();
        let (one, two) = (memory.map().unwrap(), other.map().unwrap());
        one.store_u32(4096, 0xfeed);
        assert_eq!(two.load_u32(4096), 0xfeed);
        assert!(memory.file.set_len(4096).is_err());
        drop(memory);
        assert_eq!(one.load_u32(4096), 0xfeed, "a mapping needs no descriptor");
    }

    #[test]
    fn a_passed_descriptor_of_another_kind_or_size_is_refused() {
        let memory = MemFd::create("x", 4096).unwrap();
        let clone = || memory.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(
            MemFd::from_fd(clone(), 8192).unwrap_err().errno(),
            Some(Errno::EINVAL)
        );
        let unsealed =
            memfd_create("y", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(
            MemFd::from_fd(unsealed, 0).unwrap_err().errno(),
            Some(Errno::EPERM)
        );
        assert!(MemFd::create("z", 0).is_err());
    }

    #[test]
    fn a_journal_file_is_found_again_by_the_next_process() {
        let path = tempfile::NamedTempFile::new().unwrap();
        path.as_file().set_len(4096).unwrap();
        map_file(path.as_file().as_fd(), 4096)
            .unwrap()
            .write(10, b"in flight");
        let again = map_file(path.reopen().unwrap().as_fd(), 4096).unwrap();
        assert_eq!(again.read_vec(10, 9), b"in flight");
        let short = map_file(path.as_file().as_fd(), 8192).unwrap_err();
        assert_eq!(
            short.errno(),
            Some(Errno::EOVERFLOW),
            "a page beyond the end would fault"
        );
    }
}
