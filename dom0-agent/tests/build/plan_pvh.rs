//! Layouts of PVH guests: nothing overlaps, everything fits, and `start_info` can be followed.

use dom0_agent::build::BuildError;
use dom0_agent::build::plan_pvh::{
    HOLE_START, PvhPlan, SPECIAL_PAGES, SPECIAL_PFN, Shape, Special, plan,
};
use dom0_agent::build::populate::{Extents, extents};
use dom0_agent::image::elf::Class;
use dom0_agent::image::{Format, KernelMeta, PvhKernel, Segment, XenNotes};
use proptest::prelude::*;
use xen_abi::domain::MemoryKind;

const PAGE: u64 = 4096;
const MIB_PAGES: u64 = 256;
const GIB4: u64 = 1 << 32;

fn meta(start: u64, size: u64) -> KernelMeta {
    KernelMeta {
        format: Format::Elf,
        unpacked_size: size,
        class: Class::Bits64,
        elf_entry: 0,
        segments: vec![Segment {
            paddr: start,
            memory_size: size,
            file_offset: 0,
            file_size: size,
        }],
        notes: XenNotes::default(),
    }
}

fn kernel(start: u64, size: u64, rsdp_anywhere: bool) -> PvhKernel {
    PvhKernel {
        entry: start as u32,
        start,
        end: start + size,
        rsdp_anywhere,
    }
}

fn shape(nr_pages: u64) -> Shape {
    Shape {
        nr_pages,
        vcpus: 2,
        max_vcpus: 4,
    }
}

fn debian(nr_pages: u64, initrd: Option<u64>) -> Result<PvhPlan, BuildError> {
    let (start, size) = (0x100_0000, 0x320_0000);
    plan(
        &kernel(start, size, true),
        &meta(start, size),
        initrd,
        shape(nr_pages),
        "console=hvc0",
    )
}

#[test]
fn debians_kernel_in_128_mib() {
    let plan = debian(128 * MIB_PAGES, Some(5_361_664)).unwrap();
    assert_eq!(
        plan.extents,
        [Extents {
            gfn: 0,
            order: 9,
            count: 64
        }]
    );
    assert_eq!((plan.kernel.pfn, plan.kernel.end()), (0x1000, 0x4200));
    assert_eq!(
        (plan.initrd.unwrap().run.pfn, plan.start_info),
        (0x4200, (0x4200 + 1309) * PAGE)
    );
    let map: Vec<_> = plan
        .memory_map
        .iter()
        .map(|range| (range.address, range.size, range.kind))
        .collect();
    assert_eq!(
        map,
        [
            (0, 128 << 20, MemoryKind::Ram),
            (0xfc00_0000, 0x1000, MemoryKind::Acpi),
            (0xfeff_8000, 0x8000, MemoryKind::Reserved),
        ]
    );
    assert_eq!(
        (Special::Xenstore.gfn(), Special::Console.gfn()),
        (0xf_effc, 0xf_efff)
    );
}

#[test]
fn memory_beyond_the_hole_continues_at_4_gib() {
    let plan = debian(6 * 1024 * MIB_PAGES, None).unwrap();
    assert_eq!(plan.ram_pages(), 6 * 1024 * MIB_PAGES);
    let low_gib = 3;
    assert_eq!(
        plan.extents[0],
        Extents {
            gfn: 0,
            order: 18,
            count: low_gib
        }
    );
    assert_eq!(plan.extents[1].order, 9);
    assert_eq!(
        plan.extents[1].gfn + plan.extents[1].count * 512,
        HOLE_START / PAGE
    );
    assert_eq!(
        (plan.extents[2].gfn, plan.extents[2].order),
        (GIB4 / PAGE, 18)
    );
    let high = plan.memory_map.last().unwrap();
    assert_eq!((high.address, high.kind), (GIB4, MemoryKind::Ram));
    assert_eq!(high.size + HOLE_START, 6 << 30);
}

#[test]
fn what_does_not_fit_is_refused_with_both_figures() {
    let said = debian(64 * MIB_PAGES, None).unwrap_err().to_string();
    assert_eq!(
        said,
        "`memory=64` is too small: kernel, initrd and what belongs to them take 67 MiB"
    );
    // Memory above 4 GiB does not help.
    assert!(matches!(
        debian(8192 * MIB_PAGES, Some(4 << 30)),
        Err(BuildError::TooSmall { .. })
    ));
}

