//! A small guest: boots, answers `control/shutdown`, and can crash, hang, reboot or power itself off.
//!
//! ```text
//!              boot                 control/shutdown = poweroff|reboot|suspend
//!   (domain) ───────▶ Running ───────────────────────────────────────▶ shut down, code set, @releaseDomain
//!                        │ hang()                                              ▲
//!                        ▼                                                     │ crash(), reboot(), power_off()
//!                       Hung ──────────────────────────────────────────────────┘
//! ```
//!
//! [`World::spawn`] makes a finished guest without any toolstack, for tests of drivers; [`World::boot`] starts the kernel in a domain that
//! a program under test has built, using only what that program left behind (grant entries 0 and 1, xenstore). It acts only in
//! [`Guest::step`], so a test decides when.

use crate::grants::GTF_PERMIT_ACCESS;
use crate::kernel::{DomU, GuestPage};
use crate::limits::{GRANT_CONSOLE, GRANT_XENSTORE};
use crate::world::World;
use xen_abi::domain::{CreateDomain, DomainKind, ShutdownReason};
use xen_abi::ids::{DomId, GrantRef, Handle, Port};
use xen_host::error::Error;
use xen_host::seam::{DomainControl, MemoryControl};
use xen_host::xenstore::store::{Access, Permission, Store, StoreExt, StoreOp, TxId};
use xen_host::xenstore::watch::Watch;

/// First of PVH's eight special pages.
const SPECIAL_PFN: u64 = 0xF_EFF8;
/// Nodes of a guest's home that it may write.
const GUEST_OWNED: [&str; 8] = [
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "device/suspend/event-channel",
    "error",
];

/// What [`World::spawn`] makes.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Name in xenstore.
    pub name: String,
    /// Kind.
    pub kind: DomainKind,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Vcpus.
    pub vcpus: u32,
}

impl GuestSpec {
    /// A PVH guest of 16 MiB with one vcpu.
    #[must_use]
    pub fn pvh(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: DomainKind::Pvh,
            memory_mib: 16,
            vcpus: 1,
        }
    }

    /// A PV guest of 16 MiB with one vcpu.
    #[must_use]
    pub fn pv(name: &str) -> Self {
        Self {
            kind: DomainKind::Pv,
            ..Self::pvh(name)
        }
    }
}

/// A running guest kernel.
#[derive(Debug)]
pub struct Guest {
    domu: DomU,
    hung: bool,
    shutdown: Option<Watch>,
    /// Requests it saw in `control/shutdown`, in order.
    pub requests: Vec<String>,
}

fn permission(domid: DomId, access: Access) -> Permission {
    Permission { domid, access }
}

impl World {
    /// A guest that runs, made without a toolstack: memory, xenstore home, console and xenstore pages, introduced, booted.
    ///
    /// # Panics
    /// When the world has no room for it.
    #[must_use]
    pub fn spawn(&self, spec: &GuestSpec) -> Guest {
        match self.make(spec) {
            Ok(domid) => self.boot(domid),
            Err(error) => panic!("guest {} cannot be made: {error}", spec.name),
        }
    }

