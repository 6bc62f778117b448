//! Shells: built in advance, taken by guests, given up, and never more than that. What happens when something fails is in `shells_faults.rs`.

use crate::support::Host;
use parapet_wire::agent::{Event, ShellTemplate};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use xen_abi::ids::{DomId, VcpuId};
use xen_host::seam::DomainControl;

/// Longer than any pause the agent makes by itself.
pub const LATER: Duration = Duration::from_secs(120);

/// A host that keeps this many shells for small guests, and has them.
pub fn pool_of(kind: &str, count: u32) -> Host {
    let mut host = Host::new();
    keep(&mut host, kind, count);
    host
}

pub fn keep(host: &mut Host, kind: &str, count: u32) {
    host.agent
        .add_shells(host.config(kind, "small", ""), count)
        .unwrap();
    host.settle();
    assert_eq!(ready(host).len(), count as usize, "{:?}", pool(host));
}

pub fn pool(host: &Host) -> ShellTemplate {
    host.agent.list_shells().remove(0)
}

pub fn ready(host: &Host) -> Vec<DomId> {
    pool(host).ready
}

/// Nothing is left once no shells are kept any more.
#[track_caller]
pub fn assert_clean_without_shells(host: &mut Host) {
    host.agent.drop_shells(None).unwrap();
    host.settle();
    host.assert_clean();
}

/// The only guest, if there is one.
pub fn the_guest(host: &Host) -> Option<DomId> {
    match host.agent.guests().as_slice() {
        [] => None,
        [guest] => Some(guest.domid.expect("a guest without a domain")),
        more => panic!("more guests than were made: {more:?}"),
    }
}

/// Its devices are in use, its driver is replaced when it dies, and it goes when it powers itself off.
#[track_caller]
pub fn assert_managed(host: &mut Host, domid: DomId) {
    let uuid = host.uuid(domid);
    assert!(host.machine(domid).is_connected(), "devices are not in use");
    let pid = host.yard.pid_of(uuid);
    assert!(pid.is_some(), "nobody serves it under its own uuid");
    host.yard.kill_driver(uuid);
    host.settle();
    assert_ne!(host.yard.pid_of(uuid), pid);
    assert!(
        host.machine(domid).is_connected(),
        "lost a device with its driver"
    );
    host.machine(domid).kernel.power_off();
    host.settle();
    assert_eq!(the_guest(host), None);
}

// ---- what a guest gets ----

/// Everything of a domain that the guest or a stock tool can see, but for the time of its creation and its terminal.
/// Paths of the host's own files are left out of it.
fn seen(host: &Host, domid: DomId) -> (BTreeMap<String, Option<String>>, Vec<Vec<u8>>) {
    let changing = ["/start_time", "/console/tty"];
    let nodes = host
        .world
        .xs_tree("/")
        .into_iter()
        .filter(|path| !changing.iter().any(|end| path.ends_with(end)));
    let root = host.file("").display().to_string();
    let nodes = nodes.map(|path| {
        let value = host.world.xs_read(&path);
        (path, value.map(|value| value.replace(&root, "")))
    });
    // The last pages below 4 GiB are where the rings of a PVH guest are.
    let pages = (0..0x1100).chain(0xf_e000..0x10_0000);
    let pages = pages.map(|gfn| {
        let page = host.world.read_guest(domid, gfn, 0, 4096);
        page.unwrap_or_default()
    });
    (nodes.collect(), pages.collect())
}

