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
//! Where the other side has agreed to it ([`xen_stream::accord`]) such a page is named, and it clears it.

use super::error::{SaveError, Step};
use super::image::Offer;
use super::limits::{BATCH_PAGES, LOOKS, RECORD_PAGES, SKIP_PAGES};
use super::p2m::P2m;
use super::rounds::{Bitmap, PageSet};
use super::window::{self, Window};
use crate::build::Hypervisor;
use crate::peer::Outgoing;
use std::io;
use std::ops::Range;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::region::SharedRegion;
use xen_host::seam::Look;
use xen_stream::libxc::{PageEntry, PageKind, Pfn};
use xen_stream::{Accord, Writer};

/// One guest's pages.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) host: &'a dyn Hypervisor,
    pub(super) domid: DomId,
    /// Frames of a PV guest's pages; those of PVH guests are called by page number.
    pub(super) p2m: Option<&'a P2m>,
    /// What whoever reads this was offered.
    pub(super) offer: Option<Offer<'a>>,
    /// Whether the image is still wanted.
    pub(super) waits: &'a dyn Fn() -> bool,
}

/// How many pages went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// All of them.
    pub pages: u64,
    /// Of them, those of zeroes that were only named.
    pub named: u64,
}

/// Names pages that are not to go now.
pub(super) type But<'a> = dyn Fn() -> Result<Bitmap, SaveError> + 'a;

/// A page that is there, and its frame.
type There = (PageEntry, u64);

/// Some pages of a record, one after another, and where their contents come from.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// Their places in the record's list.
    pages: Range<usize>,
    /// The place of the first one's contents among the record's.
    place: usize,
    from: From,
}

impl Part {
    /// The place behind its contents.
    fn end(&self) -> usize {
        self.place + self.pages.len()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    Window,
    Zeroes,
    Private(Vec<u8>),
}

impl Sender<'_> {
    /// Sends every page of `set` that is there.
    pub(super) fn send(
        self,
        writer: &mut Writer<Outgoing<'_>>,
        set: &PageSet,
        but: &But<'_>,
    ) -> Result<Sent, SaveError> {
        let mut window = window::of(self, writer.sink(), set.pages())?;
        let skips = writer.sink().may_skip();
        let mut sent = Sent::default();
        let batches = set.pages().div_ceil(RECORD_PAGES as u64);
        let look_every = usize::try_from(batches / LOOKS)
            .unwrap_or(usize::MAX)
            .max(1);
        let mut later = Bitmap::default();
        for (number, mut batch) in self.batches(writer.sink(), set).enumerate() {
            if !(self.waits)() {
                return Err(SaveError::Unwanted);
            }
            if number.is_multiple_of(look_every) {
                later = but()?;
            }
            batch.retain(|pfn| !later.has(*pfn));
            let there = self.those_there(batch)?;
            for record in there.chunks(RECORD_PAGES) {
                if let Some(offer) = self.offer {
                    writer.agree(offer.what.and((offer.answered)()));
                }
                sent.pages += record.len() as u64;
                sent.named += self.send_record(writer, window.as_mut(), record, skips)?;
            }
        }
        window.close()?;
        Ok(sent)
    }

    /// In order into a file. To another host in turns from everywhere: a line is busy with pages that have contents while those of zeroes are found, which
    /// lie together as a rule.
    fn batches<'s>(
        self,
        out: &Outgoing<'_>,
        set: &'s PageSet,
    ) -> Box<dyn Iterator<Item = Vec<u64>> + 's> {
        if out.is_regular() {
            Box::new(set.batches(BATCH_PAGES))
        } else {
            Box::new(set.scattered(RECORD_PAGES))
        }
    }

    fn send_record(
        self,
        writer: &mut Writer<Outgoing<'_>>,
        window: &mut dyn Window,
        record: &[There],
        skips: bool,
    ) -> Result<u64, SaveError> {
        let (mut entries, frames): (Vec<PageEntry>, Vec<u64>) = record.iter().copied().unzip();
        let names = writer.agreed().has(Accord::ZERO_PAGES);
        let look = if names || skips {
            Look::ForZeroes
        } else {
            Look::Away
        };
        let zeroes = window.open(&frames, look)?;
        let named = if names {
            name(&mut entries, &zeroes)
        } else {
            0
        };
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
        Ok(named)
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
                // Ours, and never Xen's word.
                Some(PageKind::Zero) => return refuse("is of a kind that is not known"),
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

/// Lets pages of zeroes be named only; answers how many.
fn name(entries: &mut [PageEntry], zeroes: &[bool]) -> u64 {
    let mut named = 0;
    for (entry, zero) in entries.iter_mut().zip(zeroes) {
        if *zero && entry.kind == PageKind::Normal {
            entry.kind = PageKind::Zero;
            named += 1;
        }
    }
    named
}

/// Cuts a record into as few parts as its pages allow, without those that have no contents. Private contents are still to be filled in.
fn cut(entries: &[PageEntry], zeroes: &[bool]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let from = match entry.kind {
            _ if !entry.kind.has_contents() => continue,
            PageKind::Table { .. } => From::Private(Vec::new()),
            _ if zeroes.get(index) == Some(&true) => From::Zeroes,
            _ => From::Window,
        };
        join(&mut parts, index..index + 1, from);
    }
    let mut worth = Vec::with_capacity(parts.len());
    for Part { pages, from, .. } in parts {
        let few = from == From::Zeroes && pages.len() < SKIP_PAGES;
        join(&mut worth, pages, if few { From::Window } else { from });
    }
    worth
}

/// Appends pages, to the last part if they come from where that does and stand right behind it.
fn join(parts: &mut Vec<Part>, pages: Range<usize>, from: From) {
    let place = parts.last().map_or(0, Part::end);
    match parts.last_mut() {
        Some(part) if part.from == from && part.pages.end == pages.start => {
            part.pages.end = pages.end;
        }
        _ => parts.push(Part { pages, place, from }),
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
    // Parts are in order, and what has no contents has none.
    let part = parts.get(parts.partition_point(|part| part.end() * PAGE_SIZE <= done));
    let part = part.ok_or_else(|| io::Error::other("more is asked for than the record has"))?;
    let done = done - part.place * PAGE_SIZE;
    let of_window = part.pages.start * PAGE_SIZE + done..part.pages.end * PAGE_SIZE;
    match &part.from {
        From::Window => window.write(out, head, of_window),
        From::Zeroes => out.skip(head, of_window.len()),
        From::Private(bytes) => out.write_both(head, &bytes[done..]),
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
        let part = |pages: Range<usize>, from| Part {
            place: pages.start,
            pages,
            from,
        };
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

    #[test]
    fn pages_that_are_named_take_no_place_among_the_contents() {
        let mut kinds = vec![PageKind::Normal; 12];
        kinds[8] = PageKind::Table {
            level: 2,
            pinned: true,
        };
        let mut entries = entries(&kinds);
        let zeroes: Vec<bool> = (0..12)
            .map(|page| [0, 3, 4, 8, 11].contains(&page))
            .collect();
        assert_eq!(name(&mut entries, &zeroes), 4);
        let part = |pages, place, from| Part { pages, place, from };
        let parts = cut(&entries, &zeroes);
        assert_eq!(
            parts,
            [
                part(1..3, 0, From::Window),
                part(5..8, 2, From::Window),
                part(8..9, 5, From::Private(Vec::new())),
                part(9..11, 6, From::Window),
            ]
        );
        let contents = xen_stream::libxc::pages::contents(&entries);
        assert_eq!(contents, parts.last().map(Part::end).unwrap() as u64);
    }
}
