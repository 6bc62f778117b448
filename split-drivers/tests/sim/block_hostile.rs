//! Disks of hostile guests: every attack is refused or stops the attacker's own ring, and another guest's disk never notices.

use crate::support::disk::{Disk, order};
use crate::support::{PATIENCE, assert_nothing_left};
use parapet_wire::driver::{DeviceKind, OrderBody, Outcome};
use xen_abi::io::blkif::{Protocol, RSP_OKAY};
use xen_sim::frontend::blk::{BlkOptions, BlkRequest};
use xen_sim::frontend::hostile::pressure::event_storm;
use xen_sim::frontend::hostile::{BlkAttack, Expect, Flipper};
use xen_sim::{GuestSpec, World};

#[test]
fn every_attack_is_answered_as_it_deserves_and_harms_nobody_else() {
    for persistent in [false, true] {
        let world = World::seeded(11);
        let honest = world.spawn(&GuestSpec::pvh("honest"));
        let mut neighbour = Disk::connected(&world, &honest, BlkOptions::default());
        for attack in BlkAttack::ALL {
            let guest = world.spawn(&GuestSpec::pvh("hostile"));
            let mut disk = Disk::connected(
                &world,
                &guest,
                BlkOptions {
                    persistent,
                    ..BlkOptions::default()
                },
            );
            match attack.launch(&mut disk.front) {
                None => {
                    assert!(world.wait_until(PATIENCE, || {
                        disk.driver
                            .bell()
                            .wait(Some(std::time::Duration::ZERO))
                            .unwrap()
                    }));
                    let faults = disk.driver.take_faults();
                    assert_eq!(faults[0].kind, DeviceKind::Disk, "{attack:?}");
                }
                Some(id) => {
                    let answers = disk.front.wait_answers(1, PATIENCE);
                    let status = answers
                        .iter()
                        .find(|answer| answer.id == id)
                        .map(|answer| answer.status);
                    let sound = match attack.expect() {
                        Expect::Done => status == Some(RSP_OKAY),
                        Expect::Refused => status.is_some_and(|status| status < 0),
                        _ => status.is_some(),
                    };
                    assert!(sound, "{attack:?}: {status:?}");
                    assert_eq!(
                        disk.ask(&BlkRequest::Read {
                            sector: 0,
                            len: 512
                        })
                        .status,
                        RSP_OKAY,
                        "after {attack:?}"
                    );
                    assert_eq!(disk.front.leaked_bytes(), 0, "{attack:?}");
                }
            }
            order(&mut disk.driver, OrderBody::Quiesce, Vec::new()).unwrap();
            drop(disk);
            world.destroy_guest(guest.domid());
            assert_eq!(
                neighbour
                    .ask(&BlkRequest::Read {
                        sector: 0,
                        len: 512
                    })
                    .status,
                RSP_OKAY,
                "after {attack:?}"
            );
        }
        assert_eq!(world.violations(), Vec::<String>::new());
        neighbour.close();
        assert_nothing_left(&world, &[&honest]);
    }
}

/// A second vcpu flips bytes of requests while they are taken: whatever is read once is judged once.
#[test]
fn bytes_that_change_under_the_driver_change_nothing_that_was_checked() {
    let world = World::seeded(12);
    let guest = world.spawn(&GuestSpec::pvh("hostile"));
    let mut disk = Disk::connected(
        &world,
        &guest,
        BlkOptions {
            persistent: false,
            protocol: Protocol::X86_64,
            ..BlkOptions::default()
        },
    );
    // The sector, and `first` and `last` of the first segment of every slot: bytes that no response overwrites, or the guest would spoil those too.
    let cells = (0..32).flat_map(|slot| [(slot, 17), (slot, 24 + 4), (slot, 24 + 5)]);
    let cells: Vec<_> = cells
        .map(|(slot, byte)| disk.front.ring(0).cell(slot, byte))
        .collect();
    let flipper = Flipper::start(cells, [1, 255]);
    for round in 0..200 {
        let id = disk.front.submit(&BlkRequest::Read {
            sector: round,
            len: 512,
        });
        let answers = disk.front.wait_answers(1, PATIENCE);
        assert_eq!(answers.len(), 1, "{id:?}");
    }
    assert!(flipper.stop() > 0);
    assert_eq!(
        disk.ask(&BlkRequest::Read {
            sector: 0,
            len: 512
        })
        .status,
        RSP_OKAY
    );
    // What stands beside the responses is the guest's own doing here.
    disk.end();
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn a_storm_of_events_is_few_wakeups() {
    let world = World::seeded(13);
    let guest = world.spawn(&GuestSpec::pvh("hostile"));
    let mut disk = Disk::connected(&world, &guest, BlkOptions::default());
    let port = disk.front.port(0);
    event_storm(guest.domu(), port, 20_000);
    assert_eq!(
        disk.ask(&BlkRequest::Read {
            sector: 0,
            len: 512
        })
        .status,
        RSP_OKAY
    );
    let Ok(Outcome::Stats(stats)) = order(&mut disk.driver, OrderBody::Stats, Vec::new()) else {
        panic!()
    };
    assert!(
        stats[0].wakeups <= 20_001,
        "no event, no wake-up: {stats:?}"
    );
    assert!(stats[0].notifies <= 2, "no answer, no event: {stats:?}");
    // It does not go on after the storm, as it would in a thread that was woken and did not take its event.
    let before = stats[0].wakeups;
    for _ in 0..200 {
        let read = BlkRequest::Read {
            sector: 0,
            len: 512,
        };
        assert_eq!(disk.ask(&read).status, RSP_OKAY);
    }
    let Ok(Outcome::Stats(stats)) = order(&mut disk.driver, OrderBody::Stats, Vec::new()) else {
        panic!()
    };
    let wakeups = stats[0].wakeups - before;
    assert!(wakeups <= 220, "{wakeups} wake-ups for 200 events");
    disk.close();
    assert_nothing_left(&world, &[&guest]);
}
