//! The dirty log. The simulated guests write to their memory without anybody between, so a page is dirty when it is not what it was: the log is a
//! copy of all that was clean.
//!
//! Like Xen, it has none for PV guests (no shadow paging), and a second start is refused.

use super::Outcome;
use crate::machine::byte_of;
use crate::state::State;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::seam::Dirty;

/// Pages of one word of the bitmap.
const WORD_PAGES: u64 = 64;

/// What each page was when it was last clean.
pub(crate) type DirtyLog = BTreeMap<u64, u64>;

impl State {
    pub(crate) fn log_dirty_on(&mut self, domid: DomId) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.is_pv() {
            return Err(Errno::EOPNOTSUPP);
        }
        if domain.dirty_log.is_some() {
            return Err(Errno::EINVAL);
        }
        let now = self.contents(domid)?;
        self.guest(domid)?.dirty_log = Some(now);
        Ok(())
    }

    pub(crate) fn log_dirty_off(&mut self, domid: DomId) -> Outcome<()> {
        self.guest(domid)?.dirty_log = None;
        Ok(())
    }

    /// Pages that Xen itself writes to have no marks here: the simulated one writes to none.
    pub(crate) fn dirty_pages(&mut self, domid: DomId, end: u64, how: Dirty) -> Outcome<Vec<u64>> {
        let stopped = self.guest(domid)?.shutdown.is_some();
        if how == Dirty::TakeLast && !stopped {
            let what = format!("the last look at the dirty log of domain {domid}, which runs");
            self.violations.push(what);
        }
        let now = self.contents(domid)?;
        let domain = self.guest(domid)?;
        let before = domain.dirty_log.as_mut().ok_or(Errno::EINVAL)?;
        let mut words =
            vec![0; usize::try_from(end.div_ceil(WORD_PAGES)).map_err(|_| Errno::E2BIG)?];
        for (gfn, hash) in now.range(..end) {
            if before.get(gfn) != Some(hash) {
                let word = usize::try_from(gfn / WORD_PAGES).unwrap_or(usize::MAX);
                words[word] |= 1 << (gfn % WORD_PAGES);
            }
        }
        if how != Dirty::Peek {
            *before = now;
        }
        Ok(words)
    }

    /// A hash of each page that the domain has.
    fn contents(&mut self, domid: DomId) -> Outcome<DirtyLog> {
        let memory = std::sync::Arc::clone(&self.memory);
        let mut page = [0; PAGE_SIZE];
        let mut hashes = DirtyLog::new();
        for (first, extent) in &self.guest(domid)?.pages {
            for at in 0..extent.count {
                memory.whole().read(byte_of(extent.mfn + at, 0), &mut page);
                let mut hasher = DefaultHasher::new();
                hasher.write(&page);
                hashes.insert(first + at, hasher.finish());
            }
        }
        Ok(hashes)
    }
}
