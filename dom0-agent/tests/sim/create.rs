//! A guest comes, described so that stock tools know it; and goes.

use crate::support::Host;
use dom0_agent::agent::create::CreateOptions;
use parapet_wire::agent::{Event, GuestState};
use parapet_wire::driver::OrderBody;
use xen_abi::ids::DomId;
use xen_host::xenstore::store::{Access, Permission, StoreExt, StoreOp, StoreReply, TxId};

#[test]
fn guests_of_both_kinds_come_up_with_their_devices_and_go_without_a_trace() {
    for kind in ["pv", "pvh"] {
        let mut host = Host::new();
        let config = host.equipped(kind, "web1", "");
        let domid = host.start(config);
        assert_eq!(host.yard.taps(), [format!("vif{domid}.0")]);
        assert!(matches!(&host.events()[..], [Event::Started(guest)]
            if guest.name == "web1" && guest.domid == Some(domid) && guest.state == GuestState::Running));
        host.agent.destroy(domid).unwrap();
        assert!(matches!(&host.events()[..], [Event::Gone { .. }]));
        host.assert_clean();
    }
}

/// Who may do what with a node: (owner, others).
fn permissions(host: &Host, path: &str) -> Vec<Permission> {
    let judge = host.world.host("judge");
    match judge.one(TxId::NONE, StoreOp::GetPermissions(path.to_owned())) {
        Ok(StoreReply::Permissions(list)) => list,
        other => panic!("{path}: {other:?}"),
    }
}

fn allow(domid: u16, access: Access) -> Permission {
    Permission {
        domid: DomId(domid),
        access,
    }
}

/// A guest with one disk and one interface that has not run yet, for both kinds.
fn described(check: impl Fn(&Host, &str, uuid::Uuid)) {
    for kind in ["pv", "pvh"] {
        let mut host = Host::new();
        let config = host.equipped(kind, "web1", "vcpus=1\nmaxvcpus=2\nmaxmem=24");
        let uuid = config.uuid;
        let domid = host.create(config).unwrap();
        check(&host, kind, uuid);
        host.settle();
        host.agent.destroy(domid).unwrap();
        host.assert_clean();
    }
}

#[test]
fn the_tree_is_what_stock_tools_and_guests_expect() {
    const DISK: &str = "/local/domain/0/backend/qdisk/1/51712";
    described(|host, kind, uuid| {
        let vm = format!("/vm/{uuid}");
        let expected = [
            ("/local/domain/1/vm", vm.as_str()),
            ("/local/domain/1/name", "web1"),
            ("/local/domain/1/domid", "1"),
            ("/local/domain/1/memory/target", "16384"),
            ("/local/domain/1/memory/static-max", "24576"),
            ("/local/domain/1/cpu/0/availability", "online"),
            ("/local/domain/1/cpu/1/availability", "offline"),
            ("/local/domain/1/console/type", "ioemu"),
            (&format!("{vm}/name"), "web1"),
            (&format!("{vm}/image/ostype"), "linux"),
            ("/libxl/1/type", kind),
            ("/local/domain/1/device/vbd/51712/state", "1"),
            ("/local/domain/1/device/vbd/51712/virtual-device", "51712"),
            (&format!("{DISK}/state"), "2"),
            (&format!("{DISK}/online"), "1"),
            (&format!("{DISK}/mode"), "w"),
            (&format!("{DISK}/sectors"), "128"),
            (&format!("{DISK}/hotplug-status"), "connected"),
            ("/libxl/1/device/vbd/51712/backend", DISK),
            ("/local/domain/1/device/vif/0/mac", "00:16:3e:00:00:01"),
            ("/local/domain/1/device/vif/0/handle", "0"),
            ("/local/domain/0/backend/parapet-vif/1/0/bridge", "xenbr0"),
            (
                "/libxl/1/device/vif/0/frontend",
                "/local/domain/1/device/vif/0",
            ),
        ];
        for (path, value) in expected {
            let found = host.world.xs_read(path);
            assert_eq!(found.as_deref(), Some(value), "{kind}: {path}");
        }
        let tty = host.world.xs_read("/local/domain/1/console/tty").unwrap();
        assert!(tty.starts_with("/dev/pts/"));
        let userdata = format!("userdata-d.1.{uuid}.libxl-json");
        assert!(host.dirs.userdata.join(userdata).exists());
    });
}

