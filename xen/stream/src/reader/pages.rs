//! A record of pages while its contents are still in the source.
//!
//! The list was read and judged before this is handed out, so the number of bytes that follow is known and is the sum of
//! whole pages. The consumer moves them where they belong; what it leaves, the reader skips.

use std::io::{self, Read};

use super::source::Source;
use crate::error::{Place, Problem, StreamError};
use crate::libxc::{PageEntry, Run, runs};
use crate::limits::PAGE_BYTES;

/// One PAGE_DATA record: its pages, and the way to their contents.
#[derive(Debug)]
pub struct Pages<'a, R> {
    /// Every page, in the order of the record; contents follow in the same order for those that have some.
    pub entries: &'a [PageEntry],
    /// The pages are to be compared with those that are there, not loaded (VERIFY came).
    pub compare: bool,
    pub(super) source: &'a mut Source<R>,
    /// Bytes of contents not yet moved; the reader's own count.
    pub(super) left: &'a mut u64,
    pub(super) place: Place,
    pub(super) failed: &'a mut bool,
}

const CONTENTS: &str = "page contents";

impl<'a, R> Pages<'a, R> {
    /// Bytes of contents that were not moved yet.
    #[must_use]
    pub const fn left(&self) -> u64 {
        *self.left
    }

    /// Contents as few pieces: pages next to each other in the record and in the guest.
    pub fn runs(&self) -> impl Iterator<Item = Run> + use<'a, R> {
        runs(self.entries)
    }

    /// Where the record is, for the consumer's own errors.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Lets `mover` take the next `bytes` of contents out of the source by itself: it is given the source and how many are
    /// left of them, reads as many as it likes to where they belong (a `readv` into mapped guest memory, say), and says
    /// how many that were. It is called again until all are moved.
    ///
    /// # Errors
    /// The source ended or refused, fewer bytes are left, or the mover claims more than it was offered.
    pub fn read_with(
        &mut self,
        bytes: u64,
        mover: impl FnMut(&mut R, u64) -> io::Result<usize>,
    ) -> Result<(), StreamError> {
        self.take(bytes, |source| source.move_with(bytes, CONTENTS, mover))
    }

    fn take(
        &mut self,
        bytes: u64,
        read: impl FnOnce(&mut Source<R>) -> Result<(), Problem>,
    ) -> Result<(), StreamError> {
        let result = if bytes > *self.left {
            Err(Problem::Misuse {
                call: "reading that many page contents",
                state: "with fewer left in the record",
            })
        } else {
            // What the source gave is gone, whether or not the rest comes.
            let before = self.source.offset();
            let result = read(self.source);
            *self.left -= self.source.offset() - before;
            result
        };
        result.map_err(|problem| {
            *self.failed = true;
            self.place.says(problem)
        })
    }
}

impl<R: Read> Pages<'_, R> {
    /// Reads the next contents into private memory: `into` is one or more whole pages, or parts of one.
    ///
    /// # Errors
    /// As [`Pages::read_with`].
    pub fn read(&mut self, into: &mut [u8]) -> Result<(), StreamError> {
        let mut at = 0;
        self.read_with(into.len() as u64, |source, _| {
            let got = source.read(&mut into[at..])?;
            at += got;
            Ok(got)
        })
    }

    /// Passes over the contents of the next `pages` pages that have some.
    ///
    /// # Errors
    /// As [`Pages::read_with`].
    pub fn skip(&mut self, pages: usize) -> Result<(), StreamError> {
        let bytes = (pages as u64).saturating_mul(PAGE_BYTES);
        self.take(bytes, |source| source.skip(bytes, CONTENTS))
    }
}
