//! Memory that comes a second time (`xl migrate --debug`): compared with what is in the domain by then.
//!
//! The guest has stood still since before the first time, so a page that differs was damaged on its way, here or there. As with stock that is told and
//! the move goes on: whoever looks for such damage wants to see all of it.

use super::error::{RestoreError, Step};
use super::memory::Memory;
use crate::peer::Incoming;
use xen_abi::ids::PAGE_SIZE;
use xen_host::region::SharedRegion;
use xen_stream::libxc::{PageEntry, PageKind};
use xen_stream::reader::Pages;

/// Pages that differ and are named in the log; the others are counted.
const NAMED: u64 = 16;
/// Pages compared at once.
const PART: usize = super::limits::BUFFER_PAGES;

/// How a comparison went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compared {
    /// Pages that came again and could be compared: of PV guests not the page tables, which have other frames here.
    pub pages: u64,
    /// Those that are not what they were.
    pub different: u64,
}

impl Compared {
    fn note(&mut self, entry: PageEntry, same: bool) {
        self.pages += 1;
        if same {
            return;
        }
        self.different += 1;
        if self.different <= NAMED {
            let pfn = entry.pfn.0;
            tracing::error!(pfn, "a page that came twice differs");
        }
    }
}

impl Memory<'_> {
    /// Compares one record of pages, which were judged.
    pub(super) fn compare(
        &mut self,
        mut pages: Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError> {
        let mut compared = self.compared.unwrap_or_default();
        let entries: Vec<PageEntry> = pages.entries.to_vec();
        let (zeroes, others): (Vec<PageEntry>, Vec<PageEntry>) = entries
            .into_iter()
            .filter(|entry| entry.kind.has_contents() || entry.kind == PageKind::Zero)
            .partition(|entry| entry.kind == PageKind::Zero);
        let mut contents = vec![0; PART * PAGE_SIZE];
        for part in others.chunks(PART) {
            let contents = &mut contents[..part.len() * PAGE_SIZE];
            pages.read(contents)?;
            let came = contents.chunks_exact(PAGE_SIZE);
            for (entry, came) in part.iter().zip(came) {
                if entry.kind == PageKind::Normal {
                    let there = self.page(*entry)?;
                    let same = there.is_some_and(|page| page.read_vec(0, PAGE_SIZE) == came);
                    compared.note(*entry, same);
                }
            }
        }
        for entry in zeroes {
            let there = self.page(entry)?;
            let same = there.is_some_and(|page| page.is_zero(0, PAGE_SIZE));
            compared.note(entry, same);
        }
        self.compared = Some(compared);
        Ok(())
    }

    /// A page as it is; `None` if it never came.
    fn page(&self, entry: PageEntry) -> Result<Option<SharedRegion>, RestoreError> {
        let Some(frame) = self.frame(entry.pfn.0) else {
            return Ok(None);
        };
        let page = self
            .newborn
            .host
            .map_foreign(self.newborn.domid, &[frame], false);
        page.step("mapping the guest's memory").map(Some)
    }
}
