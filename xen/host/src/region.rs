//! Memory that somebody else can write at any time: guest pages, ring pages, and the private buffers next to them.
//!
//! A [`SharedRegion`] is bytes behind a raw pointer. No reference into it ever exists: every access copies, by volatile or atomic
//! operations, into or out of private memory, so a value that was checked cannot change afterwards.

use crate::error::Error;
use nix::errno::Errno;
use std::any::Any;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use xen_abi::ids::PAGE_SIZE;

/// A run of mapped bytes, unmapped when dropped.
pub struct SharedRegion {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    /// Undoes the mapping when dropped.
    _keeper: Box<dyn Any + Send + Sync>,
}

// SAFETY: the region is plain memory that any thread may access; every access is a volatile or atomic copy, and the keeper that
// unmaps it is itself Send and Sync.
unsafe impl Send for SharedRegion {}
// SAFETY: as above: shared access never creates a reference, so concurrent access through `&self` is no data race in Rust's sense
// beyond what foreign memory allows anyway.
unsafe impl Sync for SharedRegion {}

impl fmt::Debug for SharedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegion")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// An mmap that is undone on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) base: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: a Mapping only remembers an address range to unmap.
unsafe impl Send for Mapping {}
// SAFETY: as above; it offers no access to the memory.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are exactly what mmap returned, and nobody else unmaps them.
        let result = unsafe { nix::sys::mman::munmap(self.base.cast(), self.len) };
        if let Err(errno) = result {
            tracing::error!(%errno, len = self.len, "munmap failed");
        }
    }
}

