//! A PV guest's list of frames, and pages and registers with page numbers where Xen has frame numbers. Pure.
//!
//! A guest that is restored gets other frames, so whatever names one goes into the stream by page number. The list is the guest's own word:
//! a wrong one harms only the guest, since frames of somebody else can be mapped by nobody here.

use std::fmt;
use xen_abi::ids::{Mfn, PAGE_SIZE};
use xen_abi::pv::page_table::{LEVELS, PRESENT, PSE, XEN_L4_SLOTS, frame, with_frame};
use xen_abi::pv::vcpu_context::{VcpuGuestContext, cr3_of, frame_of_cr3};

/// Frame numbers beyond this are no frames: marks of the guest's kernel in its list.
const FRAMES_END: u64 = 1 << 40;
/// Entries of the global descriptor table in one frame.
const DESCRIPTORS_PER_FRAME: u64 = 512;
/// Set in the second top table of a vcpu in a stream, if there is one.
const SECOND_TABLE: u64 = 1;

/// The list, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct P2m {
    mfns: Vec<u64>,
    /// (mfn, pfn), ascending.
    reverse: Vec<(u64, u64)>,
}

/// What names a frame that is none of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger {
    /// Who names it.
    pub holder: &'static str,
    /// The frame.
    pub mfn: u64,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, mfn } = self;
        write!(f, "{holder} names frame {mfn:#x}, which is not the guest's")
    }
}

impl P2m {
    /// From the frame of each page, page 0 first.
    #[must_use]
    pub fn new(mfns: Vec<u64>) -> Self {
        let mut reverse: Vec<(u64, u64)> = (0..)
            .zip(&mfns)
            .filter(|(_, mfn)| **mfn < FRAMES_END)
            .map(|(pfn, mfn)| (*mfn, pfn))
            .collect();
        reverse.sort_unstable();
        Self { mfns, reverse }
    }

    /// Pages the list has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.mfns.len() as u64
    }

    /// The frame of a page.
    #[must_use]
    pub fn mfn(&self, pfn: u64) -> Option<u64> {
        let mfn = self.mfns.get(usize::try_from(pfn).ok()?).copied();
        mfn.filter(|mfn| *mfn < FRAMES_END)
    }

    /// The page of a frame.
    #[must_use]
    pub fn pfn(&self, mfn: u64) -> Option<u64> {
        let at = self.reverse.partition_point(|(known, _)| *known < mfn);
        let (known, pfn) = self.reverse.get(at)?;
        (*known == mfn).then_some(*pfn)
    }

    fn must(&self, holder: &'static str, mfn: u64) -> Result<u64, Stranger> {
        self.pfn(mfn).ok_or(Stranger { holder, mfn })
    }

    /// Puts page numbers into a page table. Xen's own slots become empty.
    ///
    /// # Errors
    /// An entry names a frame that is not in the list, or a large page, which PV guests have none of.
    pub fn normalise_table(&self, level: u8, table: &mut [u8]) -> Result<(), Stranger> {
        for (slot, bytes) in table.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let entry = u64::from_le_bytes(*bytes);
            let entry = if level == LEVELS && XEN_L4_SLOTS.contains(&slot) {
                0
            } else if entry & PRESENT == 0 {
                continue;
            } else if level > 1 && entry & PSE != 0 {
                let holder = "a large page";
                let mfn = frame(entry);
                return Err(Stranger { holder, mfn });
            } else {
                with_frame(entry, self.must("a page table", frame(entry))?)
            };
            *bytes = entry.to_le_bytes();
        }
        Ok(())
    }

    /// Puts page numbers into a vcpu's registers. `first`: the one that suspended, and holds the frame of `start_info`.
    ///
    /// # Errors
    /// One names a frame that is not in the list.
    pub fn normalise_vcpu(
        &self,
        context: &mut VcpuGuestContext,
        first: bool,
    ) -> Result<(), Stranger> {
        if first {
            let mfn = context.user_regs.rdx;
            context.user_regs.rdx = self.must("the suspend record", mfn)?;
        }
        for gdt in gdt_frames(context)? {
            *gdt = self.must("a descriptor table", *gdt)?;
        }
        let [_, second, _, top, ..] = &mut context.ctrlreg;
        *top = cr3_of(Mfn(self.must("cr3", frame_of_cr3(*top).0)?));
        if *second != 0 {
            let mfn = frame_of_cr3(*second).0;
            *second = cr3_of(Mfn(self.must("the user page table", mfn)?)) | SECOND_TABLE;
        }
        Ok(())
    }
}

/// The frames of the global descriptor table that are in use.
fn gdt_frames(context: &mut VcpuGuestContext) -> Result<&mut [u64], Stranger> {
    let used = context.gdt_ents.div_ceil(DESCRIPTORS_PER_FRAME);
    let used = usize::try_from(used).unwrap_or(usize::MAX);
    context.gdt_frames.get_mut(..used).ok_or(Stranger {
        holder: "a descriptor table that is too long",
        mfn: 0,
    })
}

