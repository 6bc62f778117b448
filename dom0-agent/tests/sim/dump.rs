//! Dumps: every page under its number, for whoever asks and for guests whose end asks for it; a dump that fails keeps no guest from coming back.

use crate::save::config_of;
use crate::save_pv::speak;
use crate::support::Host;
use crate::support::desk::Desk;
use crate::support::faults::{with_each_death, with_each_failure};
use dom0_agent::agent::error::AgentError;
use dom0_agent::dump::{self, DumpError};
use object::LittleEndian as LE;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_host::seam::DomainControl;

const GUEST: DomId = DomId(1);
const WHILE_RUNNING: Duration = Duration::from_secs(5);

/// What a dump holds.
struct Core {
    registers: Vec<u8>,
    shared_info: Option<Vec<u8>>,
    /// Words that name the pages, and the pages.
    names: Vec<u64>,
    pages: Vec<Vec<u8>>,
}

fn read(path: &Path) -> Core {
    let bytes = fs::read(path).unwrap();
    let file = ElfFile64::<LE>::parse(&*bytes).unwrap();
    let section = |name: &str| Some(file.section_by_name(name)?.data().unwrap().to_vec());
    let names = section(".xen_p2m").or_else(|| section(".xen_pfn")).unwrap();
    let names = names.as_chunks::<8>().0.iter();
    Core {
        registers: section(".xen_prstatus").unwrap(),
        shared_info: section(".xen_shared_info"),
        names: names.map(|word| u64::from_le_bytes(*word)).collect(),
        pages: section(".xen_pages")
            .unwrap()
            .chunks(PAGE_SIZE)
            .map(<[u8]>::to_vec)
            .collect(),
    }
}

/// A guest that has run for a while.
fn running(kind: &str) -> Host {
    let mut host = Host::new();
    let config = config_of(&host, kind);
    host.start(config);
    if kind == "pv" {
        speak(&host);
    }
    host
}

fn dumped(host: &Host) -> (PathBuf, Result<u64, DumpError>) {
    let path = host.file("core");
    let mut file = fs::File::create(&path).unwrap();
    let done = dump::dump(&host.world.host("operator"), GUEST, &mut file);
    (path, done)
}

#[test]
fn every_page_of_a_pvh_guest_is_under_its_number() {
    let host = running("pvh");
    let (path, pages) = dumped(&host);
    let core = read(&path);
    assert_eq!(pages.unwrap(), core.pages.len() as u64);
    assert_eq!(core.names.len(), core.pages.len());
    assert!(core.pages.len() >= 4096 && core.shared_info.is_none());
    for (gfn, page) in core.names.iter().zip(&core.pages) {
        let found = host.world.read_guest(GUEST, *gfn, 0, PAGE_SIZE);
        assert!(found.as_ref() == Some(page), "page {gfn:#x}");
    }
    let operator = host.world.host("operator");
    let registers = operator.vcpu_context(GUEST, VcpuId(0)).unwrap();
    assert!(core.registers == registers, "other registers");
}

#[test]
fn every_page_of_a_pv_guest_is_under_its_number_and_frame() {
    let host = running("pv");
    let (path, pages) = dumped(&host);
    let core = read(&path);
    assert_eq!(pages.unwrap(), core.pages.len() as u64);
    for (names, page) in core.names.chunks(2).zip(&core.pages) {
        assert_eq!(host.world.mfn_of(GUEST, names[0]), Some(names[1]));
        let found = host.world.read_guest(GUEST, names[0], 0, PAGE_SIZE);
        assert!(found.as_ref() == Some(page), "page {:#x}", names[0]);
    }
    assert_eq!(core.pages.len(), 4096);
    assert_eq!(core.shared_info.unwrap().len(), PAGE_SIZE);
}

fn stopped(lines: &str) -> Host {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", lines);
    host.start(config);
    host.pass(WHILE_RUNNING);
    host.world.shut_down(GUEST, ShutdownReason::Crash).unwrap();
    host
}

/// Dumps lie where only root looks, and are called after their guests.
fn the_dump(host: &Host) -> PathBuf {
    host.file("dumps/web1")
}

fn end(mut host: Host) {
    for guest in host.agent.guests() {
        host.agent.destroy(guest.domid.unwrap()).unwrap();
    }
    host.settle();
    drop(fs::remove_dir_all(host.file("dumps")));
    host.assert_clean();
}

