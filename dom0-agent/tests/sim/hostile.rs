//! Guests that attack the agent by way of their keys and states, with real drivers: each attack is answered as it deserves, nothing leaks, and a
//! neighbour notices nothing.

use crate::support::{Host, Setup};
use dom0_agent::agent::chatter::{BURST, PER_MINUTE};
use parapet_wire::driver::OrderBody;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::DomId;
use xen_abi::io::xenbus::XenbusState;
use xen_host::seam::DomainControl;
use xen_host::xenstore::store::{StoreExt, TxId};
use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkRequest, BlkState};
use xen_sim::frontend::hostile::KeyAttack;
use xen_sim::frontend::hostile::pressure::{key_storm, toggle_states};
use xen_sim::frontend::net::{Frame, NetFront, NetOptions, NetState};
use xen_sim::frontend::xenbus::{DeviceAddress, FrontDevice};
use xen_sim::grants::GTF_PERMIT_ACCESS;

const HONEST: DomId = DomId(1);
const EVIL: DomId = DomId(2);
const DISK: u32 = 51712;
/// Longest a test waits for threads that are only slow.
const MOST: Duration = Duration::from_secs(30);
/// What a toolstack wrote into a frontend's directory.
const TOOLSTACKS: [&str; 8] = [
    "backend",
    "backend-id",
    "state",
    "handle",
    "mac",
    "mtu",
    "virtual-device",
    "device-type",
];

/// Two guests with real drivers: an honest one and one that will attack.
fn host() -> Host {
    let mut host = Host::with(Setup {
        real_drivers: true,
        ..Setup::default()
    });
    for name in ["honest", "evil"] {
        let config = host.equipped("pvh", name, "vcpus=2\non_crash=\"destroy\"");
        host.start(config);
    }
    host
}

fn end(mut host: Host) {
    assert_neighbour_works(&mut host, "at the end");
    for guest in [EVIL, HONEST] {
        if host.agent.by_domid(guest).is_some() {
            host.agent.destroy(guest).unwrap();
        }
    }
    host.settle();
    host.assert_clean();
}

#[track_caller]
fn assert_neighbour_works(host: &mut Host, when: &str) {
    let machine = host.machine(HONEST);
    let disk = machine.disks.get_mut(&DISK).unwrap();
    disk.submit(&BlkRequest::Read {
        sector: 0,
        len: 512,
    });
    let answers = disk.wait_answers(1, MOST);
    assert!(answers.iter().all(|it| it.status == 0), "{when}");
    assert_eq!(answers.len(), 1, "{when}");
    let net = machine.nets.get_mut(&0).unwrap();
    assert!(net.send(&Frame::plain(&[7; 60])), "{when}");
    let out = || !host.yard.frames_out("vif1.0").is_empty();
    assert!(host.world.wait_until(MOST, out), "{when}");
    let net = host.machine(HONEST).nets.get_mut(&0).unwrap();
    net.reap();
    assert_eq!(net.disabled(), None, "{when}");
}

/// A device of the attacker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Disk,
    Net,
}

impl Target {
    fn back(self) -> String {
        match self {
            Self::Disk => format!("/local/domain/0/backend/qdisk/{EVIL}/{DISK}"),
            Self::Net => format!("/local/domain/0/backend/parapet-vif/{EVIL}/0"),
        }
    }

    fn at(self) -> DeviceAddress {
        match self {
            Self::Disk => DeviceAddress::new(EVIL, "vbd", DISK),
            Self::Net => DeviceAddress::new(EVIL, "vif", 0),
        }
    }

    /// Closes the device in both halves, and forgets what the frontend wrote and what the backend said of it.
    fn close(self, host: &mut Host) {
        let machine = host.machine(EVIL);
        match self {
            Self::Disk => machine.disks.get_mut(&DISK).unwrap().close(),
            Self::Net => machine.nets.get_mut(&0).unwrap().close(),
        }
        host.settle();
        let front = FrontDevice::new(host.machine(EVIL).kernel.domu(), self.at());
        let root = format!("{}/", self.at().frontend());
        for path in host.world.xs_tree(root.trim_end_matches('/')) {
            if let Some(key) = path.strip_prefix(&root)
                && !TOOLSTACKS.contains(&key)
            {
                front.remove_key(key);
            }
        }
        let tool = host.world.host("tool");
        let _ = tool.remove(TxId::NONE, &format!("{}/error", self.back()));
    }

