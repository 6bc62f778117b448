//! The calls of a patched hypervisor ([`Extras`]).

use super::{Refusal, Xen};
use crate::error::Error;
use crate::extras::{Copied, Extras, Found, Offer};
use crate::region::SharedRegion;
use crate::seam::Result;
use nix::errno::Errno;
use xen_abi::extras::{self, ForeignCopy};
use xen_abi::hypercall;
use xen_abi::ids::{DomId, PAGE_SIZE, Port};
use xen_abi::layout::UserPtr;
use zerocopy::IntoBytes;

/// Pages copied by one hypercall; Xen looks up in between, this only bounds the lists.
const PAGES_PER_CALL: usize = 1024;
/// Times a page that is paged out is asked for again, each time with a call of its own.
const PAGED_OUT_ATTEMPTS: usize = 1000;

/// Which of them are there.
#[derive(Debug, Default)]
pub(super) struct Known {
    copy: Found,
    notify: Found,
    /// Not to be used, there or not.
    refused: bool,
}

impl Xen {
    /// The same without what only a patched hypervisor offers, for whoever wants to compare or to rule it out.
    #[must_use]
    pub fn without_extras(mut self) -> Self {
        self.extras.refused = true;
        self
    }

    /// Copies at most [`PAGES_PER_CALL`] pages, from or to page `first` of the buffer.
    fn copy_part(
        &self,
        domid: DomId,
        frames: &[u64],
        buffer: &SharedRegion,
        first: usize,
        flags: u16,
    ) -> Result<Vec<i32>> {
        let op = "foreign_copy";
        let refused = |errno| Error::refused_for(op, domid, errno);
        let count = u32::try_from(frames.len()).map_err(|_| refused(Errno::E2BIG))?;
        if (first + frames.len()) * PAGE_SIZE > buffer.len() {
            return Err(refused(Errno::ENOBUFS));
        }
        let list = self.buffer_of(frames.as_bytes())?;
        let status = self.buffer(frames.len() * size_of::<i32>())?;
        let argument = ForeignCopy {
            domid: domid.0,
            flags,
            nr_pages: count,
            done: 0,
            pad: 0,
            frames: list.address(),
            buffer: UserPtr((buffer.as_ptr().addr() + first * PAGE_SIZE) as u64),
            status: status.address(),
        };
        // SAFETY: the lists hold as many entries as the structure says, the region has room for as many pages (checked above), nobody has a reference
        // into a region, and all of them live through the call.
        let answer = unsafe { self.command(hypercall::MEMORY_OP, extras::FOREIGN_COPY, argument) };
        answer.map_err(|refusal: Refusal<ForeignCopy>| refusal.about(op, Some(domid)))?;
        let words = status.to_vec(size_of_val(frames) / 2);
        Ok(words
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| i32::from_le_bytes(*word))
            .collect())
    }

    /// As [`Xen::copy_part`] for one page, again while it is paged out.
    fn copy_paged_out(
        &self,
        domid: DomId,
        frame: u64,
        buffer: &SharedRegion,
        at: usize,
        flags: u16,
    ) -> Result<Copied> {
        for _ in 0..PAGED_OUT_ATTEMPTS {
            std::thread::yield_now();
            let status = self.copy_part(domid, &[frame], buffer, at, flags)?;
            match status.first().map(|status| told(*status)) {
                Some(Copied::Refused(Errno::ENOENT)) => {}
                Some(answer) => return Ok(answer),
                None => break,
            }
        }
        Ok(Copied::Refused(Errno::ENOENT))
    }

    fn copy_pages(
        &self,
        domid: DomId,
        frames: &[u64],
        buffer: &SharedRegion,
        flags: u16,
    ) -> Result<Vec<Copied>> {
        let mut answers = Vec::with_capacity(frames.len());
        for part in frames.chunks(PAGES_PER_CALL) {
            let first = answers.len();
            let status = self.copy_part(domid, part, buffer, first, flags)?;
            for (index, (frame, status)) in part.iter().zip(status).enumerate() {
                answers.push(match told(status) {
                    Copied::Refused(Errno::ENOENT) => {
                        self.copy_paged_out(domid, *frame, buffer, first + index, flags)?
                    }
                    answer => answer,
                });
            }
        }
        Ok(answers)
    }
}

/// A status word.
fn told(status: i32) -> Copied {
    match status {
        extras::FOREIGN_COPY_COPIED => Copied::Copied,
        extras::FOREIGN_COPY_ZERO => Copied::Zero,
        negative => Copied::Refused(Errno::from_raw(negative.wrapping_neg())),
    }
}

impl Extras for Xen {
    fn offers_copies(&self, domid: DomId) -> Result<bool> {
        if self.extras.refused {
            return Ok(false);
        }
        let call = || {
            let nothing = self.copy_buffer(1)?;
            self.copy_part(domid, &[], &nothing, 0, 0)
        };
        Ok(matches!(self.extras.copy.try_it(call)?, Offer::Done(_)))
    }

    fn copy_buffer(&self, pages: usize) -> Result<SharedRegion> {
        self.pool.region(pages)
    }

    fn copy_out(
        &self,
        domid: DomId,
        frames: &[u64],
        into: &SharedRegion,
    ) -> Result<Offer<Vec<Copied>>> {
        if self.extras.refused {
            return Ok(Offer::NotThere);
        }
        let flags = extras::FOREIGN_COPY_FIND_ZERO;
        let call = || self.copy_pages(domid, frames, into, flags);
        self.extras.copy.try_it(call)
    }

    fn copy_in(&self, domid: DomId, frames: &[u64], from: &SharedRegion) -> Result<Offer<()>> {
        if self.extras.refused {
            return Ok(Offer::NotThere);
        }
        let call = || {
            let flags = extras::FOREIGN_COPY_TO_DOMAIN;
            let answers = self.copy_pages(domid, frames, from, flags)?;
            let refusal = answers.into_iter().find_map(|answer| match answer {
                Copied::Refused(errno) => Some(errno),
                Copied::Copied | Copied::Zero => None,
            });
            refusal.map_or(Ok(()), |errno| {
                Err(Error::refused_for("foreign_copy", domid, errno))
            })
        };
        self.extras.copy.try_it(call)
    }

    fn notify_shutdown(&self, domid: DomId, port: Port) -> Result<Offer<()>> {
        if self.extras.refused {
            return Ok(Offer::NotThere);
        }
        self.extras.notify.try_it(|| {
            let call = extras::notify_shutdown(self.abi, domid, port, false);
            self.act("notify_shutdown", domid, call).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_told_for_what_it_is() {
        assert_eq!(told(0), Copied::Copied);
        assert_eq!(told(1), Copied::Zero);
        assert_eq!(told(-16), Copied::Refused(Errno::EBUSY));
        for strange in [2, i32::MAX, i32::MIN, -1_000_000] {
            assert!(matches!(told(strange), Copied::Refused(_)), "{strange}");
        }
    }
}
