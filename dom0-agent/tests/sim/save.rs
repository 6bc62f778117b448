//! Guests that are saved and restored: the file is whole and the guest gone, or the guest runs where it was; never neither.

use crate::support::faults::{with_each_death, with_each_failure};
use crate::support::reflex::Reflex;
use crate::support::{Host, Setup};
use dom0_agent::agent::create::CreateOptions;
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::save::{AfterSave, InPlace, SaveOptions};
use dom0_agent::config::domain::DomainConfig;
use dom0_agent::save::Patience;
use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::Duration;
use xen_abi::domain::ShutdownReason;
use xen_abi::domctl::TscInfo;
use xen_abi::hvm::params::{
    BUFIOREQ_PFN, CALLBACK_IRQ, CONSOLE_PFN, IOREQ_PFN, MCA_CAP, SAVED, STORE_PFN,
};
use xen_abi::hvm::save::HwCpu;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_host::seam::DomainControl;
use xen_host::xenstore::store::{StoreExt, TxId};
use xen_stream::libxc::Kind;
use xen_stream::{Layer, Mode, Summary, verify};

const GUEST: DomId = DomId(1);
/// Longer than any pause the agent makes by itself.
const LATER: Duration = Duration::from_secs(60);
/// For guests that do not answer.
const IMPATIENT: Patience = Patience {
    acknowledge: Duration::from_millis(30),
    suspend: Duration::from_millis(30),
};

/// A file in memory: nothing waits for a disk.
pub fn file() -> File {
    tempfile::tempfile_in("/dev/shm").unwrap_or_else(|_| tempfile::tempfile().unwrap())
}

