//! The simulated hypervisor keeps Xen's rules of birth and death.

use nix::errno::Errno;
use xen_abi::domain::{CpuMap, CreateDomain, DomainKind, ShutdownReason};
use xen_abi::ids::{DomId, Handle, VcpuId};
use xen_abi::version::{Abi, XenVersion};
use xen_host::error::Error;
use xen_host::seam::{Devices, DomainControl, HostControl, MemoryControl};
use xen_host::xenstore::store::{Store, StoreExt, TxId};
use xen_sim::{GuestSpec, SimHost, World};

pub fn create(kind: DomainKind) -> CreateDomain {
    CreateDomain {
        kind,
        handle: Handle([7; 16]),
        max_vcpus: 2,
        max_event_port: 1023,
        max_grant_frames: None,
        max_maptrack_frames: None,
        grant_version: 1,
        cpupool: 0,
        ssidref: 0,
    }
}

pub fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<Errno> {
    result.unwrap_err().errno()
}

fn domain(host: &SimHost, kind: DomainKind) -> DomId {
    let domid = host.create_domain(&create(kind)).unwrap();
    host.max_vcpus(domid, 2).unwrap();
    host.set_max_mem(domid, 64 * 1024).unwrap();
    domid
}

#[test]
fn creation_is_refused_for_the_reasons_xen_has() {
    let world = World::seeded(1);
    let host = world.host("agent");
    type Spoil = fn(&mut CreateDomain);
    let table: [(&str, Spoil, Errno); 6] = [
        ("no vcpu", |c| c.max_vcpus = 0, Errno::EINVAL),
        ("too many vcpus", |c| c.max_vcpus = 129, Errno::EINVAL),
        ("grant version 0", |c| c.grant_version = 0, Errno::EINVAL),
        ("grant version 3", |c| c.grant_version = 3, Errno::EINVAL),
        (
            "no grant frames",
            |c| c.max_grant_frames = Some(0),
            Errno::EINVAL,
        ),
        ("unknown pool", |c| c.cpupool = 9, Errno::ENODEV),
    ];
    for (what, spoil, wanted) in table {
        let mut request = create(DomainKind::Pvh);
        spoil(&mut request);
        assert_eq!(errno(host.create_domain(&request)), Some(wanted), "{what}");
    }
    let log = String::from_utf8(host.console_log(false).unwrap()).unwrap();
    assert!(log.contains("invalid grant table version 0"), "{log}");
    world.ledger().assert_empty();
}

#[test]
fn what_the_hypervisor_cannot_do_is_refused() {
    let mut capabilities = World::seeded(1).host("x").physinfo().unwrap().capabilities;
    capabilities.hap = false;
    let world = World::builder(1).capabilities(capabilities).build();
    let host = world.host("agent");
    assert_eq!(
        errno(host.create_domain(&create(DomainKind::Pvh))),
        Some(Errno::EINVAL)
    );
    assert!(host.create_domain(&create(DomainKind::Pv)).is_ok());
}

#[test]
fn the_order_of_creation_is_enforced() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = host.create_domain(&create(DomainKind::Pv)).unwrap();
    assert_eq!(
        errno(host.vcpu_info(domid, VcpuId(0))),
        Some(Errno::ESRCH),
        "no vcpu yet"
    );
    assert_eq!(
        errno(host.vcpu_info(domid, VcpuId(9))),
        Some(Errno::EINVAL),
        "never one"
    );
    let context = vec![0; 5168];
    assert_eq!(
        errno(host.set_vcpu_context(domid, VcpuId(0), &context)),
        Some(Errno::EINVAL)
    );
    assert_eq!(
        errno(host.max_vcpus(domid, 1)),
        Some(Errno::EINVAL),
        "not the number promised"
    );
    host.max_vcpus(domid, 2).unwrap();
    assert_eq!(
        host.populate(domid, &mut [0], 0).unwrap(),
        0,
        "max_mem is still 0"
    );
    host.set_max_mem(domid, 8).unwrap();
    assert_eq!(
        host.populate(domid, &mut [0, 1, 2], 0).unwrap(),
        2,
        "max_mem is 2 pages"
    );
    assert_eq!(
        errno(host.set_hvm_param(domid, 1, 1)),
        Some(Errno::EINVAL),
        "PV has no params"
    );
    assert_eq!(
        errno(host.set_paging_pool(domid, 4096)),
        Some(Errno::EOPNOTSUPP)
    );
    assert_eq!(errno(host.set_address_size(domid, 32)), Some(Errno::EINVAL));
    host.set_address_size(domid, 64).unwrap();
    host.destroy_domain(domid).unwrap();
    world.ledger().assert_empty();
}

