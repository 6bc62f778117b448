//! Contents on their way in through a process of their own ([`xen_host::mover`]).

use super::error::{RestoreError, Step};
use super::window::Window;
use crate::build::Hypervisor;
use crate::peer::Incoming;
use std::fs::File;
use std::os::fd::AsFd;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_host::seam::{Access, Look, Mover};
use xen_stream::reader::Pages;

const STEP: &str = "moving memory into the guest";

/// Lets a mover read from the file.
#[derive(Debug)]
pub(super) struct Moved {
    mover: Box<dyn Mover>,
}

impl Moved {
    /// `None` if there is no mover.
    pub(super) fn of(host: &dyn Hypervisor, domid: DomId, from: &File) -> Option<Self> {
        let mover = host.mover(domid, Access::Write, from.as_fd())?;
        Some(Self { mover })
    }
}

impl Window for Moved {
    fn read(
        &mut self,
        frames: &[u64],
        pages: &mut Pages<'_, Incoming<'_>>,
    ) -> Result<(), RestoreError> {
        self.mover.open(frames, Look::Away).step(STEP)?;
        let bytes = frames.len() * PAGE_SIZE;
        let mut ended = false;
        pages.read_with(bytes as u64, |_, _| {
            // Fewer came than were wanted, so nothing is left.
            if std::mem::replace(&mut ended, true) {
                return Ok(0);
            }
            self.mover.read(0..frames.len(), None)
        })?;
        Ok(())
    }

    fn clear(&mut self, frames: &[u64]) -> Result<(), RestoreError> {
        self.mover.open(frames, Look::Away).step(STEP)?;
        self.mover.clear(0..frames.len()).step(STEP)
    }

    fn close(self: Box<Self>) -> Result<(), RestoreError> {
        self.mover.end().step(STEP)
    }
}