#[test]
fn a_guest_is_dumped_before_it_is_destroyed_or_started_again() {
    for (action, protect, left) in [
        ("coredump-destroy", "", None),
        ("coredump-restart", "", Some(DomId(2))),
        ("coredump-restart", "\nprotect=\"restart\"", Some(DomId(2))),
    ] {
        let mut host = stopped(&format!("on_crash=\"{action}\"{protect}"));
        for _ in 0..3 {
            host.pass(Duration::from_secs(60));
            host.settle();
        }
        let domids: Vec<_> = host
            .agent
            .guests()
            .iter()
            .map(|guest| guest.domid)
            .collect();
        let left: Vec<_> = left.into_iter().map(Some).collect();
        assert_eq!(domids, left, "{action}{protect}");
        let path = the_dump(&host);
        assert!(read(&path).pages.len() >= 4096, "{action}{protect}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        end(host);
    }
}

#[test]
fn the_monitor_gets_its_guest_back_with_a_dump_of_the_old_one() {
    let mut host = stopped("on_crash=\"coredump-restart\"\nprotect=\"restart\"");
    host.watch(true);
    host.settle();
    let uuid = host.uuid(GUEST);
    assert!(!the_dump(&host).exists());
    let again = host.agent.restart(uuid, Some(GUEST), "it crashed").unwrap();
    assert_eq!(again, Some(DomId(2)));
    assert!(read(&the_dump(&host)).pages.len() >= 4096);
    host.watch(false);
    end(host);
}

#[test]
fn a_dump_that_cannot_be_written_keeps_no_guest_from_coming_back() {
    let mut host = stopped("on_crash=\"coredump-restart\"");
    fs::write(host.file("dumps"), "in the way").unwrap();
    host.settle();
    assert_eq!(host.agent.guests()[0].domid, Some(DomId(2)));
    fs::remove_file(host.file("dumps")).unwrap();
    end(host);
}

/// The agent notices the end, dumps, and starts the guest again.
fn deal_with_it(host: &mut Host) -> Result<(), AgentError> {
    host.tend();
    host.tend();
    Ok(())
}

fn assert_back(host: &mut Host) {
    host.pass(Duration::from_secs(60));
    host.settle();
    let domid = host.agent.guests()[0].domid.unwrap();
    assert!(domid != GUEST && host.machine(domid).is_connected());
    assert_no_half(host);
}

fn assert_no_half(host: &Host) {
    let left = fs::read_dir(host.file("dumps")).into_iter().flatten();
    for entry in left {
        assert_eq!(entry.unwrap().file_name(), "web1");
    }
}

#[test]
fn whatever_fails_the_crashed_guest_goes_and_no_half_of_a_dump_stays() {
    let prepare = || stopped("on_crash=\"coredump-restart\"");
    with_each_failure("agent", prepare, deal_with_it, |host, _| {
        // A guest that nobody protects is given up when it cannot be started again.
        host.pass(Duration::from_secs(60));
        host.settle();
        assert_eq!(host.world.domain(GUEST), None);
        assert_no_half(host);
    });
}

#[test]
fn an_agent_that_dies_while_it_dumps_costs_the_guest_nothing() {
    let prepare = || stopped("on_crash=\"coredump-restart\"");
    with_each_death(prepare, deal_with_it, assert_back);
}

#[test]
fn the_command_writes_a_file_for_its_owner_only_or_none() {
    let mut desk = Desk::new();
    let domid = desk.guest("web1");
    let path = desk.host.file("core");
    let shown = path.display().to_string();
    let said = desk.xl(&format!("dump-core web1 {shown}"));
    assert_eq!(
        (said.code, said.out, said.err),
        (0, String::new(), String::new())
    );
    assert!(read(&path).pages.len() >= 4096);
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let nowhere = desk.xl("dump-core web1 /nonexistent/core");
    assert!(
        nowhere.code == 1 && nowhere.err.contains("/nonexistent/core"),
        "{nowhere:?}"
    );
    let device = desk.xl("dump-core web1 /dev/null");
    assert!(
        device.code == 1 && device.err.contains("regular"),
        "{device:?}"
    );
    desk.host.agent.destroy(domid).unwrap();
    desk.stop_agent();
    desk.host.settle();
    desk.host.assert_clean();
}
