//! Whole builds on the simulated hypervisor, which checks what Xen checks, and every way a build can fail.

use crate::kernels::{Elf, LOAD, VIRT_BASE, bzimage, payload};
use dom0_agent::build::{BuildError, BuildRequest, VcpuAffinity, build, needed_kib};
use dom0_agent::image::{Format, Initrd, KernelCache, LoadedKernel, Worker};
use nix::errno::Errno;
use std::path::Path;
use xen_abi::domain::{CpuMap, DomainKind, TscMode};
use xen_abi::host::HostCapabilities;
use xen_abi::ids::{DomId, Handle, PAGE_SIZE, VcpuId};
use xen_host::seam::{DomainControl, HostControl};
use xen_sim::{Fault, FaultKind, Filter, World, exhaust};

const KINDS: [DomainKind; 2] = [DomainKind::Pv, DomainKind::Pvh];
const BUILDER: &str = "builder";
const COMMAND_LINE: &str = "console=hvc0 quiet";

/// A kernel and an initrd on disk.
struct Images {
    _directory: tempfile::TempDir,
    kernel: LoadedKernel,
    initrd: Initrd,
    initrd_bytes: Vec<u8>,
}

fn images_of(elf: &Elf) -> Images {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vmlinuz");
    std::fs::write(&path, bzimage(&payload(Format::Zstd, &elf.build()))).unwrap();
    let worker = Worker::of(Path::new(env!("CARGO_BIN_EXE_dom0-agent")));
    let kernel = KernelCache::with_worker(&directory.path().join("cache"), worker)
        .load(&path)
        .unwrap();
    // As gzip begins; nobody unpacks it here.
    let noise = (0..10_000_u32).map(|i| (i * 7) as u8);
    let initrd_bytes: Vec<u8> = [0x1f, 0x8b, 8, 0].into_iter().chain(noise).collect();
    let path = directory.path().join("initrd");
    std::fs::write(&path, &initrd_bytes).unwrap();
    Images {
        kernel,
        initrd: Initrd::open(&path).unwrap(),
        initrd_bytes,
        _directory: directory,
    }
}

fn images() -> Images {
    images_of(&Elf::debian())
}

fn request(kind: DomainKind) -> BuildRequest {
    BuildRequest {
        command_line: COMMAND_LINE.to_owned(),
        ..BuildRequest::new(kind, Handle([7; 16]), 32 * 1024, 2)
    }
}

fn world() -> World {
    World::builder(1).memory_mib(128).build()
}

fn check_loaded(world: &World, domid: DomId, images: &Images, initrd_pfn: u64) {
    for (paddr, bytes, memory) in &Elf::debian().loads {
        let loaded = world
            .read_guest(
                domid,
                paddr / 4096,
                (paddr % 4096) as usize,
                *memory as usize,
            )
            .unwrap();
        let (file, zeros) = loaded.split_at(bytes.len());
        assert!(
            file == bytes && zeros.iter().all(|byte| *byte == 0),
            "segment at {paddr:#x}"
        );
    }
    let initrd = world
        .read_guest(domid, initrd_pfn, 0, images.initrd_bytes.len())
        .unwrap();
    assert!(initrd == images.initrd_bytes, "the initrd differs");
}

fn check_grants(world: &World, domid: DomId, store: u64, console: u64) {
    let guest = world.domu(domid);
    for (grant, frame) in [(1, store), (0, console)] {
        let page = guest.reserved_page(grant).expect("a granted page");
        page.write(0, b"seen from both sides");
        let same = world.read_guest(domid, frame, 0, 20).unwrap();
        assert_eq!(same, b"seen from both sides");
    }
}

