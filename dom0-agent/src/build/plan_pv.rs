//! Where everything of a PV guest goes, before any of it exists.
//!
//! ```text
//!   pfn 0                                                                                        nr_pages
//!   ├─ free ─┼ kernel ┼(initrd)┼(p2m)┼ start_info ┼ xenstore ┼ console ┼ tables ┼ stack ┼ pad ┼ initrd ┼ p2m + its tables ┼ free ─┤
//!   └────────────────────────── mapped at virt_base, whole 4 MiB ────────────────────────────┘└──── unmapped ────┘
//!                                                                                   p2m is mapped at INIT_P2M
//! ```
//!
//! pfn and virtual address run in parallel from `virt_base`. The initrd stands in the first place only if the kernel
//! cannot take an unmapped one, the p2m list only if the kernel names no place for it or one that is not usable. The
//! order is part of the interface: kernels find free memory behind the mapped part. Pure; no hypercall, no clock.
//! Source: Xen `tools/libs/guest/xg_dom_x86.c`; Linux `arch/x86/xen/mmu_pv.c` and `setup.c` for what is relied on.

use super::error::BuildError;
use super::limits::{MIB, PAGE, PV_COMMAND_LINE};
use super::page_tables::{Area, Tables, l4_slots};
use crate::image::{KernelMeta, PvKernel, Segment};

/// Mapped memory ends on a multiple of this.
const MAPPED_ALIGN: u64 = 4 * MIB;
/// Mapped and unused memory behind the tables: the boot stack and what the kernel takes before it has an allocator.
const MAPPED_SLACK_PAGES: u64 = 1 + 128;
/// Iterations of the table-count fixpoint; each adds at least one table of a bounded number, two suffice in practice.
const FIXPOINT_ROUNDS: u32 = 64;

/// A run of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First pfn.
    pub pfn: u64,
    /// Pages.
    pub pages: u64,
}

impl Run {
    /// First pfn behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.pfn + self.pages
    }
}

/// Bytes of a kernel segment and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// First byte, as a guest-physical address.
    pub address: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Offset in the image file.
    pub file_offset: u64,
    /// Bytes in the image file.
    pub file_size: u64,
}

/// The initrd's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedInitrd {
    /// Its pages.
    pub run: Run,
    /// Its length in bytes.
    pub size: u64,
}

/// The layout of a PV guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvPlan {
    /// Pages of the guest.
    pub nr_pages: u64,
    /// First instruction.
    pub entry: u64,
    /// Virtual address of pfn 0.
    pub virt_base: u64,
    /// Kernel segments.
    pub segments: Vec<Placed>,
    /// The kernel's pages, gaps between segments included.
    pub kernel: Run,
    /// The initrd.
    pub initrd: Option<PlacedInitrd>,
    /// Page of `start_info`.
    pub start_info: u64,
    /// Xenstore ring page.
    pub xenstore: u64,
    /// Console ring page.
    pub console: u64,
    /// Boot stack page.
    pub stack: u64,
    /// Page tables of the part mapped at `virt_base`, the L4 first.
    pub tables: Tables,
    /// Virtual address of the p2m list.
    pub p2m_address: u64,
    /// Pages of the p2m list.
    pub p2m: Run,
    /// Page tables of the p2m list, if it is mapped apart.
    pub p2m_tables: Option<Tables>,
    /// Hypercall page, if the kernel has one.
    pub hypercall_page: Option<u64>,
    /// The initrd is named by pfn in `start_info`, not by address.
    pub mod_start_pfn: bool,
    /// The kernel's arguments, without a terminating zero.
    pub command_line: String,
}

impl PvPlan {
    /// Virtual address of a page in the mapped part.
    #[must_use]
    pub fn address_of(&self, pfn: u64) -> u64 {
        self.virt_base + pfn * PAGE
    }

    /// First pfn that nothing was placed at or after.
    #[must_use]
    pub fn end(&self) -> u64 {
        let last = self
            .p2m_tables
            .as_ref()
            .map_or(self.p2m.end(), |tables| tables.run().end());
        last.max(self.tables.area.pfn_end())
            .max(self.initrd.map_or(0, |initrd| initrd.run.end()))
    }
}

/// Kernel segments as they are placed, `add` to their physical addresses.
pub(super) fn placed(meta: &KernelMeta, add: u64) -> Vec<Placed> {
    let place = |segment: &Segment| Placed {
        address: segment.paddr.wrapping_add(add),
        memory_size: segment.memory_size,
        file_offset: segment.file_offset,
        file_size: segment.file_size,
    };
    meta.segments.iter().map(place).collect()
}

/// Hands out pfns in ascending order.
struct Cursor {
    next: u64,
}

impl Cursor {
    fn take(&mut self, pages: u64) -> Run {
        let run = Run {
            pfn: self.next,
            pages,
        };
        self.next += pages;
        run
    }

