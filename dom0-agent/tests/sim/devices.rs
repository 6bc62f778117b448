//! Devices of a running guest: hot-plug, stock toolstacks, frontends that misbehave.

use crate::support::{Host, Setup};
use dom0_agent::agent::error::AgentError;
use dom0_agent::config::disk::{DiskSpec, parse_disk};
use dom0_agent::config::vif::VifSpec;
use parapet_wire::driver::{DeviceFault, DeviceKind};
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_abi::io::xenbus::XenbusState;
use xen_host::xenstore::store::{StoreExt, StoreOp, TxId};
use xen_sim::frontend::blk::{BlkFront, BlkState};
use xen_sim::frontend::net::{Frame, NetState};

pub const GUEST: DomId = DomId(1);
pub const DISK_BACK: &str = "/local/domain/0/backend/qdisk/1/51712";
pub const NET_BACK: &str = "/local/domain/0/backend/parapet-vif/1/0";

pub fn running(lines: &str) -> Host {
    let mut host = Host::new();
    let config = host.equipped("pvh", "web1", lines);
    host.start(config);
    host.yard.forget_told();
    host
}

pub fn second_disk(host: &Host) -> DiskSpec {
    let image = host.image("second.img", 128);
    parse_disk("test", &[&format!("{},raw,xvdb,rw", image.display())]).unwrap()
}

pub fn end(mut host: Host) {
    host.agent.destroy(GUEST).unwrap();
    host.settle();
    host.assert_clean();
}

/// Lets the guest act while `work` waits for it.
fn meanwhile<T: Send>(
    host: &mut Host,
    work: impl FnOnce(&dom0_agent::agent::Agent) -> T + Send,
) -> T {
    let agent = std::sync::Arc::clone(&host.agent);
    let world = host.world.clone();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || work(&agent));
        let done = world.wait_until(Duration::from_secs(30), || {
            host.step_guests();
            worker.is_finished()
        });
        assert!(done, "it still waits");
        worker.join().unwrap()
    })
}

// ---- hot-plug ----

#[test]
fn a_disk_comes_and_goes_while_the_guest_runs() {
    let mut host = running("");
    let spec = second_disk(&host);
    host.agent.attach_disk(GUEST, &spec).unwrap();
    host.settle();
    assert!(host.machine(GUEST).is_connected() && host.machine(GUEST).disks.len() == 2);
    let again = host.agent.attach_disk(GUEST, &spec).unwrap_err();
    assert!(
        matches!(&again, AgentError::Device { device, .. } if device == "xvdb"),
        "{again}"
    );
    meanwhile(&mut host, |agent| {
        agent.detach(GUEST, DeviceKind::Disk, 51728, false)
    })
    .unwrap();
    host.settle();
    assert_eq!(host.machine(GUEST).disks.len(), 1);
    assert_eq!(
        host.world.xs_read("/libxl/1/device/vbd/51728/backend"),
        None
    );
    // It may come back under the same name.
    host.agent.attach_disk(GUEST, &spec).unwrap();
    host.settle();
    assert!(host.machine(GUEST).is_connected() && host.machine(GUEST).disks.len() == 2);
    end(host);
}

#[test]
fn an_interface_comes_and_goes_and_its_tap_with_it() {
    let mut host = running("");
    let devid = host.agent.attach_net(GUEST, &VifSpec::default()).unwrap();
    host.settle();
    assert_eq!((devid, host.yard.taps().len()), (1, 2));
    assert!(host.machine(GUEST).is_connected());
    meanwhile(&mut host, |agent| {
        agent.detach(GUEST, DeviceKind::Net, 0, false)
    })
    .unwrap();
    assert_eq!(host.yard.taps(), ["vif1.1"]);
    // What is left keeps its number, whoever comes next.
    host.next_agent();
    host.settle();
    assert_eq!(host.yard.taps(), ["vif1.1"]);
    assert_eq!(host.machine(GUEST).nets[&1].state(), NetState::Connected);
    assert_eq!(
        host.agent.attach_net(GUEST, &VifSpec::default()).unwrap(),
        0
    );
    end(host);
}

#[test]
fn a_restarted_guest_has_the_devices_it_had_last() {
    let mut host = running("on_reboot=\"restart\"");
    let spec = second_disk(&host);
    host.agent.attach_disk(GUEST, &spec).unwrap();
    host.agent.detach(GUEST, DeviceKind::Net, 0, true).unwrap();
    host.settle();
    host.pass(Duration::from_secs(5));
    host.machine(GUEST).kernel.reboot();
    host.settle();
    let machine = host.machine(DomId(2));
    assert_eq!((machine.disks.len(), machine.nets.len()), (2, 0));
    host.agent.destroy(DomId(2)).unwrap();
    host.assert_clean();
}

