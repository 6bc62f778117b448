//! Pages on their way out by copies that Xen makes, where it is patched (`xen-patches/0001-foreign-copy.patch`): nothing is mapped, and pages of
//! zeroes are found on the way.

use super::error::{SaveError, Step};
use super::limits::RECORD_PAGES;
use super::pages::Sender;
use super::window::Window;
use crate::peer::Outgoing;
use nix::errno::Errno;
use std::io;
use std::ops::Range;
use xen_abi::ids::PAGE_SIZE;
use xen_host::error::Error;
use xen_host::region::SharedRegion;
use xen_host::seam::{self, Look, Offer};

const STEP: &str = "copying the guest's memory";

/// Copies a guest's pages by way of one buffer.
pub(super) struct Copied<'a> {
    sender: Sender<'a>,
    buffer: SharedRegion,
}

impl<'a> Copied<'a> {
    /// `None` where Xen makes no copies.
    pub(super) fn of(sender: Sender<'a>) -> Result<Option<Self>, SaveError> {
        if !sender.host.offers_copies(sender.domid).step(STEP)? {
            return Ok(None);
        }
        let buffer = sender.host.copy_buffer(RECORD_PAGES).step(STEP)?;
        Ok(Some(Self { sender, buffer }))
    }

    fn refused(&self, errno: Errno) -> SaveError {
        SaveError::Xen {
            step: STEP,
            source: Error::refused_for("foreign_copy", self.sender.domid, errno),
        }
    }
}

impl Window for Copied<'_> {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>, SaveError> {
        let answer = self
            .sender
            .host
            .copy_out(self.sender.domid, frames, &self.buffer);
        let Offer::Done(told) = answer.step(STEP)? else {
            return Err(self.refused(Errno::ENOSYS));
        };
        let mut zeroes = Vec::with_capacity(told.len());
        for (index, told) in told.into_iter().enumerate() {
            zeroes.push(match told {
                seam::Copied::Copied => false,
                seam::Copied::Zero => {
                    // Xen leaves its place as it was.
                    self.buffer.fill(index * PAGE_SIZE, PAGE_SIZE, 0);
                    look == Look::ForZeroes
                }
                seam::Copied::Refused(errno) => return Err(self.refused(errno)),
            });
        }
        Ok(zeroes)
    }

    fn write(
        &mut self,
        out: &mut Outgoing<'_>,
        head: &[u8],
        bytes: Range<usize>,
    ) -> io::Result<usize> {
        out.write_region(head, &self.buffer, bytes.start, bytes.len())
    }

    fn close(self: Box<Self>) -> Result<(), SaveError> {
        Ok(())
    }
}
