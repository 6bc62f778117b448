//! Memory that the hypervisor may read and write during a call.
//!
//! Pages of `/dev/xen/hypercall` neither move nor fault; ordinary memory may do both, which Xen sees as a spurious `EFAULT`. Where the
//! device is missing, locked pages that a child does not inherit are the next best. Buffers are powers of two of pages, handed back to a small
//! cache. Nobody ever holds a reference to their content: it is copied in and out.

use crate::error::Error;
use crate::region::{Mapping, SharedRegion};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};
use nix::sys::stat::Mode;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use xen_abi::ids::PAGE_SIZE;
use xen_abi::layout::UserPtr;
use xen_abi::privcmd::HYPERCALL_BUFFER_PATH;

/// Pages mapped at once for single-page buffers: a call and its list. Each page costs the kernel an allocation and, on a PV host, a trap.
const SLAB_PAGES: usize = 2;
/// log2 of the pages of the largest buffer: 16 MiB, the state of the largest guest.
const MAX_ORDER: usize = 12;
/// Free buffers kept of each size beyond a page.
const CACHED_PER_ORDER: usize = 4;
/// Largest buffer kept: 256 KiB.
const MAX_CACHED_ORDER: usize = 6;

/// Where buffers come from.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    device: OnceLock<Option<OwnedFd>>,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Single pages, parts of the slabs.
    pages: Vec<Page>,
    slabs: Vec<Mapping>,
    larger: [Vec<Mapping>; MAX_CACHED_ORDER + 1],
}

/// The address of one page of a slab.
#[derive(Debug, Clone, Copy)]
struct Page(NonNull<u8>);

// SAFETY: a Page is an address inside of a slab that the pool keeps mapped; it gives no access by itself.
unsafe impl Send for Page {}

/// A zeroed piece of memory for hypercalls; goes back to its pool when dropped.
#[derive(Debug)]
pub(super) struct Buffer<'pool> {
    pool: &'pool BufferPool,
    memory: Option<Memory>,
    base: NonNull<u8>,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Page(Page),
    Pages(usize, Mapping),
}

impl BufferPool {
    /// At least `bytes` bytes, all zero.
    pub fn take(&self, bytes: usize) -> Result<Buffer<'_>, Error> {
        let order = bytes
            .div_ceil(PAGE_SIZE)
            .max(1)
            .next_power_of_two()
            .trailing_zeros() as usize;
        if order > MAX_ORDER {
            return Err(Error::refused("hypercall buffer", Errno::E2BIG));
        }
        let memory = if order == 0 {
            self.take_page()?
        } else {
            self.take_pages(order)?
        };
        let base = match &memory {
            Memory::Page(page) => page.0,
            Memory::Pages(_, mapping) => mapping.base,
        };
        let len = PAGE_SIZE << order;
        let buffer = Buffer {
            pool: self,
            memory: Some(memory),
            base,
            len,
        };
        buffer.clear(bytes);
        Ok(buffer)
    }

    /// Pages of the same kind for longer than a call, outside of the cache.
    pub fn region(&self, pages: usize) -> Result<SharedRegion, Error> {
        if pages > 1 << MAX_ORDER {
            return Err(Error::refused("hypercall buffer", Errno::E2BIG));
        }
        let mapping = self.map(pages)?;
        let (base, len) = (mapping.base, mapping.len);
        // SAFETY: the mapping is readable and writable, nobody else knows it, and the keeper unmaps it when the region goes away.
        Ok(unsafe { SharedRegion::new(base, len, Box::new(mapping)) })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_page(&self) -> Result<Memory, Error> {
        let mut free = self.lock();
        if let Some(page) = free.pages.pop() {
            return Ok(Memory::Page(page));
        }
        let slab = self.map(SLAB_PAGES)?;
        for page in 1..SLAB_PAGES {
            // SAFETY: the slab has SLAB_PAGES pages, so the address stays inside of it.
            let base = unsafe { slab.base.add(page * PAGE_SIZE) };
            free.pages.push(Page(base));
        }
        let first = Page(slab.base);
        free.slabs.push(slab);
        Ok(Memory::Page(first))
    }

    fn take_pages(&self, order: usize) -> Result<Memory, Error> {
        let cached = self.lock().larger.get_mut(order).and_then(Vec::pop);
        let mapping = match cached {
            Some(mapping) => mapping,
            None => self.map(1 << order)?,
        };
        Ok(Memory::Pages(order, mapping))
    }

    fn give_back(&self, memory: Memory) {
        let mut free = self.lock();
        match memory {
            Memory::Page(page) => free.pages.push(page),
            Memory::Pages(order, mapping) => match free.larger.get_mut(order) {
                Some(cache) if cache.len() < CACHED_PER_ORDER => cache.push(mapping),
                _ => drop(mapping),
            },
        }
    }

    /// Fresh pages, from the device if there is one.
    fn map(&self, pages: usize) -> Result<Mapping, Error> {
        let Some(size) = NonZeroUsize::new(pages * PAGE_SIZE) else {
            return Err(Error::refused("hypercall buffer", Errno::EINVAL));
        };
        let device = self.device.get_or_init(|| {
            open(
                HYPERCALL_BUFFER_PATH,
                OFlag::O_RDWR | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .ok()
        });
        let base = match device {
            Some(device) => map_device(device, size).or_else(|_| map_locked(size)),
            None => map_locked(size),
        };
        let base = base.map_err(|errno| Error::refused("hypercall buffer", errno))?;
        Ok(Mapping {
            base,
            len: size.get(),
        })
    }
}

fn map_device(device: &OwnedFd, size: NonZeroUsize) -> Result<NonNull<u8>, Errno> {
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping of fresh kernel pages aliases nothing.
    unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, device, 0) }.map(NonNull::cast)
}