impl SharedRegion {
    /// Wraps memory that stays valid for reads and writes of `len` bytes until `keeper` is dropped.
    ///
    /// # Safety
    /// `base..base+len` must be mapped readable (and writable, if it is ever written through this region) for as long as `keeper` lives,
    /// and no Rust reference to it may exist.
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        keeper: Box<dyn Any + Send + Sync>,
    ) -> Self {
        // SAFETY: the caller's promise, and full access asks no less of it.
        unsafe { Self::with_access(base, len, true, keeper) }
    }

    /// As [`SharedRegion::new`], for memory that may be mapped read-only: a write through the region then panics instead of faulting.
    ///
    /// # Safety
    /// As [`SharedRegion::new`]; writable memory is needed only if `writable`.
    pub(crate) unsafe fn with_access(
        base: NonNull<u8>,
        len: usize,
        writable: bool,
        keeper: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            base,
            len,
            writable,
            _keeper: keeper,
        }
    }

    /// The same memory, with `keeper` dropped right after it is unmapped: the bookkeeping of whoever made the mapping.
    #[must_use]
    pub fn kept_by(self, keeper: Box<dyn Any + Send + Sync>) -> Self {
        let unmap = self._keeper;
        Self {
            _keeper: Box::new((unmap, keeper)),
            ..self
        }
    }

    /// Private zeroed pages: a bounce buffer.
    ///
    /// # Errors
    /// The kernel has no memory.
    pub fn anonymous(pages: usize) -> Result<Self, Error> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        let len = pages.max(1) * PAGE_SIZE;
        let Some(size) = std::num::NonZeroUsize::new(len) else {
            return Err(Error::refused("mmap", Errno::EINVAL));
        };
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE,
            )
        }
        .map_err(|errno| Error::refused("mmap of a buffer", errno))?
        .cast::<u8>();
        // SAFETY: the mapping is readable and writable and lives until the keeper unmaps it.
        Ok(unsafe { Self::new(base, len, Box::new(Mapping { base, len })) })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte, for system calls that take a buffer. Dereferencing it is unsafe for the usual reasons.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Whether it may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// As [`SharedRegion::at`], for a write.
    fn at_mut(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(self.writable, "write to a read-only region");
        self.at(offset, len)
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "access to {offset}+{len} in a region of {}",
            self.len
        );
        // SAFETY: offset + len was checked against the mapped length just above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Copies out.
    ///
    /// # Panics
    /// When the range is outside of the region: offsets are ours, never a guest's.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `from` is valid for `into.len()` bytes (checked by `at`), `into` is private memory and cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Copies out into a fresh vector.
    #[must_use]
    pub fn read_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Copies in.
    ///
    /// # Panics
    /// As [`SharedRegion::read`].
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at_mut(offset, from.len());
        // SAFETY: `to` is valid for `from.len()` bytes (checked by `at`), `from` is private memory and cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Copies between two regions without a stop in private memory (guest page to bounce buffer and back).
    ///
    /// # Panics
    /// When either range is outside of its region.
    pub fn copy_to(&self, offset: usize, to: &SharedRegion, to_offset: usize, len: usize) {
        let from = self.at(offset, len);
        let into = to.at_mut(to_offset, len);
        // SAFETY: both ranges were checked; `copy` allows overlap.
        unsafe { std::ptr::copy(from, into, len) };
    }

    /// Writes `head` and then `len` bytes from `offset` on into a file or connection, in one call of the kernel; answers how many bytes went,
    /// those of `head` included. The bytes of the region are not copied in between.
    ///
    /// # Errors
    /// The kernel's: a full disk, a peer that is gone.
    ///
    /// # Panics
    /// When the range is outside of the region.
    pub fn write_out(
        &self,
        to: BorrowedFd<'_>,
        head: &[u8],
        offset: usize,
        len: usize,
    ) -> std::io::Result<usize> {
        let part = |base: *const u8, len| libc::iovec {
            iov_base: base.cast_mut().cast(),
            iov_len: len,
        };
        let parts = [
            part(head.as_ptr(), head.len()),
            part(self.at(offset, len), len),
        ];
        // SAFETY: both parts are readable for their lengths (`at` checked the second), and the kernel only reads them.
        let written = unsafe { libc::writev(to.as_raw_fd(), parts.as_ptr(), 2) };
        usize::try_from(written).map_err(|_| std::io::Error::last_os_error())
    }

    /// Reads up to `len` bytes from a file or connection to `offset`, without a copy in between; answers how many came, 0 at the end.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// When the range is outside of the region, or the region cannot be written.
    pub fn read_in(
        &self,
        from: BorrowedFd<'_>,
        offset: usize,
        len: usize,
    ) -> std::io::Result<usize> {
        let into = self.at_mut(offset, len);
        // SAFETY: `into` is writable for `len` bytes (checked by `at_mut`), and no reference to them exists.
        let read = unsafe { libc::read(from.as_raw_fd(), into.cast(), len) };
        usize::try_from(read).map_err(|_| std::io::Error::last_os_error())
    }

    /// As [`SharedRegion::read_in`], from `at` on in a file; where the file stands does not matter and does not change.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Panics
    /// As [`SharedRegion::read_in`].
    pub fn read_in_at(
        &self,
        from: BorrowedFd<'_>,
        at: u64,
        offset: usize,
        len: usize,
    ) -> std::io::Result<usize> {
        let into = self.at_mut(offset, len);
        let at = i64::try_from(at).map_err(|_| Errno::EINVAL)?;
        // SAFETY: `into` is writable for `len` bytes (checked by `at_mut`), and no reference to them exists.
        let read = unsafe { libc::pread(from.as_raw_fd(), into.cast(), len, at) };
        usize::try_from(read).map_err(|_| std::io::Error::last_os_error())
    }

    /// Whether these bytes are all zero, as far as one look tells. Both ends must be multiples of 64.
    ///
    /// # Panics
    /// When the range is outside of the region, or not aligned.
    #[must_use]
    pub fn is_zero(&self, offset: usize, len: usize) -> bool {
        /// Read at once, so that the first word that is not zero ends the look early.
        type Line = [u64; 8];
        let aligned =
            offset.is_multiple_of(size_of::<Line>()) && len.is_multiple_of(size_of::<Line>());
        assert!(aligned, "{offset}+{len} is not aligned");
        let from = self.at(offset, len).cast::<Line>();
        (0..len / size_of::<Line>()).all(|index| {
            // SAFETY: in bounds, and aligned since mappings start on a page; a volatile read bears foreign writers.
            let line = unsafe { from.add(index).read_volatile() };
            line.iter().fold(0, |all, word| all | word) == 0
        })
    }

    /// Fills with one byte.
    ///
    /// # Panics
    /// When the range is outside of the region.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let to = self.at_mut(offset, len);
        // SAFETY: the range was checked by `at`.
        unsafe { std::ptr::write_bytes(to, byte, len) };
    }

    fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "unaligned u32 at {offset}");
        let at = self.at(offset, 4).cast::<u32>();
        // SAFETY: in bounds and, since mappings start on a page, aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// Reads an aligned u32; later reads are not moved before it.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.atomic_u32(offset).load(Ordering::Acquire)
    }

    /// Writes an aligned u32; earlier writes are visible before it.
    pub fn store_u32(&self, offset: usize, value: u32) {
        assert!(self.writable, "write to a read-only region");
        self.atomic_u32(offset).store(value, Ordering::Release);
    }

    /// Reads an aligned u16.
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> u16 {
        assert!(offset.is_multiple_of(2), "unaligned u16 at {offset}");
        let at = self.at(offset, 2).cast::<u16>();
        // SAFETY: in bounds and aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU16::from_ptr(at) }.load(Ordering::Acquire)
    }

    /// Writes an aligned u16; earlier writes are visible before it.
    pub fn store_u16(&self, offset: usize, value: u16) {
        assert!(offset.is_multiple_of(2), "unaligned u16 at {offset}");
        let at = self.at_mut(offset, 2).cast::<u16>();
        // SAFETY: in bounds and aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU16::from_ptr(at) }.store(value, Ordering::Release);
    }

    /// Reads an aligned u64; later reads are not moved before it.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8), "unaligned u64 at {offset}");
        let at = self.at(offset, 8).cast::<u64>();
        // SAFETY: in bounds and aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Acquire)
    }

    /// Writes an aligned u64; earlier writes are visible before it.
    pub fn store_u64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8), "unaligned u64 at {offset}");
        let at = self.at_mut(offset, 8).cast::<u64>();
        // SAFETY: in bounds and aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU64::from_ptr(at) }.store(value, Ordering::Release);
    }

    fn shared_u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "unaligned u64 at {offset}");
        let at = self.at_mut(offset, 8).cast::<u64>();
        // SAFETY: in bounds, writable and aligned; an atomic may be shared with foreign writers.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// Sets these bits of an aligned u64 in one step; answers what it was. Ordered against everything before and after.
    pub fn set_bits_u64(&self, offset: usize, bits: u64) -> u64 {
        self.shared_u64(offset).fetch_or(bits, Ordering::SeqCst)
    }

    /// Clears these bits of an aligned u64 in one step; answers what it was. Ordered against everything before and after.
    pub fn clear_bits_u64(&self, offset: usize, bits: u64) -> u64 {
        self.shared_u64(offset).fetch_and(!bits, Ordering::SeqCst)
    }

    /// Writes one byte; earlier writes are visible before it.
    pub fn store_u8(&self, offset: usize, value: u8) {
        let at = self.at_mut(offset, 1);
        // SAFETY: in bounds; an atomic may be shared with foreign writers.
        unsafe { AtomicU8::from_ptr(at) }.store(value, Ordering::Release);
    }

    /// Reads one byte.
    #[must_use]
    pub fn load_u8(&self, offset: usize) -> u8 {
        let at = self.at(offset, 1);
        // SAFETY: in bounds; an atomic may be shared with foreign writers.
        unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Acquire)
    }
}

