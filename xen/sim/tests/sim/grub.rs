//! The boot loader's frontend: no waiting, id 0, and the hand-over to the kernel.

use crate::support::blk::BlkBackend;
use xen_abi::io::xenbus::XenbusState;
use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkRequest, BlkState};
use xen_sim::frontend::grub::GrubDisk;
use xen_sim::{GuestSpec, World};

#[test]
fn a_loader_reads_and_hands_over_to_the_kernel() {
    let world = World::seeded(17);
    let guest = world.spawn(&GuestSpec::pv("a"));
    let at = world.plug_disk(guest.domu(), 51712, &[("mode", "w")]);
    let mut back = BlkBackend::new(&world.host("driver"), &at, 64);
    back.disk[512..515].copy_from_slice(b"MBR");
    back.offer(true);
    let mut grub = GrubDisk::open(guest.domu(), at.clone());
    assert_eq!(grub.device().state(), XenbusState::Initialised);
    assert_eq!(grub.sectors(), None, "it waits while the backend is at 2");
    back.connect();
    assert_eq!(grub.sectors(), Some(64));
    for _ in 0..40 {
        grub.start_read(1, 1024);
        assert_eq!(grub.poll(), None);
        back.run();
        assert_eq!(grub.poll().unwrap().unwrap()[..3], *b"MBR");
    }
    grub.start_read(64, 512);
    back.run();
    assert_eq!(grub.poll(), Some(Err(-1)));
    grub.start_close();
    assert!(!grub.finish_close(), "the backend is not closed yet");
    back.close();
    assert!(grub.finish_close());
    back.offer(true);
    let mut front = BlkFront::new(guest.domu(), at, BlkOptions::default());
    assert!(front.step());
    back.connect();
    assert!(front.step());
    assert_eq!(front.state(), BlkState::Connected);
    front.submit(&BlkRequest::Read {
        sector: 1,
        len: 512,
    });
    back.run();
    assert_eq!(front.answers()[0].data.as_ref().unwrap()[..3], *b"MBR");
    assert_eq!(world.violations(), Vec::<String>::new());
}