fn again(file: &File) -> File {
    let mut file = file.try_clone().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// What the file holds, if it is complete.
pub fn whole(file: &File) -> Option<Summary> {
    let verified = verify(again(file), Layer::Libxl, Mode::Plain).ok()?;
    (!verified.more).then_some(verified.summary)
}

/// Pages of zeroes are in it, and take no room.
pub fn is_sparse(file: &File, bytes: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = file.metadata().unwrap();
    file.len() == bytes && file.blocks() * 512 < bytes / 2
}

fn config(host: &Host) -> DomainConfig {
    config_of(host, "pvh")
}

pub fn config_of(host: &Host, kind: &str) -> DomainConfig {
    host.equipped(kind, "web1", "")
}

/// A guest that uses its devices and answers when it is asked to suspend.
pub fn running() -> Host {
    running_on(false)
}

/// As [`running`], on a patched hypervisor or a stock one.
pub fn running_on(patched: bool) -> Host {
    let mut host = Host::with(Setup {
        patched,
        ..Setup::default()
    });
    let config = config(&host);
    host.start(config);
    host.reflex(GUEST, Reflex::Suspend);
    host.yard.forget_told();
    host
}

pub fn save(host: &Host, after: AfterSave, file: &File) -> Result<Summary, AgentError> {
    let options = SaveOptions {
        after,
        patience: IMPATIENT,
    };
    host.agent
        .save_guest(GUEST, options, file.try_clone().unwrap(), &mut InPlace)
}

fn restore(host: &Host, file: &File, paused: bool) -> Result<DomId, AgentError> {
    restore_of(host, "pvh", file, paused)
}

pub fn restore_of(host: &Host, kind: &str, file: &File, paused: bool) -> Result<DomId, AgentError> {
    let options = CreateOptions {
        paused,
        ..CreateOptions::default()
    };
    host.agent
        .restore_guest(config_of(host, kind), options, again(file))
}

/// The guest runs with all its devices, and its end is noticed.
#[track_caller]
pub fn assert_runs(host: &mut Host, domid: DomId) {
    host.settle();
    let info = host.world.domain(domid).expect("the guest is gone");
    assert!(info.running, "the guest does not run: {info:?}");
    let node = format!("/local/domain/{domid}/control/shutdown");
    assert_eq!(host.world.xs_read(&node).as_deref(), Some(""));
    assert!(host.machine(domid).is_connected(), "devices are not in use");
    host.machine(domid).kernel.power_off();
    host.settle();
    host.assert_clean();
}

pub fn the_guest(host: &Host) -> Option<DomId> {
    match host.agent.guests().as_slice() {
        [] => None,
        [guest] => Some(guest.domid.expect("a guest without a domain")),
        more => panic!("more guests than were made: {more:?}"),
    }
}

// ---- what is in the file, and what comes out of it ----

#[test]
fn a_saved_guest_is_a_whole_file_and_gone() {
    let mut host = running();
    let pages = host.world.domain(GUEST).unwrap().tot_pages;
    let file = file();
    let summary = save(&host, AfterSave::Destroy, &file).unwrap();
    assert_eq!(whole(&file), Some(summary));
    assert_eq!((summary.pages, summary.contents), (pages, pages));
    for kind in [
        Kind::CpuidPolicy,
        Kind::StaticDataEnd,
        Kind::TscInfo,
        Kind::HvmContext,
        Kind::HvmParams,
        Kind::End,
    ] {
        assert_eq!(summary.records(kind), 1, "{}", kind.name());
    }
    host.settle();
    host.assert_clean();
}

/// Everything that a guest must find again.
#[derive(Debug, PartialEq)]
pub struct Facts {
    memory: Vec<(u64, Vec<u8>)>,
    registers: Option<Vec<u8>>,
    params: Vec<u64>,
    tsc: Option<TscInfo>,
    policy: xen_host::seam::CpuPolicy,
}

pub fn facts(host: &Host, domid: DomId) -> Facts {
    let world = &host.world;
    let shared: Vec<u64> = [STORE_PFN, CONSOLE_PFN, IOREQ_PFN, BUFIOREQ_PFN]
        .map(|index| world.hvm_param(domid, index))
        .to_vec();
    let possible = (0..4096).chain(0xf_c000..0x10_0000);
    let memory = possible
        .filter(|gfn| !shared.contains(gfn))
        .filter_map(|gfn| Some((gfn, world.read_guest(domid, gfn, 0, PAGE_SIZE)?)));
    Facts {
        memory: memory.collect(),
        registers: world.vcpu_state(domid, VcpuId(0)),
        params: SAVED.map(|index| world.hvm_param(domid, index)).to_vec(),
        tsc: world.tsc_info(domid),
        policy: world.cpu_policy(domid),
    }
}

#[test]
fn a_guest_comes_back_as_it_was_and_uses_its_devices_again() {
    [false, true].into_iter().for_each(comes_back);
}

fn comes_back(patched: bool) {
    let mut host = running_on(patched);
    let domu = host.machine(GUEST).kernel.domu().clone();
    for gfn in [7, 700, 4095] {
        domu.page_at(gfn).unwrap().write(100, &gfn.to_le_bytes());
    }
    let tsc = TscInfo {
        tsc_mode: 0,
        gtsc_khz: 2_400_000,
        incarnation: 3,
        pad: 0,
        elapsed_nsec: 77_000_000_000,
    };
    host.world.set_tsc_info(GUEST, &tsc).unwrap();
    host.process.set_hvm_param(GUEST, MCA_CAP, 0x106).unwrap();
    let file = file();
    let before = facts(&host, GUEST);
    assert!(before.memory.len() > 4096 && before.registers.is_some());
    let summary = save(&host, AfterSave::Destroy, &file).unwrap();
    assert_eq!(summary.contents, summary.pages);
    assert!(is_sparse(&file, summary.bytes), "zeroes take room");
    host.settle();
    host.assert_clean();
    host.world.leave_memory_stale();

    let domid = restore(&host, &file, true).unwrap();
    assert_ne!(domid, GUEST);
    let after = facts(&host, domid);
    for (old, new) in before.memory.iter().zip(&after.memory) {
        assert_eq!(old.0, new.0);
        assert!(old.1 == new.1, "page {:#x} is not what it was", old.0);
    }
    assert_eq!(before, after);
    for index in [STORE_PFN, CONSOLE_PFN] {
        let gfn = host.world.hvm_param(domid, index);
        let page = host.world.read_guest(domid, gfn, 0, PAGE_SIZE).unwrap();
        assert!(page.iter().all(|byte| *byte == 0), "a ring is not empty");
    }
    assert!(host.world.domain(domid).unwrap().paused);
    host.process.unpause(domid).unwrap();
    assert_runs(&mut host, domid);
}

#[test]
fn files_go_from_a_patched_hypervisor_to_a_stock_one_and_back() {
    for patched in [false, true] {
        let mut here = running_on(patched);
        let domu = here.machine(GUEST).kernel.domu().clone();
        domu.page_at(700).unwrap().write(100, b"hello");
        let file = file();
        let before = facts(&here, GUEST);
        save(&here, AfterSave::Destroy, &file).unwrap();
        here.settle();
        here.assert_clean();
        let mut there = Host::with(Setup {
            patched: !patched,
            ..Setup::default()
        });
        let domid = restore(&there, &file, true).unwrap();
        assert!(before.memory == facts(&there, domid).memory);
        there.process.unpause(domid).unwrap();
        assert_runs(&mut there, domid);
    }
}

#[test]
fn a_save_or_a_restore_by_copies_that_fails_costs_nothing() {
    let patched = || running_on(true);
    with_each_failure("agent", patched, save_for_good, |host, _| {
        assert_saved_or_running(host);
    });
    let saved = || {
        let mut host = running_on(true);
        save_for_good(&mut host).unwrap();
        host.settle();
        host
    };
    with_each_failure("agent", saved, bring_back, |host, result| match result {
        Err(_) => host.assert_clean(),
        Ok(()) => {
            let domid = the_guest(host).unwrap();
            assert_runs(host, domid);
        }
    });
}

#[test]
fn a_checkpoint_leaves_the_guest_running_with_its_devices() {
    let mut host = running();
    host.process.set_hvm_param(GUEST, CALLBACK_IRQ, 1).unwrap();
    let file = file();
    let told = host.yard.told().len();
    save(&host, AfterSave::Resume, &file).unwrap();
    assert!(whole(&file).is_some());
    // What the guest's hypercall answers: it was not restored, it never left.
    let cpu = host.world.vcpu_state(GUEST, VcpuId(0)).unwrap();
    let rax = std::mem::offset_of!(HwCpu, low_regs);
    assert_eq!(cpu[rax], 1);
    assert!(host.machine(GUEST).is_connected());
    host.settle();
    assert_eq!(host.yard.told().len(), told, "a driver was disturbed");
    // The same name again is refused while the guest is there.
    let error = restore(&host, &file, false).unwrap_err();
    assert!(matches!(error, AgentError::UuidInUse { .. }), "{error}");
    assert_runs(&mut host, GUEST);
}

#[test]
fn a_guest_can_be_saved_and_left_paused() {
    let mut host = running();
    let file = file();
    save(&host, AfterSave::Pause, &file).unwrap();
    let info = host.world.domain(GUEST).unwrap();
    assert!(info.paused && info.shutdown.is_none(), "{info:?}");
    host.process.unpause(GUEST).unwrap();
    assert_runs(&mut host, GUEST);
}

// ---- guests and files that do not do their part ----

#[test]
fn a_guest_that_does_not_listen_is_asked_no_more_and_runs_on() {
    let mut host = Host::new();
    let config = config(&host);
    host.start(config);
    let file = file();
    let error = save(&host, AfterSave::Destroy, &file).unwrap_err();
    assert!(error.to_string().contains("did not acknowledge"), "{error}");
    assert_eq!(whole(&file), None);
    assert_runs(&mut host, GUEST);
}

#[test]
fn a_guest_that_suspends_too_late_is_woken() {
    let mut host = running();
    host.reflex(GUEST, Reflex::Acknowledge);
    let error = save(&host, AfterSave::Destroy, &file()).unwrap_err();
    assert!(error.to_string().contains("did not suspend"), "{error}");
    host.settle();
    host.world
        .shut_down(GUEST, ShutdownReason::Suspend)
        .unwrap();
    assert_runs(&mut host, GUEST);
}

#[test]
fn a_guest_that_crashes_instead_is_dealt_with_as_configured() {
    let mut host = running();
    host.reflex(GUEST, Reflex::Crash);
    let error = save(&host, AfterSave::Destroy, &file()).unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
    host.settle();
    host.assert_clean();
}

#[test]
fn a_disk_that_is_full_costs_the_guest_nothing() {
    let mut host = running();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = save(&host, AfterSave::Destroy, &full).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_runs(&mut host, GUEST);
}

#[test]
fn who_cannot_be_saved_is_told_why() {
    let mut host = running();
    let save = |host: &Host, domid| {
        let options = SaveOptions::then(AfterSave::Destroy);
        host.agent
            .save_guest(domid, options, file(), &mut InPlace)
            .unwrap_err()
    };
    assert!(matches!(
        save(&host, DomId::DOM0),
        AgentError::ControlDomain(_)
    ));
    assert!(matches!(
        save(&host, DomId(99)),
        AgentError::NoDomain(DomId(99))
    ));
    let node = format!("/local/domain/{GUEST}/control/shutdown");
    host.process
        .write_text(TxId::NONE, &node, "poweroff")
        .unwrap();
    let error = save(&host, GUEST).to_string();
    assert!(error.contains("busy with `poweroff`"), "{error}");
    host.settle();
    host.assert_clean();
}

#[test]
fn a_file_that_was_cut_or_damaged_leaves_nothing() {
    let mut host = running();
    let good = file();
    let bytes = save(&host, AfterSave::Destroy, &good).unwrap().bytes;
    host.settle();
    // Headers and small records byte by byte, pages in strides.
    let cuts = (0..400).chain((400..bytes).step_by(1_500_001));
    let tail = (bytes - 5000..bytes).step_by(97);
    for cut in cuts.chain(tail) {
        let file = file();
        let mut whole = vec![0; usize::try_from(cut).unwrap()];
        good.read_exact_at(&mut whole, 0).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        let error = restore(&host, &file, false).unwrap_err();
        assert!(error.to_string().contains("save file"), "{cut}: {error}");
        host.assert_clean();
    }
    // One byte of each header and of the first record's is another.
    for at in (0..200).chain(bytes - 8..bytes) {
        let file = file();
        std::io::copy(&mut again(&good), &mut file.try_clone().unwrap()).unwrap();
        let mut byte = [0];
        good.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
        if let Ok(domid) = restore(&host, &file, true) {
            // A number inside of the CPU policy: as good as any other.
            host.agent.destroy(domid).unwrap();
        }
        host.assert_clean();
    }
}

#[test]
fn a_file_of_a_larger_guest_is_refused_by_page_and_cause() {
    let mut host = running();
    let file = file();
    save(&host, AfterSave::Destroy, &file).unwrap();
    host.settle();
    let mut small = config(&host);
    small.memory.max_kib = 8192;
    small.memory.target_kib = 8192;
    let options = CreateOptions::default();
    let error = host.agent.restore_guest(small, options, again(&file));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("page 0x800") && error.contains("maxmem"),
        "{error}"
    );
    let mut other = config(&host);
    other.kind = dom0_agent::config::domain::DomainKind::Pv;
    let error = host.agent.restore_guest(other, options, again(&file));
    assert!(error.is_err());
    host.assert_clean();
}

