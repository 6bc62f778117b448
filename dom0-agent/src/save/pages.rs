//! Pages on their way out: which are there, what they are, and their contents.
//!
//! ```text
//!   set ─▶ batch (64 MiB) ─▶ frames ─▶ types ─▶ those that are there ─▶ records of 1024 pages, cut into parts:
//!                                                  the window's pages: written straight from it (window.rs)
//!                                                  pages of zeroes: left out of a file, which reads as zeroes there
//!                                                  PV page tables: a private copy with page numbers in them
//! ```
//!
//! A page of zeroes is in the stream as any other: nobody promises that memory which a domain is given is zero, so it cannot be left to the other side.

use super::error::{SaveError, Step};
use super::limits::{BATCH_PAGES, RECORD_PAGES, SKIP_PAGES};
use super::p2m::P2m;
use super::rounds::PageSet;
use super::window::{self, Window};
use crate::build::Hypervisor;
use crate::peer::Outgoing;
use std::io;
use std::ops::Range;
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
    /// Whether the image is still wanted.
    pub(super) waits: &'a dyn Fn() -> bool,
}

/// A page that is there, and its frame.
type There = (PageEntry, u64);

/// Some pages of a record, one after another, and where their contents come from.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    pages: Range<usize>,
    from: From,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    Window,
    Zeroes,
    Private(Vec<u8>),
}

impl Sender<'_> {
    /// Sends every page of `set` that is there; answers how many those are.
    pub(super) fn send(
        self,
        writer: &mut Writer<Outgoing<'_>>,
        set: &PageSet,
    ) -> Result<u64, SaveError> {
        let mut window = window::of(self, writer.sink(), set.pages())?;
        let mut sent = 0;
        for batch in set.batches(BATCH_PAGES) {
            if !(self.waits)() {
                return Err(SaveError::Unwanted);
            }
            let there = self.those_there(batch)?;
            for record in there.chunks(RECORD_PAGES) {
                self.send_record(writer, window.as_mut(), record)?;
                sent += record.len() as u64;
            }
        }
        window.close()?;
        Ok(sent)
    }

    fn send_record(
        self,
        writer: &mut Writer<Outgoing<'_>>,
        window: &mut dyn Window,
        record: &[There],
    ) -> Result<(), SaveError> {
        let (entries, frames): (Vec<PageEntry>, Vec<u64>) = record.iter().copied().unzip();
        let zeroes = window.open(&frames)?;
        let mut parts = cut(&entries, &zeroes);
        for part in &mut parts {
            if let From::Private(bytes) = &mut part.from {
                *bytes = self.tables(&entries[part.pages.clone()], &frames[part.pages.clone()])?;
            }
        }
        writer.pages_with(&entries, |out, head, from| {
            write(
                out,
                window,
                head,
                &parts,
                usize::try_from(from).unwrap_or(usize::MAX),
            )
        })?;
        Ok(())
    }

    /// Those of the pages that have contents. Holes are left out: what never came is not there on the other side either.
    fn those_there(self, batch: Vec<u64>) -> Result<Vec<There>, SaveError> {
        let (pfns, frames): (Vec<u64>, Vec<u64>) = match self.p2m {
            None => (batch.clone(), batch),
            Some(p2m) => batch
                .into_iter()
                .filter_map(|pfn| Some((pfn, p2m.mfn(pfn)?)))
                .unzip(),
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

    /// Maps frames for reading.
    pub(super) fn map(self, frames: &[u64]) -> Result<SharedRegion, SaveError> {
        self.host
            .map_foreign(self.domid, frames, false)
            .step("mapping the guest's memory")
    }

    /// Page tables as they are in a stream: with page numbers in them.
    fn tables(self, entries: &[PageEntry], frames: &[u64]) -> Result<Vec<u8>, SaveError> {
        let mut bytes = self.map(frames)?.read_vec(0, entries.len() * PAGE_SIZE);
        for (entry, page) in entries.iter().zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
            if let (PageKind::Table { level, .. }, Some(p2m)) = (entry.kind, self.p2m) {
                let unfit = |stranger| {
                    SaveError::Unfit(format!("page {}, a page table: {stranger}", entry.pfn))
                };
                p2m.normalise_table(level, page).map_err(unfit)?;
            }
        }
        Ok(bytes)
    }
}

/// Cuts a record into as few parts as its pages allow. Private contents are still to be filled in.
fn cut(entries: &[PageEntry], zeroes: &[bool]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let from = match entry.kind {
            PageKind::Table { .. } => From::Private(Vec::new()),
            _ if zeroes.get(index) == Some(&true) => From::Zeroes,
            _ => From::Window,
        };
        join(&mut parts, index..index + 1, from);
    }
    let mut worth = Vec::with_capacity(parts.len());
    for Part { pages, from } in parts {
        let few = from == From::Zeroes && pages.len() < SKIP_PAGES;
        join(&mut worth, pages, if few { From::Window } else { from });
    }
    worth
}

/// Appends pages, to the last part if they come from where that does.
fn join(parts: &mut Vec<Part>, pages: Range<usize>, from: From) {
    match parts.last_mut().filter(|part| part.from == from) {
        Some(part) => part.pages.end = pages.end,
        None => parts.push(Part { pages, from }),
    }
}

/// Writes what comes next when `done` bytes of the parts are written; answers how many bytes went.
fn write(
    out: &mut Outgoing<'_>,
    window: &mut dyn Window,
    head: &[u8],
    parts: &[Part],
    done: usize,
) -> io::Result<usize> {
    let page = done / PAGE_SIZE;
    let part = parts.iter().find(|part| part.pages.contains(&page));
    let part = part.ok_or_else(|| io::Error::other("more is asked for than the record has"))?;
    let end = part.pages.end * PAGE_SIZE;
    match &part.from {
        From::Window => window.write(out, head, done..end),
        From::Zeroes => out.skip(head, end - done),
        From::Private(bytes) => out.write_both(head, &bytes[done - part.pages.start * PAGE_SIZE..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(kinds: &[PageKind]) -> Vec<PageEntry> {
        let entry = |(pfn, kind): (u64, &PageKind)| PageEntry {
            pfn: Pfn(pfn),
            kind: *kind,
        };
        (0..).zip(kinds).map(entry).collect()
    }

    #[test]
    fn a_record_is_cut_where_its_contents_come_from_elsewhere() {
        let table = PageKind::Table {
            level: 1,
            pinned: false,
        };
        let mut kinds = vec![PageKind::Normal; 64];
        kinds[20..24].fill(table);
        let part = |pages, from| Part { pages, from };
        let private = || From::Private(Vec::new());
        assert_eq!(
            cut(&entries(&kinds), &[]),
            [
                part(0..20, From::Window),
                part(20..24, private()),
                part(24..64, From::Window),
            ]
        );
        let mut zeroes = vec![false; 64];
        for run in [2..2 + SKIP_PAGES, 14..14 + SKIP_PAGES - 1, 18..40, 50..64] {
            zeroes[run].fill(true);
        }
        assert_eq!(
            cut(&entries(&kinds), &zeroes),
            [
                part(0..2, From::Window),
                part(2..10, From::Zeroes),
                // Too few to be worth it, before a table as well; and a table is normalised whatever it holds.
                part(10..20, From::Window),
                part(20..24, private()),
                part(24..40, From::Zeroes),
                part(40..50, From::Window),
                part(50..64, From::Zeroes),
            ]
        );
        assert_eq!(cut(&[], &[]), []);
    }
}
