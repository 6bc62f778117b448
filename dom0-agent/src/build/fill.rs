//! Copies into a guest under construction, through foreign mappings of many pages at a time.
//!
//! A mapping lives only while one function runs: PV page tables can be pinned only when no writable mapping of them is
//! left, and the guest's kernel will turn pages of its own into tables as soon as it runs.

use super::error::{BuildError, Step};
use super::limits::{COPY_CHUNK, MAP_WINDOW_PAGES, PAGE};
use super::plan_pv::{Placed, PlacedInitrd, Run};
use crate::image::{ImageError, Initrd, LoadedKernel};
use xen_abi::ids::DomId;
use xen_host::region::SharedRegion;
use xen_host::seam::MemoryControl;

/// Fills a buffer from an offset of an image file.
type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> Result<(), ImageError> + 'a;

/// Memory of a guest under construction.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuestMemory<'a> {
    pub(super) memory: &'a dyn MemoryControl,
    pub(super) domid: DomId,
    /// Machine frame of each pfn for a PV guest; PVH guests are mapped by pfn.
    pub(super) p2m: Option<&'a [u64]>,
}

impl GuestMemory<'_> {
    /// The frame to map, or to tell Xen, for a pfn.
    pub(super) fn frame(&self, pfn: u64) -> u64 {
        match self.p2m {
            // Plans lie within the memory that was populated.
            Some(p2m) => usize::try_from(pfn)
                .ok()
                .and_then(|pfn| p2m.get(pfn).copied())
                .unwrap_or(u64::MAX),
            None => pfn,
        }
    }

    fn map(&self, run: Run, step: &'static str) -> Result<SharedRegion, BuildError> {
        let frames: Vec<u64> = (run.pfn..run.end()).map(|pfn| self.frame(pfn)).collect();
        self.memory
            .map_foreign(self.domid, &frames, true)
            .step(step)
    }

    /// Writes whole pages; what `bytes` do not fill is zeroed.
    pub(super) fn write(
        &self,
        run: Run,
        bytes: &[u8],
        step: &'static str,
    ) -> Result<(), BuildError> {
        for window in windows(run) {
            let region = self.map(window, step)?;
            let skip = in_memory((window.pfn - run.pfn) * PAGE);
            let part = bytes.get(skip..).unwrap_or_default();
            let part = &part[..part.len().min(region.len())];
            region.write(0, part);
            region.fill(part.len(), region.len() - part.len(), 0);
        }
        Ok(())
    }

    /// Places the kernel's segments.
    pub(super) fn load_kernel(
        &self,
        run: Run,
        segments: &[Placed],
        kernel: &LoadedKernel,
    ) -> Result<(), BuildError> {
        self.load(run, segments, "loading the kernel", &|into, offset| {
            kernel.read_at(into, offset)
        })
    }

    /// Places the initrd; the rest of its last page is zeroed.
    pub(super) fn load_initrd(
        &self,
        placed: PlacedInitrd,
        initrd: &Initrd,
    ) -> Result<(), BuildError> {
        let whole = Placed {
            address: placed.run.pfn * PAGE,
            memory_size: placed.run.pages * PAGE,
            file_offset: 0,
            file_size: placed.size,
        };
        self.load(
            placed.run,
            &[whole],
            "loading the initrd",
            &|into, offset| initrd.read_at(into, offset),
        )
    }

    fn load(
        &self,
        run: Run,
        segments: &[Placed],
        step: &'static str,
        read: &ReadAt<'_>,
    ) -> Result<(), BuildError> {
        let mut buffer = vec![0; COPY_CHUNK];
        for window in windows(run) {
            let region = self.map(window, step)?;
            let (start, end) = (window.pfn * PAGE, window.end() * PAGE);
            for segment in segments {
                let file_end = segment.address + segment.file_size;
                let (mut from, to) = (segment.address.max(start), file_end.min(end));
                while from < to {
                    let chunk = &mut buffer[..in_memory((to - from).min(COPY_CHUNK as u64))];
                    read(chunk, segment.file_offset + (from - segment.address))?;
                    region.write(in_memory(from - start), chunk);
                    from += chunk.len() as u64;
                }
                let (from, to) = (
                    file_end.max(start),
                    (segment.address + segment.memory_size).min(end),
                );
                if from < to {
                    region.fill(in_memory(from - start), in_memory(to - from), 0);
                }
            }
        }
        Ok(())
    }
}

/// Splits a run into pieces that are mapped at once.
fn windows(run: Run) -> impl Iterator<Item = Run> {
    (0..run.pages.div_ceil(MAP_WINDOW_PAGES)).map(move |index| {
        let pfn = run.pfn + index * MAP_WINDOW_PAGES;
        Run {
            pfn,
            pages: MAP_WINDOW_PAGES.min(run.end() - pfn),
        }
    })
}

/// A count of bytes inside of a mapping; this is a 64-bit program.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