#[test]
fn a_guest_from_a_shell_is_the_guest_that_would_have_been_built() {
    for kind in ["pv", "pvh"] {
        let plain = Host::new();
        let config = plain.equipped(kind, "web1", "");
        let built = plain.create(config).unwrap();

        let host = pool_of(kind, 1);
        let [shell] = ready(&host)[..] else { panic!() };
        host.events();
        let config = host.equipped(kind, "web1", "");
        let taken = host.create(config).unwrap();
        assert_eq!((built, taken), (DomId(1), shell), "{kind}");
        assert!(matches!(&host.events()[..], [Event::Started(guest)] if guest.name == "web1"));
        // What is behind it: its former names.
        host.agent.drop_shells(None).unwrap();
        let (nodes, pages) = seen(&plain, built);
        let (nodes_taken, pages_taken) = seen(&host, taken);
        assert_eq!(nodes, nodes_taken, "{kind}");
        assert!(pages.iter().any(|page| page.iter().any(|byte| *byte != 0)));
        assert!(pages == pages_taken, "{kind}: other bytes in some page");
        let vcpu = |host: &Host| host.world.vcpu_state(DomId(1), VcpuId(0));
        assert_eq!(vcpu(&plain), vcpu(&host), "{kind}");
        let info = |host: &Host| host.world.domain(DomId(1)).unwrap();
        assert_eq!(info(&plain), info(&host), "{kind}");

        for mut host in [plain, host] {
            host.settle();
            assert_managed(&mut host, DomId(1));
            host.assert_clean();
        }
    }
}

#[test]
fn a_shell_saves_the_building() {
    let plain = Host::new();
    let config = plain.config("pvh", "web1", "");
    let before = plain.world.calls();
    plain.create(config.clone()).unwrap();
    let built = plain.world.calls() - before;

    let host = pool_of("pvh", 1);
    host.world.record_calls();
    let before = host.world.calls();
    host.create(config).unwrap();
    let taken = host.world.calls() - before;
    assert!(taken * 2 < built, "{taken} calls instead of {built}");
    let log = host.world.call_log();
    let handle = log.iter().any(|(_, call)| call.contains("handle"));
    let created = log.iter().any(|(_, call)| call.contains("create_domain"));
    assert!(handle && !created, "{log:?}");
    for mut host in [plain, host] {
        host.settle();
        let domid = the_guest(&host).unwrap();
        host.agent.destroy(domid).unwrap();
        assert_clean_without_shells(&mut host);
    }
}

#[test]
fn guests_that_do_not_fit_are_built_and_the_shell_waits_on() {
    let mut host = pool_of("pvh", 1);
    let shells = ready(&host);
    for (kind, lines) in [("pv", ""), ("pvh", "memory=20"), ("pvh", "vcpus=2")] {
        let config = host.config(kind, "other", lines);
        let domid = host.create(config).unwrap();
        assert!(!shells.contains(&domid), "{kind} {lines}");
        host.settle();
        assert_eq!(ready(&host), shells);
        host.agent.destroy(domid).unwrap();
    }
    assert_clean_without_shells(&mut host);
}

#[test]
fn the_pool_fills_up_behind_every_guest_and_a_restart_takes_a_shell_too() {
    let mut host = pool_of("pvh", 2);
    let first = ready(&host);
    let config = host.equipped("pvh", "web1", "on_reboot=\"restart\"");
    let domid = host.start(config);
    assert!(first.contains(&domid));
    let second = ready(&host);
    assert!(second.len() == 2 && !second.contains(&domid));
    host.pass(LATER);
    host.machine(domid).kernel.reboot();
    host.settle();
    let again = the_guest(&host).unwrap();
    assert!(second.contains(&again) && ready(&host).len() == 2);
    host.agent.destroy(again).unwrap();
    assert_clean_without_shells(&mut host);
}

#[test]
fn shells_are_no_guests_and_stock_tools_see_what_they_are() {
    let mut host = pool_of("pvh", 2);
    assert_eq!(host.agent.guests(), []);
    for (domid, name) in ready(&host)
        .into_iter()
        .zip(["parapet-shell-1", "parapet-shell-2"])
    {
        let info = host.world.domain(domid).unwrap();
        assert!(info.paused && info.cpu_time_ns == 0);
        let shown = host.world.xs_read(&format!("/local/domain/{domid}/name"));
        assert_eq!(shown.as_deref(), Some(name));
        for refused in [
            host.agent.rename(domid, "web1"),
            host.agent
                .attach_net(domid, &host.equipped("pvh", "x", "").vifs[0])
                .map(drop),
        ] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("parapet shells drop"), "{text}");
        }
    }
    let config = host.config("pvh", "parapet-shell-7", "");
    let refused = host.create(config).unwrap_err().to_string();
    assert!(refused.contains("choose another"), "{refused}");
    assert_clean_without_shells(&mut host);
}

// ---- what makes a shell useless ----