    /// A frontend begins with these keys.
    fn open(self, host: &mut Host, queues: u32, attack: Option<&KeyAttack>) {
        let domu = host.machine(EVIL).kernel.domu().clone();
        match self {
            Self::Disk => {
                let options = BlkOptions {
                    queues,
                    ..BlkOptions::default()
                };
                let mut front = BlkFront::new(&domu, self.at(), options);
                attack.inspect(|attack| attack.arm_disk(&mut front));
                front.reconnect();
                host.machine(EVIL).disks.insert(DISK, front);
            }
            Self::Net => {
                let options = NetOptions {
                    queues,
                    ..NetOptions::default()
                };
                let mut front = NetFront::new(&domu, self.at(), options);
                attack.inspect(|attack| attack.arm_interface(&mut front));
                front.reconnect();
                host.machine(EVIL).nets.insert(0, front);
            }
        }
        host.settle();
    }

    fn is_connected(self, host: &mut Host) -> bool {
        let machine = host.machine(EVIL);
        match self {
            Self::Disk => machine.disks[&DISK].state() == BlkState::Connected,
            Self::Net => machine.nets[&0].state() == NetState::Connected,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Disk => Self::Net,
            Self::Net => Self::Disk,
        }
    }
}

/// Keys of something that was never offered are nobody's business.
fn is_harmless(attack: &KeyAttack) -> bool {
    matches!(attack.key, "ctrl-ring-ref" | "event-channel-ctrl")
}

fn launch(host: &mut Host, target: Target, queues: u32, attack: &KeyAttack) {
    target.close(host);
    target.open(host, queues, Some(attack));
    let what = format!("{target:?} {attack:?}");
    let state = host.world.xs_read(&format!("{}/state", target.back()));
    let error = host.world.xs_read(&format!("{}/error", target.back()));
    if is_harmless(attack) {
        assert!(target.is_connected(host), "{what}: {error:?}");
    } else {
        assert_eq!(state.as_deref(), Some("6"), "{what}: {error:?}");
        assert!(error.is_some_and(|text| text.len() > 10), "{what}");
        assert!(!target.is_connected(host), "{what}");
    }
    assert!(target.other().is_connected(host), "{what}");
    assert_eq!(host.troubles, [] as [String; 0], "{what}");
    let disk = host.machine(HONEST).disks.get_mut(&DISK).unwrap();
    disk.submit(&BlkRequest::Read {
        sector: 0,
        len: 512,
    });
    assert_eq!(disk.wait_answers(1, MOST).len(), 1, "{what}");
}

/// More refusals than a driver has handles: one handle that was not given back would be missed.
#[test]
fn every_bad_key_is_refused_by_its_device_and_costs_nobody_else_anything() {
    let mut host = host();
    for (target, attacks) in [
        (Target::Disk, KeyAttack::disk()),
        (Target::Net, KeyAttack::interface()),
    ] {
        for attack in &attacks {
            launch(&mut host, target, 1, attack);
        }
        for attack in &KeyAttack::two_queues(target == Target::Disk) {
            launch(&mut host, target, 2, attack);
        }
        // The same device works as soon as its frontend is honest, with as many rings as it likes.
        target.close(&mut host);
        target.open(&mut host, 2, None);
        assert!(target.is_connected(&mut host), "{target:?}");
    }
    end(host);
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    let mut host = host();
    let domu = host.machine(EVIL).kernel.domu().clone();
    // A page of its own, but granted to the neighbour and not to us.
    let page = domu.page();
    let foreign = domu.grant(&page, false);
    domu.write_grant(foreign, GTF_PERMIT_ACCESS, HONEST, domu.frame_name(&page));
    let port = |host: &mut Host, target| match target {
        Target::Disk => host.machine(EVIL).disks[&DISK].port(0),
        Target::Net => host.machine(EVIL).nets[&0].ports(0).1,
    };
    for target in [Target::Disk, Target::Net] {
        let taken = port(&mut host, target.other()).to_string();
        let (rings, ports): (&[_], &[_]) = match target {
            Target::Disk => (&["ring-ref"], &["event-channel"]),
            Target::Net => (
                &["tx-ring-ref", "rx-ring-ref"],
                &["event-channel-tx", "event-channel-rx"],
            ),
        };
        let rings = rings.iter().map(|key| (*key, foreign.to_string()));
        let ports = ports.iter().map(|key| (*key, taken.clone()));
        for (key, value) in rings.chain(ports) {
            let value = Some(value);
            launch(&mut host, target, 1, &KeyAttack { key, value });
        }
        target.close(&mut host);
        target.open(&mut host, 1, None);
    }
    domu.revoke(foreign);
    end(host);
}

#[test]
fn keys_that_are_rewritten_without_end_change_nothing() {
    let mut host = host();
    host.yard.forget_told();
    for _ in 0..20 {
        let machine = host.machine(EVIL);
        key_storm(machine.disks[&DISK].device(), 100);
        key_storm(machine.nets[&0].device(), 100);
        host.tend();
    }
    host.settle();
    assert_eq!(host.yard.told(), [], "nothing was ordered of any driver");
    assert!(Target::Disk.is_connected(&mut host) && Target::Net.is_connected(&mut host));
    end(host);
}