#[test]
fn a_guest_that_does_not_let_go_keeps_its_device() {
    let mut host = running("");
    host.machine(GUEST).silent = true;
    let patience = Duration::from_millis(1);
    let refused = host
        .agent
        .detach_within(GUEST, DeviceKind::Disk, 51712, false, patience)
        .unwrap_err();
    assert!(
        matches!(refused, AgentError::GuestTimedOut { .. }),
        "{refused}"
    );
    // When it wakes up it finds everything as it was.
    host.machine(GUEST).silent = false;
    host.settle();
    assert!(host.machine(GUEST).is_connected());
    assert_eq!(
        host.world.xs_read(&format!("{DISK_BACK}/state")).as_deref(),
        Some("4")
    );
    assert_eq!(
        host.world
            .xs_read(&format!("{DISK_BACK}/online"))
            .as_deref(),
        Some("1")
    );
    end(host);
}

#[test]
fn a_device_can_be_taken_by_force() {
    let mut host = running("");
    host.machine(GUEST).silent = true;
    host.agent
        .detach(GUEST, DeviceKind::Disk, 51712, true)
        .unwrap();
    assert_eq!(host.world.xs_read(DISK_BACK), None);
    host.machine(GUEST).silent = false;
    host.settle();
    assert!(host.machine(GUEST).disks.is_empty());
    end(host);
}

#[test]
fn what_is_not_there_cannot_be_detached() {
    let host = running("");
    for (domid, kind, devid, word) in [
        (GUEST, DeviceKind::Disk, 9, "no such device"),
        (GUEST, DeviceKind::Net, 4, "no such device"),
        (DomId(7), DeviceKind::Disk, 51712, "domain 7 does not exist"),
        (DomId::DOM0, DeviceKind::Disk, 51712, "control domain"),
    ] {
        let text = host
            .agent
            .detach(domid, kind, devid, true)
            .unwrap_err()
            .to_string();
        assert!(text.contains(word), "{text}");
    }
    end(host);
}

// ---- stock toolstacks ----

#[test]
fn a_stock_toolstack_detaches_a_device_of_ours() {
    let mut host = running("");
    let stock = host.world.host("stock");
    let ops = [
        StoreOp::Write(format!("{DISK_BACK}/online"), b"0".to_vec()),
        StoreOp::Write(format!("{DISK_BACK}/state"), b"5".to_vec()),
    ];
    stock.commit("block-detach", &ops).unwrap();
    host.settle();
    assert!(host.machine(GUEST).disks.is_empty());
    assert_eq!(
        host.world.xs_read("/libxl/1/device/vbd/51712/backend"),
        None
    );
    end(host);
}

#[test]
fn a_stock_toolstack_removes_everything_of_a_device() {
    for back in [DISK_BACK, NET_BACK] {
        let mut host = running("");
        let front = host.world.xs_read(&format!("{back}/frontend")).unwrap();
        let stock = host.world.host("stock");
        stock.remove(TxId::NONE, &front).unwrap();
        host.settle();
        stock.remove(TxId::NONE, back).unwrap();
        host.settle();
        assert_eq!(host.world.xs_read(back), None, "it is not written again");
        end(host);
    }
}

#[test]
fn a_stock_toolstack_destroys_a_guest_of_ours() {
    let mut host = running("");
    let stock = host.world.host("stock");
    for back in [DISK_BACK, NET_BACK] {
        let ops = [
            StoreOp::Write(format!("{back}/online"), b"0".to_vec()),
            StoreOp::Write(format!("{back}/state"), b"5".to_vec()),
        ];
        stock.commit("destroy", &ops).unwrap();
    }
    host.tend();
    for path in [
        "/local/domain/1",
        "/libxl/1",
        "/local/domain/0/backend/qdisk/1",
        "/local/domain/0/backend/parapet-vif/1",
    ] {
        stock.remove(TxId::NONE, path).unwrap();
        host.tend();
    }
    xen_host::seam::DomainControl::destroy_domain(&stock, GUEST).unwrap();
    host.settle();
    host.assert_clean();
}

// ---- frontends that break rules ----

/// The driver stops the guest's disk for what its frontend asked.
fn stop_disk(host: &mut Host) {
    let fault = DeviceFault {
        kind: DeviceKind::Disk,
        devid: 51712,
        text: "request 7 has 300 segments".into(),
    };
    host.yard.fault(host.uuid(GUEST), fault);
    host.settle();
}

#[test]
fn a_device_that_the_driver_stopped_is_closed_and_nothing_else() {
    let mut host = running("");
    stop_disk(&mut host);
    assert_eq!(
        host.world.xs_read(&format!("{DISK_BACK}/state")).as_deref(),
        Some("6")
    );
    let error = host.world.xs_read(&format!("{DISK_BACK}/error")).unwrap();
    assert!(error.contains("300 segments"));
    assert_eq!(host.machine(GUEST).disks[&51712].state(), BlkState::Closed);
    assert_eq!(host.machine(GUEST).nets[&0].state(), NetState::Connected);
    end(host);
}