/// A host with a kernel of its own, and one shell of it.
fn own_kernel(host: &mut Host) -> std::path::PathBuf {
    let kernel = host.file("kernel");
    let usual = host.config("pvh", "x", "").boot.kernel.unwrap();
    std::fs::copy(usual, &kernel).unwrap();
    let lines = format!("kernel=\"{}\"", kernel.display());
    let config = host.config("pvh", "small", &lines);
    host.agent.add_shells(config, 1).unwrap();
    host.settle();
    kernel
}

/// The same kernel in another file.
fn replace(kernel: &Path) {
    let fresh = kernel.with_extension("new");
    std::fs::copy(kernel, &fresh).unwrap();
    std::fs::rename(fresh, kernel).unwrap();
}

#[test]
fn a_shell_of_a_kernel_that_changed_is_not_used_and_built_anew() {
    let mut host = Host::new();
    let kernel = own_kernel(&mut host);
    let old = ready(&host);
    replace(&kernel);
    let lines = format!("kernel=\"{}\"", kernel.display());
    let config = host.config("pvh", "web1", &lines);
    let domid = host.create(config).unwrap();
    assert!(!old.contains(&domid));
    host.settle();
    let new = ready(&host);
    assert!(new.len() == 1 && new != old);
    // Without a guest that asks for one, the next look finds it.
    replace(&kernel);
    host.settle();
    assert!(ready(&host).len() == 1 && ready(&host) != new);
    // Nor does the next agent use what is stale.
    let new = ready(&host);
    replace(&kernel);
    host.next_agent();
    assert_eq!(ready(&host), []);
    host.settle();
    assert!(ready(&host).len() == 1 && ready(&host) != new);
    // Without a kernel there is no shell, and the list says why.
    std::fs::remove_file(&kernel).unwrap();
    host.settle();
    let trouble = pool(&host).trouble.unwrap();
    assert!(
        ready(&host).is_empty() && trouble.contains("kernel"),
        "{trouble}"
    );
    host.agent.destroy(domid).unwrap();
    assert_clean_without_shells(&mut host);
}

#[test]
fn a_shell_that_somebody_touched_is_not_used() {
    type Touch = fn(&mut Host, DomId);
    let touches: [(&str, Touch); 4] = [
        ("started", |host, domid| {
            let stock = host.world.host("stock");
            stock.unpause(domid).unwrap();
        }),
        ("destroyed by stock tools", |host, domid| {
            let stock = host.world.host("stock");
            stock.destroy_domain(domid).unwrap();
        }),
        ("destroyed by us", |host, domid| {
            host.agent.destroy(domid).unwrap();
        }),
        ("its driver is gone", |host, _| {
            let told = host.yard.told();
            assert!(told.is_empty(), "a shell's driver has nothing to do yet");
            host.yard.kill_any_driver();
        }),
    ];
    for (what, touch) in touches {
        for look in [false, true] {
            let mut host = pool_of("pvh", 1);
            let [shell] = ready(&host)[..] else { panic!() };
            touch(&mut host, shell);
            if look {
                host.tend();
                host.tend();
                assert!(ready(&host) != [shell] || host.world.domain(shell).unwrap().paused);
            }
            let config = host.equipped("pvh", "web1", "");
            let domid = host.start(config);
            assert_managed(&mut host, domid);
            host.pass(LATER);
            host.settle();
            assert_eq!(ready(&host).len(), 1, "{what}");
            assert_clean_without_shells(&mut host);
        }
    }
}

#[test]
fn shells_make_room_for_a_guest_that_does_not_fit_them() {
    let mut host = pool_of("pvh", 4);
    // The host is full, but for the shells.
    host.world.hog_memory(100);
    let config = host.config("pvh", "big", "memory=40");
    let domid = host.create(config).unwrap();
    host.settle();
    let left = pool(&host);
    assert!(left.ready.len() < 4 && left.trouble.is_some(), "{left:?}");
    // Nothing is built in the little that is left.
    host.pass(LATER);
    host.settle();
    assert!(ready(&host).len() < 4);
    host.agent.destroy(domid).unwrap();
    // A guest that would not fit even so gets the usual answer.
    let config = host.config("pvh", "huge", "memory=200");
    let refused = host.create(config).unwrap_err().to_string();
    assert!(refused.contains("not enough memory"), "{refused}");
    assert_clean_without_shells(&mut host);
}

