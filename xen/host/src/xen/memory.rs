//! Guest memory: how much, and what it looks like to the guest (`memory_op`, `mmuext_op`).

use super::Xen;
use crate::error::Error;
use crate::region::SharedRegion;
use crate::seam::{MemoryControl, Result};
use nix::errno::Errno;
use xen_abi::domain::MemoryRange;
use xen_abi::hypercall;
use xen_abi::ids::{DomId, Mfn};
use xen_abi::layout::{UserPtr, copy_out};
use xen_abi::memory::{self, E820_MAX_ENTRIES, ForeignMemoryMap, MemoryMap, Reservation};
use xen_abi::mmu::MmuextOp;
use zerocopy::IntoBytes;

/// Extents populated by one hypercall: a list of 256 KiB.
const MAX_EXTENTS_PER_CALL: usize = 32 * 1024;

impl Xen {
    /// Populates at most [`MAX_EXTENTS_PER_CALL`] extents.
    fn populate_part(&self, domid: DomId, frames: &mut [u64], order: u32) -> Result<usize> {
        let list = self.buffer_of(frames.as_bytes())?;
        let reservation = Reservation {
            extent_start: list.address(),
            nr_extents: frames.len() as u64,
            extent_order: order,
            mem_flags: 0,
            domid: domid.0,
            pad: [0; 6],
        };
        // SAFETY: the list holds as many frames as the structure says and lives through the call.
        let answer =
            unsafe { self.command(hypercall::MEMORY_OP, memory::POPULATE_PHYSMAP, reservation) };
        let (_, done) = answer.map_err(|refusal| refusal.about("populate_physmap", Some(domid)))?;
        let done = usize::try_from(done).unwrap_or(0).min(frames.len());
        let answered = list.to_vec(done * size_of::<u64>());
        for (frame, bytes) in frames
            .iter_mut()
            .zip(answered.chunks_exact(size_of::<u64>()))
        {
            *frame = copy_out(bytes).unwrap_or(*frame);
        }
        Ok(done)
    }
}

impl MemoryControl for Xen {
    fn populate(&self, domid: DomId, frames: &mut [u64], order: u32) -> Result<usize> {
        let mut done = 0;
        for part in frames.chunks_mut(MAX_EXTENTS_PER_CALL) {
            let count = self.populate_part(domid, part, order)?;
            done += count;
            if count < part.len() {
                break;
            }
        }
        Ok(done)
    }

    fn set_memory_map(&self, domid: DomId, map: &[MemoryRange]) -> Result<()> {
        let op = "set_memory_map";
        if map.len() > E820_MAX_ENTRIES {
            return Err(Error::refused_for(op, domid, Errno::E2BIG));
        }
        let buffer = self.buffer_of(&memory::encode_memory_map(map))?;
        let argument = ForeignMemoryMap {
            domid: domid.0,
            pad: [0; 6],
            map: MemoryMap {
                nr_entries: u32::try_from(map.len()).unwrap_or(0),
                pad: 0,
                buffer: buffer.address(),
            },
        };
        // SAFETY: the buffer holds as many entries as the structure says and lives through the call.
        let answer =
            unsafe { self.command(hypercall::MEMORY_OP, memory::SET_MEMORY_MAP, argument) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about(op, Some(domid)))
    }

    fn claim(&self, domid: DomId, pages: u64) -> Result<()> {
        let argument = Reservation {
            extent_start: UserPtr::NULL,
            nr_extents: pages,
            extent_order: 0,
            mem_flags: 0,
            domid: domid.0,
            pad: [0; 6],
        };
        // SAFETY: the structure carries no address.
        let answer = unsafe { self.command(hypercall::MEMORY_OP, memory::CLAIM_PAGES, argument) };
        answer
            .map(drop)
            .map_err(|refusal| refusal.about("claim_pages", Some(domid)))
    }

    fn pin_l4(&self, domid: DomId, mfn: u64) -> Result<()> {
        let refused = |errno| Error::refused_for("pin of a page table", domid, errno);
        let pin = MmuextOp::pin(4, Mfn(mfn)).ok_or_else(|| refused(Errno::EINVAL))?;
        let place = |at| [at, 1, 0, u64::from(domid.0), 0];
        // SAFETY: one operation stands at the address given, and the operation itself names a frame, not an address.
        let (_, result) = unsafe { self.exchange(hypercall::MMUEXT_OP, pin, place) }?;
        result.map(drop).map_err(refused)
    }

    fn map_foreign(&self, domid: DomId, frames: &[u64], writable: bool) -> Result<SharedRegion> {
        self.map_frames(domid, frames, writable)
    }

    fn map_grant_table(&self, domid: DomId, frames: u32) -> Result<SharedRegion> {
        self.map_resource_grant_table(domid, frames)
    }
}
