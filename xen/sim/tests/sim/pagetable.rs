//! Page tables of PV guests are validated as Xen validates them.

use crate::lifecycle::{create, errno};
use nix::errno::Errno;
use xen_abi::domain::DomainKind;
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::pv::page_table::{LEAF, LEAF_READ_ONLY, PSE, TABLE, entry};
use xen_host::region::SharedRegion;
use xen_host::seam::{DomainControl, HostControl, MemoryControl};
use xen_sim::{SimHost, World};

/// A guest of 16 pages; pages 0 to 3 are its tables of level 1 to 4, which map all 16.
struct Guest {
    host: SimHost,
    domid: DomId,
    mfns: Vec<u64>,
}

fn put(page: &SharedRegion, slot: usize, value: u64) {
    page.write(slot * 8, &value.to_le_bytes());
}

impl Guest {
    fn new(world: &World) -> Self {
        let host = world.host("agent");
        let domid = host.create_domain(&create(DomainKind::Pv)).unwrap();
        host.max_vcpus(domid, 2).unwrap();
        host.set_max_mem(domid, 1024).unwrap();
        let mut mfns: Vec<u64> = (0..16).collect();
        host.populate(domid, &mut mfns, 0).unwrap();
        let guest = Self { host, domid, mfns };
        for level in 2..=4 {
            put(&guest.table(level), 0, entry(guest.mfns[level - 2], TABLE));
        }
        let leaves = guest.table(1);
        for (slot, mfn) in guest.mfns.iter().enumerate() {
            let bits = if slot < 4 { LEAF_READ_ONLY } else { LEAF };
            put(&leaves, slot, entry(*mfn, bits));
        }
        guest
    }

    fn table(&self, level: usize) -> SharedRegion {
        self.host
            .map_foreign(self.domid, &[self.mfns[level - 1]], true)
            .unwrap()
    }

    fn pin(&self) -> Result<(), Option<Errno>> {
        self.host
            .pin_l4(self.domid, self.mfns[3])
            .map_err(|error| error.errno())
    }
}

#[test]
fn sound_tables_are_pinned_and_then_nobody_maps_them_writable() {
    let world = World::seeded(23);
    let guest = Guest::new(&world);
    guest.pin().unwrap();
    assert_eq!(world.pinned(guest.domid), [guest.mfns[3]]);
    let writable = guest.host.map_foreign(guest.domid, &guest.mfns[..1], true);
    assert_eq!(errno(writable), Some(Errno::EINVAL));
    guest
        .host
        .map_foreign(guest.domid, &guest.mfns[..1], false)
        .unwrap();
    let data = guest.host.init_hypercall_page(guest.domid, guest.mfns[5]);
    assert!(data.is_ok());
    let table = guest.host.init_hypercall_page(guest.domid, guest.mfns[1]);
    assert_eq!(errno(table), Some(Errno::EACCES));
}

#[test]
fn every_unsound_table_is_refused_and_the_log_says_why() {
    type Spoil = fn(&Guest) -> Option<SharedRegion>;
    let table: [(&str, Spoil); 7] = [
        ("writable foreign mapping", |guest| Some(guest.table(2))),
        ("writable mapping of table", |guest| {
            put(&guest.table(1), 2, entry(guest.mfns[2], LEAF));
            None
        }),
        ("does not belong", |guest| {
            put(&guest.table(1), 20, entry(0x5_0000, LEAF));
            None
        }),
        ("does not belong", |guest| {
            put(&guest.table(3), 9, entry(1, TABLE));
            None
        }),
        ("superpages", |guest| {
            put(&guest.table(2), 3, entry(guest.mfns[8], TABLE | PSE));
            None
        }),
        ("is already an L", |guest| {
            put(&guest.table(4), 5, entry(guest.mfns[0], TABLE));
            None
        }),
        ("is already an L4", |guest| {
            put(&guest.table(2), 7, entry(guest.mfns[3], TABLE));
            None
        }),
    ];
    for (wanted, spoil) in table {
        let world = World::seeded(23);
        let guest = Guest::new(&world);
        let held = spoil(&guest);
        assert_eq!(guest.pin(), Err(Some(Errno::EINVAL)), "{wanted}");
        let log = String::from_utf8(guest.host.console_log(true).unwrap()).unwrap();
        assert!(log.contains(wanted), "{wanted:?} is not in {log}");
        let still_ours = guest
            .host
            .map_foreign(guest.domid, &guest.mfns[..1], true)
            .is_ok();
        assert!(still_ours, "a refused validation types nothing");
        drop(held);
    }
}

#[test]
fn a_context_needs_a_sound_top_table_and_brings_the_vcpu_up() {
    let world = World::seeded(23);
    let guest = Guest::new(&world);
    let set = |cr3: u64, len: usize| {
        let mut context = vec![0; len];
        context[4984 + 24..4984 + 32].copy_from_slice(&(cr3 << 12).to_le_bytes());
        guest
            .host
            .set_vcpu_context(guest.domid, VcpuId(0), &context)
    };
    assert_eq!(
        errno(set(guest.mfns[3], 5160)),
        Some(Errno::EINVAL),
        "too short"
    );
    assert_eq!(
        errno(set(0x5_0000, 5168)),
        Some(Errno::EINVAL),
        "not its frame"
    );
    assert_eq!(
        guest
            .host
            .domain_info(guest.domid)
            .unwrap()
            .unwrap()
            .online_vcpus,
        0
    );
    set(guest.mfns[3], 5168).unwrap();
    assert_eq!(
        guest
            .host
            .domain_info(guest.domid)
            .unwrap()
            .unwrap()
            .online_vcpus,
        1
    );
    assert_eq!(
        world.vcpu_state(guest.domid, VcpuId(0)).unwrap().len(),
        5168
    );
}