#[test]
fn unknown_domains_and_dom0_are_refused() {
    let world = World::seeded(1);
    let host = world.host("agent");
    assert_eq!(errno(host.destroy_domain(DomId(9))), Some(Errno::ESRCH));
    assert_eq!(errno(host.pause(DomId(9))), Some(Errno::ESRCH));
    assert_eq!(errno(host.destroy_domain(DomId::DOM0)), Some(Errno::EINVAL));
    assert_eq!(errno(host.pause(DomId::DOM0)), Some(Errno::EINVAL));
    assert_eq!(host.domain_info(DomId(9)).unwrap(), None);
    let error = host.destroy_domain(DomId(9)).unwrap_err().to_string();
    assert!(error.contains("destroydomain of domain 9"), "{error}");
}

#[test]
fn pauses_are_counted() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    assert!(
        host.domain_info(domid).unwrap().unwrap().paused,
        "born paused"
    );
    host.pause(domid).unwrap();
    host.unpause(domid).unwrap();
    assert!(host.domain_info(domid).unwrap().unwrap().paused);
    host.unpause(domid).unwrap();
    assert!(!host.domain_info(domid).unwrap().unwrap().paused);
    assert_eq!(
        errno(host.unpause(domid)),
        Some(Errno::EINVAL),
        "nothing left to undo"
    );
    for _ in 0..255 {
        host.pause(domid).unwrap();
    }
    assert_eq!(errno(host.pause(domid)), Some(Errno::EOVERFLOW));
}

#[test]
fn the_policy_is_fixed_once_the_domain_ran() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    let mut policy = host.cpu_policy(5).unwrap();
    host.set_cpu_policy(domid, &policy).unwrap();
    policy.leaves[0].regs[0] += 1;
    assert_eq!(
        errno(host.set_cpu_policy(domid, &policy)),
        Some(Errno::EINVAL),
        "beyond the host"
    );
    policy.leaves[0].regs[0] -= 1;
    host.unpause(domid).unwrap();
    assert_eq!(
        errno(host.set_cpu_policy(domid, &policy)),
        Some(Errno::EEXIST)
    );
}

#[test]
fn memory_is_accounted_to_the_page() {
    let world = World::builder(1).memory_mib(32).build();
    let host = world.host("agent");
    let before = host.physinfo().unwrap().free_pages;
    let domid = domain(&host, DomainKind::Pvh);
    let mut extents: Vec<u64> = (0..64).map(|n| n * 512).collect();
    let done = host.populate(domid, &mut extents, 9).unwrap();
    assert!(
        done < 16,
        "32 MiB minus the pool do not hold 16 extents of 2 MiB: {done}"
    );
    let info = host.domain_info(domid).unwrap().unwrap();
    assert_eq!(info.tot_pages, done as u64 * 512);
    assert_eq!(extents[0], 0, "gfns of a PVH guest come back unchanged");
    assert_eq!(
        errno(host.claim(domid, info.tot_pages + 8192)),
        Some(Errno::ENOMEM)
    );
    host.destroy_domain(domid).unwrap();
    assert_eq!(host.physinfo().unwrap().free_pages, before);
    world.ledger().assert_empty();
}

#[test]
fn a_claim_keeps_others_out() {
    let world = World::builder(1).memory_mib(32).build();
    let host = world.host("agent");
    let (first, second) = (domain(&host, DomainKind::Pv), domain(&host, DomainKind::Pv));
    host.claim(first, 8000).unwrap();
    assert_eq!(
        errno(host.claim(first, 8001)),
        Some(Errno::EINVAL),
        "one claim at a time"
    );
    assert_eq!(host.physinfo().unwrap().outstanding_pages, 8000);
    let mut frames: Vec<u64> = (0..512).collect();
    let done = host.populate(second, &mut frames, 0).unwrap();
    assert!(done < 512, "the rest is claimed: {done}");
    assert_eq!(host.populate(first, &mut frames.clone(), 0).unwrap(), 512);
    host.claim(first, 0).unwrap();
    assert_eq!(host.physinfo().unwrap().outstanding_pages, 0);
}

#[test]
fn a_pool_that_is_too_small_shortens_populate() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    host.set_max_mem(domid, 1 << 20).unwrap();
    assert_eq!(
        errno(host.set_paging_pool(domid, 4097)),
        Some(Errno::EINVAL)
    );
    host.set_paging_pool(domid, 10 * 4096).unwrap();
    let mut scattered: Vec<u64> = (0..20).map(|n| n * 512).collect();
    let done = host.populate(domid, &mut scattered, 0).unwrap();
    assert!((1..20).contains(&done), "{done}");
}

