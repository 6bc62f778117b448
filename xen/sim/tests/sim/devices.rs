//! Grants, event channels, faults and the ledger.

use nix::errno::Errno;
use xen_abi::ids::{DomId, GrantRef, Port};
use xen_host::region::SharedRegion;
use xen_host::seam::{Devices, Direction, DomainControl, GrantCopy};
use xen_host::xenstore::store::{Store, StoreExt, StoreOp, TxId};
use xen_sim::grants::{GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GTF_PERMIT_ACCESS};
use xen_sim::{Fault, FaultKind, Filter, GuestSpec, ResourceKind, World, exhaust};

fn segment(domid: DomId, gref: GrantRef, direction: Direction) -> GrantCopy {
    GrantCopy {
        direction,
        domid,
        gref,
        offset: 10,
        local_offset: 20,
        len: 5,
        status: 1,
    }
}

#[test]
fn a_granted_page_is_shared_and_its_entry_shows_who_maps_it() {
    for spec in [GuestSpec::pv("a"), GuestSpec::pvh("a")] {
        let world = World::seeded(3);
        let guest = world.spawn(&spec);
        let domu = guest.domu();
        let driver = world.host("driver");
        let page = domu.page();
        let gref = domu.grant(&page, false);
        let grants = driver.open_grants().unwrap();
        assert!(!domu.is_mapped(gref));
        let region = grants.map(guest.domid(), &[gref], true).unwrap();
        region.write(7, b"hello");
        assert_eq!(page.read_vec(7, 5), b"hello");
        page.store_u32(64, 99);
        assert_eq!(region.load_u32(64), 99);
        let again = grants.map(guest.domid(), &[gref], false).unwrap();
        assert!(domu.end_access(gref).is_err(), "still mapped");
        drop(region);
        assert!(domu.is_mapped(gref), "the second map is left");
        drop(again);
        domu.end_access(gref).unwrap();
        assert!(
            grants.map(guest.domid(), &[gref], false).is_err(),
            "taken back"
        );
        world.destroy_guest(guest.domid());
        world.ledger().assert_empty();
    }
}

#[test]
fn one_bad_reference_fails_the_whole_map_and_leaves_nothing() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let domu = guest.domu();
    let grants = world.host("driver").open_grants().unwrap();
    let (good, readonly) = (
        domu.grant(&domu.page(), false),
        domu.grant(&domu.page(), true),
    );
    let foreign = domu.reserve_grant();
    domu.write_grant(foreign, GTF_PERMIT_ACCESS, DomId(44), 1);
    let unpopulated = domu.reserve_grant();
    domu.write_grant(unpopulated, GTF_PERMIT_ACCESS, DomId::DOM0, 0xF_0000);
    let before = world.ledger();
    for bad in [
        readonly,
        foreign,
        unpopulated,
        GrantRef(1 << 20),
        GrantRef(500),
    ] {
        let result = grants.map(guest.domid(), &[good, bad], true);
        assert_eq!(result.unwrap_err().errno(), Some(Errno::EINVAL), "{bad:?}");
        assert!(!domu.is_mapped(good));
    }
    assert!(grants.map(guest.domid(), &[readonly], false).is_ok());
    world.ledger().assert_same_as(&before);
}

#[test]
fn each_copied_segment_has_its_own_status() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pv("a"));
    let (domu, domid) = (guest.domu(), guest.domid());
    let grants = world.host("driver").open_grants().unwrap();
    let local = SharedRegion::anonymous(1).unwrap();
    let page = domu.page();
    page.write(10, b"bytes");
    let (gref, readonly) = (domu.grant(&page, false), domu.grant(&page, true));
    let mut segments = [
        segment(domid, GrantRef(1 << 20), Direction::FromGuest),
        segment(domid, gref, Direction::FromGuest),
        segment(DomId(99), gref, Direction::FromGuest),
        segment(domid, readonly, Direction::ToGuest),
        segment(domid, readonly, Direction::FromGuest),
    ];
    grants.copy(&local, &mut segments).unwrap();
    let statuses: Vec<i16> = segments.iter().map(|segment| segment.status).collect();
    assert_eq!(
        statuses,
        [
            GNTST_BAD_GNTREF,
            0,
            GNTST_BAD_DOMAIN,
            GNTST_GENERAL_ERROR,
            0
        ]
    );
    assert_eq!(local.read_vec(20, 5), b"bytes");
    local.write(20, b"BYTES");
    grants
        .copy(&local, &mut [segment(domid, gref, Direction::ToGuest)])
        .unwrap();
    assert_eq!(page.read_vec(10, 5), b"BYTES");
    let mut crossing = segment(domid, gref, Direction::FromGuest);
    crossing.offset = 4093;
    let refused = grants.copy(
        &local,
        &mut [segment(domid, gref, Direction::FromGuest), crossing],
    );
    assert_eq!(
        refused.unwrap_err().errno(),
        Some(Errno::EINVAL),
        "the whole call"
    );
}

