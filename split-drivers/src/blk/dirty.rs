//! Which extents of a disk the guest changes, while somebody copies it: the driver's half of [`parapet_wire::dirty`].
//!
//! ```text
//!   write:    note ──▶ medium ──▶ note ──▶ answer
//!               │                  │
//!               │                  └ for a copier that took the first note and read the extent before the write had landed
//!               └ for a driver that dies, or a medium that fails, before it can make the second
//! ```
//!
//! So whatever moment somebody takes the notes and reads: either the write had landed by then, or it is noted afterwards. A write that a
//! successor issues again is noted again, by the successor: every note is made before the request leaves the in-flight journal. The memory
//! is the agent's, and outlives the driver; nothing in it is believed but its size, and no bit of it changes what the driver does.

use crate::disk::Step;
use crate::fuse::burn;
use parapet_wire::dirty::{EXTENT_SHIFT, Layout, MAGIC, MAX_MAP_BYTES, VERSION, head};
use std::fs::File;
use std::os::fd::OwnedFd;
use xen_host::error::Error;
use xen_host::memfd::MemFd;
use xen_host::region::SharedRegion;

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Not a sealed memfd, or it cannot be mapped.
    #[error("the dirty map: {0}")]
    Host(#[from] Error),
    /// Its size cannot be told.
    #[error("the dirty map: {0}")]
    File(#[from] std::io::Error),
    /// Not a map, or of another release.
    #[error("the dirty map is not one of version {VERSION} for extents of 2^{EXTENT_SHIFT} bytes")]
    Foreign,
    /// It is for another disk.
    #[error("the dirty map is for a disk of {map} bytes, the disk has {disk}")]
    Size {
        /// What the map says.
        map: u64,
        /// What the disk has.
        disk: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub struct DirtyMap {
    region: SharedRegion,
    layout: Layout,
    #[cfg(test)]
    pub(super) broken: Broken,
}

/// How a map that must be found out is wrong.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Not at all.
    No,
    /// Nothing is noted when a write has ended.
    NotAfter,
    /// A discard is noted never.
    NotDiscard,
    /// Bits leave the live half before they are in the other.
    ClearsFirst,
    /// Only the first extent of a write is noted.
    FirstExtentOnly,
}

impl DirtyMap {
    /// Maps what the agent made for a disk of this size.
    ///
    /// # Errors
    /// It is no such map.
    pub fn adopt(fd: OwnedFd, disk_bytes: u64) -> Result<Self, MapError> {
        let file = File::from(fd);
        let len = file.metadata()?.len();
        let len = usize::try_from(len)
            .ok()
            .filter(|len| (head::DISK_BYTES + size_of::<u64>()..=MAX_MAP_BYTES).contains(len));
        let len = len.ok_or(MapError::Foreign)?;
        let region = MemFd::from_fd(file.into(), len)?.map()?;
        let known = region.load_u64(head::MAGIC) == MAGIC
            && region.load_u32(head::VERSION) == VERSION
            && region.load_u32(head::EXTENT_SHIFT) == EXTENT_SHIFT;
        let map = region.load_u64(head::DISK_BYTES);
        let layout = Layout::of(map)
            .filter(|layout| known && layout.bytes() == len)
            .ok_or(MapError::Foreign)?;
        if map < disk_bytes {
            return Err(MapError::Size {
                map,
                disk: disk_bytes,
            });
        }
        Ok(Self {
            region,
            layout,
            #[cfg(test)]
            broken: Broken::No,
        })
    }

    /// To be called before this step goes to the medium.
    pub fn note_begin(&self, step: &Step) {
        self.note(step);
    }

    /// To be called when this step has ended at the medium, however it did, before the request is answered.
    pub fn note_end(&self, step: &Step) {
        #[cfg(test)]
        if self.broken == Broken::NotAfter {
            return;
        }
        self.note(step);
    }

    fn note(&self, step: &Step) {
        match *step {
            Step::Write { offset, len } => self.mark(offset, len as u64),
            Step::Discard { offset, len } => {
                #[cfg(test)]
                if self.broken == Broken::NotDiscard {
                    return;
                }
                self.mark(offset, len);
            }
            Step::Read { .. } | Step::Sync => {}
        }
    }

    fn mark(&self, offset: u64, len: u64) {
        #[cfg(test)]
        let len = if self.broken == Broken::FirstExtentOnly {
            len.min(1)
        } else {
            len
        };
        for (word, bits) in self.layout.marks(offset, len) {
            burn();
            self.region.set_bits_u64(self.layout.live(word), bits);
        }
    }

    /// Moves all notes into the half that the agent reads; answers how many extents they name. May die at any point and be run again.
    pub fn take(&self) -> u64 {
        let mut extents = 0;
        for word in 0..self.layout.words() {
            let live = self.layout.live(word);
            let bits = self.region.load_u64(live);
            if bits == 0 {
                continue;
            }
            extents += u64::from(bits.count_ones());
            #[cfg(test)]
            if self.broken == Broken::ClearsFirst {
                self.region.clear_bits_u64(live, bits);
            }
            burn();
            self.region.set_bits_u64(self.layout.taken(word), bits);
            burn();
            self.region.clear_bits_u64(live, bits);
        }
        extents
    }
}

#[cfg(test)]
#[path = "dirty_tests.rs"]
pub(super) mod tests;
