//! The network and console frontends work with an honest backend, and find out a dishonest one.

use crate::support::net::{Misdeed, NetBackend, offer};
use xen_abi::io::netif::GSO_TCPV4;
use xen_abi::io::xenbus::XenbusState;
use xen_host::seam::{Devices, Events};
use xen_sim::frontend::console::ConsoleFront;
use xen_sim::frontend::net::{Frame, NetFront, NetOptions, NetState};
use xen_sim::{GuestSpec, SimHost, World};

fn pair(world: &World, options: NetOptions) -> (NetFront, NetBackend) {
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_vif(guest.domu(), 0, &[]);
    let host = world.host("driver");
    let mut front = NetFront::new(guest.domu(), at.clone(), options);
    offer(&host, &at);
    assert!(front.step());
    assert_eq!(
        front.device().state(),
        XenbusState::Connected,
        "netfront goes to 4 at once"
    );
    let back = NetBackend::connect(&host, &at);
    assert!(front.step());
    assert_eq!(front.state(), NetState::Connected);
    (front, back)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 249).unwrap()).collect()
}

fn gso(len: usize) -> Frame {
    Frame {
        data: bytes(len),
        csum_blank: true,
        data_validated: true,
        gso: Some((GSO_TCPV4, 1448)),
    }
}

#[test]
fn packets_arrive_as_they_were_sent_both_ways() {
    for split_ports in [false, true] {
        let world = World::seeded(13);
        let options = NetOptions {
            split_ports,
            ..NetOptions::default()
        };
        let (mut front, mut back) = pair(&world, options);
        let sent = [
            Frame::plain(&bytes(60)),
            Frame::plain(&bytes(9000)),
            gso(60_000),
        ];
        for round in 0..40 {
            for frame in &sent {
                assert!(front.send(frame), "round {round}");
            }
            back.run_tx();
            assert_eq!(back.received.drain(..).collect::<Vec<_>>(), sent);
            assert!(front.reap() > 0);
            assert_eq!(front.tx_room(0), 256);
            sent.iter().for_each(|frame| back.send(frame));
            assert_eq!(front.receive(), sent);
        }
        assert_eq!((front.disabled(), world.violations()), (None, Vec::new()));
        assert_eq!(front.spurious_events(), 0);
        let domid = front.device().address().domid;
        front.close();
        back.close();
        front.free();
        world.destroy_guest(domid);
        world.ledger().assert_empty();
    }
}

#[test]
fn odd_pieces_and_a_full_ring() {
    let world = World::seeded(13);
    let (mut front, mut back) = pair(&world, NetOptions::default());
    let frame = Frame::plain(&bytes(100));
    assert!(front.send_in(0, &frame, &[14, 1, 19, 20, 46]));
    let mut count = 1;
    while front.send(&frame) {
        count += 1;
    }
    assert_eq!(count, 256 - 4);
    back.run_tx();
    assert!(back.received.iter().all(|got| *got == frame));
    assert_eq!((front.reap(), front.answered()), (256, (256, 0, 0)));
}

#[test]
fn every_misdeed_of_a_backend_is_found() {
    let table = [
        (Misdeed::TxTwice, "waits for none"),
        (Misdeed::TxMapped, "answered too early"),
        (Misdeed::ExtraAnsweredAsData, "waits for none"),
        (Misdeed::RxOutOfSlot, "holds the answer to id"),
        (Misdeed::RxBeyondPage, "leaves its page"),
        (Misdeed::RxGsoUnasked, "did not ask for it"),
    ];
    for (misdeed, wanted) in table {
        let world = World::seeded(13);
        let options = NetOptions {
            gso: misdeed != Misdeed::RxGsoUnasked,
            ..NetOptions::default()
        };
        let (mut front, mut back) = pair(&world, options);
        back.misdeed = misdeed;
        let frame = if options.gso {
            gso(3000)
        } else {
            Frame::plain(&bytes(3000))
        };
        assert!(front.send(&frame) && front.send(&frame));
        back.run_tx();
        front.reap();
        back.send(&gso(3000));
        front.receive();
        let found = world.violations().join("\n");
        assert!(
            found.contains(wanted) && front.disabled().is_some(),
            "{misdeed:?}: {found}"
        );
    }
}

