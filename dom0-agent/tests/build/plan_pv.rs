//! Layouts of PV guests: nothing overlaps, everything fits, and the tables map what they say.

use dom0_agent::build::BuildError;
use dom0_agent::build::page_tables::{Table, Tables};
use dom0_agent::build::plan_pv::{PvPlan, Run, plan};
use dom0_agent::build::vcpu_pv::{Connections, start_info};
use dom0_agent::image::elf::Class;
use dom0_agent::image::{Format, KernelMeta, PvKernel, Segment, XenNotes};
use proptest::prelude::*;
use std::collections::BTreeMap;
use xen_abi::ids::Port;

const PAGE: u64 = 4096;
const MIB_PAGES: u64 = 256;

fn meta(segments: Vec<Segment>) -> KernelMeta {
    KernelMeta {
        format: Format::Elf,
        unpacked_size: 1 << 30,
        class: Class::Bits64,
        elf_entry: 0,
        segments,
        notes: XenNotes::default(),
    }
}

fn segment(paddr: u64, memory_size: u64) -> Segment {
    Segment {
        paddr,
        memory_size,
        file_offset: 0,
        file_size: memory_size,
    }
}

/// Debian 13's kernel, 6.12.107.
fn debian() -> (PvKernel, KernelMeta) {
    let meta = meta(vec![
        segment(0x100_0000, 0x1b8_c510),
        segment(0x2c0_0000, 0x71_a000),
        segment(0x331_a000, 0x3_9000),
        segment(0x335_3000, 0xea_d000),
    ]);
    let kernel = PvKernel {
        entry: 0xffff_ffff_8336_4760,
        virt_base: 0xffff_ffff_8000_0000,
        virt_offset: 0xffff_ffff_8000_0000,
        kstart: 0xffff_ffff_8100_0000,
        kend: 0xffff_ffff_8420_0000,
        hypercall_page: None,
        init_p2m: Some(0x80_0000_0000),
        mod_start_pfn: true,
    };
    (kernel, meta)
}

fn run(pfn: u64, pages: u64) -> Run {
    Run { pfn, pages }
}

/// Stock tools (xl 4.20, `-vvv`) place the same kernel and initrd in the same pages.
#[test]
fn debians_kernel_in_128_mib_is_placed_as_stock_tools_place_it() {
    let (kernel, meta) = debian();
    let plan = plan(
        &kernel,
        &meta,
        Some(5_361_664),
        128 * MIB_PAGES,
        "console=hvc0",
    )
    .unwrap();
    assert_eq!(plan.kernel, run(0x1000, 0x3200));
    assert_eq!(
        (plan.start_info, plan.xenstore, plan.console),
        (0x4200, 0x4201, 0x4202)
    );
    assert_eq!(plan.tables.run(), run(0x4203, 37));
    assert_eq!(plan.tables.levels.map(|level| level.pages), [34, 1, 1, 1]);
    assert_eq!(plan.stack, 0x4203 + 37);
    assert_eq!(plan.tables.area.pages, 0x4400);
    assert_eq!(plan.initrd.unwrap().run, run(0x4400, 1309));
    assert_eq!(plan.p2m, run(0x4400 + 1309, 64));
    assert_eq!(plan.p2m_address, 0x80_0000_0000);
    assert_eq!(
        plan.p2m_tables.as_ref().unwrap().run(),
        run(0x4400 + 1309 + 64, 3)
    );
}

#[test]
fn start_info_says_what_the_plan_says() {
    let (kernel, meta) = debian();
    let plan = plan(
        &kernel,
        &meta,
        Some(5000),
        128 * MIB_PAGES,
        "console=hvc0 quiet",
    )
    .unwrap();
    let connections = Connections {
        shared_info: 0x77,
        store: (0x123, Port(1)),
        console: (0x124, Port(2)),
    };
    let info = start_info(&plan, &connections);
    let word = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap());
    assert_eq!(&info[..15], b"xen-3.0-x86_64\0");
    assert_eq!((word(32), word(40), half(48)), (0x8000, 0x77 << 12, 0x18));
    assert_eq!(
        (word(56), half(64), word(72), half(80)),
        (0x123, 1, 0x124, 2)
    );
    assert_eq!((word(88), word(96)), (0xffff_ffff_8420_3000, 37));
    assert_eq!(
        (word(104), word(112), word(120)),
        (0x80_0000_0000, 0x4400, 5000)
    );
    assert_eq!(&info[128..147], b"console=hvc0 quiet\0");
    assert_eq!((word(1152), word(1160)), (0x4402, 64 + 3));
}

#[test]
fn what_does_not_fit_is_refused_with_both_figures() {
    let (kernel, meta) = debian();
    let error = plan(&kernel, &meta, Some(8 << 20), 64 * MIB_PAGES, "").unwrap_err();
    let said = error.to_string();
    assert_eq!(
        said,
        "`memory=64` is too small: kernel, initrd and what belongs to them take 77 MiB"
    );
    let long = "x".repeat(1024);
    let error = plan(&kernel, &meta, None, 128 * MIB_PAGES, &long).unwrap_err();
    assert!(
        matches!(error, BuildError::Request { key: "cmdline", .. }),
        "{error}"
    );
    plan(&kernel, &meta, None, 128 * MIB_PAGES, &long[1..]).unwrap();
}

/// Physical memory as far as tables go: table pages by machine frame.
struct Machine(BTreeMap<u64, Table>);

/// A p2m that keeps no order, so that nothing works by luck.
fn mfn(pfn: u64) -> u64 {
    (pfn ^ 0x15) + 0x10_0000
}

fn pfn_of(mfn: u64) -> u64 {
    (mfn - 0x10_0000) ^ 0x15
}

