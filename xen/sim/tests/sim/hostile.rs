//! The hostile frontends do what they say they do.

use crate::support::blk::BlkBackend;
use xen_abi::io::blkif::{MAX_SEGMENTS, Protocol, Request, Segment};
use xen_abi::io::ring::REQ_PROD;
use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkRequest};
use xen_sim::frontend::console::ConsoleFront;
use xen_sim::frontend::hostile::pressure::{event_storm, key_storm, toggle_states};
use xen_sim::frontend::hostile::{
    BlkAttack, ConsoleAttack, Expect, Flipper, KeyAttack, NetAttack, net::header_cuts,
};
use xen_sim::frontend::net::{NetFront, NetOptions};
use xen_sim::{GuestSpec, World};

const SECTORS: u64 = 128;

fn disk(world: &World) -> (BlkFront, BlkBackend) {
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_disk(guest.domu(), 51712, &[("mode", "w")]);
    let options = BlkOptions {
        persistent: false,
        ..BlkOptions::default()
    };
    let mut front = BlkFront::new(guest.domu(), at.clone(), options);
    let mut back = BlkBackend::new(&world.host("driver"), &at, 128);
    back.offer(false);
    front.step();
    back.connect();
    front.step();
    (front, back)
}

/// A strict reading of the protocol: why a request must be refused, if its grants are good.
fn fault_of(request: &Request) -> Option<&'static str> {
    let bad = |segment: &Segment| segment.first > segment.last || segment.last > 7;
    match request {
        Request::Discard {
            sector, nr_sectors, ..
        } => sector
            .checked_add(*nr_sectors)
            .is_none_or(|end| end > SECTORS)
            .then_some("beyond the disk"),
        Request::Indirect {
            operation,
            nr_segments,
            ..
        } => (*operation > 1 || *nr_segments == 0 || *nr_segments > 64).then_some("indirect"),
        Request::Direct { operation: 3, .. } => None,
        Request::Direct {
            operation: 0 | 1,
            nr_segments,
            segments,
            sector,
            ..
        } => {
            let count = usize::from(*nr_segments);
            let used = &segments[..count.min(MAX_SEGMENTS)];
            if count == 0 || count > MAX_SEGMENTS {
                Some("number of segments")
            } else if used.iter().any(bad) {
                Some("sectors of a segment")
            } else {
                let total: u64 = used.iter().map(|s| u64::from(s.last - s.first) + 1).sum();
                sector
                    .checked_add(total)
                    .is_none_or(|end| end > SECTORS)
                    .then_some("beyond the disk")
            }
        }
        Request::Direct { .. } => Some("operation"),
    }
}

fn grant_attack(attack: BlkAttack) -> bool {
    use BlkAttack as A;
    matches!(
        attack,
        A::BadGrant(_)
            | A::RevokedGrant
            | A::ReadOnlyGrant
            | A::ForeignGrant
            | A::EmptyFrame
            | A::IndirectPageBad
            | A::IndirectSegmentBad
    )
}

#[test]
fn every_bad_block_request_is_bad_in_its_own_way() {
    let world = World::seeded(19);
    for attack in BlkAttack::ALL {
        let (mut front, mut back) = disk(&world);
        let before = front.ring(0).req_prod();
        let launched = attack.launch(&mut front);
        match (attack.expect(), launched) {
            (Expect::Stopped, None) => {
                let raw = front.ring(0).read_at(REQ_PROD, 4);
                let prod = u32::from_le_bytes(raw.try_into().unwrap());
                assert!(
                    prod.wrapping_sub(before) > front.ring(0).size(),
                    "{attack:?}"
                );
            }
            (expect, Some(_)) => {
                let entry = front.ring(0).entry(before);
                let request = Request::decode(Protocol::X86_64, &entry).unwrap();
                let refused = fault_of(&request).is_some() || grant_attack(*attack);
                let wanted = match expect {
                    Expect::Refused => true,
                    Expect::Done => false,
                    _ => refused,
                };
                assert_eq!(refused, wanted, "{attack:?}: {request:?}");
                if matches!(
                    attack,
                    BlkAttack::RevokedGrant
                        | BlkAttack::ReadOnlyGrant
                        | BlkAttack::ForeignGrant
                        | BlkAttack::EmptyFrame
                ) {
                    back.run();
                    assert_eq!(front.answers()[0].status, -1, "{attack:?}");
                }
            }
            (expect, None) => panic!("{attack:?} expects {expect:?} of no request"),
        }
        world.destroy_guest(front.device().address().domid);
    }
}

#[test]
fn bytes_a_backend_leaks_into_the_ring_are_found() {
    let world = World::seeded(19);
    let (mut front, mut back) = disk(&world);
    front.submit(&BlkRequest::Read {
        sector: 0,
        len: 512,
    });
    back.run();
    assert_eq!((front.answers().len(), front.leaked_bytes()), (1, 0));
    let (page, at) = front.ring(0).cell(3, 40);
    page.write(at, b"secret");
    assert_eq!(front.leaked_bytes(), 6);
}