/// Fills the ring with writes that nobody waits for.
fn burden(front: &mut BlkFront) {
    // What the driver has not answered yet, on a busy machine, is in flight already.
    for n in 0..24_u64 {
        if !front.has_room(0) {
            return;
        }
        front.submit(&BlkRequest::Write {
            sector: n % 12 * 8,
            data: vec![n.to_le_bytes()[0]; 4096],
        });
    }
}

#[test]
fn states_that_toggle_with_requests_in_flight_leave_nothing_behind() {
    for seed in 0..4 {
        let mut host = host();
        let mut front = host.machine(EVIL).disks.remove(&DISK).unwrap();
        // As a driver that is loaded again and again, but never waits: 3, 6, 1, on the same ring.
        for _ in 0..10 {
            burden(&mut front);
            for state in [
                XenbusState::Closed,
                XenbusState::Initialising,
                XenbusState::Initialised,
            ] {
                front.device().switch(state);
                host.tend();
            }
            front.answers();
        }
        burden(&mut front);
        // And as no driver ever would.
        toggle_states(front.device(), seed, 100, || host.tend());
        let net = host.machine(EVIL).nets.remove(&0).unwrap();
        toggle_states(net.device(), seed, 100, || host.tend());
        let machine = host.machine(EVIL);
        machine.disks.insert(DISK, front);
        machine.nets.insert(0, net);
        for target in [Target::Disk, Target::Net] {
            target.close(&mut host);
            target.open(&mut host, 1, None);
            assert!(target.is_connected(&mut host), "{target:?}, seed {seed}");
        }
        let front = host.machine(EVIL).disks.get_mut(&DISK).unwrap();
        front.submit(&BlkRequest::Flush);
        assert_eq!(front.wait_answers(1, MOST)[0].status, 0);
        end(host);
    }
}

/// Counts lines of the log, without keeping them.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.fetch_add(lines, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_guest_that_fails_without_end_writes_no_endless_log() {
    let mut host = host();
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let attack = KeyAttack {
        key: "protocol",
        value: Some("sparc64-abi".into()),
    };
    let rounds = 3 * BURST;
    let began = Instant::now();
    tracing::subscriber::with_default(log, || {
        for _ in 0..rounds {
            launch(&mut host, Target::Disk, 1, &attack);
        }
    });
    // With a line beside each in which the agent says how many it left out.
    let minutes = began.elapsed().as_secs() / 60 + 1;
    let most = u64::from(BURST) + 2 * minutes * u64::from(PER_MINUTE);
    let written = lines.0.load(Ordering::Relaxed);
    let bounds = u64::from(BURST)..=most;
    assert!(bounds.contains(&(written as u64)), "{written}");
    end(host);
}

/// How a domain ends under its requests.
#[derive(Clone, Copy, Debug)]
enum End {
    /// `xl destroy` of ours.
    Destroyed,
    /// It crashes, and is cleaned up.
    Crashed,
    /// Somebody else's toolstack destroys it, and we find out.
    DestroyedByAnother,
}

#[test]
fn a_domain_that_dies_with_requests_in_flight_leaves_nothing() {
    for way in [End::Destroyed, End::Crashed, End::DestroyedByAnother] {
        let mut host = host();
        let machine = host.machine(EVIL);
        burden(machine.disks.get_mut(&DISK).unwrap());
        for _ in 0..30 {
            machine
                .nets
                .get_mut(&0)
                .unwrap()
                .send(&Frame::plain(&[1; 900]));
        }
        match way {
            End::Destroyed => host.agent.destroy(EVIL).unwrap(),
            End::Crashed => host.world.shut_down(EVIL, ShutdownReason::Crash).unwrap(),
            End::DestroyedByAnother => {
                let other = host.world.host("another");
                DomainControl::destroy_domain(&other, EVIL).unwrap();
            }
        }
        host.settle();
        assert!(host.agent.by_domid(EVIL).is_none(), "{way:?}");
        let honest = host.uuid(HONEST);
        let connects =
            host.yard.told().into_iter().filter(|told| {
                told.uuid != honest && matches!(told.body, OrderBody::ConnectDisk(_))
            });
        assert_eq!(connects.count(), 1, "{way:?}: nobody took it up again");
        // Its image is nobody's.
        let image = std::fs::File::open(host.file("evil.img")).unwrap();
        assert!(host.world.wait_until(MOST, || image.try_lock().is_ok()));
        end(host);
    }
}