#[test]
fn a_pv_guest_is_complete_and_its_tables_stand_up_to_xen() {
    let (world, images) = (world(), images());
    let host = world.host(BUILDER);
    let built = build(
        &host,
        &request(DomainKind::Pv),
        &images.kernel,
        Some(&images.initrd),
    )
    .unwrap();
    let context = world.vcpu_state(built.domid, VcpuId(0)).unwrap();
    let word = |at: usize| u64::from_le_bytes(context[at..at + 8].try_into().unwrap());
    assert_eq!(word(648), VIRT_BASE + LOAD + 0x40, "rip");
    let start_info = (word(624) - VIRT_BASE) / 4096;
    let info = world.read_guest(built.domid, start_info, 0, 1168).unwrap();
    let word = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().unwrap());
    assert_eq!(word(32), 8192, "pages");
    assert_eq!(word(112) * 4096 % 4096, 0);
    check_loaded(&world, built.domid, &images, word(112));
    assert_eq!(word(120), images.initrd_bytes.len() as u64);
    let pfn_of = |mfn: u64| {
        (0..8192)
            .find(|pfn| world.mfn_of(built.domid, *pfn) == Some(mfn))
            .unwrap()
    };
    assert_eq!(
        (word(56), word(72)),
        (built.store.frame, built.console.frame)
    );
    check_grants(
        &world,
        built.domid,
        pfn_of(built.store.frame),
        pfn_of(built.console.frame),
    );
    // The p2m list is the truth.
    let p2m = world
        .read_guest(built.domid, word(1152), 0, 8 * 8192)
        .unwrap();
    for (pfn, mfn) in p2m.chunks_exact(8).enumerate() {
        let mfn = u64::from_le_bytes(mfn.try_into().unwrap());
        assert_eq!(world.mfn_of(built.domid, pfn as u64), Some(mfn));
    }
    let l4 = u64::from_le_bytes(context[5008..5016].try_into().unwrap()) >> 12;
    assert_eq!(world.pinned(built.domid), [l4]);
    let domain = world.domain(built.domid).unwrap();
    assert!(domain.paused && domain.tot_pages == 8192);
    host.destroy_domain(built.domid).unwrap();
    world.ledger().assert_empty();
}

#[test]
fn a_pvh_guest_is_complete() {
    let (world, images) = (world(), images());
    let host = world.host(BUILDER);
    let built = build(
        &host,
        &request(DomainKind::Pvh),
        &images.kernel,
        Some(&images.initrd),
    )
    .unwrap();
    let context = world.vcpu_state(built.domid, VcpuId(0)).unwrap();
    let word = |at: usize| u64::from_le_bytes(context[at..at + 8].try_into().unwrap());
    assert_eq!((word(640), word(656)), (LOAD + 0x20, 0x11), "rip, cr0");
    let start_info = world
        .read_guest(built.domid, word(520) / 4096, 0, 4096)
        .unwrap();
    assert_eq!(&start_info[..4], &0x336e_c578_u32.to_le_bytes());
    let module = u64::from_le_bytes(start_info[56..64].try_into().unwrap());
    check_loaded(&world, built.domid, &images, module / 4096);
    assert_eq!(
        (built.store.frame, built.console.frame),
        (0xf_effc, 0xf_efff)
    );
    check_grants(&world, built.domid, built.store.frame, built.console.frame);
    for (index, value) in [
        (1, built.store.frame),
        (2, built.store.port.0.into()),
        (17, built.console.frame),
        (18, built.console.port.0.into()),
        (10, 1),
        (12, 0xf_effe << 12),
    ] {
        assert_eq!(
            world.hvm_param(built.domid, index),
            value,
            "parameter {index}"
        );
    }
    let identity = world
        .read_guest(built.domid, 0xf_effe, 0, PAGE_SIZE)
        .unwrap();
    assert_eq!(&identity[4092..], &(0x3ff_u32 << 22 | 0xe7).to_le_bytes());
    let rsdp = u64::from_le_bytes(start_info[32..40].try_into().unwrap());
    let rsdp = world
        .read_guest(built.domid, rsdp / 4096, (rsdp % 4096) as usize, 8)
        .unwrap();
    assert_eq!(rsdp, b"RSD PTR ");
    assert_eq!(world.memory_map(built.domid).len(), 3);
    host.destroy_domain(built.domid).unwrap();
    world.ledger().assert_empty();
}

#[test]
fn a_guest_without_initrd_and_one_for_an_old_kernel_are_built() {
    let old = Elf::debian()
        .without(15)
        .without(16)
        .without(17)
        .note(2, &(VIRT_BASE + LOAD + 0x1000).to_le_bytes());
    let images = images_of(&old);
    for kind in KINDS {
        for initrd in [None, Some(&images.initrd)] {
            let world = world();
            let host = world.host(BUILDER);
            let built = build(&host, &request(kind), &images.kernel, initrd).unwrap();
            assert!(world.domain(built.domid).is_some());
            assert!(world.violations().is_empty(), "{:?}", world.violations());
        }
    }
}