fn map_locked(size: NonZeroUsize) -> Result<NonNull<u8>, Errno> {
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_LOCKED | MapFlags::MAP_POPULATE;
    // SAFETY: a fresh anonymous mapping aliases nothing.
    let base = unsafe { mmap_anonymous(None, size, prot, flags) }?;
    // SAFETY: the range was mapped just above and is ours alone; children do without it.
    let advised = unsafe { madvise(base, size.get(), MmapAdvise::MADV_DONTFORK) };
    if let Err(errno) = advised {
        tracing::debug!(%errno, "hypercall buffer will be inherited by children");
    }
    Ok(base.cast())
}

impl Buffer<'_> {
    /// Its address, for a hypercall.
    pub fn address(&self) -> UserPtr {
        UserPtr(self.base.addr().get() as u64)
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside,
            "access to {offset}+{len} in a hypercall buffer of {}",
            self.len
        );
    }

    /// Copies in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        // SAFETY: the range was checked; the buffer is mapped, private to us, and `from` is other memory.
        unsafe {
            self.base
                .add(offset)
                .copy_from_nonoverlapping(slice_start(from), from.len())
        };
    }

    /// Copies out.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        let Some(to) = NonNull::new(into.as_mut_ptr()) else {
            return;
        };
        // SAFETY: the range was checked; the buffer is mapped and `into` is other memory of that length.
        unsafe { self.base.add(offset).copy_to_nonoverlapping(to, into.len()) };
    }

    /// Copies the first `len` bytes out.
    pub fn to_vec(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.min(self.len)];
        self.read(0, &mut bytes);
        bytes
    }

    fn clear(&self, len: usize) {
        self.check(0, len);
        // SAFETY: the range was checked and is ours.
        unsafe { self.base.write_bytes(0, len) };
    }
}

fn slice_start(bytes: &[u8]) -> NonNull<u8> {
    NonNull::from(bytes).cast()
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_pages_come_from_one_mapping_and_come_back_clean() {
        let pool = BufferPool::default();
        let address = {
            let first = pool.take(100).unwrap();
            first.write(4000, b"dirty");
            first.write(10, b"dirty");
            first.address()
        };
        let again = pool.take(4096).unwrap();
        assert_eq!(again.address(), address);
        assert_eq!(again.to_vec(4096), vec![0; 4096]);
        let others: Vec<_> = (1..SLAB_PAGES).map(|_| pool.take(1).unwrap()).collect();
        assert_eq!(pool.lock().slabs.len(), 1);
        let one_more = pool.take(1).unwrap();
        assert_eq!(pool.lock().slabs.len(), 2);
        drop((others, one_more));
    }

    #[test]
    fn larger_buffers_are_cached_up_to_a_bound() {
        let pool = BufferPool::default();
        let many: Vec<_> = (0..6).map(|_| pool.take(3 * PAGE_SIZE).unwrap()).collect();
        assert!(many.iter().all(|buffer| buffer.len == 4 * PAGE_SIZE));
        drop(many);
        assert_eq!(pool.lock().larger[2].len(), CACHED_PER_ORDER);
        drop(pool.take(PAGE_SIZE << (MAX_CACHED_ORDER + 1)).unwrap());
        assert!(pool.take((PAGE_SIZE << MAX_ORDER) + 1).is_err());
    }

    #[test]
    #[should_panic(expected = "access to 4090+10")]
    fn an_access_beyond_the_end_is_refused() {
        let pool = BufferPool::default();
        pool.take(1).unwrap().write(4090, &[0; 10]);
    }
}