#[test]
fn queues_and_few_buffers_are_what_the_options_say() {
    let world = World::seeded(13);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_vif(guest.domu(), 0, &[("multi-queue-max-queues", "2")]);
    let options = NetOptions {
        queues: 4,
        rx_buffers: 1,
        ..NetOptions::default()
    };
    let mut front = NetFront::new(guest.domu(), at.clone(), options);
    offer(&world.host("driver"), &at);
    assert!(front.step());
    assert_eq!((front.queue_count(), front.rx_ring(1).req_prod()), (2, 1));
    let key = |key: &str| world.xs_read(&format!("{}/{key}", at.frontend()));
    assert_eq!(key("multi-queue-num-queues").as_deref(), Some("2"));
    assert!(key("queue-1/rx-ring-ref").is_some() && key("queue-1/event-channel-rx").is_some());
    assert_eq!(key("tx-ring-ref"), None, "two queues use no top-level keys");
}

#[test]
fn an_interface_without_rx_copy_is_not_taken() {
    let world = World::seeded(13);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_vif(guest.domu(), 0, &[]);
    let mut front = NetFront::new(guest.domu(), at.clone(), NetOptions::default());
    crate::support::write(&world.host("driver"), &at, "state", "2");
    assert!(!front.step());
    assert!(world.violations()[0].contains("feature-rx-copy"));
}

/// Takes everything out of a console and puts an answer in.
fn serve(console: &ConsoleFront, answer: &[u8]) -> Vec<u8> {
    use xen_abi::io::console::{OUT_BYTES, pending, stretches};
    let page = console.page();
    let (cons, prod) = (page.load_u32(3080), page.load_u32(3084));
    let (first, second) = stretches(cons, pending(prod, cons, OUT_BYTES).unwrap(), OUT_BYTES);
    let mut taken = page.read_vec(1024 + first.start, first.len());
    taken.extend(page.read_vec(1024 + second.start, second.len()));
    page.store_u32(3080, prod);
    let at = page.load_u32(3076);
    for (n, byte) in answer.iter().enumerate() {
        page.write((at as usize + n) % 1024, &[*byte]);
    }
    page.store_u32(3076, at.wrapping_add(u32::try_from(answer.len()).unwrap()));
    taken
}

#[test]
fn a_console_carries_bytes_both_ways_and_never_more_than_fits() {
    for spec in [GuestSpec::pv("a"), GuestSpec::pvh("a")] {
        let world = World::seeded(13);
        let guest = world.spawn(&spec);
        let mut console = ConsoleFront::primary(&guest).unwrap();
        let text = bytes(3000);
        let mut got = Vec::new();
        let mut sent = 0;
        while sent < text.len() {
            sent += console.write(&text[sent..]);
            assert!(console.unread() <= 2048);
            got.extend(serve(&console, b"ok"));
            assert_eq!(console.read(), b"ok");
        }
        assert_eq!(got, text);
        assert_eq!(console.write(&[b'x'; 4000]), 2048);
        console.page().store_u32(3080, 77);
        assert_eq!(console.write(b"x"), 0);
        assert!(
            world.violations()[0].contains("impossible"),
            "{:?}",
            world.violations()
        );
    }
}

fn bind(host: &SimHost, console: &ConsoleFront, domid: xen_abi::ids::DomId) -> Box<dyn Events> {
    let events = host.open_events(Some(domid)).unwrap();
    events.bind_interdomain(domid, console.port()).unwrap();
    events
}

#[test]
fn a_further_console_shakes_hands() {
    let world = World::seeded(13);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let at = world.plug_console(guest.domu(), 1);
    let mut console = ConsoleFront::further(guest.domu(), at.clone());
    assert!(console.step());
    assert_eq!(console.state(), XenbusState::Initialised);
    assert!(!console.step(), "the backend is not at 4");
    let host = world.host("driver");
    let events = bind(&host, &console, guest.domid());
    crate::support::write(&host, &at, "state", "4");
    assert!(console.step());
    assert_eq!(console.state(), XenbusState::Connected);
    let _ = events.pending().unwrap();
    console.write(b"hello");
    assert!(
        events.pending().unwrap().is_empty(),
        "masked until unmasked"
    );
}
