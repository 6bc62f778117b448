//! PV guests that are saved and restored: what names machine frames names others afterwards, and nothing else is different.

use crate::kernels::VIRT_BASE;
use crate::save::{
    assert_runs, assert_saved_or_running, config_of, file, file_is_whole, fresh_file, is_sparse,
    kept_file, restore_of, save, the_guest, whole,
};
use crate::support::faults::{with_each_death, with_each_failure};
use crate::support::reflex::Reflex;
use crate::support::{Host, Setup};
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::save::AfterSave;
use std::collections::BTreeSet;
use std::mem::offset_of;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_abi::pv::shared_info::{ArchSharedInfo, SharedInfo};
use xen_abi::pv::start_info::StartInfo;
use xen_abi::pv::vcpu_context::{VcpuGuestContext, frame_of_cr3};
use xen_host::region::SharedRegion;
use xen_host::seam::{DomainControl, MemoryControl, VcpuPart};
use xen_stream::libxc::Kind;
use zerocopy::{FromBytes, IntoBytes};

const GUEST: DomId = DomId(1);
/// Pages of the test's guests.
const PAGES: u64 = 4096;

fn context(host: &Host, domid: DomId) -> VcpuGuestContext {
    let bytes = host.world.vcpu_state(domid, VcpuId(0)).unwrap();
    VcpuGuestContext::read_from_bytes(&bytes).unwrap()
}

fn pfn_of(host: &Host, domid: DomId, mfn: u64) -> u64 {
    let mut pfns = 0..PAGES;
    pfns.find(|pfn| host.world.mfn_of(domid, *pfn) == Some(mfn))
        .unwrap()
}

fn map(host: &Host, domid: DomId, mfn: u64) -> SharedRegion {
    let kernel = host.world.host("kernel");
    kernel.map_foreign(domid, &[mfn], true).unwrap()
}

/// Page of `start_info`, and of the list of frames, as the builder mapped them.
fn start_info(host: &Host, domid: DomId) -> (u64, StartInfo) {
    let pfn = (context(host, domid).user_regs.rsi - VIRT_BASE) / PAGE_SIZE as u64;
    let bytes = host
        .world
        .read_guest(domid, pfn, 0, size_of::<StartInfo>())
        .unwrap();
    (pfn, StartInfo::read_from_bytes(&bytes).unwrap())
}

/// What a PV kernel does at its start and when it suspends: it says where its list is, and calls its rings by page number.
pub fn speak(host: &Host) {
    let (pfn, info) = start_info(host, GUEST);
    let mut context = context(host, GUEST);
    let frame = host.world.domain(GUEST).unwrap().shared_info_frame;
    let arch = ArchSharedInfo {
        max_pfn: PAGES,
        pfn_to_mfn_frame_list_list: 0,
        nmi_reason: 0,
        p2m_cr3: context.ctrlreg[3],
        p2m_vaddr: info.mfn_list,
        p2m_generation: 0,
    };
    let shared_info = map(host, GUEST, frame);
    shared_info.write(offset_of!(SharedInfo, arch), arch.as_bytes());
    let mfn = host.world.mfn_of(GUEST, pfn).unwrap();
    let page = map(host, GUEST, mfn);
    let rings = [
        (offset_of!(StartInfo, store_mfn), info.store_mfn),
        (offset_of!(StartInfo, console_mfn), info.console_mfn),
    ];
    for (offset, ring) in rings {
        page.store_u64(offset, pfn_of(host, GUEST, ring));
    }
    drop(page);
    context.user_regs.rdx = mfn;
    let kernel = host.world.host("kernel");
    kernel
        .set_vcpu_context(GUEST, VcpuId(0), context.as_bytes())
        .unwrap();
    for (part, byte) in parts() {
        let state = vec![byte; 64];
        kernel
            .set_vcpu_part(GUEST, VcpuId(0), part, &state)
            .unwrap();
    }
}

fn parts() -> [(VcpuPart, u8); 3] {
    [
        (VcpuPart::Extended, 1),
        (VcpuPart::Xsave, 2),
        (VcpuPart::Msrs, 3),
    ]
}

pub fn running() -> Host {
    running_on(false)
}

fn running_on(patched: bool) -> Host {
    let mut host = Host::with(Setup {
        patched,
        ..Setup::default()
    });
    let config = config_of(&host, "pv");
    host.start(config);
    speak(&host);
    host.reflex(GUEST, Reflex::Suspend);
    host
}

/// Every page, and which of them hold frames: page tables, the list, `start_info`.
fn pages(host: &Host, domid: DomId) -> (Vec<Vec<u8>>, BTreeSet<u64>) {
    let frames: Vec<u64> = (0..PAGES)
        .map(|pfn| host.world.mfn_of(domid, pfn).unwrap())
        .collect();
    let types = host
        .world
        .host("kernel")
        .page_types(domid, &frames)
        .unwrap();
    let mut special: BTreeSet<u64> = (0..PAGES)
        .zip(types)
        .filter(|(_, kind)| *kind != 0)
        .map(|(pfn, _)| pfn)
        .collect();
    special.insert(start_info(host, domid).0);
    let read = |pfn| host.world.read_guest(domid, pfn, 0, PAGE_SIZE).unwrap();
    let pages: Vec<_> = (0..PAGES).map(read).collect();
    let list: Vec<Vec<u8>> = frames
        .chunks(512)
        .map(|part| part.iter().flat_map(|mfn| mfn.to_le_bytes()).collect())
        .collect();
    for (pfn, page) in (0..).zip(&pages) {
        if list.contains(page) {
            special.insert(pfn);
        }
    }
    (pages, special)
}

