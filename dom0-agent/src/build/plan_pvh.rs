//! Where everything of a PVH guest goes, before any of it exists.
//!
//! ```text
//!   0 ......... kernel ┼ initrd ┼ start_info, command line, modules, map ...... low_end │ hole │ ACPI │ ... │ special │ 4 GiB ... high_end
//!   └────────────────────────────── RAM ───────────────────────────────────────┘  0xfc000000     0xfeff8000      └── RAM ──┘
//! ```
//!
//! All that is loaded lies below 4 GiB in low RAM: the guest starts in 32-bit mode without paging. ACPI tables and the
//! eight special pages are extra pages in the hole. Pure. Source: Xen `docs/misc/pvh`, `tools/libs/guest/xg_dom_x86.c`.

use super::acpi;
use super::error::BuildError;
use super::limits::{GIB4, MIB, ORDER_1G, PAGE, PVH_COMMAND_LINE};
use super::plan_pv::{Placed, PlacedInitrd, Run, placed};
use super::populate::{Extents, extents};
use crate::image::{KernelMeta, PvhKernel};
use std::ops::Range;
use xen_abi::domain::{MemoryKind, MemoryRange};
use xen_abi::hvm::start_info::{self as hvm, MemmapEntry, ModlistEntry};
use zerocopy::{FromZeros, IntoBytes};

/// RAM below 4 GiB ends here; from here on the ACPI tables.
pub const HOLE_START: u64 = 0xfc00_0000;
/// Where the hole of any builder begins at the lowest.
const LOWEST_HOLE: u64 = 0xf000_0000;
/// First of the special pages.
pub const SPECIAL_PFN: u64 = 0xf_eff8;
/// Number of special pages.
pub const SPECIAL_PAGES: u64 = 8;
/// RSDP address for kernels that look only below 1 MiB: the last paragraph-aligned place there.
const RSDP_BELOW_1M: u64 = 0x10_0000 - 64;
const _: () =
    assert!(HOLE_START < SPECIAL_PFN * PAGE && (SPECIAL_PFN + SPECIAL_PAGES) * PAGE <= GIB4);

/// The special pages, by offset from [`SPECIAL_PFN`] as xl lays them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Memory paging ring.
    Paging = 0,
    /// Memory access ring.
    Access = 1,
    /// Memory sharing ring.
    Sharing = 2,
    /// Buffered I/O requests.
    BufferedIo = 3,
    /// Xenstore ring.
    Xenstore = 4,
    /// I/O requests.
    Io = 5,
    /// Identity page table for real mode on Intel.
    Identity = 6,
    /// Console ring.
    Console = 7,
}

impl Special {
    /// Its guest frame.
    #[must_use]
    pub fn gfn(self) -> u64 {
        SPECIAL_PFN + self as u64
    }
}

/// The layout of a PVH guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvhPlan {
    /// First instruction.
    pub entry: u32,
    /// RAM, ascending, in extents as large as they fit.
    pub extents: Vec<Extents>,
    /// What the guest is told of its memory.
    pub memory_map: Vec<MemoryRange>,
    /// Kernel segments.
    pub segments: Vec<Placed>,
    /// The kernel's pages, gaps between segments included.
    pub kernel: Run,
    /// The initrd.
    pub initrd: Option<PlacedInitrd>,
    /// Address of `start_info` and what follows it.
    pub start_info: u64,
    /// The bytes there.
    pub start_info_bytes: Vec<u8>,
    /// ACPI tables at [`HOLE_START`].
    pub acpi: Vec<u8>,
    /// Address of the RSDP.
    pub rsdp_address: u64,
    /// The RSDP.
    pub rsdp: Vec<u8>,
}

impl PvhPlan {
    /// Pages of RAM.
    #[must_use]
    pub fn ram_pages(&self) -> u64 {
        self.extents.iter().map(Extents::pages).sum()
    }

    /// Pages of the ACPI tables.
    #[must_use]
    pub fn acpi_pages(&self) -> u64 {
        (self.acpi.len() as u64).div_ceil(PAGE)
    }

    /// Pages of `start_info` and what follows it.
    #[must_use]
    pub fn start_info_run(&self) -> Run {
        Run {
            pfn: self.start_info / PAGE,
            pages: (self.start_info_bytes.len() as u64).div_ceil(PAGE),
        }
    }
}

/// Size of a PVH guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Pages of RAM.
    pub nr_pages: u64,
    /// Vcpus online at boot.
    pub vcpus: u32,
    /// Vcpus in all.
    pub max_vcpus: u32,
}

/// Page numbers a PVH guest of this size may have pages at, whoever built it: RAM, all of the hole, RAM above 4 GiB.
///
/// The hole of other builders may begin lower, so that more RAM lies above.
#[must_use]
pub fn possible_pages(max_memory_kib: u64) -> Vec<Range<u64>> {
    let bytes = max_memory_kib * 1024;
    let high = bytes.saturating_sub(LOWEST_HOLE);
    let pages = |from: u64, to: u64| from / PAGE..to.div_ceil(PAGE);
    vec![
        pages(0, bytes.min(HOLE_START)),
        pages(HOLE_START, GIB4),
        pages(GIB4, GIB4 + high),
    ]
}

