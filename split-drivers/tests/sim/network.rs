//! Interfaces of correct and of hostile guests.

use crate::support::assert_nothing_left;
use crate::support::net::Net;
use std::sync::atomic::Ordering;
use xen_abi::io::netif;
use xen_sim::frontend::hostile::net::{header_cuts, packet};
use xen_sim::frontend::hostile::{Expect, NetAttack};
use xen_sim::frontend::net::{Frame, NetOptions};
use xen_sim::{GuestSpec, World};

fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; 12][..], frame].concat()
}

fn bodies(net: &mut Net, queue: usize) -> Vec<Vec<u8>> {
    std::mem::take(&mut net.link(queue).sent)
        .into_iter()
        .map(|frame| frame[12..].to_vec())
        .collect()
}

/// Frontends as they differ.
fn frontends() -> Vec<NetOptions> {
    let stock = NetOptions::default();
    vec![
        stock,
        NetOptions { queues: 4, ..stock },
        NetOptions {
            split_ports: false,
            ..stock
        },
        NetOptions {
            sg: false,
            gso: false,
            ..stock
        },
        NetOptions {
            csum: false,
            csum_ipv6: false,
            gso: false,
            ..stock
        },
        NetOptions {
            rx_notify: false,
            ..stock
        },
    ]
}