#[test]
fn pv_frames_are_machine_frames_and_pvh_frames_are_guest_frames() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let (pv, pvh) = (
        domain(&host, DomainKind::Pv),
        domain(&host, DomainKind::Pvh),
    );
    let mut mfns = [0, 1, 2];
    host.populate(pv, &mut mfns, 0).unwrap();
    assert!(
        mfns[0] > mfns[1] && mfns[1] > mfns[2],
        "single frames descend: {mfns:x?}"
    );
    host.populate(pvh, &mut [5], 0).unwrap();
    let page = host.map_foreign(pv, &mfns[1..2], true).unwrap();
    page.write(0, b"second");
    assert_eq!(world.read_guest(pv, 1, 0, 6).unwrap(), b"second");
    assert_eq!(
        errno(host.map_foreign(pv, &[1], true)),
        Some(Errno::EINVAL),
        "a gfn is no mfn"
    );
    assert_eq!(
        errno(host.map_foreign(pvh, &mfns[..1], false)),
        Some(Errno::EINVAL)
    );
    let page = host.map_foreign(pvh, &[5], true).unwrap();
    page.write(100, b"pvh");
    assert_eq!(world.read_guest(pvh, 5, 100, 3).unwrap(), b"pvh");
    assert_eq!(
        errno(host.map_foreign(pvh, &[5, 6], true)),
        Some(Errno::EINVAL),
        "all or nothing"
    );
    assert_eq!(
        errno(host.map_foreign(DomId(77), &[0], true)),
        Some(Errno::ESRCH)
    );
}

#[test]
fn freed_frames_are_scrubbed() {
    let world = World::builder(1).memory_mib(4).build();
    let host = world.host("agent");
    for _ in 0..2 {
        let domid = domain(&host, DomainKind::Pv);
        let mut mfns: Vec<u64> = (0..900).collect();
        assert_eq!(host.populate(domid, &mut mfns, 0).unwrap(), 900);
        let all = host.map_foreign(domid, &mfns, true).unwrap();
        assert!(
            all.read_vec(0, all.len()).iter().all(|byte| *byte == 0),
            "dirty frames"
        );
        all.fill(0, all.len(), 0xAA);
        drop(all);
        host.destroy_domain(domid).unwrap();
    }
}

#[test]
fn a_dying_domain_lives_on_while_its_frames_are_mapped() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    host.populate(domid, &mut (0..64).collect::<Vec<_>>(), 0)
        .unwrap();
    let page = host.map_foreign(domid, &[3], true).unwrap();
    host.destroy_domain(domid).unwrap();
    let info = host.domain_info(domid).unwrap().unwrap();
    assert!(info.dying);
    assert_eq!(info.tot_pages, 1, "only the mapped page is left");
    assert_eq!(
        errno(host.map_foreign(domid, &[3], true)),
        Some(Errno::EINVAL),
        "no new maps"
    );
    page.write(0, b"still there");
    let other = domain(&host, DomainKind::Pvh);
    assert_ne!(other, domid, "the id of a zombie is taken");
    host.destroy_domain(other).unwrap();
    drop(page);
    assert_eq!(host.domain_info(domid).unwrap(), None);
    world.ledger().assert_empty();
}

#[test]
fn the_first_shutdown_reason_stays_and_xenstored_tells() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let mut guest = world.spawn(&GuestSpec::pvh("web1"));
    let watch = host.watch("@releaseDomain").unwrap();
    assert_eq!(
        watch.try_next().as_deref(),
        Some("@releaseDomain"),
        "fires at registration"
    );
    guest.crash();
    guest.reboot();
    assert_eq!(watch.try_next().as_deref(), Some("@releaseDomain"));
    assert_eq!(watch.try_next(), None);
    let info = host.domain_info(guest.domid()).unwrap().unwrap();
    assert_eq!(info.shutdown, Some(ShutdownReason::Crash));
    world.destroy_guest(guest.domid());
    assert_eq!(watch.try_next().as_deref(), Some("@releaseDomain"));
    drop(watch);
    world.ledger().assert_empty();
}

#[test]
fn a_guest_answers_a_shutdown_request_only_if_it_lives() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let mut guest = world.spawn(&GuestSpec::pv("web1"));
    let request = format!("/local/domain/{}/control/shutdown", guest.domid());
    assert!(!guest.step(), "nothing asked yet");
    guest.hang();
    host.write_text(TxId::NONE, &request, "poweroff").unwrap();
    assert!(!guest.step());
    guest.wake();
    assert!(guest.step());
    assert_eq!(
        host.read_text(TxId::NONE, &request).unwrap().as_deref(),
        Some("")
    );
    let info = world.domain(guest.domid()).unwrap();
    assert_eq!(info.shutdown, Some(ShutdownReason::Poweroff));
}

