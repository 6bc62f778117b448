//! What one driver serves at most, and how often one guest can wake it.

use crate::support::disk::{image, open_order, opened, order};
use crate::support::net::{agreed, offered};
use crate::support::{PATIENCE, assert_nothing_left, write};
use parapet_wire::driver::{OpenDisk, OrderBody, Outcome};
use split_drivers::control::driver::Driver;
use split_drivers::control::pool::Pool;
use split_drivers::limits::{MAX_DISKS, MAX_NETS};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use xen_sim::frontend::hostile::pressure::event_storm;
use xen_sim::frontend::net::{Frame, NetFront, NetOptions};
use xen_sim::frontend::xenbus::DeviceAddress;
use xen_sim::{Guest, GuestSpec, World};

fn driver(world: &World, guest: &Guest) -> Driver {
    Driver::new(Pool::open(&world.host("driver"), guest.domid()).unwrap()).unwrap()
}

/// An interface that a real driver serves with its threads; the tap is one end of a socket pair.
struct Threaded {
    front: NetFront,
    at: DeviceAddress,
    bridge: UnixDatagram,
}

impl Threaded {
    fn connect(world: &World, guest: &Guest, driver: &mut Driver, devid: u32) -> Self {
        let agent = world.host("agent");
        let at = world.plug_vif(guest.domu(), devid, &[]);
        let options = NetOptions {
            rx_buffers: 8,
            ..NetOptions::default()
        };
        let mut front = offered(&agent, guest, &at, options);
        let (bridge, tap) = UnixDatagram::pair().unwrap();
        tap.set_nonblocking(true).unwrap();
        bridge.set_read_timeout(Some(PATIENCE)).unwrap();
        let connect = OrderBody::ConnectNet(agreed(&agent, &at));
        order(driver, connect, vec![OwnedFd::from(tap)]).unwrap();
        write(&agent, &at.backend(), "state", "4");
        front.step();
        Self { front, at, bridge }
    }

    /// Sends a frame and waits until it is on the bridge.
    fn send(&mut self) {
        self.front.reap();
        assert!(self.front.send(&Frame::plain(&[6; 100])));
        let mut frame = [0; 200];
        assert_eq!(self.bridge.recv(&mut frame).unwrap(), 12 + 100);
    }

    fn close(mut self, world: &World) {
        self.front.close();
        write(&world.host("agent"), &self.at.backend(), "state", "6");
        self.front.step();
        self.front.free();
    }
}

#[test]
fn a_driver_serves_so_many_disks_and_no_more() {
    let world = World::seeded(51);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut driver = driver(&world, &guest);
    let mut open = |devid: usize| {
        let (image, devid) = (image(), u32::try_from(devid).unwrap());
        let open = OpenDisk {
            devid,
            ..open_order(false)
        };
        order(&mut driver, OrderBody::OpenDisk(open), vec![opened(&image)])
    };
    for devid in 0..MAX_DISKS {
        assert!(matches!(open(devid), Ok(Outcome::Medium(_))), "{devid}");
    }
    let refused = open(MAX_DISKS).unwrap_err();
    assert!(refused.text.contains("at most 32 disks") && !refused.retry);
    order(&mut driver, OrderBody::Quiesce, Vec::new()).unwrap();
    drop(driver);
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn a_driver_serves_so_many_interfaces_and_no_more() {
    let world = World::seeded(52);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut driver = driver(&world, &guest);
    let most = u32::try_from(MAX_NETS).unwrap();
    let mut nets: Vec<Threaded> = (0..most)
        .map(|devid| Threaded::connect(&world, &guest, &mut driver, devid))
        .collect();
    nets.iter_mut().for_each(Threaded::send);
    let one_more = world.plug_vif(guest.domu(), most, &[]);
    let agent = world.host("agent");
    let mut front = offered(&agent, &guest, &one_more, NetOptions::default());
    let connect = OrderBody::ConnectNet(agreed(&agent, &one_more));
    let (_bridge, tap) = UnixDatagram::pair().unwrap();
    let refused = order(&mut driver, connect, vec![OwnedFd::from(tap)]).unwrap_err();
    assert!(refused.text.contains("at most 16 interfaces") && !refused.retry);
    front.close();
    front.free();
    order(&mut driver, OrderBody::Quiesce, Vec::new()).unwrap();
    nets.into_iter().for_each(|net| net.close(&world));
    drop(driver);
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn a_storm_of_events_at_an_interface_is_few_wakeups() {
    let world = World::seeded(53);
    let guest = world.spawn(&GuestSpec::pvh("hostile"));
    let mut driver = driver(&world, &guest);
    let mut net = Threaded::connect(&world, &guest, &mut driver, 0);
    let (tx, rx) = net.front.ports(0);
    event_storm(guest.domu(), tx, 10_000);
    event_storm(guest.domu(), rx, 10_000);
    net.send();
    let mut wakeups = || match order(&mut driver, OrderBody::Stats, Vec::new()) {
        Ok(Outcome::Stats(stats)) => stats[0].wakeups,
        other => panic!("{other:?}"),
    };
    let before = wakeups();
    assert!(before <= 20_003, "no event, no wake-up: {before}");
    (0..200).for_each(|_| net.send());
    let wakeups = wakeups() - before;
    assert!(wakeups <= 220, "{wakeups} wake-ups for 200 events");
    order(&mut driver, OrderBody::Quiesce, Vec::new()).unwrap();
    net.close(&world);
    drop(driver);
    assert_nothing_left(&world, &[&guest]);
}