#[test]
fn frames_pass_both_ways_on_every_kind_of_frontend() {
    for options in frontends() {
        let world = World::seeded(21);
        let guest = world.spawn(&GuestSpec::pvh("web1"));
        let mut net = Net::connected(&world, &guest, options);
        assert_eq!(net.front.disabled(), None);
        let large: Vec<u8> = (0..9000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let sizes: &[usize] = if options.sg {
            &[60, 1514, 9000]
        } else {
            &[60, 1514]
        };
        for len in sizes {
            assert!(net.front.send(&Frame::plain(&large[..*len])));
        }
        net.run().unwrap();
        let sent: Vec<_> = (0..net.queues.len())
            .flat_map(|queue| bodies(&mut net, queue))
            .collect();
        let lens: Vec<_> = sent.iter().map(Vec::len).collect();
        assert_eq!(
            lens.iter().sum::<usize>(),
            sizes.iter().sum::<usize>(),
            "{lens:?}"
        );
        net.front.reap();
        let slots: usize = sizes.iter().map(|len| len.div_ceil(4096)).sum();
        assert_eq!(net.front.answered(), (slots as u64, 0, 0));

        for len in sizes {
            net.link(0).coming.push_back(with_header(&large[..*len]));
        }
        net.run().unwrap();
        let received = net.front.receive();
        assert_eq!(
            received
                .iter()
                .map(|frame| frame.data.len())
                .collect::<Vec<_>>(),
            sizes
        );
        assert!(
            received
                .iter()
                .all(|frame| frame.data == large[..frame.data.len()])
        );
        net.close();
        assert_nothing_left(&world, &[&guest]);
    }
}

#[test]
fn a_header_cut_anywhere_arrives_whole() {
    let world = World::seeded(22);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut net = Net::connected(&world, &guest, NetOptions::default());
    for (frame, cuts) in header_cuts() {
        assert!(net.front.send_in(0, &frame, &cuts));
        net.front.push_tx(0);
        net.run().unwrap();
        assert_eq!(bodies(&mut net, 0), [frame.data], "{cuts:?}");
        net.front.reap();
    }
    net.close();
    assert_nothing_left(&world, &[&guest]);
}

/// The neighbour sends and receives a frame, whoever else does what.
fn assert_undisturbed(neighbour: &mut Net, what: &NetAttack) {
    assert!(neighbour.front.send(&Frame::plain(&[4; 100])));
    neighbour.link(0).coming.push_back(with_header(&[5; 300]));
    neighbour.run().unwrap();
    assert_eq!(bodies(neighbour, 0), [[4; 100]], "{what:?}");
    neighbour.front.reap();
    let received = neighbour.front.receive();
    assert_eq!(received.len(), 1, "{what:?}");
    assert_eq!(received[0].data, [5; 300], "{what:?}");
    neighbour.front.refill(0);
    assert_eq!(neighbour.front.disabled(), None, "{what:?}");
}

#[test]
fn every_attack_is_dropped_or_stops_the_interface() {
    for attack in NetAttack::ALL {
        let world = World::seeded(23);
        let honest = world.spawn(&GuestSpec::pvh("honest"));
        let mut neighbour = Net::connected(&world, &honest, NetOptions::default());
        let guest = world.spawn(&GuestSpec::pvh("hostile"));
        let mut net = Net::connected(&world, &guest, NetOptions::default());
        attack.launch(&mut net.front);
        net.link(0).coming.push_back(with_header(&packet(0)));
        let result = net.run();
        match attack.expect() {
            Expect::Stopped => assert!(result.is_err(), "{attack:?}"),
            Expect::Done => {
                assert!(
                    result.is_ok() && net.link(0).sent.len() == 1,
                    "{attack:?}: {result:?}"
                );
            }
            Expect::Either => assert!(result.is_ok(), "{attack:?}: {result:?}"),
            Expect::Refused | Expect::RefusedOrStopped => {
                // An attack on the receive side leaves nothing to send.
                let sent = net.link(0).sent.len();
                assert!(
                    sent == 0 || matches!(attack, NetAttack::EmptyPiece(_)),
                    "{attack:?}: {sent} sent, {result:?}"
                );
            }
        }
        assert_undisturbed(&mut neighbour, attack);
        neighbour.close();
        assert_eq!(world.violations(), Vec::<String>::new(), "{attack:?}");
        drop(net);
        assert_nothing_left(&world, &[&guest, &honest]);
    }
}

/// A guest that takes nothing and sends malformed packets: what waits for it stays bounded, and what it sends is judged as ever.
#[test]
fn attacks_while_nothing_can_be_received_are_answered_as_ever() {
    for attack in NetAttack::ALL {
        let world = World::seeded(26);
        let guest = world.spawn(&GuestSpec::pvh("hostile"));
        let options = NetOptions {
            rx_buffers: 1,
            ..NetOptions::default()
        };
        let mut net = Net::connected(&world, &guest, options);
        for _ in 0..1000 {
            net.link(0).coming.push_back(with_header(&[7; 6000]));
        }
        net.run().unwrap();
        attack.launch(&mut net.front);
        let result = net.run();
        let sent = net.link(0).sent.len();
        let of_rx = matches!(
            attack,
            NetAttack::RxReqProdJumps | NetAttack::RxBadGrant | NetAttack::RxReadOnlyGrant
        );
        match attack.expect() {
            Expect::Stopped => assert!(result.is_err() && sent == 0, "{attack:?}"),
            Expect::Done => assert!(result.is_ok() && sent == 1, "{attack:?}: {result:?}"),
            Expect::Either => assert!(result.is_ok(), "{attack:?}: {result:?}"),
            Expect::Refused | Expect::RefusedOrStopped => assert!(
                sent == 0 || matches!(attack, NetAttack::EmptyPiece(_)),
                "{attack:?}: {sent} sent, {result:?}"
            ),
        }
        let left = net.link(0).coming.len();
        let least = 1000 - split_drivers::limits::NET_RX_BATCH;
        assert!(of_rx || left >= least, "{attack:?}: {left} left");
        drop(net);
        assert_nothing_left(&world, &[&guest]);
    }
}

#[test]
fn one_slot_left_open_is_a_bound_and_not_a_leak() {
    let world = World::seeded(24);
    let guest = world.spawn(&GuestSpec::pvh("hostile"));
    let mut net = Net::connected(
        &world,
        &guest,
        NetOptions {
            rx_buffers: 1,
            ..NetOptions::default()
        },
    );
    for _ in 0..1000 {
        net.link(0).coming.push_back(with_header(&[7; 6000]));
    }
    for _ in 0..50 {
        net.run().unwrap();
    }
    assert_eq!(
        net.counters.to_guest.load(Ordering::Relaxed),
        0,
        "two slots are needed"
    );
    assert!(
        net.link(0).coming.len() >= 1000 - split_drivers::limits::NET_RX_BATCH,
        "the rest stays where it is bounded"
    );
    net.close();
    assert_nothing_left(&world, &[&guest]);
}

#[test]
fn a_successor_goes_on_and_the_guest_stays_connected() {
    let world = World::seeded(25);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut net = Net::connected(&world, &guest, NetOptions::default());
    for round in 0..20_u8 {
        net.front.send(&Frame::plain(&[round; 100]));
        if round % 3 == 0 {
            net.succeed(&world);
            net.front.reap();
            net.front.receive();
            net.front.refill(0);
        }
        net.front.send(&Frame::plain(&[round; 200]));
        net.link(0).coming.push_back(with_header(&[round; 300]));
        net.run().unwrap();
        assert!(
            bodies(&mut net, 0).contains(&vec![round; 200]),
            "round {round}"
        );
        net.front.reap();
        assert_eq!(
            net.front.receive().last().map(|frame| frame.data.clone()),
            Some(vec![round; 300])
        );
        net.front.refill(0);
    }
    assert_eq!(net.front.disabled(), None);
    let (okay, _, _) = net.front.answered();
    assert!(okay >= 20, "{okay}");
    assert_eq!(netif::RSP_DROPPED, -2);
    net.close();
    assert_nothing_left(&world, &[&guest]);
}
