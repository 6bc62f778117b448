//! What a patched hypervisor offers, and what one without patches answers instead.

use nix::errno::Errno;
use xen_abi::domain::ShutdownReason;
use xen_abi::extras::SHUTDOWN_LISTENERS;
use xen_abi::ids::{DomId, PAGE_SIZE, Port};
use xen_host::seam::{Copied, Devices, DomainControl, Extras, Offer};
use xen_sim::{GuestSpec, World};

#[test]
fn a_stock_hypervisor_is_asked_once_and_then_never_again() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let agent = world.host("agent");
    let buffer = agent.copy_buffer(1).unwrap();
    let events = agent.open_events(None).unwrap();
    let bell = events.loopback().unwrap();
    for _ in 0..2 {
        assert_eq!(
            agent.copy_out(guest.domid(), &[0], &buffer).unwrap(),
            Offer::NotThere
        );
        assert_eq!(
            agent.copy_in(guest.domid(), &[0], &buffer).unwrap(),
            Offer::NotThere
        );
        assert_eq!(
            agent.notify_shutdown(guest.domid(), bell.through).unwrap(),
            Offer::NotThere
        );
        world.record_calls();
    }
    assert_eq!(world.call_log(), []);
    drop(events);
    world.destroy_guest(guest.domid());
    world.ledger().assert_empty();
}

#[test]
fn pages_come_and_go_without_a_mapping_and_zeroes_are_told() {
    for spec in [GuestSpec::pv("a"), GuestSpec::pvh("a")] {
        let world = World::builder(3).patched().build();
        let guest = world.spawn(&spec);
        let (agent, domid) = (world.host("agent"), guest.domid());
        let domu = guest.domu();
        let (full, empty) = (domu.page(), domu.page());
        full.write(100, b"hello");
        let frame = |page| u64::from(domu.frame_name(page));
        let frames = [frame(&full), frame(&empty), u64::MAX >> 12];
        let buffer = agent.copy_buffer(3).unwrap();
        buffer.fill(0, 3 * PAGE_SIZE, 7);
        let Offer::Done(told) = agent.copy_out(domid, &frames, &buffer).unwrap() else {
            panic!("it is there");
        };
        assert_eq!(
            told,
            [Copied::Copied, Copied::Zero, Copied::Refused(Errno::EINVAL)]
        );
        assert_eq!(buffer.read_vec(100, 5), b"hello");
        assert_eq!(buffer.read_vec(PAGE_SIZE, 5), [7; 5], "left alone");
        buffer.write(5, b"back");
        let back = agent.copy_in(domid, &frames[..1], &buffer).unwrap();
        assert_eq!(back, Offer::Done(()));
        assert_eq!(full.read_vec(5, 4), b"back");
        assert!(
            agent.copy_in(domid, &frames, &buffer).is_err(),
            "one is no memory"
        );
        assert!(agent.copy_out(DomId(99), &frames, &buffer).is_err());
        drop((full, empty));
        world.destroy_guest(domid);
        world.ledger().assert_empty();
    }
}

#[test]
fn every_shutdown_code_rings_whoever_listens() {
    for reason in [
        ShutdownReason::Poweroff,
        ShutdownReason::Reboot,
        ShutdownReason::Suspend,
        ShutdownReason::Crash,
        ShutdownReason::Watchdog,
    ] {
        let world = World::builder(3).patched().build();
        let guest = world.spawn(&GuestSpec::pvh("a"));
        let (agent, domid) = (world.host("agent"), guest.domid());
        let events = agent.open_events(None).unwrap();
        let bell = events.loopback().unwrap();
        // A fresh pair is pending at one end.
        for port in events.pending().unwrap() {
            events.unmask(port).unwrap();
        }
        for _ in 0..2 {
            let asked = agent.notify_shutdown(domid, bell.through).unwrap();
            assert_eq!(asked, Offer::Done(()));
        }
        assert_eq!(events.pending().unwrap(), []);
        agent.remote_shutdown(domid, reason).unwrap();
        assert_eq!(events.pending().unwrap(), [bell.at]);
        // Who comes late hears of it at once.
        events.unmask(bell.at).unwrap();
        assert_eq!(
            agent.notify_shutdown(domid, bell.through).unwrap(),
            Offer::Done(())
        );
        assert_eq!(events.pending().unwrap(), [bell.at]);
        drop(events);
        world.destroy_guest(domid);
        world.ledger().assert_empty();
    }
}

#[test]
fn listeners_have_a_bound_and_those_that_died_do_not_count() {
    let world = World::builder(3).patched().build();
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let domid = guest.domid();
    let generations = SHUTDOWN_LISTENERS + 2;
    for generation in 0..generations {
        let agent = world.host(&format!("agent{generation}"));
        let events = agent.open_events(None).unwrap();
        let bell = events.loopback().unwrap();
        let asked = agent.notify_shutdown(domid, bell.through).unwrap();
        assert_eq!(asked, Offer::Done(()));
        world.kill(&agent);
        drop(events);
    }
    let agent = world.host("agent");
    let events = agent.open_events(None).unwrap();
    for _ in 0..SHUTDOWN_LISTENERS {
        let bell = events.loopback().unwrap();
        assert!(agent.notify_shutdown(domid, bell.through).is_ok());
    }
    let one_more = events.loopback().unwrap();
    let error = agent.notify_shutdown(domid, one_more.through).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOSPC));
    let foreign = agent.notify_shutdown(domid, Port(4000)).unwrap_err();
    assert!(matches!(
        foreign.errno(),
        Some(Errno::ENOSPC | Errno::EINVAL)
    ));
    drop(events);
    world.destroy_guest(domid);
    world.ledger().assert_empty();
}