// ---- every call fails, or is the agent's last ----

thread_local! {
    /// The file of the run at hand: it outlives the agent.
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

pub fn fresh_file() -> File {
    let fresh = file();
    FILE.set(Some(fresh.try_clone().unwrap()));
    fresh
}

/// The file of the run at hand.
pub fn kept_file() -> File {
    FILE.with_borrow(|file| file.as_ref().unwrap().try_clone().unwrap())
}

pub fn file_is_whole() -> bool {
    FILE.with_borrow(|file| file.as_ref().is_some_and(|file| whole(file).is_some()))
}

fn save_for_good(host: &mut Host) -> Result<(), AgentError> {
    save(host, AfterSave::Destroy, &fresh_file()).map(drop)
}

fn save_and_go_on(host: &mut Host) -> Result<(), AgentError> {
    save(host, AfterSave::Resume, &fresh_file()).map(drop)
}

/// The guest runs where it was, or is in the file.
pub fn assert_saved_or_running(host: &mut Host) {
    host.settle();
    host.pass(LATER);
    host.settle();
    match the_guest(host) {
        Some(domid) => assert_runs(host, domid),
        None => {
            assert!(file_is_whole(), "the guest is lost");
            host.assert_clean();
        }
    }
}

#[test]
fn a_save_that_fails_leaves_the_guest_running_or_whole_in_its_file() {
    with_each_failure("agent", running, save_for_good, |host, result| {
        if result.is_ok() {
            assert!(file_is_whole());
        }
        assert_saved_or_running(host);
    });
}

#[test]
fn a_checkpoint_that_fails_leaves_the_guest_running() {
    with_each_failure("agent", running, save_and_go_on, |host, result| {
        if result.is_ok() {
            assert!(file_is_whole());
        }
        host.pass(LATER);
        assert_runs(host, GUEST);
    });
}

#[test]
fn an_agent_that_dies_while_it_saves_leaves_the_guest_running_or_whole_in_its_file() {
    with_each_death(running, save_for_good, assert_saved_or_running);
}

#[test]
fn an_agent_that_dies_during_a_checkpoint_leaves_the_guest_running() {
    with_each_death(running, save_and_go_on, |host| {
        host.settle();
        host.pass(LATER);
        assert_runs(host, GUEST);
    });
}

fn saved() -> Host {
    let mut host = running();
    save_for_good(&mut host).unwrap();
    host.settle();
    host
}

fn bring_back(host: &mut Host) -> Result<(), AgentError> {
    restore(host, &kept_file(), false).map(drop)
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    with_each_failure("agent", saved, bring_back, |host, result| match result {
        Err(_) => host.assert_clean(),
        Ok(()) => {
            let domid = the_guest(host).unwrap();
            assert_runs(host, domid);
        }
    });
}

#[test]
fn an_agent_that_dies_while_it_restores_finishes_or_undoes_it() {
    with_each_death(saved, bring_back, |host| {
        host.settle();
        host.pass(LATER);
        host.settle();
        match the_guest(host) {
            Some(domid) => assert_runs(host, domid),
            None => host.assert_clean(),
        }
    });
}
