//! The machine's memory: which frames are free, and their bytes.
//!
//! Frames are numbered from [`FIRST_GUEST_MFN`]; dom0's own lie below and have no bytes here. Like Xen, single frames are handed out
//! from the top downwards, so consecutive gfns of a PV guest get descending mfns and nothing that counts on contiguity works by luck.

use crate::limits::{FIRST_GUEST_MFN, MAX_HOST_FRAMES};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use xen_abi::ids::PAGE_SIZE;
use xen_host::error::Error;
use xen_host::frames::FrameFile;
use xen_host::region::SharedRegion;

/// The bytes of the machine.
#[derive(Debug)]
pub(crate) struct Memory {
    file: FrameFile,
    whole: OnceLock<SharedRegion>,
}

impl Memory {
    pub(crate) fn new(frames: u64) -> Result<Self, Error> {
        let frames = frames.clamp(1, MAX_HOST_FRAMES);
        Ok(Self {
            file: FrameFile::new("xen-sim", frames)?,
            whole: OnceLock::new(),
        })
    }

    /// Maps frames as one region.
    pub(crate) fn map(&self, mfns: &[u64], writable: bool) -> Result<SharedRegion, Error> {
        let frames: Vec<u64> = mfns
            .iter()
            .map(|mfn| mfn.wrapping_sub(FIRST_GUEST_MFN))
            .collect();
        self.file.map(&frames, writable)
    }

    /// The whole memory as one region; used for the guests' own accesses and for Xen's.
    pub(crate) fn whole(&self) -> &SharedRegion {
        self.whole.get_or_init(|| {
            let all: Vec<u64> = (0..self.file.frames()).collect();
            match self.file.map(&all, true) {
                Ok(region) => region,
                Err(error) => panic!("the simulated memory does not fit: {error}"),
            }
        })
    }

    /// Makes frames zero, as Xen's scrubber does on free.
    pub(crate) fn scrub(&self, mfn: u64, count: u64) {
        if let Err(error) = self.file.discard(mfn.wrapping_sub(FIRST_GUEST_MFN), count) {
            panic!("scrub of {count} frames at {mfn:#x}: {error}");
        }
    }
}

/// Where the bytes of a frame lie in [`Memory::whole`].
pub(crate) fn byte_of(mfn: u64, offset: usize) -> usize {
    let frame = usize::try_from(mfn - FIRST_GUEST_MFN).unwrap_or(usize::MAX);
    frame * PAGE_SIZE + offset
}

/// Free frames as runs.
#[derive(Debug)]
pub(crate) struct Frames {
    free: BTreeMap<u64, u64>,
    free_pages: u64,
    total: u64,
}

impl Frames {
    pub(crate) fn new(total: u64) -> Self {
        let total = total.clamp(1, MAX_HOST_FRAMES);
        Self {
            free: BTreeMap::from([(FIRST_GUEST_MFN, total)]),
            free_pages: total,
            total,
        }
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.free_pages
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// A run of `1 << order` frames, aligned to its size, from the top.
    pub(crate) fn alloc(&mut self, order: u32) -> Option<u64> {
        let size = 1u64 << order;
        let (start, len, at) = self.free.iter().rev().find_map(|(&start, &len)| {
            let at = (start + len).checked_sub(size)? & !(size - 1);
            (at >= start).then_some((start, len, at))
        })?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        let end = start + len;
        if at + size < end {
            self.free.insert(at + size, end - at - size);
        }
        self.free_pages -= size;
        Some(at)
    }

    /// Gives a run back.
    pub(crate) fn release(&mut self, mfn: u64, count: u64) {
        let (mut start, mut len) = (mfn, count);
        if let Some((&before, &before_len)) = self.free.range(..mfn).next_back() {
            assert!(before + before_len <= mfn, "frame {mfn:#x} was freed twice");
            if before + before_len == mfn {
                self.free.remove(&before);
                start = before;
                len += before_len;
            }
        }
        if let Some((&after, &after_len)) = self.free.range(mfn..).next() {
            assert!(mfn + count <= after, "frame {after:#x} was freed twice");
            if mfn + count == after {
                self.free.remove(&after);
                len += after_len;
            }
        }
        self.free.insert(start, len);
        self.free_pages += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_aligned_disjoint_and_come_back(orders in prop::collection::vec(0u32..10, 1..60)) {
            let mut frames = Frames::new(4096);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for order in orders {
                let Some(at) = frames.alloc(order) else { continue };
                let size = 1 << order;
                prop_assert_eq!(at % size, 0);
                prop_assert!(taken.iter().all(|(start, len)| at + size <= *start || start + len <= at));
                taken.push((at, size));
            }
            let held: u64 = taken.iter().map(|(_, len)| len).sum();
            prop_assert_eq!(frames.free_pages(), 4096 - held);
            for (start, len) in taken {
                frames.release(start, len);
            }
            prop_assert_eq!(frames.free.clone(), BTreeMap::from([(FIRST_GUEST_MFN, 4096)]));
        }
    }

    #[test]
    fn single_frames_descend() {
        let mut frames = Frames::new(16);
        let first = frames.alloc(0).unwrap();
        assert_eq!(frames.alloc(0), Some(first - 1));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_noticed() {
        let mut frames = Frames::new(16);
        let frame = frames.alloc(0).unwrap();
        frames.release(frame, 1);
        frames.release(frame, 1);
    }
}