/// Orders everything before against everything after, for both sides of a ring (the full barrier of `RING_FINAL_CHECK`).
pub fn full_barrier() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_are_bytes_read() {
        let region = SharedRegion::anonymous(2).unwrap();
        region.write(4090, b"across the page");
        assert_eq!(region.read_vec(4090, 15), b"across the page");
        region.store_u32(8, 0xdead_beef);
        assert_eq!(region.load_u32(8), 0xdead_beef);
        assert_eq!(region.load_u16(8), 0xbeef);
        assert_eq!(region.load_u8(11), 0xde);
    }

    #[test]
    fn bits_set_by_many_at_once_are_all_there() {
        let region = SharedRegion::anonymous(1).unwrap();
        std::thread::scope(|scope| {
            for bit in 0..8 {
                let region = &region;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        region.clear_bits_u64(16, 1 << bit);
                        region.set_bits_u64(16, 1 << bit);
                    }
                });
            }
        });
        assert_eq!(region.load_u64(16), 0xff);
        assert_eq!(region.clear_bits_u64(16, 0xf0), 0xff);
        assert_eq!(region.load_u64(16), 0x0f);
    }

    #[test]
    #[should_panic(expected = "access to 4090+10 in a region of 4096")]
    fn a_range_outside_is_refused() {
        let region = SharedRegion::anonymous(1).unwrap();
        region.write(4090, &[0; 10]);
    }

    #[test]
    fn pages_go_to_a_file_and_come_back_without_a_stop() {
        use std::io::{Seek, SeekFrom};
        use std::os::fd::AsFd;
        let region = SharedRegion::anonymous(2).unwrap();
        region.write(4090, b"across the page");
        let mut file = tempfile::tempfile().unwrap();
        let written = region.write_out(file.as_fd(), b"head", 4090, 15).unwrap();
        assert_eq!(written, 19);
        file.seek(SeekFrom::Start(4)).unwrap();
        assert_eq!(region.read_in(file.as_fd(), 100, 100).unwrap(), 15);
        assert_eq!(region.read_vec(100, 15), b"across the page");
        assert_eq!(region.read_in(file.as_fd(), 100, 100).unwrap(), 0);
        let read_only = std::fs::File::open("/dev/null").unwrap();
        assert!(region.write_out(read_only.as_fd(), b"", 0, 1).is_err());
    }

    #[test]
    fn regions_copy_to_each_other() {
        let a = SharedRegion::anonymous(1).unwrap();
        let b = SharedRegion::anonymous(1).unwrap();
        a.write(0, b"payload");
        a.copy_to(0, &b, 100, 7);
        assert_eq!(b.read_vec(100, 7), b"payload");
        b.fill(100, 7, 0);
        assert_eq!(b.read_vec(100, 7), [0; 7]);
    }
}
