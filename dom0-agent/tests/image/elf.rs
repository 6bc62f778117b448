//! Segments and notes of the unpacked kernel, and what a guest of each kind asks of them.

use crate::kernels::{Elf, LOAD, VIRT_BASE, word};
use dom0_agent::image::compact::{compacted, loadable};
use dom0_agent::image::elf::parse;
use dom0_agent::image::{Fault, Format, KernelMeta, PvKernel, PvhKernel};
use proptest::prelude::*;

fn meta(elf: &Elf) -> KernelMeta {
    parse(&elf.build(), Format::Elf).unwrap()
}

#[test]
fn segments_come_by_physical_address() {
    let meta = meta(&Elf::debian());
    let places: Vec<_> = meta
        .segments
        .iter()
        .map(|segment| (segment.paddr, segment.memory_size))
        .collect();
    assert_eq!(
        places,
        [
            (LOAD, 9000),
            (LOAD + 0x10_0000, 5 * 4096),
            (LOAD + 0x20_0000, 0x5000)
        ]
    );
    assert_eq!(
        (meta.paddr_start(), meta.paddr_end()),
        (LOAD, LOAD + 0x20_5000)
    );
}

#[test]
fn a_good_kernel_passes_for_both_kinds() {
    let meta = meta(&Elf::debian());
    assert_eq!(
        meta.pv().unwrap(),
        PvKernel {
            entry: VIRT_BASE + LOAD + 0x40,
            virt_base: VIRT_BASE,
            virt_offset: VIRT_BASE,
            kstart: VIRT_BASE + LOAD,
            kend: VIRT_BASE + LOAD + 0x20_5000,
            hypercall_page: None,
            init_p2m: Some(0x80_0000_0000),
            mod_start_pfn: true,
        }
    );
    let pvh = PvhKernel {
        entry: 0x100_0020,
        start: LOAD,
        end: LOAD + 0x20_5000,
        rsdp_anywhere: true,
    };
    assert_eq!(meta.pvh().unwrap(), pvh);
}

#[test]
fn each_requirement_of_a_pv_guest_is_checked_and_named() {
    let cases: [(&str, Elf, &str); 9] = [
        ("no version", Elf::debian().without(5), "XEN_VERSION"),
        (
            "old version",
            Elf::debian().note(5, b"xen-2.0\0"),
            "XEN_VERSION",
        ),
        (
            "no loader",
            Elf::debian().without(6).without(8),
            "generic loader",
        ),
        (
            "offset without base",
            Elf::debian().without(3),
            "PADDR_OFFSET",
        ),
        (
            "entry outside",
            Elf::debian().note(1, &word(VIRT_BASE)),
            "entry",
        ),
        (
            "base above the kernel",
            Elf::debian()
                .note(1, &word(VIRT_BASE + 0x40))
                .note(4, &word(LOAD + 0x1000)),
            "base",
        ),
        (
            "p2m inside",
            Elf::debian().note(15, &word(VIRT_BASE + LOAD)),
            "p2m",
        ),
        (
            "p2m unaligned",
            Elf::debian().note(15, &word(0x80_0000_0008)),
            "p2m",
        ),
        (
            "hypercall page outside",
            Elf::debian().note(2, &word(VIRT_BASE)),
            "hypercall page",
        ),
    ];
    for (name, elf, says) in cases {
        let fault = meta(&elf).pv().unwrap_err();
        let said = fault.to_string();
        assert!(
            said.starts_with("cannot start as a pv guest") && said.contains(says),
            "{name}: {said}"
        );
    }
}