#[test]
fn an_old_kernel_finds_its_rsdp_below_1_mib() {
    let plan = plan(
        &kernel(1 << 24, 1 << 20, false),
        &meta(1 << 24, 1 << 20),
        None,
        shape(8192),
        "",
    )
    .unwrap();
    assert_eq!(plan.rsdp_address, 0x10_0000 - 64);
    assert_eq!(&plan.rsdp[..8], b"RSD PTR ");
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Follows every pointer of `start_info`, as the kernel does.
fn check_start_info(plan: &PvhPlan, command_line: &str) {
    let bytes = &plan.start_info_bytes;
    let at = |address: u64| (address - plan.start_info) as usize;
    assert_eq!(word(bytes, 0), 0x336e_c578 | 1 << 32);
    assert_eq!(word(bytes, 8), u64::from(plan.initrd.is_some()) << 32);
    if let Some(initrd) = plan.initrd {
        let module = at(word(bytes, 16));
        assert_eq!(
            (word(bytes, module), word(bytes, module + 8)),
            (initrd.run.pfn * PAGE, initrd.size)
        );
    }
    let text = &bytes[at(word(bytes, 24))..];
    assert_eq!(text, [command_line.as_bytes(), &[0]].concat());
    assert_eq!(word(bytes, 32), plan.rsdp_address);
    assert_eq!(word(bytes, 48), plan.memory_map.len() as u64);
    for (index, range) in plan.memory_map.iter().enumerate() {
        let entry = at(word(bytes, 40)) + 24 * index;
        assert_eq!(
            (word(bytes, entry), word(bytes, entry + 8)),
            (range.address, range.size)
        );
    }
}

proptest! {
    #[test]
    fn any_plan_holds_together(
        start in 0_u64..0x4000,
        size in 1_u64..50_000_000,
        initrd in prop::option::of(1_u64..50_000_000),
        memory_mib in 16_u64..10_000,
        odd_pages in 0_u64..600,
        rsdp_anywhere in any::<bool>(),
        command_line in "[ -~]{0,200}",
    ) {
        let start = start * PAGE;
        let nr_pages = memory_mib * MIB_PAGES + odd_pages;
        let planned = plan(&kernel(start, size, rsdp_anywhere), &meta(start, size), initrd, shape(nr_pages), &command_line);
        let plan = match planned {
            Ok(plan) => plan,
            Err(BuildError::TooSmall { need_mib, memory_mib: had }) => {
                prop_assert!(need_mib >= had);
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        check_start_info(&plan, &command_line);
        let low_end = plan.memory_map[0].size;
        prop_assert!(plan.kernel.end() <= plan.initrd.map_or(u64::MAX, |initrd| initrd.run.pfn));
        let before = plan.initrd.map_or(plan.kernel.end(), |initrd| initrd.run.end());
        prop_assert!(before * PAGE <= plan.start_info);
        prop_assert!(plan.start_info_run().end() * PAGE <= low_end && low_end <= HOLE_START);
        prop_assert!(plan.acpi_pages() > 0 && HOLE_START / PAGE + plan.acpi_pages() <= SPECIAL_PFN);
        prop_assert_eq!(plan.ram_pages(), nr_pages);
        for pair in plan.memory_map.windows(2) {
            prop_assert!(pair[0].address + pair[0].size <= pair[1].address);
        }
        let ram: u64 = plan.memory_map.iter().filter(|range| range.kind == MemoryKind::Ram).map(|range| range.size).sum();
        prop_assert_eq!(ram, nr_pages * PAGE);
        prop_assert!(plan.rsdp_address < 0x10_0000 || plan.rsdp_address < HOLE_START + plan.acpi_pages() * PAGE);
        prop_assert_eq!(SPECIAL_PAGES, 8);
    }

    #[test]
    fn extents_cover_exactly_what_was_asked(from in 0_u64..2_000_000, length in 0_u64..2_000_000, largest in prop_oneof![Just(0_u32), Just(9), Just(18)]) {
        let mut at = from;
        for extent in extents(from, from + length, largest) {
            prop_assert_eq!(extent.gfn, at);
            prop_assert!(extent.order <= largest && at.is_multiple_of(1 << extent.order));
            prop_assert!(extent.count > 0);
            at += extent.pages();
        }
        prop_assert_eq!(at, from + length);
    }
}
