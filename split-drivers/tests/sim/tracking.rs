//! Disks that somebody copies: orders to track, take, freeze and thaw, on real threads and a real file.

use crate::support::PATIENCE;
use crate::support::disk::{DEVID, Disk, SECTORS, open_order, opened, order};
use parapet_wire::dirty::{EXTENT_SHIFT, Layout, MAGIC, VERSION, head};
use parapet_wire::driver::{Answer, DriverFault, Order, OrderBody, Outcome, TrackDisk};
use parapet_wire::frame::{self, Kind};
use split_drivers::control::driver::Driver;
use split_drivers::control::pool::Pool;
use split_drivers::control::server;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use xen_abi::io::blkif::RSP_OKAY;
use xen_host::fdpass;
use xen_host::memfd::MemFd;
use xen_sim::frontend::blk::{BlkOptions, BlkRequest};
use xen_sim::{GuestSpec, World};

const BYTES: u64 = SECTORS * 512;
const SOON: OrderBody = OrderBody::FreezeDisk {
    devid: DEVID,
    within_ms: 10_000,
};

/// A map as the agent makes it.
fn map() -> MemFd {
    let memory = MemFd::create("dirty", Layout::of(BYTES).unwrap().bytes()).unwrap();
    let region = memory.map().unwrap();
    region.store_u32(head::VERSION, VERSION);
    region.store_u32(head::EXTENT_SHIFT, EXTENT_SHIFT);
    region.store_u64(head::DISK_BYTES, BYTES);
    region.store_u64(head::MAGIC, MAGIC);
    memory
}

fn passed(map: &MemFd) -> Vec<OwnedFd> {
    vec![map.as_fd().try_clone_to_owned().unwrap()]
}

fn track(disk: &mut Disk, map: &MemFd, frozen: bool) -> Result<Outcome, DriverFault> {
    let body = OrderBody::TrackDisk(TrackDisk {
        devid: DEVID,
        frozen,
    });
    order(&mut disk.driver, body, passed(map))
}

fn tell(disk: &mut Disk, body: OrderBody) -> Result<Outcome, DriverFault> {
    order(&mut disk.driver, body, Vec::new())
}

fn take(disk: &mut Disk) -> u64 {
    match tell(disk, OrderBody::TakeDirty { devid: DEVID }).unwrap() {
        Outcome::Dirty { extents } => extents,
        other => panic!("{other:?}"),
    }
}

fn freeze(disk: &mut Disk) -> u32 {
    match tell(disk, SOON).unwrap() {
        Outcome::Frozen { untaken } => untaken,
        other => panic!("{other:?}"),
    }
}

fn write(n: u64) -> BlkRequest {
    BlkRequest::Write {
        sector: n * 128,
        data: vec![u8::try_from(n).unwrap() + 1; 4096],
    }
}

fn busy() -> (World, Disk) {
    let world = World::seeded(41);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let options = BlkOptions {
        queues: 2,
        ..BlkOptions::default()
    };
    let disk = Disk::connected(&world, &guest, options);
    (world, disk)
}

#[test]
fn what_a_guest_writes_while_it_is_tracked_is_taken_once() {
    let (_world, mut disk) = busy();
    disk.ask(&write(1));
    track(&mut disk, &map(), false).unwrap();
    assert_eq!(take(&mut disk), 0, "that was before");
    for n in [3, 3, 9] {
        disk.ask(&write(n));
    }
    disk.ask(&BlkRequest::Discard {
        sector: 20 * 128,
        count: 256,
    });
    disk.ask(&BlkRequest::Flush);
    disk.ask(&BlkRequest::Read {
        sector: 0,
        len: 4096,
    });
    assert_eq!(take(&mut disk), 4);
    assert_eq!(take(&mut disk), 0);
    tell(&mut disk, OrderBody::UntrackDisk { devid: DEVID }).unwrap();
    disk.ask(&write(1));
    let fault = tell(&mut disk, OrderBody::TakeDirty { devid: DEVID }).unwrap_err();
    assert!(fault.text.contains("nobody tracks"), "{fault}");
    disk.close();
}

#[test]
fn a_frozen_disk_has_answered_what_it_took_and_takes_nothing_until_it_thaws() {
    let (_world, mut disk) = busy();
    track(&mut disk, &map(), false).unwrap();
    for round in 0..20 {
        for n in 0..30 {
            disk.front
                .submit_on(usize::try_from(n % 2).unwrap(), &write(n));
        }
        let untaken = freeze(&mut disk);
        let before = disk.front.answers();
        assert_eq!(
            before.len() as u64 + u64::from(untaken),
            30,
            "round {round}"
        );
        let late = disk.front.submit(&BlkRequest::Flush);
        assert_eq!(
            freeze(&mut disk),
            untaken + 1,
            "said again, it is quiet still"
        );
        assert!(disk.front.answers().is_empty());
        tell(&mut disk, OrderBody::ThawDisk { devid: DEVID }).unwrap();
        let after = disk.front.wait_answers(31 - before.len(), PATIENCE);
        assert_eq!(after.len(), 31 - before.len());
        assert!(after.iter().any(|answer| answer.id == late));
        assert!(
            before
                .iter()
                .chain(&after)
                .all(|answer| answer.status == RSP_OKAY)
        );
    }
    assert_eq!(disk.front.disabled(), None);
    disk.close();
}

