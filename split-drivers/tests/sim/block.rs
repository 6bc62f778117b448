//! Disks of correct guests.

use crate::support::disk::{DEVID, Disk, image, open_order, opened, order};
use parapet_wire::driver::{DeviceStats, OrderBody, Outcome};
use split_drivers::control::driver::Driver;
use split_drivers::control::pool::Pool;
use std::os::unix::fs::FileExt;
use xen_abi::io::blkif::{Protocol, RSP_ERROR, RSP_OKAY};
use xen_sim::frontend::blk::{BlkOptions, BlkRequest};
use xen_sim::{GuestSpec, World};

fn pattern(sector: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (usize::try_from(sector).unwrap() * 31 + i * 7 + i / 512).to_le_bytes()[0])
        .collect()
}

/// Frontends as they differ: word size, grants, queues, ring sizes, large requests, data at odd places.
fn frontends() -> Vec<BlkOptions> {
    let stock = BlkOptions::default();
    vec![
        stock,
        BlkOptions {
            persistent: false,
            ..stock
        },
        BlkOptions {
            protocol: Protocol::X86_32,
            persistent: false,
            indirect: 0,
            ..stock
        },
        BlkOptions {
            queues: 4,
            ring_order: 2,
            ..stock
        },
        BlkOptions {
            queues: 2,
            ring_order: 4,
            indirect: 256,
            scatter: true,
            ..stock
        },
        BlkOptions {
            protocol: Protocol::X86_32,
            queues: 3,
            persistent: false,
            scatter: true,
            ..stock
        },
    ]
}

#[test]
fn every_kind_of_frontend_reads_what_it_wrote() {
    for options in frontends() {
        let world = World::seeded(3);
        let guest = world.spawn(&GuestSpec::pvh("web1"));
        let before = world.ledger();
        let mut disk = Disk::connected(&world, &guest, options);
        let len = disk.front.max_bytes();
        for sector in [0, 1, 777] {
            let data = pattern(sector, len);
            assert_eq!(
                disk.ask(&BlkRequest::Write {
                    sector,
                    data: data.clone()
                })
                .status,
                RSP_OKAY,
                "{options:?}"
            );
            assert_eq!(
                disk.ask(&BlkRequest::Read { sector, len }).data.as_ref(),
                Some(&data),
                "{options:?}"
            );
            let mut on_file = vec![0; len];
            disk.file()
                .read_exact_at(&mut on_file, sector * 512)
                .unwrap();
            assert_eq!(on_file, data);
        }
        assert_eq!(disk.ask(&BlkRequest::Flush).status, RSP_OKAY);
        assert_eq!(
            disk.ask(&BlkRequest::Discard {
                sector: 0,
                count: 16
            })
            .status,
            RSP_OKAY
        );
        assert_eq!(
            disk.ask(&BlkRequest::Read {
                sector: 0,
                len: 512
            })
            .data,
            Some(vec![0; 512])
        );
        assert_eq!(disk.front.disabled(), None);
        disk.close();
        world.forget_device(&xen_sim::frontend::xenbus::DeviceAddress::new(
            guest.domid(),
            "vbd",
            DEVID,
        ));
        world.ledger().assert_same_as(&before);
    }
}

