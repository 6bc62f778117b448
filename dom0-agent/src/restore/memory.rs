//! A domain's memory on its way in: populated where a page is seen for the first time, then filled from the stream (`window.rs`).
//!
//! Pages that follow each other are populated in extents as large as they fit, so that a guest comes back with 2 MiB pages. How
//! much a guest may have is Xen's to enforce (`max_mem`); where, is judged here. Page tables of a PV guest name pages by number in the stream:
//! when they are in the domain, the pages they name are populated, and the tables get their frames.

use super::compare::Compared;
use super::error::{RestoreError, Step};
use super::limits::{PV_SLACK_PAGES, WINDOW_PAGES};
use super::window::{self, Window};
use crate::build::limits::{ORDER_2M, PAGE};
use crate::build::newborn::Newborn;
use crate::build::plan_pvh;
use crate::build::populate::{self, Short, extents};
use crate::peer::Incoming;
use crate::save::PageSet;
use crate::save::p2m::{localise_table, pages_named};
use std::collections::BTreeMap;
use std::fs::File;
use xen_abi::domain::DomainKind;
use xen_abi::ids::PAGE_SIZE;
use xen_stream::libxc::{PageEntry, PageKind};
use xen_stream::reader::Pages;

/// The memory of a domain that is being restored.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    pub(super) newborn: &'a Newborn<'a>,
    /// Of memory that came twice.
    pub(super) compared: Option<Compared>,
    possible: PageSet,
    /// The frame to call each page by, or [`u64::MAX`]: its own number for PVH.
    frames: Vec<u64>,
    pv: bool,
    /// PV: level of each page that is a page table, and whether it is pinned.
    tables: BTreeMap<u64, (u8, bool)>,
    window: Box<dyn Window + 'a>,
}

impl<'a> Memory<'a> {
    /// Of a new domain, whose stream comes from this file or connection.
    pub(super) fn new(newborn: &'a Newborn<'a>, from: &File) -> Result<Self, RestoreError> {
        let request = newborn.request;
        let pv = request.kind == DomainKind::Pv;
        let possible = if pv {
            let most = request.max_memory_kib * 1024 / PAGE;
            PageSet::of(std::iter::once(0..most + PV_SLACK_PAGES))
        } else {
            PageSet::of(plan_pvh::possible_pages(request.max_memory_kib))
        };
        Ok(Self {
            newborn,
            compared: None,
            possible,
            frames: Vec::new(),
            pv,
            tables: BTreeMap::new(),
            window: window::of(newborn, from)?,
        })
    }

    /// All of it came; nothing of the domain is mapped any more.
    pub(super) fn close(self) -> Result<Filled, RestoreError> {
        self.window.close()?;
        Ok(Filled {
            frames: self.frames,
            tables: self.tables,
            compared: self.compared,
        })
    }

    pub(super) fn frame(&self, pfn: u64) -> Option<u64> {
        frame_of(&self.frames, pfn)
    }

    /// Takes one record of pages.
    pub(super) fn load(&mut self, mut pages: Pages<'_, Incoming<'_>>) -> Result<(), RestoreError> {
        let entries = pages.entries;
        entries.iter().try_for_each(|entry| self.judge(*entry))?;
        if pages.compare {
            return self.compare(pages);
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
        for part in loaded.chunks(WINDOW_PAGES) {
            let frames = self.frames_of(part);
            self.window.read(&frames, &mut pages)?;
        }
        let zeroes = entries.iter().filter(|entry| entry.kind == PageKind::Zero);
        let zeroes: Vec<PageEntry> = zeroes.copied().collect();
        for part in zeroes.chunks(WINDOW_PAGES) {
            let frames = self.frames_of(part);
            self.window.clear(&frames)?;
        }
        self.localise(&loaded)
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

    /// Page tables that have just come name pages by number: those get memory, and the tables their frames.
    fn localise(&mut self, entries: &[PageEntry]) -> Result<(), RestoreError> {
        let level = |entry: &PageEntry| match entry.kind {
            PageKind::Table { level, .. } => Some(level),
            _ => None,
        };
        let (tables, levels): (Vec<PageEntry>, Vec<u8>) = entries
            .iter()
            .filter_map(|entry| Some((*entry, level(entry)?)))
            .unzip();
        if tables.is_empty() {
            return Ok(());
        }
        let (host, domid) = (self.newborn.host, self.newborn.domid);
        let region = host
            .map_foreign(domid, &self.frames_of(&tables), true)
            .step("mapping the guest's page tables")?;
        let mut bytes = region.read_vec(0, region.len());
        let mut named = Vec::new();
        for (level, page) in levels.iter().zip(bytes.chunks_exact(PAGE_SIZE)) {
            for pfn in pages_named(*level, page) {
                if !self.possible.contains(pfn) {
                    let why = "a page table names, and which is beyond the memory that the guest may have";
                    return Err(RestoreError::Page { pfn, why });
                }
                named.push(pfn);
            }
        }
        self.populate(named)?;
        for (level, page) in levels.iter().zip(bytes.chunks_exact_mut(PAGE_SIZE)) {
            localise_table(*level, page, |pfn| self.frame(pfn)).map_err(|pfn| {
                let why = "a page table names, and which is nowhere";
                RestoreError::Page { pfn, why }
            })?;
        }
        region.write(0, &bytes);
        Ok(())
    }
}

/// Memory that is there, all of it.
#[derive(Debug)]
pub(super) struct Filled {
    frames: Vec<u64>,
    tables: BTreeMap<u64, (u8, bool)>,
    pub(super) compared: Option<Compared>,
}

impl Filled {
    /// The frame of a page that is there.
    pub(super) fn frame(&self, pfn: u64) -> Option<u64> {
        frame_of(&self.frames, pfn)
    }

    /// Page tables that the guest had pinned: level and frame.
    pub(super) fn pinned(&self) -> Vec<(u8, u64)> {
        let pinned = self.tables.iter().filter(|(_, (_, pinned))| *pinned);
        pinned
            .filter_map(|(pfn, (level, _))| Some((*level, self.frame(*pfn)?)))
            .collect()
    }
}

fn frame_of(frames: &[u64], pfn: u64) -> Option<u64> {
    let frame = frames.get(usize::try_from(pfn).ok()?).copied();
    frame.filter(|frame| *frame != u64::MAX)
}

/// Whether memory belongs to such a page.
fn is_wanted(kind: PageKind) -> bool {
    kind.has_contents() || matches!(kind, PageKind::Allocate | PageKind::Zero)
}
