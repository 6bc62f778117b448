//! Agent and real drivers together: data that was promised outlives both.

use crate::support::{Host, Setup};
use parapet_wire::driver::OrderBody;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::frontend::blk::BlkRequest;
use xen_sim::frontend::console::ConsoleFront;

const GUEST: DomId = DomId(1);
/// Longest a test waits for threads that are only slow.
const MOST: Duration = Duration::from_secs(30);

fn host() -> Host {
    let mut host = Host::with(Setup {
        real_drivers: true,
        ..Setup::default()
    });
    let image = host.image("disk.img", 1024);
    let config = host.config(
        "pvh",
        "web1",
        &format!("disk=['{},raw,xvda,rw']", image.display()),
    );
    host.start(config);
    host
}

fn pattern(seed: u8) -> Vec<u8> {
    (0..8192_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ seed)
        .collect()
}

/// Carries out requests; all of them must succeed.
fn perform(host: &mut Host, requests: &[BlkRequest]) -> Vec<Option<Vec<u8>>> {
    let front = host.machine(GUEST).disks.get_mut(&51712).unwrap();
    for request in requests {
        front.submit(request);
    }
    let answers = front.wait_answers(requests.len(), MOST);
    assert_eq!(answers.len(), requests.len(), "{:?}", front.disabled());
    assert!(
        answers.iter().all(|answer| answer.status == 0),
        "{answers:?}"
    );
    answers.into_iter().map(|answer| answer.data).collect()
}

fn write(sector: u64, seed: u8) -> BlkRequest {
    BlkRequest::Write {
        sector,
        data: pattern(seed),
    }
}

fn read_back(host: &mut Host, sector: u64) -> Vec<u8> {
    let data = perform(host, &[BlkRequest::Read { sector, len: 8192 }]);
    data.into_iter().next().flatten().unwrap()
}

fn end(mut host: Host) {
    assert_eq!(host.machine(GUEST).disks[&51712].disabled(), None);
    host.agent.destroy(GUEST).unwrap();
    host.settle();
    host.assert_clean();
}

#[test]
fn what_a_guest_writes_is_on_its_image() {
    let mut host = host();
    perform(&mut host, &[write(8, 1), write(64, 2), BlkRequest::Flush]);
    assert!(read_back(&mut host, 8) == pattern(1));
    let image = std::fs::read(host.file("disk.img")).unwrap();
    assert!(image[64 * 512..64 * 512 + 8192] == pattern(2)[..]);
    end(host);
}

#[test]
fn a_driver_that_dies_again_and_again_loses_nothing_that_was_promised() {
    let mut host = host();
    let uuid = host.uuid(GUEST);
    for round in 0..4 {
        let (here, there) = (u64::from(round) * 64, u64::from(round) * 64 + 32);
        perform(&mut host, &[write(here, round), BlkRequest::Flush]);
        host.yard.kill_driver(uuid);
        // The guest knows of nothing and goes on asking.
        let front = host.machine(GUEST).disks.get_mut(&51712).unwrap();
        front.submit(&write(there, round + 100));
        host.settle();
        let front = host.machine(GUEST).disks.get_mut(&51712).unwrap();
        let answers = front.wait_answers(1, MOST);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].status, 0);
        assert!(read_back(&mut host, here) == pattern(round));
        assert!(read_back(&mut host, there) == pattern(round + 100));
    }
    end(host);
}

#[test]
fn an_agent_that_dies_is_not_noticed_by_a_guest_at_work() {
    let mut host = host();
    perform(&mut host, &[write(0, 1)]);
    host.world.kill(&host.process);
    host.yard.disconnect_all();
    // Nobody is there but the driver.
    perform(&mut host, &[write(32, 2), BlkRequest::Flush]);
    host.yard.forget_told();
    host.next_agent();
    host.settle();
    let again = host
        .yard
        .told()
        .into_iter()
        .filter(|told| matches!(told.body, OrderBody::ConnectDisk(_)));
    assert_eq!(again.count(), 0);
    assert!(read_back(&mut host, 0) == pattern(1));
    // Agent and driver together.
    let uuid = host.uuid(GUEST);
    host.world.kill(&host.process);
    host.yard.disconnect_all();
    host.yard.kill_driver(uuid);
    let front = host.machine(GUEST).disks.get_mut(&51712).unwrap();
    front.submit(&write(64, 3));
    host.next_agent();
    host.settle();
    let front = host.machine(GUEST).disks.get_mut(&51712).unwrap();
    assert_eq!(front.wait_answers(1, MOST).len(), 1);
    assert!(read_back(&mut host, 64) == pattern(3));
    end(host);
}

#[test]
fn drivers_are_upgraded_under_a_guest_at_work() {
    let mut host = host();
    for round in 0..3 {
        perform(&mut host, &[write(u64::from(round) * 32, round)]);
        assert_eq!(host.agent.replace_drivers(None).unwrap(), 1);
        host.settle();
        assert!(read_back(&mut host, u64::from(round) * 32) == pattern(round));
    }
    end(host);
}

#[test]
fn a_disk_that_is_attached_serves_and_one_that_is_detached_is_free() {
    let mut host = host();
    let image = host.image("second.img", 256);
    let spec =
        dom0_agent::config::disk::parse_disk("t", &[&format!("{},raw,xvdb,r", image.display())]);
    host.agent.attach_disk(GUEST, &spec.unwrap()).unwrap();
    host.settle();
    let front = host.machine(GUEST).disks.get_mut(&51728).unwrap();
    front.submit(&BlkRequest::Read {
        sector: 0,
        len: 4096,
    });
    let answers = front.wait_answers(1, MOST);
    assert_eq!(answers[0].data.as_deref(), Some(&[0; 4096][..]));
    front.submit(&write(0, 1));
    assert_ne!(front.wait_answers(1, MOST)[0].status, 0, "it is read-only");
    host.agent
        .detach(GUEST, parapet_wire::driver::DeviceKind::Disk, 51728, true)
        .unwrap();
    host.settle();
    // The kernel lets go of an io_uring's file a little after the ring is gone.
    let file = std::fs::File::open(&image).unwrap();
    assert!(host.world.wait_until(MOST, || file.try_lock().is_ok()));
    end(host);
}

#[test]
fn what_a_guest_prints_is_in_its_log() {
    let mut host = host();
    let mut console = ConsoleFront::primary(&host.machine(GUEST).kernel).unwrap();
    console.write(b"hello from the guest\r\n");
    let log = host.dirs.logs.join("console-web1.log");
    let there = host.world.wait_until(MOST, || {
        std::fs::read(&log)
            .is_ok_and(|text| String::from_utf8_lossy(&text).contains("hello from the guest"))
    });
    assert!(there);
    // A successor goes on with the same page and the same log.
    host.yard.kill_driver(host.uuid(GUEST));
    host.settle();
    console.write(b"and again\r\n");
    let there = host.world.wait_until(MOST, || {
        std::fs::read(&log).is_ok_and(|text| String::from_utf8_lossy(&text).contains("and again"))
    });
    assert!(there);
    end(host);
}