#[test]
fn a_successor_goes_on_with_the_map_and_stays_frozen() {
    let (_world, mut disk) = busy();
    let map = map();
    track(&mut disk, &map, false).unwrap();
    disk.ask(&write(2));
    freeze(&mut disk);
    let waiting = disk.front.submit(&write(5));
    disk.replace_with(|driver| {
        let body = OrderBody::TrackDisk(TrackDisk {
            devid: DEVID,
            frozen: true,
        });
        order(driver, body, passed(&map)).unwrap();
    });
    assert_eq!(freeze(&mut disk), 1);
    assert_eq!(take(&mut disk), 1, "noted by the predecessor");
    assert!(disk.front.answers().is_empty());
    // Said again of a disk that is served already, it changes nothing.
    track(&mut disk, &map, true).unwrap();
    tell(&mut disk, OrderBody::ThawDisk { devid: DEVID }).unwrap();
    let answers = disk.front.wait_answers(1, PATIENCE);
    assert_eq!(answers[0].id, waiting);
    assert_eq!(take(&mut disk), 1);
    disk.close();
}

#[test]
fn orders_about_what_is_not_there_say_why() {
    let (world, mut disk) = busy();
    let fault = tell(&mut disk, SOON).unwrap_err();
    assert!(fault.text.contains("nobody tracks"), "{fault}");
    let fault = tell(
        &mut disk,
        OrderBody::TrackDisk(TrackDisk {
            devid: DEVID,
            frozen: false,
        }),
    )
    .unwrap_err();
    assert!(fault.text.contains("without its dirty map"), "{fault}");
    let small = MemFd::create("dirty", 4096).unwrap();
    let fault = track(&mut disk, &small, false).unwrap_err();
    assert!(fault.text.contains("dirty map"), "{fault}");
    let fault = tell(&mut disk, OrderBody::TakeDirty { devid: 7 }).unwrap_err();
    assert!(fault.text.contains("disk 7 is not open"), "{fault}");
    tell(&mut disk, OrderBody::UntrackDisk { devid: DEVID }).unwrap();
    tell(&mut disk, OrderBody::ThawDisk { devid: DEVID }).unwrap();
    disk.ask(&write(1));
    disk.close();
    // A disk without rings is quiet, and what was noted of it stays.
    let guest = world.spawn(&GuestSpec::pvh("web2"));
    let mut driver =
        Driver::new(Pool::open(&world.host("driver"), guest.domid()).unwrap()).unwrap();
    let image = crate::support::disk::image();
    order(
        &mut driver,
        OrderBody::OpenDisk(open_order(false)),
        vec![opened(&image)],
    )
    .unwrap();
    let body = OrderBody::TrackDisk(TrackDisk {
        devid: DEVID,
        frozen: false,
    });
    order(&mut driver, body, passed(&map())).unwrap();
    assert_eq!(
        order(&mut driver, SOON, Vec::new()),
        Ok(Outcome::Frozen { untaken: 0 })
    );
}

fn send(stream: &UnixStream, body: OrderBody, fds: &[OwnedFd]) -> Result<Outcome, DriverFault> {
    let bytes = frame::encode(Kind::DriverOrder, &Order { id: 1, body }).unwrap();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    fdpass::send(stream, &bytes, &fds).unwrap();
    let message = fdpass::receive(stream).unwrap().unwrap();
    match frame::take(Kind::DriverAnswer, &message.bytes)
        .unwrap()
        .unwrap()
        .0
    {
        Answer::Done { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_does_not_wait_for_an_agent_that_is_gone() {
    let (_world, mut disk) = busy();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let listener = UnixListener::bind(&path).unwrap();
    let Disk { front, driver, .. } = &mut disk;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server::serve(&listener, driver));
        for newer in [false, true] {
            let agent = UnixStream::connect(&path).unwrap();
            let body = OrderBody::TrackDisk(TrackDisk {
                devid: DEVID,
                frozen: false,
            });
            send(&agent, body, &passed(&map())).unwrap();
            send(&agent, SOON, &[]).unwrap();
            front.submit(&write(1));
            // The agent dies; or it hangs, and another has taken its place.
            let kept = newer.then_some(agent);
            let next = newer.then(|| UnixStream::connect(&path).unwrap());
            assert_eq!(front.wait_answers(1, PATIENCE).len(), 1);
            drop((kept, next));
        }
        let agent = UnixStream::connect(&path).unwrap();
        let fault = send(&agent, OrderBody::TakeDirty { devid: DEVID }, &[]).unwrap_err();
        assert!(fault.text.contains("nobody tracks"), "{fault}");
        send(&agent, OrderBody::Quiesce, &[]).unwrap();
        serving.join().unwrap().unwrap();
    });
}