#[test]
fn each_requirement_of_a_pvh_guest_is_checked_and_named() {
    let far = Elf {
        loads: vec![(0xffff_f000, vec![1; 0x2000], 0x2000)],
        ..Elf::debian()
    };
    let cases = [
        (Elf::debian().without(18), "CONFIG_PVH"),
        (Elf::debian().note(18, &word(LOAD - 1)), "entry"),
        (far.note(18, &word(0xffff_f000)), "entry"),
    ];
    for (elf, says) in cases {
        let said = meta(&elf).pvh().unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let old_linux = Elf::debian().without(17);
    assert!(!meta(&old_linux).pvh().unwrap().rsdp_anywhere);
    let other = Elf::debian().without(17).note(6, b"netbsd\0");
    assert!(meta(&other).pvh().unwrap().rsdp_anywhere);
}

#[test]
fn malformed_notes_are_named() {
    for (elf, says) in [
        (Elf::debian().note(1, b"abc"), "ENTRY has 3 bytes"),
        (
            Elf::debian().note(10, b"!warp_drive\0"),
            "unknown feature `warp_drive`",
        ),
        (
            Elf::debian().note(18, &word(1 << 40)),
            "PHYS32_ENTRY is 0x10000000000, beyond 32 bits",
        ),
        (
            Elf::debian().note(19, b"\x03\0\0\0\0\0\0\0\xff\xff\xff\xff"),
            "PHYS32_RELOC",
        ),
        (
            Elf::debian().note(5, b"\xff\xfe\0"),
            "XEN_VERSION is not text",
        ),
    ] {
        let said = parse(&elf.build(), Format::Elf).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    // Unknown and not required: passed over.
    assert!(
        parse(
            &Elf::debian().note(10, b"warp_drive\0").build(),
            Format::Elf
        )
        .is_ok()
    );
}

#[test]
fn malformed_segments_are_named() {
    let with = |loads| Elf {
        loads,
        ..Elf::debian()
    };
    for (elf, says) in [
        (with(vec![]), "no segment"),
        (
            with(vec![(LOAD, vec![1; 100], 50)]),
            "larger in the file than in memory",
        ),
        (
            with(vec![
                (LOAD, vec![1; 100], 100),
                (LOAD + 99, vec![2; 10], 10),
            ]),
            "overlaps",
        ),
        (with(vec![(u64::MAX - 10, vec![1; 10], 20)]), "wraps"),
        (with(vec![(LOAD, vec![1; 10], 2 << 30)]), "span"),
    ] {
        let said = parse(&elf.build(), Format::Elf).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_kernel_without_notes_is_not_for_xen() {
    let plain = Elf {
        notes: vec![],
        ..Elf::debian()
    };
    assert_eq!(
        parse(&plain.build(), Format::Elf).unwrap_err(),
        Fault::NotForXen
    );
    let mut arm = Elf::debian().build();
    arm[18] = 183;
    assert!(
        parse(&arm, Format::Elf)
            .unwrap_err()
            .to_string()
            .contains("another machine")
    );
}

#[test]
fn what_is_cut_off_is_only_zeros() {
    let elf = Elf::debian();
    let file = elf.build();
    let meta = loadable(&file, Format::Zstd).unwrap();
    meta.check().unwrap();
    for (paddr, bytes, memory) in &elf.loads {
        let segment = meta
            .segments
            .iter()
            .find(|segment| segment.paddr == *paddr)
            .unwrap();
        assert_eq!(segment.memory_size, *memory);
        let start = segment.file_offset as usize;
        let mut loaded = file[start..start + segment.file_size as usize].to_vec();
        loaded.resize(*memory as usize, 0);
        let mut wanted = bytes.clone();
        wanted.resize(*memory as usize, 0);
        assert!(loaded == wanted, "segment at {paddr:#x}");
    }
    // Three of the five pages of the data segment are zero.
    let sizes: Vec<u64> = meta
        .segments
        .iter()
        .map(|segment| segment.file_size)
        .collect();
    assert_eq!(sizes, [9000, 2 * 4096, 300]);
    let compact = compacted(&meta);
    let offsets: Vec<u64> = compact
        .segments
        .iter()
        .map(|segment| segment.file_offset)
        .collect();
    assert_eq!(
        (offsets, compact.unpacked_size),
        (vec![0, 9000, 9000 + 8192], 9000 + 8192 + 300)
    );
    compact.check().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damage_makes_it_panic_or_break_its_promises(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        in_headers in any::<bool>(),
    ) {
        let mut file = Elf::debian().build();
        let reach = if in_headers { 64 + 56 * 4 } else { file.len() };
        for (at, value) in hits {
            file[at.index(reach)] = value;
        }
        if let Ok(meta) = parse(&file, Format::Elf) {
            prop_assert!(meta.check().is_ok());
            if let Ok(pv) = meta.pv() {
                prop_assert!((pv.kstart..pv.kend).contains(&pv.entry) && pv.virt_base <= pv.kstart);
            }
            if let Ok(pvh) = meta.pvh() {
                prop_assert!((pvh.start..pvh.end).contains(&u64::from(pvh.entry)) && pvh.end <= 1 << 32);
            }
        }
        if let Ok(meta) = loadable(&file, Format::Elf) {
            prop_assert!(meta.check().is_ok() && compacted(&meta).check().is_ok());
        }
    }
}