/// Puts frames back where page numbers are: the mirror image of [`P2m::normalise_vcpu`].
///
/// # Errors
/// What names a page that `mfn_of` does not know, as the holder and the page.
pub fn localise_vcpu(
    context: &mut VcpuGuestContext,
    first: bool,
    mfn_of: impl Fn(u64) -> Option<u64>,
) -> Result<(), Stranger> {
    let must = |holder, pfn: u64| mfn_of(pfn).ok_or(Stranger { holder, mfn: pfn });
    if first {
        context.user_regs.rdx = must("the suspend record", context.user_regs.rdx)?;
    }
    for gdt in gdt_frames(context)? {
        *gdt = must("a descriptor table", *gdt)?;
    }
    let [_, second, _, top, ..] = &mut context.ctrlreg;
    *top = cr3_of(Mfn(must("cr3", frame_of_cr3(*top).0)?));
    *second = if *second & SECOND_TABLE == 0 {
        0
    } else {
        cr3_of(Mfn(must("the user page table", frame_of_cr3(*second).0)?))
    };
    Ok(())
}

/// Puts frames back into a page table. Xen's own slots stay empty.
///
/// # Errors
/// The page that `mfn_of` does not know.
pub fn localise_table(
    level: u8,
    table: &mut [u8],
    mut mfn_of: impl FnMut(u64) -> Option<u64>,
) -> Result<(), u64> {
    for (slot, bytes) in table.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let entry = u64::from_le_bytes(*bytes);
        let xens = level == LEVELS && XEN_L4_SLOTS.contains(&slot);
        if xens || entry & PRESENT == 0 {
            continue;
        }
        let pfn = frame(entry);
        *bytes = with_frame(entry, mfn_of(pfn).ok_or(pfn)?).to_le_bytes();
    }
    Ok(())
}

/// Page numbers a page table names, for whoever must give them frames first.
pub fn pages_named(level: u8, table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let entries = table.as_chunks::<8>().0.iter().enumerate();
    entries.filter_map(move |(slot, bytes)| {
        let entry = u64::from_le_bytes(*bytes);
        let xens = level == LEVELS && XEN_L4_SLOTS.contains(&slot);
        (!xens && entry & PRESENT != 0).then_some(frame(entry))
    })
}

const _: () = assert!(PAGE_SIZE == 512 * 8);

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::pv::page_table::{TABLE, entry};
    use zerocopy::FromZeros;

    fn p2m() -> P2m {
        P2m::new(vec![0x900, u64::MAX, 0x700, 0x800])
    }

    fn table(slots: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_SIZE];
        for (slot, entry) in slots {
            bytes[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn pages_and_frames_are_found_from_both_sides() {
        let p2m = p2m();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|pfn| p2m.mfn(pfn)),
            [Some(0x900), None, Some(0x700), Some(0x800), None]
        );
        assert_eq!(
            [0x700, 0x701, 0x900].map(|mfn| p2m.pfn(mfn)),
            [Some(2), None, Some(0)]
        );
    }

    #[test]
    fn a_table_goes_and_comes_back_without_xens_slots() {
        let slots = [
            (3, entry(0x700, TABLE)),
            (256, entry(0x5, TABLE)),
            (9, 0x700 << 12),
        ];
        let mut bytes = table(&slots);
        p2m().normalise_table(4, &mut bytes).unwrap();
        assert_eq!(bytes, table(&[(3, entry(2, TABLE)), (9, 0x700 << 12)]));
        assert_eq!(pages_named(4, &bytes).collect::<Vec<_>>(), [2]);
        localise_table(4, &mut bytes, |pfn| p2m().mfn(pfn)).unwrap();
        assert_eq!(bytes, table(&[(3, entry(0x700, TABLE)), (9, 0x700 << 12)]));
        let mut lower = table(&slots[1..2]);
        assert_eq!(p2m().normalise_table(3, &mut lower).unwrap_err().mfn, 5);
        assert_eq!(
            localise_table(1, &mut table(&[(0, entry(1, TABLE))]), |pfn| p2m().mfn(pfn)),
            Err(1)
        );
    }

    #[test]
    fn registers_go_and_come_back() {
        let mut context = VcpuGuestContext::new_zeroed();
        context.user_regs.rdx = 0x900;
        (context.gdt_frames[0], context.gdt_ents) = (0x800, 2);
        (context.ctrlreg[3], context.ctrlreg[1]) = (0x700 << 12, 0x900 << 12);
        let before = context;
        p2m().normalise_vcpu(&mut context, true).unwrap();
        assert_eq!((context.user_regs.rdx, context.gdt_frames[0]), (0, 3));
        assert_eq!((context.ctrlreg[3], context.ctrlreg[1]), (2 << 12, 1));
        localise_vcpu(&mut context, true, |pfn| p2m().mfn(pfn)).unwrap();
        assert!(context == before);
        let mut stray = before;
        stray.ctrlreg[3] = 0x5000;
        let error = p2m().normalise_vcpu(&mut stray, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cr3 names frame 0x5, which is not the guest's"
        );
    }
}
