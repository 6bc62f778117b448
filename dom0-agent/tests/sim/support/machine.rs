//! A guest as it runs: a kernel with the drivers of its devices, found in xenstore as Linux finds them.

use std::collections::{BTreeMap, BTreeSet};
use xen_abi::ids::DomId;
use xen_abi::io::xenbus::XenbusState;
use xen_sim::frontend::blk::{BlkFront, BlkOptions, BlkState};
use xen_sim::frontend::net::{NetFront, NetOptions, NetState};
use xen_sim::frontend::xenbus::DeviceAddress;
use xen_sim::{Guest, World};

/// See the module.
#[derive(Debug)]
pub struct Machine {
    pub kernel: Guest,
    pub disks: BTreeMap<u32, BlkFront>,
    pub nets: BTreeMap<u32, NetFront>,
    /// It runs, but does nothing.
    pub silent: bool,
    /// How its block driver was built.
    pub options: BlkOptions,
}

impl Machine {
    /// Boots the domain.
    pub fn boot(world: &World, domid: DomId) -> Self {
        Self {
            kernel: world.boot(domid),
            disks: BTreeMap::new(),
            nets: BTreeMap::new(),
            silent: false,
            options: BlkOptions::default(),
        }
    }

    pub fn domid(&self) -> DomId {
        self.kernel.domid()
    }

    /// Whether it may act.
    pub fn runs(world: &World, domid: DomId) -> bool {
        world
            .domain(domid)
            .is_some_and(|info| !info.paused && !info.dying && info.shutdown.is_none())
    }

    /// Lets kernel and drivers act once.
    pub fn step(&mut self, world: &World) {
        if self.silent || !Self::runs(world, self.domid()) {
            return;
        }
        self.kernel.step();
        if !Self::runs(world, self.domid()) {
            return;
        }
        self.find_devices(world);
        for front in self.disks.values_mut() {
            front.step();
            if front.state() == BlkState::Closed
                && front.device().backend_state() == XenbusState::Closed
            {
                front.free();
            }
        }
        for front in self.nets.values_mut() {
            front.step();
            if front.state() == NetState::Closed
                && front.device().backend_state() == XenbusState::Closed
            {
                front.free();
            }
        }
    }

    fn find_devices(&mut self, world: &World) {
        let domid = self.domid();
        let found = |kind: &str| devices(world, domid, kind);
        let domu = self.kernel.domu().clone();
        let disks = found("vbd");
        for devid in &disks {
            let again = self.disks.get(devid).is_none_or(|front| {
                front.state() == BlkState::Closed
                    && front.device().state() == XenbusState::Initialising
            });
            if again {
                let at = DeviceAddress::new(domid, "vbd", *devid);
                self.disks
                    .insert(*devid, BlkFront::new(&domu, at, self.options));
            }
        }
        let nets = found("vif");
        for devid in &nets {
            let again = self.nets.get(devid).is_none_or(|front| {
                front.state() == NetState::Closed
                    && front.device().state() == XenbusState::Initialising
            });
            if again {
                let at = DeviceAddress::new(domid, "vif", *devid);
                self.nets
                    .insert(*devid, NetFront::new(&domu, at, NetOptions::default()));
            }
        }
        self.disks.retain(|devid, _| disks.contains(devid));
        self.nets.retain(|devid, _| nets.contains(devid));
    }

    /// Every device is in use.
    pub fn is_connected(&self) -> bool {
        self.disks
            .values()
            .all(|front| front.state() == BlkState::Connected)
            && self
                .nets
                .values()
                .all(|front| front.state() == NetState::Connected)
    }
}

/// Numbers of the guest's devices of one kind.
pub fn devices(world: &World, domid: DomId, kind: &str) -> BTreeSet<u32> {
    let root = format!("/local/domain/{domid}/device/{kind}/");
    world
        .xs_tree(root.trim_end_matches('/'))
        .iter()
        .filter_map(|path| path.strip_prefix(&root))
        .filter_map(|rest| rest.split('/').next()?.parse().ok())
        .collect()
}
