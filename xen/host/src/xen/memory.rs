//! Guest memory: how much, and what it looks like to the guest (`memory_op`, `mmuext_op`).

use super::Xen;
use crate::error::Error;
use crate::mover::Process;
use crate::region::SharedRegion;
use crate::seam::{Access, MemoryControl, Mover, Result};
use nix::errno::Errno;
use std::os::fd::BorrowedFd;
use xen_abi::domain::MemoryRange;
use xen_abi::domctl::{self, PAGE_TYPES_PER_CALL};
use xen_abi::hypercall;
use xen_abi::ids::{DomId, Mfn};
use xen_abi::layout::{UserPtr, copy_out};
use xen_abi::memory::{self, E820_MAX_ENTRIES, ForeignMemoryMap, MemoryMap, Reservation};
use xen_abi::mmu::MmuextOp;
use zerocopy::IntoBytes;

/// Extents populated by one hypercall: a list of 256 KiB.
const MAX_EXTENTS_PER_CALL: usize = 32 * 1024;
/// Page tables pinned by one hypercall, as stock does.
const MAX_PINS_PER_CALL: usize = 1024;

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

impl Xen {
    /// Asks the types of at most [`PAGE_TYPES_PER_CALL`] frames.
    fn types_of_part(&self, domid: DomId, frames: &[u64], types: &mut Vec<u32>) -> Result<()> {
        let list = self.buffer_of(frames.as_bytes())?;
        let count = frames.len() as u64;
        let call = domctl::get_page_frame_info(self.abi, domid, list.address(), count);
        // SAFETY: the list holds as many frames as the call says and lives through it.
        let answer = unsafe { self.domctl(call) };
        answer.map_err(|refusal| refusal.about("getpageframeinfo3", Some(domid)))?;
        let answered = list.to_vec(size_of_val(frames));
        // Xen writes words of 64 bits, of which the type is in the low half.
        types.extend(answered.as_chunks::<8>().0.iter().map(|word| {
            let [a, b, c, d, ..] = *word;
            u32::from_le_bytes([a, b, c, d])
        }));
        Ok(())
    }

    /// Pins at most [`MAX_PINS_PER_CALL`] page tables.
    fn pin_part(&self, domid: DomId, tables: &[(u8, u64)]) -> Result<()> {
        let refused = |errno| Error::refused_for("pin of a page table", domid, errno);
        let pins = tables
            .iter()
            .map(|(level, mfn)| MmuextOp::pin(*level, Mfn(*mfn)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| refused(Errno::EINVAL))?;
        let list = self.buffer_of(pins.as_bytes())?;
        let arguments = [
            list.address().0,
            pins.len() as u64,
            0,
            u64::from(domid.0),
            0,
        ];
        // SAFETY: the list holds as many operations as the call says and lives through it; they name frames, not addresses.
        let result = unsafe { self.privcmd.hypercall(hypercall::MMUEXT_OP, arguments) };
        result.map(drop).map_err(refused)
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

    fn page_types(&self, domid: DomId, frames: &[u64]) -> Result<Vec<u32>> {
        let mut types = Vec::with_capacity(frames.len());
        for part in frames.chunks(PAGE_TYPES_PER_CALL) {
            self.types_of_part(domid, part, &mut types)?;
        }
        Ok(types)
    }

    fn pin_tables(&self, domid: DomId, tables: &[(u8, u64)]) -> Result<()> {
        for part in tables.chunks(MAX_PINS_PER_CALL) {
            self.pin_part(domid, part)?;
        }
        Ok(())
    }

    fn pin_l4(&self, domid: DomId, mfn: u64) -> Result<()> {
        self.pin_part(domid, &[(4, mfn)])
    }

    fn mover(&self, domid: DomId, access: Access, file: BorrowedFd<'_>) -> Option<Box<dyn Mover>> {
        let program = self.mover.as_deref()?;
        match Process::start(program, domid, access, file) {
            Ok(process) => Some(Box::new(process)),
            Err(error) => {
                tracing::warn!(%domid, %error, "no mover of pages; they are mapped here");
                None
            }
        }
    }

    fn map_foreign(&self, domid: DomId, frames: &[u64], writable: bool) -> Result<SharedRegion> {
        self.map_frames(domid, frames, writable)
    }

    fn map_grant_table(&self, domid: DomId, frames: u32) -> Result<SharedRegion> {
        self.map_resource_grant_table(domid, frames)
    }
}
