//! The dirty log of a domain: which pages it wrote since the log was last read.

use super::Xen;
use crate::error::Error;
use crate::seam::{Dirty, Result};
use nix::errno::Errno;
use xen_abi::domctl::{self, LogDirty};
use xen_abi::ids::DomId;
use xen_abi::layout::copy_out;

/// Most pages one log is asked about: 256 GiB, a bitmap of 8 MiB.
const MAX_PAGES: u64 = 1 << 26;
/// Pages of one word of the bitmap.
const WORD_PAGES: u64 = 64;

impl Xen {
    pub(super) fn start_log(&self, domid: DomId) -> Result<()> {
        let call = domctl::log_dirty(self.abi, domid, LogDirty::Enable);
        match self.act("enable of the dirty log", domid, call) {
            // Somebody died with it on. Xen starts a new one only after the old one has ended.
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                self.end_log(domid)?;
                self.act("enable of the dirty log", domid, call).map(drop)
            }
            result => result.map(drop),
        }
    }

    pub(super) fn end_log(&self, domid: DomId) -> Result<()> {
        let call = domctl::log_dirty(self.abi, domid, LogDirty::Disable);
        self.act("end of the dirty log", domid, call).map(drop)
    }

    pub(super) fn read_log(&self, domid: DomId, end: u64, how: Dirty) -> Result<Vec<u64>> {
        let op = "reading the dirty log";
        if end > MAX_PAGES {
            return Err(Error::refused_for(op, domid, Errno::E2BIG));
        }
        let words = usize::try_from(end.div_ceil(WORD_PAGES)).unwrap_or(usize::MAX);
        let buffer = self.buffer(words * size_of::<u64>())?;
        let (bitmap, pages) = (buffer.address(), end);
        let what = match how {
            Dirty::Peek => LogDirty::Peek { bitmap, pages },
            Dirty::Take | Dirty::TakeLast => LogDirty::Clean {
                bitmap,
                pages,
                last: how == Dirty::TakeLast,
            },
        };
        let call = domctl::log_dirty(self.abi, domid, what);
        // SAFETY: the buffer holds a bit for each page that the call names and lives through it.
        let answer = unsafe { self.domctl(call) };
        answer.map_err(|refusal| refusal.about(op, Some(domid)))?;
        let bytes = buffer.to_vec(words * size_of::<u64>());
        let word = |bytes| copy_out(bytes).unwrap_or(u64::MAX);
        Ok(bytes.chunks_exact(size_of::<u64>()).map(word).collect())
    }
}