    fn take_initrd(&mut self, size: Option<u64>) -> Option<PlacedInitrd> {
        size.map(|size| PlacedInitrd {
            run: self.take(size.div_ceil(PAGE)),
            size,
        })
    }
}

/// Plans a PV guest of `nr_pages` pages.
///
/// # Errors
/// The command line is too long, or kernel, initrd and tables do not fit into the memory.
pub fn plan(
    kernel: &PvKernel,
    meta: &KernelMeta,
    initrd_size: Option<u64>,
    nr_pages: u64,
    command_line: &str,
) -> Result<PvPlan, BuildError> {
    super::check_command_line(command_line, PV_COMMAND_LINE - 1)?;
    let first = (kernel.kstart - kernel.virt_base) / PAGE;
    let end = (kernel.kend - kernel.virt_base).div_ceil(PAGE);
    let mut cursor = Cursor { next: end };
    let mapped_initrd = cursor.take_initrd(initrd_size.filter(|_| !kernel.mod_start_pfn));
    let p2m_pages = (nr_pages * 8).div_ceil(PAGE);
    let apart = p2m_apart(kernel, p2m_pages);
    let mapped_p2m = cursor.take(if apart.is_none() { p2m_pages } else { 0 });
    let [start_info, xenstore, console] = [(); 3].map(|()| cursor.take(1).pfn);
    let tables = mapped_tables(kernel.virt_base, cursor.next)?;
    cursor.take(tables.run().pages);
    let stack = cursor.take(1).pfn;
    cursor.next = tables.area.pfn_end();
    let free_initrd = cursor.take_initrd(initrd_size.filter(|_| kernel.mod_start_pfn));
    let p2m = if apart.is_some() {
        cursor.take(p2m_pages)
    } else {
        mapped_p2m
    };
    let p2m_tables = apart.map(|start| {
        let area = Area {
            start,
            pages: p2m.pages,
            pfn: p2m.pfn,
        };
        Tables::lower(area, p2m.end())
    });
    let plan = PvPlan {
        nr_pages,
        entry: kernel.entry,
        virt_base: kernel.virt_base,
        segments: placed(meta, kernel.virt_offset.wrapping_sub(kernel.virt_base)),
        kernel: Run {
            pfn: first,
            pages: end - first,
        },
        initrd: mapped_initrd.or(free_initrd),
        start_info,
        xenstore,
        console,
        stack,
        tables,
        p2m_address: apart.unwrap_or_else(|| kernel.virt_base + p2m.pfn * PAGE),
        p2m,
        p2m_tables,
        hypercall_page: kernel
            .hypercall_page
            .map(|page| (page - kernel.virt_base) / PAGE),
        mod_start_pfn: kernel.mod_start_pfn,
        command_line: command_line.to_owned(),
    };
    if plan.end() > nr_pages {
        let (need, have) = (plan.end() * PAGE, nr_pages * PAGE);
        return Err(BuildError::TooSmall {
            need_mib: need.div_ceil(MIB),
            memory_mib: have / MIB,
        });
    }
    Ok(plan)
}

/// Where the kernel wants its p2m list, if it can be mapped there without touching the other mapping's tables.
fn p2m_apart(kernel: &PvKernel, pages: u64) -> Option<u64> {
    let start = kernel
        .init_p2m
        .filter(|start| *start < kernel.virt_base && start.is_multiple_of(PAGE))?;
    let end = start.checked_add(pages * PAGE)?;
    let slots = l4_slots(start, end);
    // Slots of the kernel are those from virt_base on; a list that ends in one of them would share an L3 table.
    (end <= kernel.virt_base && slots.end() < l4_slots(kernel.virt_base, kernel.kend).start())
        .then_some(start)
}

/// The tables of the mapped part, whose own pages lie in the part they map.
fn mapped_tables(virt_base: u64, tables_pfn: u64) -> Result<Tables, BuildError> {
    let used = virt_base + tables_pfn * PAGE;
    let mut extra = MAPPED_SLACK_PAGES;
    for _ in 0..FIXPOINT_ROUNDS {
        // Rounded up in the pages from virt_base would differ if that were not 4 MiB aligned: the address counts.
        let end = used
            .checked_add(extra * PAGE)
            .and_then(|end| end.checked_next_multiple_of(MAPPED_ALIGN));
        let Some(end) = end else { break };
        let area = Area {
            start: virt_base,
            pages: (end - virt_base) / PAGE,
            pfn: 0,
        };
        let tables = Tables::full(area, tables_pfn);
        let needed = tables.run().pages + MAPPED_SLACK_PAGES;
        if used + needed * PAGE <= end {
            return Ok(tables);
        }
        extra = needed;
    }
    Err(BuildError::NoLayout {
        why: "the kernel's page tables do not fit behind it",
    })
}