#[test]
fn each_node_is_open_to_whom_it_must_be_and_nobody_else() {
    let guest_reads = [allow(0, Access::None), allow(1, Access::Read)];
    let guest_owns = [allow(1, Access::None)];
    let frontend = [allow(1, Access::None), allow(0, Access::Read)];
    let private = [allow(0, Access::None)];
    described(|host, kind, uuid| {
        let vm = format!("/vm/{uuid}");
        let table: [(&str, &[Permission]); 12] = [
            ("/local/domain/1", &guest_reads),
            ("/local/domain/1/name", &guest_reads),
            (&vm, &guest_reads),
            ("/libxl/1", &private),
            ("/local/domain/1/control/shutdown", &guest_owns),
            ("/local/domain/1/data", &guest_owns),
            ("/local/domain/1/device/suspend/event-channel", &guest_owns),
            ("/local/domain/1/device", &guest_reads),
            ("/local/domain/1/device/vbd/51712", &frontend),
            ("/local/domain/1/device/vbd/51712/state", &frontend),
            ("/local/domain/1/console", &guest_reads),
            ("/local/domain/0/backend/qdisk/1/51712", &guest_reads),
        ];
        for (path, list) in table {
            assert_eq!(permissions(host, path), list, "{kind}: {path}");
        }
    });
}

#[test]
fn the_driver_is_told_each_device_once_and_with_its_descriptors() {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", "");
    host.start(config);
    let told: Vec<(&str, usize)> = host
        .yard
        .told()
        .iter()
        .map(|told| match &told.body {
            OrderBody::OpenDisk(open) => {
                assert!(!open.read_only && open.devid == 51712);
                ("open", told.fds)
            }
            OrderBody::ConnectConsole(_) => ("console", told.fds),
            OrderBody::ConnectDisk(order) => {
                assert!(!order.resume);
                ("disk", told.fds)
            }
            OrderBody::ConnectNet(order) => {
                assert_eq!(order.mac, [0, 0x16, 0x3e, 0, 0, 1]);
                ("net", told.fds)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [("open", 1), ("console", 2), ("disk", 1), ("net", 1)]);
    host.agent.destroy(DomId(1)).unwrap();
    host.assert_clean();
}

#[test]
fn a_paused_guest_waits_for_its_operator() {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", "");
    let options = CreateOptions {
        paused: true,
        ..CreateOptions::default()
    };
    let domid = host.agent.create(config, options).unwrap();
    host.settle();
    assert!(host.world.domain(domid).unwrap().paused && host.machines.is_empty());
    xen_host::seam::DomainControl::unpause(&host.process, domid).unwrap();
    host.settle();
    assert!(host.machine(domid).is_connected());
    host.agent.destroy(domid).unwrap();
    host.assert_clean();
}

#[test]
fn many_guests_live_beside_each_other() {
    let mut host = Host::new();
    for n in 0..6 {
        let mac = format!("vif=['mac=00:16:3e:00:01:0{n}']");
        let config = host.config(
            if n % 2 == 0 { "pv" } else { "pvh" },
            &format!("g{n}"),
            &mac,
        );
        host.create(config).unwrap();
    }
    host.settle();
    assert!(
        host.machines.len() == 6
            && host
                .machines
                .values()
                .all(crate::support::Machine::is_connected)
    );
    for n in [3, 1, 6, 2, 5, 4] {
        host.agent.destroy(DomId(n)).unwrap();
        host.settle();
    }
    host.assert_clean();
}

/// Guests come and go from several threads while another one looks after all of them, as in the daemon.
#[test]
fn operations_at_the_same_time_do_not_disturb_each_other() {
    const THREADS: usize = 3;
    const ROUNDS: usize = 6;
    let host = Host::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let host = &host;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let kind = if round % 2 == 0 { "pv" } else { "pvh" };
                        let config = host.equipped(kind, &format!("g{thread}-{round}"), "");
                        let domid = host.create(config).unwrap();
                        host.agent.destroy(domid).unwrap();
                    }
                })
            })
            .collect();
        let looker = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                host.agent.reap().unwrap();
                for shared in host.guests() {
                    host.agent.settle(&shared).unwrap();
                }
            }
        });
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        looker.join().unwrap();
        ends.into_iter().for_each(Result::unwrap);
    });
    host.assert_clean();
}

/// Of several that want one name at the same time, one gets it.
#[test]
fn a_name_is_given_once() {
    let host = Host::new();
    let config = host.equipped("pvh", "web1", "");
    let made: Vec<bool> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..3_u128)
            .map(|n| {
                let (host, mut config) = (&host, config.clone());
                config.uuid = uuid::Uuid::from_u128(0xaa00 + n);
                scope.spawn(move || host.create(config).is_ok())
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    let domid = host.agent.guests()[0].domid.unwrap();
    host.agent.destroy(domid).unwrap();
    host.assert_clean();
}