    /// Starts the kernel in a domain that is built and introduced.
    #[must_use]
    pub fn boot(&self, domid: DomId) -> Guest {
        let domu = self.domu(domid);
        let shutdown = domu.store().watch("control/shutdown").ok();
        for feature in ["poweroff", "reboot", "suspend"] {
            let path = format!("control/feature-{feature}");
            let _ = domu.store().write_text(TxId::NONE, &path, "1");
        }
        self.shared().change(|state| {
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.wants_events();
            }
        });
        Guest {
            domu,
            hung: false,
            shutdown,
            requests: Vec::new(),
        }
    }

    /// Destroys a guest and removes every node that names it, as a toolstack would at the end.
    pub fn destroy_guest(&self, domid: DomId) {
        let tool = self.host("sim-toolstack");
        let handle = self.domain(domid).map(|info| info.handle);
        let _ = tool.destroy_domain(domid);
        let _ = tool.remove(TxId::NONE, &format!("/local/domain/{domid}"));
        let _ = tool.remove(TxId::NONE, &format!("/libxl/{domid}"));
        if let Some(handle) = handle {
            let _ = tool.remove(TxId::NONE, &format!("/vm/{handle}"));
        }
        for kind in tool
            .list(TxId::NONE, "/local/domain/0/backend")
            .unwrap_or_default()
        {
            let path = format!("/local/domain/0/backend/{kind}/{domid}");
            let _ = tool.remove(TxId::NONE, &path);
        }
        self.kill(&tool);
    }

    fn make(&self, spec: &GuestSpec) -> Result<DomId, Error> {
        let tool = self.host("sim-toolstack");
        let mut handle = Handle([0; 16]);
        handle
            .0
            .copy_from_slice(&self.shared().lock().rng.bytes(16));
        let domid = tool.create_domain(&CreateDomain {
            kind: spec.kind,
            handle,
            max_vcpus: spec.vcpus,
            max_event_port: 1023,
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: 1,
            cpupool: 0,
            ssidref: 0,
        })?;
        tool.max_vcpus(domid, spec.vcpus)?;
        tool.set_max_mem(domid, spec.memory_mib * 1024 + 1024)?;
        let mut extents: Vec<u64> = (0..spec.memory_mib / 2).map(|n| n * 512).collect();
        tool.populate(domid, &mut extents, 9)?;
        let (console, xenstore) = self.special_pages(&tool, domid, spec.kind)?;
        let store_port = tool.alloc_unbound(domid, DomId::DOM0)?;
        let console_port = tool.alloc_unbound(domid, DomId::DOM0)?;
        let domu = self.domu(domid);
        for (gref, page) in [(GRANT_CONSOLE, &console), (GRANT_XENSTORE, &xenstore)] {
            let frame = domu.frame_name(page);
            domu.write_grant(GrantRef(gref), GTF_PERMIT_ACCESS, DomId::DOM0, frame);
        }
        self.write_home(&tool, domid, spec, handle, (store_port, console_port))?;
        tool.introduce(domid, xenstore.gfn, store_port)?;
        self.shared().change(|state| {
            if let Some(domain) = state.domains.get_mut(&domid) {
                domain.vcpus.iter_mut().for_each(|vcpu| vcpu.online = true);
            }
        });
        tool.unpause(domid)?;
        self.kill(&tool);
        Ok(domid)
    }

    fn special_pages(
        &self,
        tool: &impl MemoryControl,
        domid: DomId,
        kind: DomainKind,
    ) -> Result<(GuestPage, GuestPage), Error> {
        let domu = self.domu(domid);
        if kind == DomainKind::Pv {
            return Ok((domu.page(), domu.page()));
        }
        let mut special: Vec<u64> = (SPECIAL_PFN..SPECIAL_PFN + 8).collect();
        tool.populate(domid, &mut special, 0)?;
        let page = |gfn| {
            domu.page_at(gfn).ok_or_else(|| {
                Error::refused_for("populate_physmap", domid, nix::errno::Errno::ENOMEM)
            })
        };
        Ok((page(SPECIAL_PFN + 7)?, page(SPECIAL_PFN + 4)?))
    }

    fn write_home(
        &self,
        tool: &impl Store,
        domid: DomId,
        spec: &GuestSpec,
        handle: Handle,
        (store_port, console_port): (Port, Port),
    ) -> Result<(), Error> {
        let home = format!("/local/domain/{domid}");
        let readable = vec![
            permission(DomId::DOM0, Access::None),
            permission(domid, Access::Read),
        ];
        let owned = vec![permission(domid, Access::None)];
        let text = |path: &str, value: String| {
            StoreOp::Write(format!("{home}/{path}"), value.into_bytes())
        };
        let mut ops = vec![
            StoreOp::Mkdir(home.clone()),
            StoreOp::SetPermissions(home.clone(), readable.clone()),
            text("name", spec.name.clone()),
            text("vm", format!("/vm/{handle}")),
            text("domid", domid.to_string()),
            text("memory/target", (spec.memory_mib * 1024).to_string()),
            text("store/port", store_port.to_string()),
            text("console/port", console_port.to_string()),
            StoreOp::Write(format!("/vm/{handle}/name"), spec.name.clone().into_bytes()),
            StoreOp::SetPermissions(format!("/vm/{handle}"), readable),
        ];
        for node in GUEST_OWNED {
            let path = format!("{home}/{node}");
            ops.push(StoreOp::Mkdir(path.clone()));
            ops.push(StoreOp::SetPermissions(path, owned.clone()));
        }
        tool.commit("home of a simulated guest", &ops)?;
        Ok(())
    }
}

impl Guest {
    /// The kernel's hands.
    #[must_use]
    pub fn domu(&self) -> &DomU {
        &self.domu
    }

    /// Its id.
    #[must_use]
    pub fn domid(&self) -> DomId {
        self.domu.domid()
    }

    /// The page of the primary console, where the builder said it is (reserved grant 0).
    #[must_use]
    pub fn console_page(&self) -> Option<GuestPage> {
        self.domu.reserved_page(GRANT_CONSOLE)
    }

    /// The port of the primary console.
    #[must_use]
    pub fn console_port(&self) -> Option<Port> {
        let text = self
            .domu
            .store()
            .read_text(TxId::NONE, "console/port")
            .ok()
            .flatten()?;
        text.parse().ok().map(Port)
    }

    /// Lets the kernel act: it answers a shutdown request. True when it did something.
    pub fn step(&mut self) -> bool {
        let running = self
            .domu
            .world()
            .domain(self.domid())
            .is_some_and(|info| info.running);
        if self.hung || !running {
            return false;
        }
        let Some(watch) = &self.shutdown else {
            return false;
        };
        if watch.try_next().is_none() {
            return false;
        }
        let store = self.domu.store();
        let request = match store.read_text(TxId::NONE, "control/shutdown") {
            Ok(Some(request)) if !request.is_empty() => request,
            _ => return false,
        };
        let _ = store.write_text(TxId::NONE, "control/shutdown", "");
        match request.as_str() {
            "poweroff" | "halt" => self.domu.shut_down(ShutdownReason::Poweroff),
            "reboot" => self.domu.shut_down(ShutdownReason::Reboot),
            "suspend" => self.domu.shut_down(ShutdownReason::Suspend),
            _ => {}
        }
        self.requests.push(request);
        true
    }

    /// Stops doing anything, without shutting down.
    pub fn hang(&mut self) {
        self.hung = true;
    }

    /// Does things again.
    pub fn wake(&mut self) {
        self.hung = false;
    }

    /// The kernel panics.
    pub fn crash(&mut self) {
        self.domu.shut_down(ShutdownReason::Crash);
    }

    /// The guest reboots by itself.
    pub fn reboot(&mut self) {
        self.domu.shut_down(ShutdownReason::Reboot);
    }

    /// The guest powers itself off.
    pub fn power_off(&mut self) {
        self.domu.shut_down(ShutdownReason::Poweroff);
    }

    /// The guest's watchdog expires.
    pub fn watchdog(&mut self) {
        self.domu.shut_down(ShutdownReason::Watchdog);
    }
}