/// What a PVH guest of this shape is told of its memory.
#[must_use]
pub fn memory_map_of(shape: Shape) -> Vec<MemoryRange> {
    let (low_end, high_end) = ends(shape.nr_pages);
    let tables = acpi::tables(shape.vcpus, shape.max_vcpus, HOLE_START);
    let acpi_size = (tables.bytes.len() as u64).next_multiple_of(PAGE);
    memory_map(low_end, high_end, acpi_size)
}

/// Where RAM below and above 4 GiB ends.
fn ends(nr_pages: u64) -> (u64, u64) {
    let bytes = nr_pages * PAGE;
    (
        bytes.min(HOLE_START),
        GIB4 + bytes.saturating_sub(HOLE_START),
    )
}

/// Plans a PVH guest.
///
/// # Errors
/// The command line is too long, or kernel and initrd do not fit into the low RAM.
pub fn plan(
    kernel: &PvhKernel,
    meta: &KernelMeta,
    initrd_size: Option<u64>,
    shape: Shape,
    command_line: &str,
) -> Result<PvhPlan, BuildError> {
    super::check_command_line(command_line, PVH_COMMAND_LINE)?;
    let nr_pages = shape.nr_pages;
    let (low_end, high_end) = ends(nr_pages);
    let first = kernel.start / PAGE;
    let kernel_run = Run {
        pfn: first,
        pages: kernel.end.div_ceil(PAGE) - first,
    };
    let initrd = initrd_size.map(|size| {
        let run = Run {
            pfn: kernel_run.end(),
            pages: size.div_ceil(PAGE),
        };
        PlacedInitrd { run, size }
    });
    let start_info = initrd.map_or(kernel_run.end(), |initrd| initrd.run.end()) * PAGE;
    let tables = acpi::tables(shape.vcpus, shape.max_vcpus, HOLE_START);
    let rsdp_address = if kernel.rsdp_anywhere {
        tables.rsdp_address
    } else {
        RSDP_BELOW_1M
    };
    let acpi_size = (tables.bytes.len() as u64).next_multiple_of(PAGE);
    let memory_map = memory_map(low_end, high_end, acpi_size);
    let start_info_bytes = StartInfo {
        at: start_info,
        initrd: initrd.map(|initrd| (initrd.run.pfn * PAGE, initrd.size)),
        command_line,
        rsdp: rsdp_address,
        memory_map: &memory_map,
    }
    .bytes();
    let plan = PvhPlan {
        entry: kernel.entry,
        extents: [(0, low_end), (GIB4, high_end)]
            .map(|(from, to)| extents(from / PAGE, to / PAGE, ORDER_1G))
            .concat(),
        memory_map,
        segments: placed(meta, 0),
        kernel: kernel_run,
        initrd,
        start_info,
        start_info_bytes,
        acpi: tables.bytes,
        rsdp_address,
        rsdp: tables.rsdp,
    };
    let end = plan.start_info_run().end();
    if end * PAGE > low_end {
        return Err(BuildError::TooSmall {
            need_mib: (end * PAGE).div_ceil(MIB),
            memory_mib: nr_pages * PAGE / MIB,
        });
    }
    Ok(plan)
}

/// Low RAM, ACPI, special pages, high RAM.
fn memory_map(low_end: u64, high_end: u64, acpi_size: u64) -> Vec<MemoryRange> {
    let range = |address, size, kind| MemoryRange {
        address,
        size,
        kind,
    };
    let mut map = vec![
        range(0, low_end, MemoryKind::Ram),
        range(HOLE_START, acpi_size, MemoryKind::Acpi),
        range(
            SPECIAL_PFN * PAGE,
            SPECIAL_PAGES * PAGE,
            MemoryKind::Reserved,
        ),
    ];
    if high_end > GIB4 {
        map.push(range(GIB4, high_end - GIB4, MemoryKind::Ram));
    }
    map
}

/// `hvm_start_info` version 1 and all it points to, one behind the other.
struct StartInfo<'a> {
    at: u64,
    initrd: Option<(u64, u64)>,
    command_line: &'a str,
    rsdp: u64,
    memory_map: &'a [MemoryRange],
}

impl StartInfo<'_> {
    fn bytes(&self) -> Vec<u8> {
        let module = self.initrd.map(|(paddr, size)| ModlistEntry {
            paddr,
            size,
            ..ModlistEntry::new_zeroed()
        });
        let map: Vec<MemmapEntry> = self
            .memory_map
            .iter()
            .map(|range| (*range).into())
            .collect();
        let modules_at = self.at + size_of::<hvm::StartInfo>() as u64;
        let map_at = modules_at + size_of_val(module.as_slice()) as u64;
        let info = hvm::StartInfo {
            magic: hvm::MAGIC,
            version: hvm::VERSION,
            flags: 0,
            nr_modules: u32::from(module.is_some()),
            modlist_paddr: module.map_or(0, |_| modules_at),
            cmdline_paddr: map_at + size_of_val(map.as_slice()) as u64,
            rsdp_paddr: self.rsdp,
            memmap_paddr: map_at,
            // Four at most, see `memory_map`.
            memmap_entries: u32::try_from(map.len()).unwrap_or(0),
            reserved: 0,
        };
        let parts = [
            info.as_bytes(),
            module.as_slice().as_bytes(),
            map.as_bytes(),
            self.command_line.as_bytes(),
            &[0],
        ];
        parts.concat()
    }
}
