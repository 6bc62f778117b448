//! Gives a guest its memory: in the largest extents the host has, many by one hypercall.
//!
//! An extent the host cannot give in one piece is asked for again in smaller ones; single pages that do not come are the
//! end of the host's memory.

use super::error::{BuildError, Step};
use super::limits::{ORDER_1G, ORDER_2M, POPULATE_BATCH};
use xen_abi::ids::DomId;
use xen_host::seam::MemoryControl;

/// Extents of one size, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    /// First frame.
    pub gfn: u64,
    /// log2 of the pages in each.
    pub order: u32,
    /// How many.
    pub count: u64,
}

impl Extents {
    /// Pages in all of them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.count << self.order
    }
}

/// Splits `[from, to)` into the largest aligned extents up to `largest`: 1 GiB, 2 MiB and single pages.
#[must_use]
pub fn extents(from: u64, to: u64, largest: u32) -> Vec<Extents> {
    let mut found = Vec::new();
    let mut at = from;
    // Sizes grow towards the middle and shrink behind it: at most five passes.
    while at < to {
        let mut stop = to;
        let mut order = 0;
        for size in [ORDER_2M, ORDER_1G]
            .into_iter()
            .filter(|size| *size <= largest)
        {
            let aligned = at.next_multiple_of(1 << size);
            if aligned + (1 << size) > to {
                break;
            }
            if aligned > at {
                stop = aligned;
                break;
            }
            order = size;
        }
        let count = (stop - at) >> order;
        found.push(Extents {
            gfn: at,
            order,
            count,
        });
        at += count << order;
    }
    found
}

/// Populates all of `extents`, and tells `got` of each extent: first frame asked, first frame given, pages.
///
/// # Errors
/// Xen refused, or the host's memory ended.
pub(crate) fn populate(
    memory: &dyn MemoryControl,
    domid: DomId,
    extents: &[Extents],
    mut got: impl FnMut(u64, u64, u64),
) -> Result<(), Short> {
    // Last first. Each pass takes extents off it, or splits what is left of one into smaller ones.
    let mut left: Vec<Extents> = extents.iter().rev().copied().collect();
    while let Some(wanted) = left.pop() {
        let batch = wanted.count.min(POPULATE_BATCH as u64);
        let at = |index: u64| wanted.gfn + (index << wanted.order);
        let mut frames: Vec<u64> = (0..batch).map(at).collect();
        let done = memory
            .populate(domid, &mut frames, wanted.order)
            .step("allocating the guest's memory")
            .map_err(Short::Refused)?;
        for (index, given) in (0..batch).zip(&frames).take(done) {
            got(at(index), *given, 1 << wanted.order);
        }
        let done = done as u64;
        let rest = Extents {
            gfn: at(done),
            count: wanted.count.saturating_sub(done),
            ..wanted
        };
        if done >= batch {
            left.extend((rest.count > 0).then_some(rest));
        } else if wanted.order == 0 {
            return Err(Short::Memory);
        } else {
            // The host is short of large pieces: the rest of these in the next smaller size.
            let smaller = if wanted.order > ORDER_2M { ORDER_2M } else { 0 };
            left.extend(
                self::extents(rest.gfn, rest.gfn + rest.pages(), smaller)
                    .into_iter()
                    .rev(),
            );
        }
    }
    Ok(())
}

/// Why not all memory came.
#[derive(Debug)]
pub(crate) enum Short {
    /// Xen refused the call.
    Refused(BuildError),
    /// There is no more.
    Memory,
}