#[test]
fn what_was_asked_for_reaches_the_hypervisor() {
    let (world, images) = (world(), images());
    let host = world.host(BUILDER);
    let mut cpus = CpuMap::default();
    cpus.insert(2);
    let affinity = vec![
        VcpuAffinity::default(),
        VcpuAffinity {
            hard: Some(cpus.clone()),
            soft: None,
        },
    ];
    let request = BuildRequest {
        affinity,
        weight: Some(512),
        cap: Some(50),
        tsc_mode: TscMode::Native,
        max_memory_kib: 48 * 1024,
        max_vcpus: 3,
        ..request(DomainKind::Pv)
    };
    world.record_calls();
    let built = build(&host, &request, &images.kernel, None).unwrap();
    assert_eq!(host.vcpu_affinity(built.domid, VcpuId(1)).unwrap().0, cpus);
    assert_eq!(world.memory_map(built.domid)[0].size, 48 << 20);
    assert_eq!(world.domain(built.domid).unwrap().max_pages, (48 + 1) * 256);
    let calls: Vec<_> = world.call_log().into_iter().map(|(_, op)| op).collect();
    for op in [
        "scheduler_op",
        "settscinfo",
        "set_cpu_policy",
        "set_address_size",
        "claim_pages",
    ] {
        assert!(calls.contains(&op), "{op} is not among {calls:?}");
    }
}

#[test]
fn a_pvh_guest_gets_all_of_maxmem() {
    let (world, images) = (world(), images());
    let request = BuildRequest {
        max_memory_kib: 48 * 1024,
        ..request(DomainKind::Pvh)
    };
    let built = build(&world.host(BUILDER), &request, &images.kernel, None).unwrap();
    // And nine pages outside of its RAM.
    assert_eq!(world.domain(built.domid).unwrap().tot_pages, 48 * 256 + 9);
}

/// The promise: whatever call fails, the error comes out and the host is as it was.
#[test]
fn whatever_call_fails_nothing_is_left() {
    let images = images();
    for kind in KINDS {
        for errno in [Errno::EINVAL, Errno::ENOMEM] {
            let tried = exhaust(FaultKind::Fail(errno), &Filter::process(BUILDER), |fault| {
                let world = world();
                let host = world.host(BUILDER);
                world.inject(fault);
                let result = build(&host, &request(kind), &images.kernel, Some(&images.initrd));
                if world.faults_fired() == 0 {
                    result.unwrap();
                    return world;
                }
                let error = result.unwrap_err();
                assert!(!matches!(error, BuildError::LeftBehind { .. }), "{error}");
                world.ledger().assert_empty();
                world
            });
            assert!(
                tried > 15,
                "only {tried} calls of a {} build were tried",
                kind.as_str()
            );
        }
    }
}

#[test]
fn a_domain_that_cannot_be_destroyed_is_named() {
    let (world, images) = (world(), images());
    let host = world.host(BUILDER);
    world.inject(
        Fault::at(0, FaultKind::Fail(Errno::EBUSY))
            .of(Filter::process(BUILDER).ops(&["destroydomain"])),
    );
    world.inject(
        Fault::at(0, FaultKind::Fail(Errno::EINVAL)).of(Filter::process(BUILDER).ops(&["max_mem"])),
    );
    let said = build(&host, &request(DomainKind::Pv), &images.kernel, None)
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("setting the memory limit: ")
            && said.contains("moreover domain 1 could not be destroyed"),
        "{said}"
    );
}

#[test]
fn a_host_without_large_pieces_gives_small_ones() {
    let images = images();
    for kind in KINDS {
        for most in [0, 1, 5] {
            let world = world();
            let host = world.host(BUILDER);
            world.inject(Fault::at(0, FaultKind::Short(most)).of(Filter::process(BUILDER)));
            let built = build(&host, &request(kind), &images.kernel, Some(&images.initrd)).unwrap();
            assert!(world.domain(built.domid).unwrap().tot_pages >= 8192);
            host.destroy_domain(built.domid).unwrap();
            world.ledger().assert_empty();
        }
    }
}

#[test]
fn not_enough_memory_is_seen_before_a_domain_exists() {
    let images = images();
    for kind in KINDS {
        let world = world();
        world.hog_memory(30 * 256);
        world.record_calls();
        let request = request(kind);
        let error = build(&world.host(BUILDER), &request, &images.kernel, None).unwrap_err();
        let need_mib = needed_kib(&request).div_ceil(1024);
        assert_eq!(
            error.to_string(),
            format!(
                "not enough memory: the guest needs {need_mib} MiB, the host has 30 MiB free; \
                 `xl mem-set 0 ...` or a smaller `memory=` would help"
            )
        );
        assert!(world.call_log().iter().all(|(_, op)| *op != "createdomain"));
        world.ledger().assert_empty();
    }
}

