//! Pages on their way out through a process of their own ([`xen_host::mover`]), which also tells those that hold nothing but zeroes.

use super::error::{SaveError, Step};
use super::pages::Sender;
use super::window::Window;
use crate::peer::Outgoing;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use xen_abi::ids::PAGE_SIZE;
use xen_host::seam::{Access, Look, Mover};

const STEP: &str = "moving the guest's memory";

/// Lets a mover write to the file.
pub(super) struct Moved {
    mover: Box<dyn Mover>,
}

impl Moved {
    /// `None` if this goes to no file, or there is no mover.
    pub(super) fn of(sender: Sender<'_>, out: &Outgoing<'_>) -> Option<Self> {
        if !out.is_regular() {
            return None;
        }
        let mover = sender
            .host
            .mover(sender.domid, Access::Read, out.file().as_fd())?;
        Some(Self { mover })
    }
}

impl Window for Moved {
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>, SaveError> {
        self.mover.open(frames, look).step(STEP)
    }

    fn write(
        &mut self,
        out: &mut Outgoing<'_>,
        head: &[u8],
        bytes: Range<usize>,
    ) -> io::Result<usize> {
        let pages = bytes.start / PAGE_SIZE..bytes.end / PAGE_SIZE;
        let all = head.len() + bytes.len();
        out.written_by(|| self.mover.write(head, pages).map(|()| all))
    }

    fn close(self: Box<Self>) -> Result<(), SaveError> {
        self.mover.end().step(STEP)
    }
}