#[test]
fn deferred_unmaps_keep_the_grant_in_use() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let domu = guest.domu();
    let grants = world.host("driver").open_grants().unwrap();
    let gref = domu.grant(&domu.page(), false);
    world.defer_unmaps(true);
    drop(grants.map(guest.domid(), &[gref], true).unwrap());
    assert!(domu.is_mapped(gref), "munmap returned, Xen has not let go");
    world.settle_unmaps();
    assert!(!domu.is_mapped(gref));
}

#[test]
fn a_bound_port_is_pending_at_once_and_masked_until_unmasked() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let domu = guest.domu();
    let events = world
        .host("driver")
        .open_events(Some(guest.domid()))
        .unwrap();
    let remote = domu.alloc_port().unwrap();
    domu.send(remote);
    let port = events.bind_interdomain(guest.domid(), remote).unwrap();
    assert!(events.wait(None).unwrap());
    assert_eq!(events.pending().unwrap(), [port], "pending at once");
    assert!(!events.wait(Some(std::time::Duration::ZERO)).unwrap());
    domu.send(remote);
    domu.send(remote);
    assert!(events.pending().unwrap().is_empty(), "masked");
    events.unmask(port).unwrap();
    assert_eq!(
        events.pending().unwrap(),
        [port],
        "what came meanwhile is one event"
    );
    events.unmask(port).unwrap();
    assert!(events.pending().unwrap().is_empty());
    events.notify(port).unwrap();
    assert!(domu.take_pending(remote));
    assert!(!domu.take_pending(remote));
    assert_eq!(world.notifications(guest.domid(), remote), 1);
}

#[test]
fn ports_refuse_what_xen_refuses() {
    let world = World::seeded(3);
    let (guest, other) = (
        world.spawn(&GuestSpec::pvh("a")),
        world.spawn(&GuestSpec::pvh("b")),
    );
    let events = world
        .host("driver")
        .open_events(Some(guest.domid()))
        .unwrap();
    let remote = guest.domu().alloc_port().unwrap();
    let theirs = other.domu().alloc_port().unwrap();
    let bind = |domid, port| events.bind_interdomain(domid, port).unwrap_err().errno();
    assert_eq!(bind(guest.domid(), Port(900)), Some(Errno::EINVAL));
    assert_eq!(
        bind(other.domid(), theirs),
        Some(Errno::EACCES),
        "restricted for good"
    );
    let port = events.bind_interdomain(guest.domid(), remote).unwrap();
    assert_eq!(
        bind(guest.domid(), remote),
        Some(Errno::EINVAL),
        "bound already"
    );
    let second = world.host("other").open_events(None).unwrap();
    assert_eq!(
        second.notify(port).unwrap_err().errno(),
        Some(Errno::ENOTCONN)
    );
    assert_eq!(
        second.unbind(port).unwrap_err().errno(),
        Some(Errno::ENOTCONN)
    );
    assert!(second.bind_interdomain(DomId(99), Port(1)).is_err());
    guest.domu().close_port(remote);
    events.notify(port).unwrap();
    events.unbind(port).unwrap();
}

#[test]
fn a_killed_process_leaves_its_ports_unbound_and_its_grants_free() {
    let world = World::seeded(3);
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let (domu, domid) = (guest.domu(), guest.domid());
    let driver = world.host("driver");
    let (events, grants) = (
        driver.open_events(None).unwrap(),
        driver.open_grants().unwrap(),
    );
    let (remote, gref) = (domu.alloc_port().unwrap(), domu.grant(&domu.page(), false));
    let port = events.bind_interdomain(domid, remote).unwrap();
    let region = grants.map(domid, &[gref], true).unwrap();
    let watch = driver.watch("/x").unwrap();
    let tx = driver.begin().unwrap();
    driver.write_text(tx, "/half", "done").unwrap();
    driver.write_text(TxId::NONE, "/kept", "1").unwrap();
    let successor = world.host("driver");
    let second = successor.open_events(None).unwrap();
    assert!(
        second.bind_interdomain(domid, remote).is_err(),
        "the old one still has it"
    );
    world.kill(&driver);
    assert!(world.is_dead(&driver) && !domu.is_mapped(gref));
    domu.send(remote);
    assert!(events.notify(port).is_err(), "a dead process does nothing");
    assert!(driver.domain_info(domid).is_err());
    let port = second.bind_interdomain(domid, remote).unwrap();
    assert_eq!(
        second.pending().unwrap(),
        [port],
        "covers what was sent in between"
    );
    drop((events, region, watch, second));
    assert_eq!(world.xs_read("/half"), None);
    assert_eq!(world.xs_read("/kept").as_deref(), Some("1"));
    world.destroy_guest(domid);
    world.ledger().assert_empty();
}