#[test]
fn shells_leave_some_memory_free() {
    let mut host = Host::new();
    host.agent
        .add_shells(host.config("pvh", "small", ""), 60)
        .unwrap();
    host.settle();
    let kept = pool(&host);
    assert!(!kept.ready.is_empty() && kept.ready.len() < 60);
    assert!(kept.trouble.unwrap().contains("leaves 64 MiB free"));
    assert!(host.world.free_pages() * 4 >= 64 << 10);
    assert_clean_without_shells(&mut host);
}

// ---- what the operator asks ----

#[test]
fn the_pool_is_bounded_and_says_so() {
    let mut host = Host::new();
    let refuse = |host: &Host, config, count, word: &str| {
        let refused = host.agent.add_shells(config, count).unwrap_err();
        assert!(refused.to_string().contains(word), "{refused}");
    };
    refuse(&host, host.config("pvh", "a", ""), 0, "1 to 64");
    refuse(&host, host.config("pvh", "a", ""), 65, "1 to 64");
    let mut no_kernel = host.config("pvh", "a", "");
    no_kernel.boot.kernel = None;
    refuse(&host, no_kernel, 1, "no kernel=");
    let mut tiny = host.config("pvh", "a", "");
    tiny.memory.target_kib = 4;
    refuse(&host, tiny, 1, "memory");
    for n in 0..16 {
        let lines = format!("memory={}", 20 + n);
        let config = host.config("pvh", &format!("kind{n}"), &lines);
        host.agent.add_shells(config, 1).unwrap();
    }
    refuse(&host, host.config("pvh", "a", ""), 1, "16 kinds");
    refuse(
        &host,
        host.config("pvh", "kind0", "memory=20"),
        60,
        "1 to 64",
    );
    // The same name is the same kind, with another number.
    host.agent
        .add_shells(host.config("pvh", "kind0", "memory=20"), 2)
        .unwrap();
    assert_eq!(host.agent.list_shells().len(), 16);
    host.agent.drop_shells(Some("kind0")).unwrap();
    assert_eq!(host.agent.list_shells().len(), 15);
    refuse(&host, host.config("pvh", "a", "memory=21"), 1, "kind1");
    let unknown = host.agent.drop_shells(Some("kind0")).unwrap_err();
    assert!(unknown.to_string().contains("kind0"));
    assert_clean_without_shells(&mut host);
}

#[test]
fn fewer_shells_are_kept_when_fewer_are_asked_for_and_other_ones_when_other_ones_are() {
    let mut host = pool_of("pvh", 3);
    let three = ready(&host);
    keep(&mut host, "pvh", 1);
    assert!(three.contains(&ready(&host)[0]));
    let before = ready(&host);
    let other = host.config("pvh", "small", "memory=20");
    host.agent.add_shells(other, 1).unwrap();
    host.settle();
    assert!(ready(&host).len() == 1 && ready(&host) != before);
    assert_clean_without_shells(&mut host);
}

#[test]
fn new_drivers_are_for_shells_too() {
    let mut host = pool_of("pvh", 2);
    let old = ready(&host);
    assert_eq!(host.agent.replace_drivers(None).unwrap(), 0);
    host.settle();
    assert!(ready(&host).iter().all(|domid| !old.contains(domid)));
    assert_eq!(ready(&host).len(), 2);
    assert_clean_without_shells(&mut host);
}

#[test]
fn shells_outlive_the_agent() {
    let mut host = pool_of("pvh", 2);
    let before = host.agent.list_shells();
    host.next_agent();
    assert_eq!(host.agent.list_shells(), before);
    host.settle();
    assert_eq!(host.agent.list_shells(), before);
    let config = host.equipped("pvh", "web1", "");
    let domid = host.start(config);
    assert!(before[0].ready.contains(&domid));
    assert_managed(&mut host, domid);
    // Nobody keeps any: what is there goes.
    std::fs::remove_file(host.dirs.state.join("shells.json")).unwrap();
    host.next_agent();
    host.settle();
    host.assert_clean();
}