#[test]
fn affinity_outside_of_the_host_is_refused() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    let (mut inside, mut outside) = (CpuMap::default(), CpuMap::default());
    inside.insert(1);
    outside.insert(63);
    host.set_vcpu_affinity(domid, VcpuId(0), Some(&inside), None)
        .unwrap();
    assert_eq!(host.vcpu_affinity(domid, VcpuId(0)).unwrap().0, inside);
    let refused = host.set_vcpu_affinity(domid, VcpuId(0), Some(&outside), None);
    assert_eq!(errno(refused), Some(Errno::EINVAL));
}

#[test]
fn releases_differ_where_xen_differs() {
    for abi in Abi::ALL {
        let world = World::builder(1).release(abi).build();
        let host = world.host("agent");
        let domid = host.create_domain(&create(DomainKind::Pvh)).unwrap();
        let next = world.raw_domain_info(DomId(0x100)).map(|info| info.domid);
        assert_eq!(next, Err(Errno::ESRCH), "nothing above, any release");
        let third = world.raw_create(3, &create(DomainKind::Pvh)).unwrap();
        assert_eq!((domid, third), (DomId(1), DomId(3)));
        let gap = world.raw_domain_info(DomId(2)).map(|info| info.domid);
        let wanted = if abi == Abi::V4_17 {
            Ok(DomId(3))
        } else {
            Err(Errno::ESRCH)
        };
        assert_eq!(gap, wanted, "{abi:?}");
        assert_eq!(
            host.domain_info(DomId(2)).unwrap(),
            None,
            "the seam compares ids"
        );
        let zero = world.raw_create(0, &create(DomainKind::Pvh)).is_ok();
        let any = world.raw_create(0x7FF5, &create(DomainKind::Pvh)).is_ok();
        assert_eq!(
            (zero, any),
            (abi != Abi::V4_22, abi != Abi::V4_21),
            "wildcards of {abi:?}"
        );
    }
    let world = World::builder(1)
        .version(XenVersion {
            major: 4,
            minor: 14,
        })
        .build();
    let error = world.open("agent").unwrap_err().to_string();
    assert!(error.contains("4.14"), "{error}");
}

#[test]
fn cpu_time_passes_for_running_guests_only() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let running = world.spawn(&GuestSpec::pvh("a")).domid();
    let paused = world.spawn(&GuestSpec::pvh("b")).domid();
    host.pause(paused).unwrap();
    world.advance(std::time::Duration::from_millis(3));
    assert_eq!(world.domain(running).unwrap().cpu_time_ns, 3_000_000);
    assert_eq!(world.domain(paused).unwrap().cpu_time_ns, 0);
    assert_eq!(world.now(), std::time::Duration::from_millis(3));
}

#[test]
fn a_hvm_context_has_no_cpu_record_before_one_is_loaded() {
    let world = World::seeded(1);
    let host = world.host("agent");
    let domid = domain(&host, DomainKind::Pvh);
    let fresh = host.hvm_context(domid).unwrap();
    let codes = |blob: &[u8]| {
        let (mut rest, mut codes) = (blob, Vec::new());
        while let Some((head, tail)) = rest.split_at_checked(8) {
            codes.push(u16::from_le_bytes([head[0], head[1]]));
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            rest = &tail[len..];
        }
        codes
    };
    assert!(!codes(&fresh).contains(&2), "{:?}", codes(&fresh));
    let mut blob = fresh[..32].to_vec();
    blob.extend_from_slice(&[2, 0, 0, 0, 16, 0, 0, 0]);
    blob.extend_from_slice(&[9; 16]);
    assert_eq!(
        errno(host.set_hvm_context(domid, &blob)),
        Some(Errno::ENODATA),
        "no END"
    );
    blob.extend_from_slice(&[0; 8]);
    host.set_hvm_context(domid, &blob).unwrap();
    assert!(codes(&host.hvm_context(domid).unwrap()).contains(&2));
    let state = world.vcpu_state(domid, VcpuId(0)).unwrap();
    assert_eq!(
        (state.len(), state[15], state[16]),
        (1032, 9, 0),
        "short records are extended"
    );
    assert_eq!(host.domain_info(domid).unwrap().unwrap().online_vcpus, 1);
    let _ = host.open_grants().unwrap();
}