#[test]
fn a_planned_replacement_is_not_noticed() {
    let world = World::seeded(4);
    let guest = world.spawn(&GuestSpec::pv("web1"));
    for persistent in [false, true] {
        let mut disk = Disk::connected(
            &world,
            &guest,
            BlkOptions {
                persistent,
                queues: 2,
                ..BlkOptions::default()
            },
        );
        for round in 0..4_u64 {
            let writes: Vec<_> = (0..20)
                .map(|i| {
                    let sector = round * 200 + i * 8;
                    disk.front.submit(&BlkRequest::Write {
                        sector,
                        data: pattern(sector, 4096),
                    })
                })
                .collect();
            disk.replace();
            let answers = disk
                .front
                .wait_answers(writes.len(), crate::support::PATIENCE);
            assert_eq!(answers.len(), writes.len());
            assert!(answers.iter().all(|answer| answer.status == RSP_OKAY));
        }
        for sector in (0..800).step_by(200) {
            assert_eq!(
                disk.ask(&BlkRequest::Read { sector, len: 4096 }).data,
                Some(pattern(sector, 4096))
            );
        }
        assert_eq!(disk.front.disabled(), None);
        disk.close();
        world.forget_device(&xen_sim::frontend::xenbus::DeviceAddress::new(
            guest.domid(),
            "vbd",
            DEVID,
        ));
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn orders_may_be_said_again_and_wrong_ones_say_why() {
    let world = World::seeded(5);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut disk = Disk::connected(&world, &guest, BlkOptions::default());
    assert_eq!(disk.connect().unwrap(), Outcome::Disk { redone: 0 });
    let again = opened(&disk.image);
    assert!(matches!(
        order(
            &mut disk.driver,
            OrderBody::OpenDisk(open_order(false)),
            vec![again]
        ),
        Ok(Outcome::Medium(_))
    ));
    let again = opened(&disk.image);
    let fault = order(
        &mut disk.driver,
        OrderBody::OpenDisk(open_order(true)),
        vec![again],
    )
    .unwrap_err();
    assert!(fault.text.contains("open in another way"), "{fault}");
    let fault = order(
        &mut disk.driver,
        OrderBody::CloseDisk { devid: DEVID },
        Vec::new(),
    )
    .unwrap_err();
    assert!(fault.text.contains("is being served"), "{fault}");
    let fault = order(
        &mut disk.driver,
        OrderBody::OpenDisk(open_order(false)),
        Vec::new(),
    )
    .unwrap_err();
    assert!(fault.text.contains("without its disk"), "{fault}");
    disk.order.rings[0].port.0 += 1;
    let fault = disk.connect().unwrap_err();
    assert!(fault.text.contains("other rings"), "{fault}");
    let Ok(Outcome::Hello { disks, .. }) = order(&mut disk.driver, OrderBody::Hello, Vec::new())
    else {
        panic!()
    };
    assert_eq!(disks, [DEVID]);
    disk.close();
}

#[test]
fn a_refused_connection_leaves_nothing() {
    let world = World::seeded(6);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut disk = Disk::connected(
        &world,
        &guest,
        BlkOptions {
            queues: 2,
            ..BlkOptions::default()
        },
    );
    order(
        &mut disk.driver,
        OrderBody::DisconnectDisk { devid: DEVID },
        Vec::new(),
    )
    .unwrap();
    let before = world.ledger();
    let good = disk.order.clone();
    disk.order.rings[1].refs[0].0 = 0x00ff_ffff;
    assert!(!disk.connect().unwrap_err().retry);
    disk.order = good.clone();
    disk.order.rings[1].port.0 = 4000;
    assert!(disk.connect().unwrap_err().retry, "a port may become free");
    disk.order = good.clone();
    disk.order.rings.truncate(1);
    disk.order.resume = true;
    let fault = disk.connect().unwrap_err();
    assert!(fault.text.contains("journal"), "{fault}");
    world.ledger().assert_same_as(&before);
}

#[test]
fn an_image_in_use_is_worth_another_try() {
    let world = World::seeded(7);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let image = image();
    let driver = || Driver::new(Pool::open(&world.host("driver"), guest.domid()).unwrap()).unwrap();
    let (mut first, mut second) = (driver(), driver());
    order(
        &mut first,
        OrderBody::OpenDisk(open_order(false)),
        vec![opened(&image)],
    )
    .unwrap();
    let fault = order(
        &mut second,
        OrderBody::OpenDisk(open_order(true)),
        vec![opened(&image)],
    )
    .unwrap_err();
    assert!(fault.retry && fault.text.contains("locked"), "{fault}");
    drop(first);
    order(
        &mut second,
        OrderBody::OpenDisk(open_order(true)),
        vec![opened(&image)],
    )
    .unwrap();
    let mut third = driver();
    order(
        &mut third,
        OrderBody::OpenDisk(open_order(true)),
        vec![opened(&image)],
    )
    .expect("readers share");
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let world = World::seeded(8);
    let guest = world.spawn(&GuestSpec::pvh("web1"));
    let mut disk = Disk::with(&world, &guest, BlkOptions::default(), true);
    assert_eq!(disk.front.info().info & 4, 4);
    assert_eq!(
        disk.ask(&BlkRequest::Write {
            sector: 0,
            data: vec![1; 512]
        })
        .status,
        RSP_ERROR
    );
    assert_eq!(
        disk.ask(&BlkRequest::Read {
            sector: 0,
            len: 512
        })
        .data,
        Some(vec![0; 512])
    );
    let Ok(Outcome::Stats(stats)) = order(&mut disk.driver, OrderBody::Stats, Vec::new()) else {
        panic!()
    };
    let [
        DeviceStats {
            from_guest: 2,
            to_guest: 1,
            refused: 1,
            bytes_to_guest: 512,
            ..
        },
    ] = stats[..]
    else {
        panic!("{stats:?}")
    };
    disk.close();
}
