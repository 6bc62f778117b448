//! The block frontend works with an honest backend, and finds out a dishonest one.

use crate::support::blk::{BlkBackend, Misdeed};
use xen_abi::io::blkif::{OP_READ, Protocol, RSP_ERROR, RSP_OKAY};
use xen_abi::io::xenbus::XenbusState;
use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkRequest, BlkState};
use xen_sim::{GuestSpec, World};

const SECTORS: usize = 4096;

fn pair(world: &World, options: BlkOptions, persistent: bool) -> (BlkFront, BlkBackend) {
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_disk(guest.domu(), 51712, &[("mode", "w")]);
    let mut front = BlkFront::new(guest.domu(), at.clone(), options);
    let mut back = BlkBackend::new(&world.host("driver"), &at, SECTORS);
    back.offer(persistent);
    assert!(front.step());
    back.connect();
    assert!(front.step());
    assert_eq!(front.state(), BlkState::Connected);
    (front, back)
}

fn exchange(
    front: &mut BlkFront,
    back: &mut BlkBackend,
    request: &BlkRequest,
) -> (i16, Option<Vec<u8>>) {
    let id = front.submit(request);
    back.run();
    let answers = front.answers();
    assert_eq!(answers.len(), 1, "{:?}", front.disabled());
    assert_eq!(answers[0].id, id);
    (answers[0].status, answers[0].data.clone())
}

#[test]
fn what_was_written_is_read_in_every_mode() {
    for protocol in [Protocol::X86_64, Protocol::X86_32] {
        for persistent in [false, true] {
            for scatter in [false, true] {
                let world = World::seeded(11);
                let options = BlkOptions {
                    protocol,
                    persistent,
                    scatter,
                    ..BlkOptions::default()
                };
                let (mut front, mut back) = pair(&world, options, true);
                assert_eq!(front.info().persistent, persistent);
                assert_eq!(front.info().segments, 32);
                for (sector, len) in [(0, 512), (7, 3072), (100, front.max_bytes())] {
                    let data: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
                    let write = BlkRequest::Write {
                        sector,
                        data: data.clone(),
                    };
                    assert_eq!(exchange(&mut front, &mut back, &write).0, RSP_OKAY);
                    let at = usize::try_from(sector).unwrap() * 512;
                    assert_eq!(back.disk[at..at + len], data[..], "on the disk");
                    let read = BlkRequest::Read { sector, len };
                    assert_eq!(
                        exchange(&mut front, &mut back, &read),
                        (RSP_OKAY, Some(data))
                    );
                }
                assert_eq!(
                    exchange(&mut front, &mut back, &BlkRequest::Flush).0,
                    RSP_OKAY
                );
                let gone = BlkRequest::Discard {
                    sector: 7,
                    count: 6,
                };
                assert_eq!(exchange(&mut front, &mut back, &gone).0, RSP_OKAY);
                let beyond = BlkRequest::Read {
                    sector: SECTORS as u64,
                    len: 512,
                };
                assert_eq!(exchange(&mut front, &mut back, &beyond), (RSP_ERROR, None));
                assert_eq!((front.disabled(), world.violations().len()), (None, 0));
                front.close();
                back.close();
                assert_eq!(front.free(), 0);
                let domid = front.device().address().domid;
                drop(back);
                world.destroy_guest(domid);
                world.ledger().assert_empty();
            }
        }
    }
}

#[test]
fn rings_wrap_and_queues_are_independent() {
    let world = World::seeded(11);
    let options = BlkOptions {
        ring_order: 1,
        queues: 3,
        ..BlkOptions::default()
    };
    let (mut front, mut back) = pair(&world, options, true);
    assert_eq!((front.queue_count(), front.ring(0).size()), (3, 64));
    let mut answered = 0;
    for round in 0..20u64 {
        for queue in 0..3 {
            while front.has_room(queue) {
                let sector = (round * 8 + queue as u64) % 64;
                front
                    .put(queue, &BlkRequest::Read { sector, len: 4096 })
                    .unwrap();
            }
            assert!(front.put(queue, &BlkRequest::Flush).is_none(), "full");
            front.push(queue);
        }
        back.run();
        let answers = front.answers();
        assert!(answers.iter().all(|answer| answer.operation == OP_READ));
        answered += answers.len();
    }
    assert_eq!(
        (answered, front.unanswered(), front.disabled()),
        (20 * 3 * 64, 0, None)
    );
    assert_eq!(front.spurious_events(), 0);
}

#[test]
fn every_misdeed_of_a_backend_is_found() {
    let table = [
        (Misdeed::AnswersTwice, "waits for none"),
        (Misdeed::InventsIds, "waits for none"),
        (Misdeed::NamesOtherOperation, "names operation"),
        (Misdeed::LeavesPadding, "padding"),
        (Misdeed::KeepsGrants, "answered too early"),
        (Misdeed::PublishesTooMuch, "ahead of"),
    ];
    for (misdeed, wanted) in table {
        let world = World::seeded(11);
        let (mut front, mut back) = pair(&world, BlkOptions::default(), false);
        back.misdeed = misdeed;
        for _ in 0..2 {
            front
                .put(
                    0,
                    &BlkRequest::Read {
                        sector: 0,
                        len: 4096,
                    },
                )
                .unwrap();
        }
        front.push(0);
        back.run();
        let _ = front.answers();
        let found = world.violations().join("\n");
        assert!(found.contains(wanted), "{misdeed:?}: {found}");
        assert_eq!(
            front.disabled().is_some(),
            misdeed != Misdeed::LeavesPadding,
            "{misdeed:?}"
        );
    }
    let world = World::seeded(11);
    let (mut front, mut back) = pair(&world, BlkOptions::default(), false);
    back.misdeed = Misdeed::NotifiesForNothing;
    back.run();
    let _ = front.answers();
    assert_eq!(front.spurious_events(), 1);
}

#[test]
fn a_removed_disk_is_closed_and_one_that_grew_is_seen() {
    let world = World::seeded(11);
    let (mut front, mut back) = pair(&world, BlkOptions::default(), true);
    let host = world.host("agent");
    crate::support::write(&host, front.device().address(), "sectors", "8192");
    crate::support::write(&host, front.device().address(), "state", "4");
    assert!(!front.step());
    assert_eq!(front.info().sectors, 8192);
    let at = front.device().address().clone();
    world.unplug(&at);
    assert!(front.step());
    assert_eq!(
        (front.state(), front.device().state()),
        (BlkState::Closed, XenbusState::Closed)
    );
    back.close();
    assert_eq!(front.free(), 0);
    front.reconnect();
    assert_eq!(front.device().state(), XenbusState::Initialising);
    assert_eq!(world.xs_read(&format!("{}/ring-ref", at.frontend())), None);
}

#[test]
fn a_backend_with_a_real_poll_loop_is_woken_by_its_descriptor() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let world = World::seeded(11);
    let (mut front, mut back) = pair(&world, BlkOptions::default(), true);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if back.wait(std::time::Duration::from_millis(20)) {
                    back.run();
                }
            }
        });
        for sector in 0..200 {
            front.submit(&BlkRequest::Write {
                sector,
                data: vec![7; 512],
            });
            let answers = front.wait_answers(1, std::time::Duration::from_secs(20));
            assert_eq!(answers.len(), 1, "sector {sector}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!((front.disabled(), front.unanswered()), (None, 0));
}
