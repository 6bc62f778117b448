//! Copies into a guest under construction, through foreign mappings of many pages at a time.
//!
//! A mapping lives only while one function runs: PV page tables can be pinned only when no writable mapping of them is
//! left, and the guest's kernel will turn pages of its own into tables as soon as it runs. Whole pages of a large file go through a
//! mover ([`xen_host::mover`]), which ends here too.

use super::error::{BuildError, Step};
use super::limits::{COPY_CHUNK, MAP_WINDOW_PAGES, PAGE};
use super::plan_pv::{Placed, PlacedInitrd, Run};
use crate::image::{ImageError, Initrd, LoadedKernel};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::mover::{WINDOW_PAGES, WORTH_PAGES};
use xen_host::region::SharedRegion;
use xen_host::seam::{Access, Look, MemoryControl, Mover};

/// Fills a buffer from an offset of an image file.
type ReadAt<'a> = dyn Fn(&mut [u8], u64) -> Result<(), ImageError> + 'a;

/// An image file.
#[derive(Clone, Copy)]
struct Contents<'a> {
    file: &'a File,
    /// The same with errors that name it.
    read: &'a ReadAt<'a>,
}

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
        let contents = Contents {
            file: kernel.file(),
            read: &|into, offset| kernel.read_at(into, offset),
        };
        self.load(run, segments, "loading the kernel", contents)
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
        let contents = Contents {
            file: initrd.file(),
            read: &|into, offset| initrd.read_at(into, offset),
        };
        self.load(placed.run, &[whole], "loading the initrd", contents)
    }

    fn load(
        &self,
        run: Run,
        segments: &[Placed],
        step: &'static str,
        contents: Contents<'_>,
    ) -> Result<(), BuildError> {
        let mut left = vec![run];
        let file = contents.file.as_fd();
        if run.pages >= WORTH_PAGES
            && let Some(mut mover) = self.memory.mover(self.domid, Access::Write, file)
        {
            for segment in segments {
                let whole = whole_pages(segment);
                self.move_in(mover.as_mut(), whole, segment, step, contents)?;
                left = left
                    .into_iter()
                    .flat_map(|run| without(run, whole))
                    .collect();
            }
            mover.end().step(step)?;
        }
        left.into_iter()
            .try_for_each(|run| self.load_mapped(run, segments, step, contents))
    }

    /// Fills pages that lie within a segment's bytes.
    fn move_in(
        &self,
        mover: &mut dyn Mover,
        whole: Run,
        segment: &Placed,
        step: &'static str,
        contents: Contents<'_>,
    ) -> Result<(), BuildError> {
        for window in pieces(whole, WINDOW_PAGES as u64) {
            let frames: Vec<u64> = (window.pfn..window.end())
                .map(|pfn| self.frame(pfn))
                .collect();
            mover.open(&frames, Look::Away).step(step)?;
            let at = segment.file_offset + (window.pfn * PAGE - segment.address);
            let failed = |error: io::Error| BuildError::Answer {
                step,
                what: error.to_string(),
            };
            let got = mover.read(0..frames.len(), Some(at)).map_err(failed)?;
            if got < frames.len() * PAGE_SIZE {
                // It says itself what became of it.
                (contents.read)(&mut [0], at + got as u64)?;
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    fn load_mapped(
        &self,
        run: Run,
        segments: &[Placed],
        step: &'static str,
        contents: Contents<'_>,
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
                    (contents.read)(chunk, segment.file_offset + (from - segment.address))?;
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
    pieces(run, MAP_WINDOW_PAGES)
}

/// Splits a run into pieces of at most `most` pages.
fn pieces(run: Run, most: u64) -> impl Iterator<Item = Run> {
    (0..run.pages.div_ceil(most)).map(move |index| {
        let pfn = run.pfn + index * most;
        Run {
            pfn,
            pages: most.min(run.end() - pfn),
        }
    })
}

/// The pages that a segment's bytes fill from their first byte to their last.
fn whole_pages(segment: &Placed) -> Run {
    let pfn = segment.address.div_ceil(PAGE);
    let end = (segment.address + segment.file_size) / PAGE;
    Run {
        pfn,
        pages: end.saturating_sub(pfn),
    }
}

/// What of a run is not in `taken`.
fn without(run: Run, taken: Run) -> impl Iterator<Item = Run> {
    let between = |pfn: u64, end: u64| Run {
        pfn,
        pages: end.saturating_sub(pfn),
    };
    let taken = match taken.pages {
        0 => between(run.end(), run.end()),
        _ => taken,
    };
    [
        between(run.pfn, run.end().min(taken.pfn)),
        between(run.pfn.max(taken.end()), run.end()),
    ]
    .into_iter()
    .filter(|run| run.pages > 0)
}

/// A count of bytes inside of a mapping; this is a 64-bit program.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pfn: u64, end: u64) -> Run {
        Run {
            pfn,
            pages: end - pfn,
        }
    }

    #[test]
    fn only_pages_that_are_filled_whole_are_moved() {
        let segment = |address, file_size| Placed {
            address,
            memory_size: file_size + 10 * PAGE,
            file_offset: 77,
            file_size,
        };
        assert_eq!(whole_pages(&segment(2 * PAGE, 3 * PAGE)), run(2, 5));
        assert_eq!(whole_pages(&segment(2 * PAGE + 1, 3 * PAGE)), run(3, 5));
        assert_eq!(whole_pages(&segment(2 * PAGE, 3 * PAGE + 1)), run(2, 5));
        for small in [0, 1, PAGE] {
            assert_eq!(whole_pages(&segment(2 * PAGE + 1, small)).pages, 0);
        }
    }

    #[test]
    fn the_rest_of_a_run_is_mapped() {
        let rest = |taken| without(run(10, 20), taken).collect::<Vec<_>>();
        assert_eq!(rest(run(12, 15)), [run(10, 12), run(15, 20)]);
        assert_eq!(rest(run(10, 20)), []);
        assert_eq!(rest(run(5, 12)), [run(12, 20)]);
        assert_eq!(rest(run(15, 30)), [run(10, 15)]);
        for outside in [run(0, 5), run(25, 30), run(15, 15)] {
            assert_eq!(rest(outside), [run(10, 20)], "{outside:?}");
        }
    }
}
