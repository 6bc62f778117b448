//! One record's pages at a time, by the cheapest of four ways to them. What is asked of each is the same.
//!
//! | | pages go | where |
//! |---|---|---|
//! | [`super::copied`] | by copies that Xen makes, from a buffer | Xen is patched |
//! | [`super::moved`] | by a process that maps and never unmaps, straight from the guest | into a file, when they are many |
//! | [`super::buffered`] | by such a process, through a buffer | to a connection, when they are many |
//! | [`super::mapped`] | mapped here, straight from the guest | everywhere |

use super::buffered::Buffered;
use super::copied::Copied;
use super::error::SaveError;
use super::limits::WORTH_BUFFER_PAGES;
use super::mapped::Mapped;
use super::moved::Moved;
use super::pages::Sender;
use crate::peer::Outgoing;
use std::io;
use std::ops::Range;
use xen_host::mover::WORTH_PAGES;
use xen_host::seam::Look;

/// A way to a guest's pages.
pub(super) trait Window {
    /// Opens it on at most [`super::limits::RECORD_PAGES`] frames. Answers which of them hold nothing but zeroes, where `look` asks for that; else nothing.
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>, SaveError>;

    /// Writes `head` and then these bytes of what it is open on, once; answers how many bytes went, those of `head` included.
    fn write(
        &mut self,
        out: &mut Outgoing<'_>,
        head: &[u8],
        bytes: Range<usize>,
    ) -> io::Result<usize>;

    /// Nothing of the guest is mapped by it afterwards.
    fn close(self: Box<Self>) -> Result<(), SaveError>;
}

/// The cheapest way for `pages` pages that go to `out`.
pub(super) fn of<'a>(
    sender: Sender<'a>,
    out: &Outgoing<'_>,
    pages: u64,
) -> Result<Box<dyn Window + 'a>, SaveError> {
    if let Some(copied) = Copied::of(sender)? {
        return Ok(Box::new(copied));
    }
    if pages >= WORTH_PAGES
        && let Some(moved) = Moved::of(sender, out)
    {
        return Ok(Box::new(moved));
    }
    if pages >= WORTH_BUFFER_PAGES
        && !out.is_regular()
        && let Some(buffered) = Buffered::of(sender)?
    {
        return Ok(Box::new(buffered));
    }
    Ok(Box::new(Mapped::of(sender)))
}