#[test]
fn a_device_that_works_again_has_no_error_any_more() {
    let mut host = running("");
    stop_disk(&mut host);
    let error = format!("{DISK_BACK}/error");
    assert!(host.world.xs_read(&error).is_some());
    host.machine(GUEST)
        .disks
        .get_mut(&51712)
        .unwrap()
        .reconnect();
    host.settle();
    assert_eq!(
        host.machine(GUEST).disks[&51712].state(),
        BlkState::Connected
    );
    assert_eq!(host.world.xs_read(&error), None);
    end(host);
}

#[test]
fn a_frontend_that_publishes_nonsense_is_refused_by_name() {
    for (key, value) in [
        ("ring-ref", Some("nonsense")),
        ("event-channel", None),
        ("ring-ref", Some("99999")),
        ("multi-queue-num-queues", Some("100")),
    ] {
        let mut host = Host::new();
        let config = host.equipped("pvh", "evil", "");
        host.create(config).unwrap();
        host.step_guests();
        let domid = GUEST;
        let front = host.machine(domid).disks.get_mut(&51712).unwrap();
        // It has not seen the offer yet, or it begins again with other keys.
        front.close();
        host.settle();
        let front = host.machine(domid).disks.get_mut(&51712).unwrap();
        front.override_key(key, value);
        front.reconnect();
        host.settle();
        assert_eq!(
            host.world.xs_read(&format!("{DISK_BACK}/state")).as_deref(),
            Some("6"),
            "{key}"
        );
        assert!(
            host.world.xs_read(&format!("{DISK_BACK}/error")).is_some(),
            "{key}"
        );
        assert_eq!(host.machine(domid).nets[&0].state(), NetState::Connected);
        end(host);
    }
}

/// The driver says "not yet" of a port that it cannot bind, because a dying predecessor may hold it. A guest can lie about that for ever.
#[test]
fn a_port_that_is_wrong_or_taken_costs_its_device_only() {
    for real_drivers in [false, true] {
        let mut host = Host::with(Setup {
            real_drivers,
            ..Setup::default()
        });
        let images = ["a.img", "b.img"].map(|name| host.image(name, 64));
        let lines = format!(
            "disk=['{},raw,xvda,rw','{},raw,xvdb,rw']\nvif=['']",
            images[0].display(),
            images[1].display()
        );
        let config = host.config("pvh", "evil", &lines);
        host.start(config);
        let of_the_net = host.machine(GUEST).nets[&0].ports(0).0.to_string();
        for port in ["1023", &of_the_net] {
            for back in [DISK_BACK, "/local/domain/0/backend/qdisk/1/51728"] {
                host.machine(GUEST)
                    .disks
                    .values_mut()
                    .for_each(BlkFront::close);
                host.settle();
                host.troubles.clear();
                let machine = host.machine(GUEST);
                let wrong = u32::from(back != DISK_BACK) * 16 + 51712;
                for (devid, front) in &mut machine.disks {
                    if *devid == wrong {
                        front.override_key("event-channel", Some(port));
                    }
                    front.reconnect();
                }
                host.settle();
                let state = host.world.xs_read(&format!("{back}/state"));
                assert_eq!(state.as_deref(), Some("6"), "{port}");
                let error = host.world.xs_read(&format!("{back}/error")).unwrap();
                assert!(error.contains("event channel"), "{error}");
                assert_eq!(
                    host.troubles,
                    [] as [String; 0],
                    "it is nobody else's matter"
                );
                let net = host.machine(GUEST).nets.get_mut(&0).unwrap();
                assert_eq!(net.state(), NetState::Connected);
                assert!(net.send(&Frame::plain(&[7; 60])));
                assert!(
                    !real_drivers
                        || host.world.wait_until(Duration::from_secs(30), || {
                            !host.yard.frames_out("vif1.0").is_empty()
                        })
                );
                let machine = host.machine(GUEST);
                for (devid, front) in &machine.disks {
                    let served = front.state() == BlkState::Connected;
                    assert_eq!(served, *devid != wrong, "disk {devid} with port {port}");
                }
                // It may begin again, as itself.
                machine.disks.remove(&wrong);
            }
        }
        end(host);
    }
}

#[test]
fn a_frontend_may_come_again_after_it_left() {
    let mut host = running("");
    for _ in 0..3 {
        host.machine(GUEST).disks.get_mut(&51712).unwrap().close();
        host.settle();
        assert_eq!(
            host.machine(GUEST).disks[&51712].device().backend_state(),
            XenbusState::Closed
        );
        host.machine(GUEST)
            .disks
            .get_mut(&51712)
            .unwrap()
            .reconnect();
        host.settle();
        assert!(host.machine(GUEST).is_connected());
    }
    end(host);
}
