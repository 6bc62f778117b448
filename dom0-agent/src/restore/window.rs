//! Contents of some pages at a time, from the stream into the domain, by the cheapest of four ways. What is asked of each is the same.
//!
//! | | contents come | where |
//! |---|---|---|
//! | [`super::copied`] | into a buffer, from where Xen copies them | Xen is patched |
//! | [`super::moved`] | straight into the domain, through a process that maps and never unmaps | from a file, when they are many |
//! | [`super::buffered`] | into a buffer, and from there through such a process | from a connection, when they are many |
//! | [`super::mapped`] | straight into the domain, mapped here | everywhere |

use super::buffered::Buffered;
use super::copied::Copied;
use super::error::RestoreError;
use super::mapped::Mapped;
use super::moved::Moved;
use crate::build::newborn::Newborn;
use crate::peer::Incoming;
use std::fs::File;
use xen_host::mover::WORTH_PAGES;
use xen_stream::reader::Pages;

/// A way to a domain's pages.
pub(super) trait Window: std::fmt::Debug {
    /// Reads the contents of the next pages of a record into these frames, at most [`super::limits::WINDOW_PAGES`].
    fn read(
        &mut self,
        frames: &[u64],
        pages: &mut Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError>;

    /// Fills these frames with zeroes, at most [`super::limits::WINDOW_PAGES`]. Nobody promises that memory which a domain is given is zero.
    fn clear(&mut self, frames: &[u64]) -> Result<(), RestoreError>;

    /// Nothing of the domain is mapped by it afterwards.
    fn close(self: Box<Self>) -> Result<(), RestoreError>;
}

/// The cheapest way for all that a domain's stream holds.
pub(super) fn of<'a>(
    newborn: &'a Newborn<'a>,
    from: &File,
) -> Result<Box<dyn Window + 'a>, RestoreError> {
    let (host, domid) = (newborn.host, newborn.domid);
    if let Some(copied) = Copied::of(host, domid)? {
        return Ok(Box::new(copied));
    }
    let pages = newborn.request.memory_kib * 1024 / crate::build::limits::PAGE;
    if pages < WORTH_PAGES {
        return Ok(Box::new(Mapped { host, domid }));
    }
    if !from.metadata().is_ok_and(|file| file.is_file()) {
        return Ok(Box::new(Buffered::of(host, domid)?));
    }
    match Moved::of(host, domid, from) {
        Some(moved) => Ok(Box::new(moved)),
        None => Ok(Box::new(Mapped { host, domid })),
    }
}