#[test]
fn memory_that_runs_out_meanwhile_is_the_same_error() {
    let images = images();
    for kind in KINDS {
        for op in ["claim_pages", "set_paging_mempool_size"] {
            let world = world();
            let fault = Fault::at(0, FaultKind::Fail(Errno::ENOMEM))
                .of(Filter::process(BUILDER).ops(&[op]));
            world.inject(fault);
            let result = build(&world.host(BUILDER), &request(kind), &images.kernel, None);
            if world.faults_fired() == 0 {
                continue;
            }
            assert!(
                matches!(result, Err(BuildError::NoMemory { .. })),
                "{op}: {result:?}"
            );
            world.ledger().assert_empty();
        }
        let world = world();
        world.inject(
            Fault::at(0, FaultKind::Short(0))
                .times(99)
                .of(Filter::process(BUILDER)),
        );
        let result = build(&world.host(BUILDER), &request(kind), &images.kernel, None);
        assert!(
            matches!(result, Err(BuildError::NoMemory { .. })),
            "{result:?}"
        );
        world.ledger().assert_empty();
    }
}

#[test]
fn what_cannot_be_is_refused_by_name_and_before_a_domain_exists() {
    let images = images();
    let small = BuildRequest {
        memory_kib: 8 * 1024,
        ..request(DomainKind::Pv)
    };
    let cases = [
        (
            BuildRequest {
                vcpus: 0,
                ..request(DomainKind::Pv)
            },
            "`vcpus=0` is not possible",
        ),
        (
            BuildRequest {
                vcpus: 9,
                ..request(DomainKind::Pv)
            },
            "`vcpus=9` is not possible: it must be 1 to maxvcpus (2)",
        ),
        (
            BuildRequest {
                max_vcpus: 129,
                ..request(DomainKind::Pvh)
            },
            "`maxvcpus=129` is not possible",
        ),
        (
            BuildRequest {
                memory_kib: 500,
                ..request(DomainKind::Pv)
            },
            "`memory=0` is not possible",
        ),
        (
            BuildRequest {
                max_memory_kib: 1024,
                ..request(DomainKind::Pv)
            },
            "`maxmem=1` is not possible",
        ),
        (
            BuildRequest {
                command_line: "a\0b".to_owned(),
                ..request(DomainKind::Pvh)
            },
            "it holds a zero byte",
        ),
        (small, "`memory=8` is too small"),
        (request(DomainKind::Hvm), "this host cannot run hvm guests"),
    ];
    for (request, says) in cases {
        let world = world();
        let said = build(&world.host(BUILDER), &request, &images.kernel, None)
            .unwrap_err()
            .to_string();
        assert!(said.contains(says), "{said}");
        world.ledger().assert_empty();
    }
}

#[test]
fn a_host_that_lacks_what_the_guest_needs_is_named() {
    let images = images();
    let all = world().host(BUILDER).physinfo().unwrap().capabilities;
    for (capabilities, kind, says) in [
        (
            HostCapabilities { pv: false, ..all },
            DomainKind::Pv,
            "without PV support",
        ),
        (
            HostCapabilities { hvm: false, ..all },
            DomainKind::Pvh,
            "no hardware virtualisation",
        ),
        (
            HostCapabilities {
                hap: false,
                shadow: false,
                ..all
            },
            DomainKind::Pvh,
            "neither nested paging",
        ),
    ] {
        let world = World::builder(1)
            .memory_mib(128)
            .capabilities(capabilities)
            .build();
        let said = build(&world.host(BUILDER), &request(kind), &images.kernel, None)
            .unwrap_err()
            .to_string();
        assert!(
            said.starts_with("this host cannot run") && said.contains(says),
            "{said}"
        );
    }
}

#[test]
fn a_kernel_for_the_other_kind_is_named_with_its_file() {
    let images = images_of(&Elf::debian().without(18));
    let said = build(
        &world().host(BUILDER),
        &request(DomainKind::Pvh),
        &images.kernel,
        None,
    )
    .unwrap_err()
    .to_string();
    assert!(
        said.contains("vmlinuz cannot start as a pvh guest: it has no PHYS32_ENTRY note"),
        "{said}"
    );
}