#[test]
fn every_kind_of_fault_does_what_it_says() {
    let world = World::seeded(3);
    let host = world.host("agent");
    let write = |n: &str| host.write_text(TxId::NONE, n, "1");
    world.inject(Fault::at(1, FaultKind::Fail(Errno::EIO)).of(Filter::any().ops(&["xs.call"])));
    write("/a").unwrap();
    assert!(write("/b").is_err());
    assert_eq!(world.xs_read("/b"), None);
    write("/b").unwrap();
    world.clear_faults();
    world.inject(Fault::at(0, FaultKind::FailAfter(Errno::EIO)));
    assert!(write("/c").is_err());
    assert_eq!(world.xs_read("/c").as_deref(), Some("1"));
    world.clear_faults();
    let watch = host.watch("/w").unwrap();
    let _ = watch.try_next();
    world.inject(Fault::at(0, FaultKind::LoseWatch));
    write("/w").unwrap();
    assert_eq!(watch.try_next(), None, "lost");
    write("/w").unwrap();
    assert!(watch.try_next().is_some());
    world.clear_faults();
    world.inject(Fault::at(0, FaultKind::CrashTorn).of(Filter::process("agent")));
    let ops: Vec<StoreOp> = (0..20)
        .map(|n| StoreOp::Write(format!("/torn/{n}"), Vec::new()))
        .collect();
    assert!(host.call(TxId::NONE, &ops).is_err());
    assert!(world.xs_tree("/torn").len() < 21, "a part at most");
    assert!(world.is_dead(&host) && write("/x").is_err());
    assert_eq!(world.faults_fired(), 1 + 1 + 1 + 1);
}

#[test]
fn exhaust_tries_every_call() {
    let mut died_at = Vec::new();
    let tried = exhaust(FaultKind::Crash, &Filter::process("agent"), |fault| {
        let world = World::builder(1).memory_mib(1).build();
        let agent = world.host("agent");
        world.inject(fault);
        let done =
            (0..5).take_while(|n| agent.write_text(TxId::NONE, &format!("/n{n}"), "").is_ok());
        died_at.push(done.count());
        world.kill(&agent);
        world.ledger().assert_empty();
        world
    });
    assert_eq!((tried, died_at.as_slice()), (5, &[0, 1, 2, 3, 4, 5][..]));
}

#[test]
fn the_ledger_names_what_is_left() {
    let world = World::seeded(3);
    let before = world.ledger();
    let guest = world.spawn(&GuestSpec::pvh("a"));
    let driver = world.host("driver");
    let grants = driver.open_grants().unwrap();
    let gref = guest.domu().grant(&guest.domu().page(), false);
    let region = grants.map(guest.domid(), &[gref], true).unwrap();
    let watch = driver.watch("@releaseDomain").unwrap();
    world.note_open(ResourceKind::Tap, "vif1.0");
    driver
        .write_text(
            TxId::NONE,
            "/local/domain/0/backend/vbd/77/51712/state",
            "1",
        )
        .unwrap();
    let text = world.ledger().since(&before);
    for wanted in [
        "domain 1: ",
        "driver: grant map of [8], 1 pages of domain 1",
        "driver: watch on @releaseDomain",
        "Tap vif1.0 open 1 times",
        "xenstore node /local/domain/0/backend/vbd/77",
        "free pages: ",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    world.note_closed(ResourceKind::Tap, "vif1.0");
    driver
        .remove(TxId::NONE, "/local/domain/0/backend/vbd/77")
        .unwrap();
    drop((region, watch));
    world.destroy_guest(guest.domid());
    world.ledger().assert_same_as(&before);
    world.note_closed(ResourceKind::Tap, "vif1.0");
    assert!(world.ledger().lines()[0].contains("not open"));
}

#[test]
fn short_and_slow_calls() {
    use std::time::Duration;
    use xen_host::seam::{HostControl, MemoryControl};
    let world = World::seeded(3);
    let host = world.host("agent");
    let domid = host.create_domain(&crate::lifecycle::create(xen_abi::domain::DomainKind::Pv));
    let domid = domid.unwrap();
    host.set_max_mem(domid, 4096).unwrap();
    world.inject(Fault::at(0, FaultKind::Short(3)));
    assert_eq!(host.populate(domid, &mut [0, 1, 2, 3, 4], 0).unwrap(), 3);
    assert_eq!(host.populate(domid, &mut [3, 4], 0).unwrap(), 2);
    world.inject(Fault::at(0, FaultKind::Delay(Duration::from_secs(7))).times(2));
    assert!(host.physinfo().is_ok() && host.physinfo().is_ok());
    assert_eq!(world.now(), Duration::from_secs(14));
}

#[test]
fn the_same_seed_gives_the_same_world() {
    use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkRequest};
    let run = |seed| {
        let world = World::seeded(seed);
        world.record_calls();
        let guest = world.spawn(&GuestSpec::pv("a"));
        let at = world.plug_disk(guest.domu(), 51712, &[]);
        crate::support::write(&world.host("driver"), &at, "state", "2");
        let mut front = BlkFront::new(guest.domu(), at, BlkOptions::default());
        front.step();
        let ids: Vec<u64> = (0..8)
            .map(|_| front.submit(&BlkRequest::Flush).id)
            .collect();
        let handle = world.domain(guest.domid()).unwrap().handle;
        (
            ids,
            handle,
            world.call_log(),
            world.xs_tree("/"),
            world.ledger().lines().to_vec(),
        )
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}