#[test]
fn every_bad_packet_reaches_the_ring_and_bounds_itself() {
    use crate::support::net::offer;
    for attack in NetAttack::ALL {
        let world = World::builder(19).memory_mib(64).build();
        let guest = world.spawn(&GuestSpec::pvh("a"));
        let at = world.plug_vif(guest.domu(), 0, &[]);
        let mut front = NetFront::new(guest.domu(), at.clone(), NetOptions::default());
        offer(&world.host("driver"), &at);
        front.step();
        let (tx, rx) = (front.tx_ring(0).req_prod(), front.rx_ring(0).req_prod());
        attack.launch(&mut front);
        let shown = |raw: Vec<u8>| u32::from_le_bytes(raw.try_into().unwrap());
        let tx_moved = shown(front.tx_ring(0).read_at(REQ_PROD, 4)).wrapping_sub(tx);
        let rx_moved = shown(front.rx_ring(0).read_at(REQ_PROD, 4)).wrapping_sub(rx);
        let ring_is_sound = tx_moved <= 256 && rx_moved <= 256;
        assert_eq!(
            ring_is_sound,
            attack.expect() != Expect::Stopped,
            "{attack:?}"
        );
        let full = matches!(attack, NetAttack::RxBadGrant | NetAttack::RxReadOnlyGrant);
        assert!(full || tx_moved + rx_moved > 0, "{attack:?} did nothing");
    }
    let cuts = header_cuts();
    assert_eq!(cuts.len(), 60);
    assert!(
        cuts.iter()
            .all(|(frame, pieces)| pieces.iter().sum::<usize>() == frame.data.len())
    );
}

#[test]
fn bad_keys_are_published_as_they_are() {
    let world = World::builder(19).memory_mib(64).build();
    let guest = world.spawn(&GuestSpec::pvh("a"));
    for (n, attack) in KeyAttack::disk().into_iter().enumerate() {
        let at = world.plug_disk(guest.domu(), u32::try_from(n).unwrap(), &[("state", "2")]);
        let mut front = BlkFront::new(guest.domu(), at.clone(), BlkOptions::default());
        attack.arm_disk(&mut front);
        crate::support::write(&world.host("driver"), &at, "state", "2");
        assert!(front.step(), "{attack:?}");
        let found = world.xs_read(&format!("{}/{}", at.frontend(), attack.key));
        assert_eq!(found, attack.value, "{attack:?}");
        front.free();
        world.forget_device(&at);
    }
    assert!(KeyAttack::interface().len() > 30);
    let at = world.plug_disk(guest.domu(), 999, &[("multi-queue-max-queues", "2")]);
    let options = BlkOptions {
        queues: 2,
        ..BlkOptions::default()
    };
    let mut front = BlkFront::new(guest.domu(), at.clone(), options);
    KeyAttack::two_queues(true)[0].arm_disk(&mut front);
    crate::support::write(&world.host("driver"), &at, "state", "2");
    assert!(front.step());
    let refs: Vec<_> = (0..2)
        .map(|n| {
            world
                .xs_read(&format!("{}/queue-{n}/ring-ref", at.frontend()))
                .unwrap()
        })
        .collect();
    assert_eq!(refs[0], refs[1], "one ring for two queues");
}

#[test]
fn impossible_console_indexes_stand_in_the_page() {
    use xen_abi::io::console::{IN_BYTES, OUT_BYTES, pending};
    for attack in ConsoleAttack::ALL {
        let world = World::builder(19).memory_mib(64).build();
        let guest = world.spawn(&GuestSpec::pv("a"));
        let console = ConsoleFront::primary(&guest).unwrap();
        attack.launch(&console);
        let at = |offset| console.page().load_u32(offset);
        let out = pending(at(3084), at(3080), OUT_BYTES);
        let input = pending(at(3076), at(3072), IN_BYTES);
        let overwritten = !matches!(
            attack,
            ConsoleAttack::OutProdAhead(_)
                | ConsoleAttack::OutProdGoesBack
                | ConsoleAttack::InConsAhead(_)
        );
        assert!(overwritten || out.is_err() || input.is_err(), "{attack:?}");
    }
}

#[test]
fn storms_and_flips_are_what_they_say() {
    let world = World::seeded(19);
    let (mut front, _back) = disk(&world);
    let domu = front.device().domu().clone();
    event_storm(&domu, front.port(0), 1000);
    let host = world.host("watcher");
    let path = front.device().address().frontend();
    let watch = xen_host::xenstore::store::Store::watch(&host, &path).unwrap();
    key_storm(front.device(), 100);
    let mut seen = 0;
    while watch.try_next().is_some() {
        seen += 1;
    }
    assert!(seen <= 9, "events of the same node are one: {seen}");
    let mut looks = 0;
    toggle_states(front.device(), 3, 50, || looks += 1);
    assert_eq!(looks, 51);
    let cell = front.ring(0).cell(0, 1);
    let flipper = Flipper::start(vec![cell.clone()], [1, 12]);
    let (mut low, mut high) = (false, false);
    let found = world.wait_until(std::time::Duration::from_secs(10), || {
        match cell.0.read_vec(cell.1, 1)[0] {
            1 => low = true,
            12 => high = true,
            _ => {}
        }
        low && high
    });
    assert!(found && flipper.stop() > 0);
}
