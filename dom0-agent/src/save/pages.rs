//! Pages on their way out: which are there, what they are, and their contents.
//!
//! ```text
//!   set ─▶ window (64 MiB) ─▶ frames ─▶ types ─▶ those that are there, mapped at once ─▶ records of 1024 pages
//!                                                     no page table among them: one writev of the mapping
//!                                                     PV page tables: a private copy with page numbers in them
//! ```

use super::copied::Copier;
use super::error::{SaveError, Step};
use super::limits::{MAP_WINDOW_PAGES, RECORD_PAGES};
use super::p2m::P2m;
use super::rounds::PageSet;
use crate::build::Hypervisor;
use std::fs::File;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsFd;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_stream::Writer;
use xen_stream::libxc::{PageEntry, PageKind, Pfn};

/// One guest's pages.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) host: &'a dyn Hypervisor,
    pub(super) domid: DomId,
    /// Frames of a PV guest's pages; those of PVH guests are called by page number.
    pub(super) p2m: Option<&'a P2m>,
    /// No page was sent before.
    pub(super) fresh: bool,
    /// Whether the image is still wanted.
    pub(super) waits: &'a dyn Fn() -> bool,
}

/// A page that is there, and its frame.
type There = (PageEntry, u64);

impl Sender<'_> {
    /// Sends every page of `set` that is there.
    pub(super) fn send(self, writer: &mut Writer<File>, set: &PageSet) -> Result<(), SaveError> {
        let copier = Copier::of(self)?;
        for window in set.windows(MAP_WINDOW_PAGES) {
            if !(self.waits)() {
                return Err(SaveError::Unwanted);
            }
            let there = self.those_there(window)?;
            if there.is_empty() {
                continue;
            }
            let (entries, frames): (Vec<PageEntry>, Vec<u64>) = there.into_iter().unzip();
            if let Some(copier) = &copier {
                copier.send(self, writer, &entries, &frames)?;
                continue;
            }
            let region = self
                .host
                .map_foreign(self.domid, &frames, false)
                .step("mapping the guest's memory")?;
            for (index, part) in entries.chunks(RECORD_PAGES).enumerate() {
                let offset = index * RECORD_PAGES * PAGE_SIZE;
                if part.iter().all(|entry| entry.kind == PageKind::Normal) {
                    write_mapped(writer, part, &region, offset)?;
                } else {
                    self.write_normalised(writer, part, &region, offset)?;
                }
            }
        }
        Ok(())
    }

    /// The pages of a window that have contents. Holes are left out: what never came is not there on the other side either.
    fn those_there(self, window: Range<u64>) -> Result<Vec<There>, SaveError> {
        let (pfns, frames): (Vec<u64>, Vec<u64>) = match self.p2m {
            None => window.map(|pfn| (pfn, pfn)).unzip(),
            Some(p2m) => window.filter_map(|pfn| Some((pfn, p2m.mfn(pfn)?))).unzip(),
        };
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let types = self
            .host
            .page_types(self.domid, &frames)
            .step("asking what the guest's pages are")?;
        let mut there = Vec::with_capacity(frames.len());
        for ((pfn, frame), word) in pfns.into_iter().zip(frames).zip(types) {
            let refuse = |why| Err(SaveError::Page { pfn, why });
            let kind = match PageKind::from_pfinfo(word) {
                Some(PageKind::Invalid | PageKind::Allocate) => continue,
                Some(PageKind::Broken) => return refuse("has a memory error"),
                Some(PageKind::Table { .. }) if self.p2m.is_none() => {
                    return refuse("is of a kind that only PV guests have");
                }
                None => return refuse("is of a kind that is not known"),
                Some(kind @ (PageKind::Normal | PageKind::Table { .. })) => kind,
            };
            let pfn = Pfn(pfn);
            there.push((PageEntry { pfn, kind }, frame));
        }
        Ok(there)
    }

    /// Writes a record with page tables in it, from a private copy.
    fn write_normalised(
        self,
        writer: &mut Writer<File>,
        entries: &[PageEntry],
        region: &SharedRegion,
        offset: usize,
    ) -> Result<(), SaveError> {
        let mut bytes = region.read_vec(offset, entries.len() * PAGE_SIZE);
        for (entry, page) in entries.iter().zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
            if let (PageKind::Table { level, .. }, Some(p2m)) = (entry.kind, self.p2m) {
                let unfit = |stranger| {
                    SaveError::Unfit(format!("page {}, a page table: {stranger}", entry.pfn))
                };
                p2m.normalise_table(level, page).map_err(unfit)?;
            }
        }
        Ok(writer.pages(entries, &[IoSlice::new(&bytes)])?)
    }
}

/// Writes a record whose contents stand one behind the other in `region`, from `offset` on.
fn write_mapped(
    writer: &mut Writer<File>,
    entries: &[PageEntry],
    region: &SharedRegion,
    offset: usize,
) -> Result<(), SaveError> {
    let bytes = entries.len() * PAGE_SIZE;
    writer.pages_with(entries, |file, head, from| {
        let done = usize::try_from(from).unwrap_or(bytes).min(bytes);
        region.write_out(file.as_fd(), head, offset + done, bytes - done)
    })?;
    Ok(())
}
