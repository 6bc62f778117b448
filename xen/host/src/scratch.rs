//! Large memory for one process: there before it is first touched, and plain bytes to use.
//!
//! In a PV control domain every first touch of a page is a trap through the hypervisor; a decoder that fills 60 MB would
//! take fifteen thousand of them. Here the kernel makes all pages in one call. [`Scratch::output`] is the same over a
//! memfd: what is written there is the file, without a copy.

use crate::error::Error;
use crate::eventfd::errno_of;
use crate::memfd::MAX_MAP_BYTES;
use crate::region::Mapping;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes that belong to this process alone, unmapped when dropped.
#[derive(Debug)]
pub struct Scratch {
    mapping: Mapping,
}

fn size_of_map(len: usize) -> Result<NonZeroUsize, Error> {
    let size = NonZeroUsize::new(len).filter(|_| len <= MAX_MAP_BYTES);
    size.ok_or_else(|| Error::refused("map of scratch memory", Errno::EINVAL))
}

impl Scratch {
    /// Zeroed private memory of `len` bytes.
    ///
    /// # Errors
    /// No memory, or a length of 0 or above [`MAX_MAP_BYTES`] (`EINVAL`).
    pub fn private(len: usize) -> Result<Self, Error> {
        let size = size_of_map(len)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let base = unsafe { mmap_anonymous(None, size, prot, flags) }
            .map_err(|errno| Error::refused("map of scratch memory", errno))?
            .cast::<u8>();
        Ok(Self {
            mapping: Mapping { base, len },
        })
    }

    /// Memory of `len` bytes that is at the same time the whole content of `memfd`, which must be empty.
    ///
    /// The memfd is sealed: nobody can write it, resize it or map it writable from now on, but through this value.
    ///
    /// # Errors
    /// Not an empty memfd that can be sealed, or as [`Scratch::private`].
    pub fn output(memfd: OwnedFd, len: usize) -> Result<Self, Error> {
        let refused = |errno| Error::refused("map of an output memfd", errno);
        let size = size_of_map(len)?;
        let file = File::from(memfd);
        let had = file
            .metadata()
            .map_err(|error| refused(errno_of(&error)))?
            .len();
        if had != 0 {
            return Err(refused(Errno::ENOTEMPTY));
        }
        file.set_len(len as u64)
            .map_err(|error| refused(errno_of(&error)))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a fresh mapping; that nobody else writes these bytes is what the seals below are for.
        let base = unsafe { mmap(None, size, prot, flags, file.as_fd(), 0) }
            .map_err(refused)?
            .cast::<u8>();
        let scratch = Self {
            mapping: Mapping { base, len },
        };
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(refused)?;
        Ok(scratch)
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable for its length and lives as long as self. It is written through self alone: private pages
        // are nobody else's, and a memfd that was empty until we mapped it has no older writable mapping of these bytes, is sealed
        // against new ones and against write(2), and cannot shrink under us.
        unsafe { std::slice::from_raw_parts(self.mapping.base.as_ptr(), self.mapping.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.base.as_ptr(), self.mapping.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    fn memfd(flags: MFdFlags) -> OwnedFd {
        memfd_create("output", flags | MFdFlags::MFD_CLOEXEC).unwrap()
    }

    #[test]
    fn private_memory_is_zero_and_keeps_what_is_written() {
        let mut scratch = Scratch::private(100_000).unwrap();
        assert!(scratch.iter().all(|byte| *byte == 0));
        scratch[99_999] = 7;
        assert_eq!((scratch.len(), scratch[99_999]), (100_000, 7));
        assert!(Scratch::private(0).is_err());
    }

    #[test]
    fn what_is_written_is_the_file_and_nobody_else_writes_it() {
        let output = memfd(MFdFlags::MFD_ALLOW_SEALING);
        let reader = File::from(output.try_clone().unwrap());
        let mut scratch = Scratch::output(output, 5000).unwrap();
        scratch[..5].copy_from_slice(b"bytes");
        let mut read = [0; 5];
        reader.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"bytes");
        assert_eq!(reader.metadata().unwrap().len(), 5000);
        assert!(reader.write_at(b"other", 0).is_err());
        assert!(reader.set_len(10).is_err());
    }

    #[test]
    fn a_file_that_could_change_is_no_output() {
        assert!(
            Scratch::output(memfd(MFdFlags::empty()), 5000).is_err(),
            "cannot be sealed"
        );
        let used = memfd(MFdFlags::MFD_ALLOW_SEALING);
        File::from(used.try_clone().unwrap()).set_len(1).unwrap();
        assert!(Scratch::output(used, 5000).is_err(), "was not empty");
    }
}
