//! The agent's half of a dirty map ([`parapet_wire::dirty`]): makes it, hands it to drivers, and reads what they have taken.
//!
//! The map lives as long as this does, whatever becomes of drivers. Its words are a driver's claims: they can name only extents that the disk
//! has, and a driver that lies spoils the copy of its own guest's disk, which it could spoil by writing to it anyway.

use super::extents::ExtentSet;
use parapet_wire::dirty::{EXTENT_SHIFT, Layout, MAGIC, VERSION, head};
use std::os::fd::{AsFd, OwnedFd};
use xen_host::error::Error;
use xen_host::memfd::MemFd;
use xen_host::region::SharedRegion;

/// See the module.
#[derive(Debug)]
pub struct DirtyMap {
    memory: MemFd,
    region: SharedRegion,
    layout: Layout,
}

impl DirtyMap {
    /// A map in which nothing is noted; `None` for a disk that is empty or too large for one.
    ///
    /// # Errors
    /// No memory.
    pub fn create(disk_bytes: u64) -> Result<Option<Self>, Error> {
        let Some(layout) = Layout::of(disk_bytes) else {
            return Ok(None);
        };
        let memory = MemFd::create("parapet-dirty", layout.bytes())?;
        let region = memory.map()?;
        region.store_u32(head::VERSION, VERSION);
        region.store_u32(head::EXTENT_SHIFT, EXTENT_SHIFT);
        region.store_u64(head::DISK_BYTES, disk_bytes);
        region.store_u64(head::MAGIC, MAGIC);
        Ok(Some(Self {
            memory,
            region,
            layout,
        }))
    }

    /// A descriptor for a driver.
    ///
    /// # Errors
    /// None is free.
    pub fn pass(&self) -> std::io::Result<OwnedFd> {
        self.memory.as_fd().try_clone_to_owned()
    }

    /// What drivers have taken since the last call.
    #[must_use]
    pub fn drain(&self) -> ExtentSet {
        self.drain_half(|word| self.layout.taken(word))
    }

    /// What was noted since the last call, taken or not. Only once no driver has the map any more: a living one may be moving bits between the halves.
    #[must_use]
    pub fn drain_all(&self) -> ExtentSet {
        let untaken = self.drain_half(|word| self.layout.live(word));
        self.drain().with(untaken)
    }

    fn drain_half(&self, at: impl Fn(usize) -> usize) -> ExtentSet {
        let ranges = (0..self.layout.words()).flat_map(|word| {
            let at = at(word);
            // A look first: most words are empty, and a page that was never written costs no memory.
            let bits = if self.region.load_u64(at) == 0 {
                0
            } else {
                self.region.clear_bits_u64(at, u64::MAX)
            };
            self.layout.extents_of(word, bits)
        });
        ExtentSet::of(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parapet_wire::dirty::EXTENT_BYTES;

    #[test]
    fn what_a_driver_has_taken_is_read_once_and_only_what_the_disk_has() {
        let map = DirtyMap::create(70 * EXTENT_BYTES - 512).unwrap().unwrap();
        assert!(map.drain().is_empty());
        let fd = map.pass().unwrap();
        let theirs = MemFd::from_fd(fd, map.layout.bytes())
            .unwrap()
            .map()
            .unwrap();
        // The process at the other end says that everything is dirty, and more than there is.
        theirs.fill(4096, map.layout.bytes() - 4096, 0xff);
        assert_eq!(map.drain(), ExtentSet::all(70 * EXTENT_BYTES - 512));
        assert!(map.drain().is_empty(), "the live half is the driver's own");
        assert_eq!(map.drain_all(), ExtentSet::all(70 * EXTENT_BYTES - 512));
        theirs.store_u64(map.layout.taken(1), 0b1010);
        assert_eq!(map.drain().ranges(), [65..66, 67..68]);
        theirs.store_u64(map.layout.live(0), 0b1);
        theirs.store_u64(map.layout.taken(0), 0b100);
        assert_eq!(map.drain_all().ranges(), [0..1, 2..3]);
        assert!(map.drain_all().is_empty());
        assert!(DirtyMap::create(0).unwrap().is_none());
    }
}
