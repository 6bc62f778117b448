//! Pages on their way out by copies that Xen makes, where it is patched (`xen-patches/0001-foreign-copy.patch`): nothing is mapped, and pages of
//! zeroes are found on the way.
//!
//! ```text
//!   pages of a record ─▶ Xen ─▶ buffer ─▶ runs of pages with contents, a writev each
//!                         └─▶ pages of zeroes: named as to be allocated, not stored
//! ```

use super::error::{SaveError, Step};
use super::limits::RECORD_PAGES;
use super::p2m::P2m;
use super::pages::Sender;
use crate::peer::Outgoing;
use nix::errno::Errno;
use std::io::IoSlice;
use std::ops::Range;
use xen_abi::ids::PAGE_SIZE;
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::{Copied, Offer};
use xen_stream::Writer;
use xen_stream::libxc::{PageEntry, PageKind};

const STEP: &str = "copying the guest's memory";

/// Copies a guest's pages by way of one buffer.
#[derive(Debug)]
pub(super) struct Copier {
    buffer: SharedRegion,
}

impl Copier {
    /// `None` where Xen makes no copies.
    pub(super) fn of(sender: Sender<'_>) -> Result<Option<Self>, SaveError> {
        if !sender.host.offers_copies(sender.domid).step(STEP)? {
            return Ok(None);
        }
        let buffer = sender.host.copy_buffer(RECORD_PAGES).step(STEP)?;
        Ok(Some(Self { buffer }))
    }

    /// Sends pages that are there, each with its frame.
    pub(super) fn send(
        &self,
        sender: Sender<'_>,
        writer: &mut Writer<Outgoing<'_>>,
        entries: &[PageEntry],
        frames: &[u64],
    ) -> Result<(), SaveError> {
        for (entries, frames) in entries
            .chunks(RECORD_PAGES)
            .zip(frames.chunks(RECORD_PAGES))
        {
            let told = self.copy(sender, frames)?;
            let mut entries = entries.to_vec();
            for (index, (entry, told)) in entries.iter_mut().zip(&told).enumerate() {
                match told {
                    Copied::Copied => {}
                    // Zero is what a fresh page holds. Not so one that was sent before, and a page table is one whatever it holds.
                    Copied::Zero if sender.fresh && entry.kind == PageKind::Normal => {
                        entry.kind = PageKind::Allocate;
                    }
                    Copied::Zero => self.buffer.fill(index * PAGE_SIZE, PAGE_SIZE, 0),
                    Copied::Refused(errno) => return Err(refused(sender, *errno)),
                }
            }
            let runs = runs(&entries);
            let tables = sender.p2m.filter(|_| entries.iter().any(is_table));
            match tables {
                None => self.write_runs(writer, &entries, &runs)?,
                Some(p2m) => self.write_normalised(writer, &entries, &runs, p2m)?,
            }
        }
        Ok(())
    }

    fn copy(&self, sender: Sender<'_>, frames: &[u64]) -> Result<Vec<Copied>, SaveError> {
        let answer = sender.host.copy_out(sender.domid, frames, &self.buffer);
        match answer.step(STEP)? {
            Offer::Done(told) => Ok(told),
            Offer::NotThere => Err(refused(sender, Errno::ENOSYS)),
        }
    }

    fn write_runs(
        &self,
        writer: &mut Writer<Outgoing<'_>>,
        entries: &[PageEntry],
        runs: &[Range<usize>],
    ) -> Result<(), SaveError> {
        writer.pages_with(entries, |out, head, from| {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let part = part_at(runs, from).unwrap_or(0..0);
            out.write_region(head, &self.buffer, part.start, part.len())
        })?;
        Ok(())
    }

    /// A record with page tables in it, from a private copy with page numbers in them.
    fn write_normalised(
        &self,
        writer: &mut Writer<Outgoing<'_>>,
        entries: &[PageEntry],
        runs: &[Range<usize>],
        p2m: &P2m,
    ) -> Result<(), SaveError> {
        let mut bytes = vec![0; runs.iter().map(ExactSizeIterator::len).sum()];
        let mut place = bytes.as_mut_slice();
        for run in runs {
            let (part, rest) = place.split_at_mut(run.len());
            self.buffer.read(run.start, part);
            place = rest;
        }
        let stored = entries.iter().filter(|entry| entry.kind.has_contents());
        for (entry, page) in stored.zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
            if let PageKind::Table { level, .. } = entry.kind {
                p2m.normalise_table(level, page).map_err(|stranger| {
                    SaveError::Unfit(format!("page {}, a page table: {stranger}", entry.pfn))
                })?;
            }
        }
        Ok(writer.pages(entries, &[IoSlice::new(&bytes)])?)
    }
}

fn is_table(entry: &PageEntry) -> bool {
    matches!(entry.kind, PageKind::Table { .. })
}

fn refused(sender: Sender<'_>, errno: Errno) -> SaveError {
    SaveError::Xen {
        step: STEP,
        source: Error::refused_for("foreign_copy", sender.domid, errno),
    }
}

/// Where the pages with contents lie in the buffer, as runs of bytes.
fn runs(entries: &[PageEntry]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if !entry.kind.has_contents() {
            continue;
        }
        let (start, end) = (index * PAGE_SIZE, (index + 1) * PAGE_SIZE);
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end = end,
            None => runs.push(start..end),
        }
    }
    runs
}

/// What is to be written next when `from` bytes of all runs are written: the rest of one run.
fn part_at(runs: &[Range<usize>], mut from: usize) -> Option<Range<usize>> {
    for run in runs {
        if from < run.len() {
            return Some(run.start + from..run.end);
        }
        from -= run.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_stream::libxc::Pfn;

    fn entries(kinds: &[PageKind]) -> Vec<PageEntry> {
        let entry = |(pfn, kind): (u64, &PageKind)| PageEntry {
            pfn: Pfn(pfn),
            kind: *kind,
        };
        (0..).zip(kinds).map(entry).collect()
    }

    #[test]
    fn pages_of_zeroes_cut_the_buffer_into_runs() {
        use PageKind::{Allocate, Normal};
        let page = PAGE_SIZE;
        let cut = runs(&entries(&[Normal, Normal, Allocate, Normal, Allocate]));
        assert_eq!(cut, [0..2 * page, 3 * page..4 * page]);
        assert_eq!(runs(&entries(&[Allocate])), []);
        assert_eq!(part_at(&cut, 0), Some(0..2 * page));
        assert_eq!(part_at(&cut, page + 5), Some(page + 5..2 * page));
        assert_eq!(part_at(&cut, 2 * page), Some(3 * page..4 * page));
        assert_eq!(part_at(&cut, 2 * page + 7), Some(3 * page + 7..4 * page));
        assert_eq!(part_at(&cut, 3 * page), None);
    }
}