#[test]
fn a_pv_guest_comes_back_on_other_frames() {
    [false, true].into_iter().for_each(comes_back);
}

fn comes_back(patched: bool) {
    let mut host = running_on(patched);
    let (before, special) = pages(&host, GUEST);
    assert!(special.len() > 8 + 4, "{special:?}");
    let registers = context(&host, GUEST);
    let top = pfn_of(&host, GUEST, frame_of_cr3(registers.ctrlreg[3]).0);
    // Frames that the guest had are somebody else's when it comes back.
    let file = file();
    let summary = save(&host, AfterSave::Destroy, &file).unwrap();
    assert_eq!(whole(&file), Some(summary));
    assert_eq!(summary.pages, PAGES);
    assert_eq!(summary.contents, PAGES);
    assert!(is_sparse(&file, summary.bytes), "zeroes take room");
    for kind in [
        Kind::PvInfo,
        Kind::P2mFrames,
        Kind::SharedInfo,
        Kind::VcpuBasic,
        Kind::VcpuExtended,
        Kind::VcpuXsave,
        Kind::VcpuMsrs,
    ] {
        assert_eq!(summary.records(kind), 1, "{}", kind.name());
    }
    host.settle();
    host.assert_clean();
    host.world.leave_memory_stale();
    let other = host.world.spawn(&xen_sim::GuestSpec::pvh("other"));

    let domid = restore_of(&host, "pv", &file, true).unwrap();
    let (after, same) = pages(&host, domid);
    assert_eq!(special, same);
    for (pfn, (old, new)) in (0..).zip(before.iter().zip(&after)) {
        assert!(old == new || special.contains(&pfn), "page {pfn:#x}");
    }
    let now = context(&host, domid);
    assert_eq!(pfn_of(&host, domid, frame_of_cr3(now.ctrlreg[3]).0), top);
    assert_ne!(now.ctrlreg[3], registers.ctrlreg[3]);
    let rip = |context: &VcpuGuestContext| (context.user_regs.rip, context.user_regs.rsp);
    assert_eq!(rip(&now), rip(&registers));
    let kernel = host.world.host("kernel");
    for (part, byte) in parts() {
        let state = kernel.vcpu_part(domid, VcpuId(0), part).unwrap();
        assert_eq!(state, vec![byte; 64], "{part:?}");
    }
    let (pfn, info) = start_info(&host, domid);
    assert_eq!(host.world.mfn_of(domid, pfn), Some(now.user_regs.rdx));
    assert_eq!((info.nr_pages, info.flags), (PAGES, 0));
    let ring = format!("/local/domain/{domid}/store/ring-ref");
    assert_eq!(host.world.xs_read(&ring), Some(info.store_mfn.to_string()));
    assert_eq!(host.world.pinned(domid).len(), 1);
    host.world.destroy_guest(other.domid());
    host.process.unpause(domid).unwrap();
    assert_runs(&mut host, domid);
}

#[test]
fn a_pv_guest_runs_on_after_a_checkpoint() {
    let mut host = running();
    let file = file();
    save(&host, AfterSave::Resume, &file).unwrap();
    assert!(whole(&file).is_some());
    assert_eq!(context(&host, GUEST).user_regs.rax, 1);
    assert_runs(&mut host, GUEST);
}

#[test]
fn a_pv_guest_that_does_not_say_where_its_memory_is_runs_on() {
    let mut host = Host::new();
    let config = config_of(&host, "pv");
    host.start(config);
    host.reflex(GUEST, Reflex::Suspend);
    let error = save(&host, AfterSave::Destroy, &file()).unwrap_err();
    assert!(error.to_string().contains("0 pages"), "{error}");
    assert_runs(&mut host, GUEST);
}

// ---- every call fails, or is the agent's last ----

fn save_for_good(host: &mut Host) -> Result<(), AgentError> {
    save(host, AfterSave::Destroy, &fresh_file()).map(drop)
}

fn saved() -> Host {
    let mut host = running();
    save_for_good(&mut host).unwrap();
    host.settle();
    host
}

fn bring_back(host: &mut Host) -> Result<(), AgentError> {
    restore_of(host, "pv", &kept_file(), false).map(drop)
}

#[test]
fn a_pv_save_that_fails_leaves_the_guest_running_or_whole_in_its_file() {
    with_each_failure("agent", running, save_for_good, |host, result| {
        if result.is_ok() {
            assert!(file_is_whole());
        }
        assert_saved_or_running(host);
    });
}

#[test]
fn a_pv_restore_that_fails_leaves_nothing() {
    with_each_failure("agent", saved, bring_back, |host, result| match result {
        Err(_) => host.assert_clean(),
        Ok(()) => {
            let domid = the_guest(host).unwrap();
            assert_runs(host, domid);
        }
    });
}

#[test]
fn an_agent_that_dies_while_it_restores_a_pv_guest_finishes_or_undoes_it() {
    with_each_death(saved, bring_back, |host| {
        host.settle();
        match the_guest(host) {
            Some(domid) => assert_runs(host, domid),
            None => host.assert_clean(),
        }
    });
}
