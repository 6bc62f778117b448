//! A domain's memory on its way in: populated where a page is seen for the first time, then read into the mapped guest.
//!
//! Pages that follow each other are populated in extents as large as they fit, so that a guest comes back with 2 MiB pages. How
//! much a guest may have is Xen's to enforce (`max_mem`); where, is judged here. Page tables of a PV guest name pages by number in the stream:
//! they are read into private memory first, the pages they name are populated, and the tables get their frames.

use super::copied::Copier;
use super::error::{RestoreError, Step};
use super::limits::{MAP_PAGES, PV_SLACK_PAGES};
use crate::build::limits::{ORDER_2M, PAGE};
use crate::build::newborn::Newborn;
use crate::build::plan_pvh;
use crate::build::populate::{self, Short, extents};
use crate::save::PageSet;
use crate::save::p2m::{localise_table, pages_named};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use xen_abi::domain::DomainKind;
use xen_abi::ids::PAGE_SIZE;
use xen_stream::libxc::{PageEntry, PageKind};
use xen_stream::reader::Pages;

/// The memory of a domain that is being restored.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    newborn: &'a Newborn<'a>,
    possible: PageSet,
    /// The frame to call each page by, or [`u64::MAX`]: its own number for PVH.
    frames: Vec<u64>,
    pv: bool,
    /// PV: level of each page that is a page table, and whether it is pinned.
    tables: BTreeMap<u64, (u8, bool)>,
    /// Where Xen makes copies; found out at the first contents.
    copier: Option<Option<Copier<'a>>>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(newborn: &'a Newborn<'a>) -> Self {
        let request = newborn.request;
        let pv = request.kind == DomainKind::Pv;
        let possible = if pv {
            let most = request.max_memory_kib * 1024 / PAGE;
            PageSet::of(std::iter::once(0..most + PV_SLACK_PAGES))
        } else {
            PageSet::of(plan_pvh::possible_pages(request.max_memory_kib))
        };
        Self {
            newborn,
            possible,
            frames: Vec::new(),
            pv,
            tables: BTreeMap::new(),
            copier: None,
        }
    }

    /// The frame of a page that is there.
    pub(super) fn frame(&self, pfn: u64) -> Option<u64> {
        let frame = self.frames.get(usize::try_from(pfn).ok()?).copied();
        frame.filter(|frame| *frame != u64::MAX)
    }

    /// Page tables that the guest had pinned: level and frame.
    pub(super) fn pinned(&self) -> Vec<(u8, u64)> {
        let pinned = self.tables.iter().filter(|(_, (_, pinned))| *pinned);
        pinned
            .filter_map(|(pfn, (level, _))| Some((*level, self.frame(*pfn)?)))
            .collect()
    }

    /// Takes one record of pages.
    pub(super) fn load(&mut self, mut pages: Pages<'_, File>) -> Result<(), RestoreError> {
        let entries = pages.entries;
        entries.iter().try_for_each(|entry| self.judge(*entry))?;
        if pages.compare {
            // `xl migrate --debug`; the contents are there already, and the reader passes over these.
            return Ok(());
        }
        for entry in entries {
            // The last word about a page counts.
            match entry.kind {
                PageKind::Table { level, pinned } => {
                    self.tables.insert(entry.pfn.0, (level, pinned));
                }
                _ => drop(self.tables.remove(&entry.pfn.0)),
            }
        }
        let wanted = entries.iter().filter(|entry| is_wanted(entry.kind));
        self.populate(wanted.map(|entry| entry.pfn.0).collect())?;
        let loaded: Vec<PageEntry> = entries
            .iter()
            .filter(|entry| entry.kind.has_contents())
            .copied()
            .collect();
        if self.copier.is_none() && !loaded.is_empty() {
            self.copier = Some(Copier::of(self.newborn.host, self.newborn.domid)?);
        }
        for part in loaded.chunks(MAP_PAGES) {
            let plain = part.iter().all(|entry| entry.kind == PageKind::Normal);
            if plain {
                self.read(part, &mut pages)?;
            } else {
                self.read_tables(part, &mut pages)?;
            }
        }
        Ok(())
    }

    fn judge(&self, entry: PageEntry) -> Result<(), RestoreError> {
        let pfn = entry.pfn.0;
        let why = match entry.kind {
            PageKind::Invalid => return Ok(()),
            PageKind::Broken => "has a memory error",
            PageKind::Table { .. } if !self.pv => "is a page table, as only PV guests have",
            _ if self.possible.contains(pfn) => return Ok(()),
            _ => "is beyond the memory that the guest may have",
        };
        Err(RestoreError::Page { pfn, why })
    }

    /// Gives memory to those of the pages that have none. All have been judged.
    fn populate(&mut self, mut pfns: Vec<u64>) -> Result<(), RestoreError> {
        pfns.retain(|pfn| self.frame(*pfn).is_none());
        pfns.sort_unstable();
        pfns.dedup();
        let Some(last) = pfns.last() else {
            return Ok(());
        };
        let end = usize::try_from(last + 1).unwrap_or(usize::MAX);
        if self.frames.len() < end {
            self.frames.resize(end, u64::MAX);
        }
        let wanted: Vec<_> = pfns
            .chunk_by(|before, next| before + 1 == *next)
            .filter_map(|run| Some(*run.first()?..run.last()? + 1))
            .flat_map(|run| extents(run.start, run.end, ORDER_2M))
            .collect();
        let (host, domid) = (self.newborn.host, self.newborn.domid);
        let frames = &mut self.frames;
        let got = |pfn: u64, first: u64, pages: u64| {
            let start = usize::try_from(pfn).unwrap_or(usize::MAX);
            for (slot, frame) in frames.iter_mut().skip(start).zip(first..first + pages) {
                *slot = frame;
            }
        };
        match populate::populate(host, domid, &wanted, got) {
            Ok(()) => Ok(()),
            Err(Short::Refused(error)) => Err(error.into()),
            Err(Short::Memory) => Err(self.newborn.out_of_memory().into()),
        }
    }

    /// Populated just before; Xen refuses a frame that is none.
    fn frames_of(&self, entries: &[PageEntry]) -> Vec<u64> {
        let frame = |entry: &PageEntry| self.frame(entry.pfn.0).unwrap_or(u64::MAX);
        entries.iter().map(frame).collect()
    }

    fn copier(&self) -> Option<&Copier<'a>> {
        self.copier.as_ref()?.as_ref()
    }

    fn map(&self, entries: &[PageEntry]) -> Result<xen_host::region::SharedRegion, RestoreError> {
        let frames = self.frames_of(entries);
        self.newborn
            .host
            .map_foreign(self.newborn.domid, &frames, true)
            .step("mapping the guest's memory")
    }

    /// Reads the contents of the next pages of a record to where they belong.
    fn read(&self, entries: &[PageEntry], pages: &mut Pages<'_, File>) -> Result<(), RestoreError> {
        if let Some(copier) = self.copier() {
            return copier.read(&self.frames_of(entries), pages);
        }
        let region = self.map(entries)?;
        let bytes = entries.len() * PAGE_SIZE;
        let mut done = 0;
        pages.read_with(bytes as u64, |file, _| {
            let got = region.read_in(file.as_fd(), done, bytes - done)?;
            done += got;
            Ok(got)
        })?;
        Ok(())
    }

    /// As [`Memory::read`], with page tables among the pages.
    fn read_tables(
        &mut self,
        entries: &[PageEntry],
        pages: &mut Pages<'_, File>,
    ) -> Result<(), RestoreError> {
        let mut bytes = vec![0; entries.len() * PAGE_SIZE];
        pages.read(&mut bytes)?;
        let level = |entry: &PageEntry| match entry.kind {
            PageKind::Table { level, .. } => Some(level),
            _ => None,
        };
        let mut named = Vec::new();
        for (entry, page) in entries.iter().zip(bytes.chunks_exact(PAGE_SIZE)) {
            let Some(level) = level(entry) else { continue };
            for pfn in pages_named(level, page) {
                if !self.possible.contains(pfn) {
                    let why = "a page table names, and which is beyond the memory that the guest may have";
                    return Err(RestoreError::Page { pfn, why });
                }
                named.push(pfn);
            }
        }
        self.populate(named)?;
        for (entry, page) in entries.iter().zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
            let Some(level) = level(entry) else { continue };
            localise_table(level, page, |pfn| self.frame(pfn)).map_err(|pfn| {
                let why = "a page table names, and which is nowhere";
                RestoreError::Page { pfn, why }
            })?;
        }
        if let Some(copier) = self.copier() {
            return copier.write(&self.frames_of(entries), &bytes);
        }
        self.map(entries)?.write(0, &bytes);
        Ok(())
    }
}

/// Whether memory belongs to such a page.
fn is_wanted(kind: PageKind) -> bool {
    kind.has_contents() || kind == PageKind::Allocate
}