impl Machine {
    fn of(plan: &PvPlan) -> Self {
        let all = [Some(&plan.tables), plan.p2m_tables.as_ref()];
        let is_table = |pfn: u64| {
            let mut runs = all.iter().flatten().map(|tables| tables.run());
            runs.any(|run| (run.pfn..run.end()).contains(&pfn))
        };
        let mut pages = BTreeMap::new();
        let mut l4: Table = Box::new([0; 512]);
        for tables in all.into_iter().flatten() {
            tables.link(&mut l4, mfn);
            let first = tables.run().end() - lower_pages(tables);
            for (index, table) in tables.fill(mfn, is_table).into_iter().enumerate() {
                pages.insert(mfn(first + index as u64), table);
            }
        }
        pages.insert(mfn(plan.tables.run().pfn), l4);
        Self(pages)
    }

    /// Every page mapped below `table`: virtual page number and leaf entry.
    fn leaves(&self, table: u64, level: u32, prefix: u64, found: &mut Vec<(u64, u64)>) {
        for (index, entry) in self.0[&table].iter().enumerate() {
            if entry & 1 == 0 {
                continue;
            }
            let (at, target) = (prefix << 9 | index as u64, entry >> 12 & 0xff_ffff_ffff);
            if level == 1 {
                found.push((at, *entry));
            } else {
                assert_eq!(entry & 0xfff, 0x67);
                self.leaves(target, level - 1, at, found);
            }
        }
    }
}

fn lower_pages(tables: &Tables) -> u64 {
    tables.levels[..3].iter().map(|level| level.pages).sum()
}

/// All places of a plan, whatever they are for.
fn places(plan: &PvPlan) -> Vec<Run> {
    let mut runs = vec![
        plan.kernel,
        run(plan.start_info, 3),
        plan.tables.run(),
        run(plan.stack, 1),
        plan.p2m,
    ];
    runs.extend(plan.initrd.map(|initrd| initrd.run));
    runs.extend(plan.p2m_tables.as_ref().map(Tables::run));
    runs
}

fn check(plan: &PvPlan) {
    let mut runs = places(plan);
    runs.sort_by_key(|run| run.pfn);
    for pair in runs.windows(2) {
        assert!(pair[0].end() <= pair[1].pfn, "{pair:?} overlap in {plan:?}");
    }
    assert!(runs.iter().all(|run| run.end() <= plan.nr_pages));
    assert_eq!(
        (plan.xenstore, plan.console),
        (plan.start_info + 1, plan.start_info + 2)
    );

    let machine = Machine::of(plan);
    let table_pages =
        plan.tables.run().pages + plan.p2m_tables.as_ref().map_or(0, |t| t.run().pages);
    assert_eq!(machine.0.len() as u64, table_pages, "tables share a page");
    let mut leaves = Vec::new();
    machine.leaves(mfn(plan.tables.run().pfn), 4, 0, &mut leaves);
    let mut wanted: BTreeMap<u64, u64> = BTreeMap::new();
    let page_of = |address: u64| (address & ((1 << 48) - 1)) >> 12;
    for index in 0..plan.tables.area.pages {
        wanted.insert(page_of(plan.virt_base) + index, index);
    }
    for index in 0..plan.p2m.pages {
        wanted.insert(page_of(plan.p2m_address) + index, plan.p2m.pfn + index);
    }
    assert_eq!(leaves.len(), wanted.len());
    for (page, entry) in leaves {
        let pfn = pfn_of(entry >> 12 & 0xff_ffff_ffff);
        assert_eq!(wanted.get(&page), Some(&pfn), "page {page:#x}");
        let is_table = machine.0.contains_key(&mfn(pfn));
        assert_eq!(
            entry & 0xfff,
            if is_table { 0x21 } else { 0x23 },
            "page {page:#x}"
        );
    }
    // The kernel needs room behind its tables before it can make more of them.
    assert!(plan.tables.area.pages >= plan.stack + 1 + 128);
    assert!(
        plan.virt_base
            .wrapping_add(plan.tables.area.pages * PAGE)
            .is_multiple_of(4 << 20)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_plan_holds_together(
        first in 0_u64..8192,
        sizes in prop::collection::vec((1_u64..3_000_000, 0_u64..40), 1..5),
        initrd in prop::option::of(1_u64..20_000_000),
        memory_mib in 16_u64..1024,
        base in prop_oneof![Just(0xffff_ffff_8000_0000_u64), Just(0xffff_ffff_8000_1000), Just(0x10_0000), Just(0)],
        p2m in prop_oneof![
            Just(None),
            Just(Some(0x80_0000_0000_u64)),
            Just(Some(0xffff_ffff_f000_0000)),
            Just(Some(0xffff_ffff_7fff_f000)),
            Just(Some(0x80_0000_1008)),
        ],
        mod_start_pfn in any::<bool>(),
    ) {
        let mut at = first * PAGE;
        let segments: Vec<Segment> = sizes.into_iter().map(|(size, gap)| {
            let segment = segment(at, size);
            at = (at + size).next_multiple_of(PAGE) + gap * PAGE;
            segment
        }).collect();
        let end = segments.last().unwrap().end();
        let kernel = PvKernel {
            entry: base + first * PAGE,
            virt_base: base,
            virt_offset: base,
            kstart: base + first * PAGE,
            kend: base + end,
            hypercall_page: None,
            init_p2m: p2m,
            mod_start_pfn,
        };
        let meta = meta(segments);
        match plan(&kernel, &meta, initrd, memory_mib * MIB_PAGES, "") {
            Ok(plan) => check(&plan),
            Err(BuildError::TooSmall { need_mib, memory_mib }) => prop_assert!(need_mib >= memory_mib),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
