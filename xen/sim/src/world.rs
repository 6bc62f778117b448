//! A world: one simulated host with its hypervisor, its memory, its xenstored and its clock.
//!
//! ```text
//!   World ── host("agent") ──▶ SimHost    one process: the whole seam
//!     │  ╲── host("driver") ─▶ SimHost
//!     │   ╲─ domu(domid) ────▶ DomU       the guest's kernel: pages, grants, ports, xenstore
//!     ├── inject(fault)  kill(process)  advance(time)
//!     └── ledger()                        what is left
//! ```
//!
//! The same seed gives the same run. There is no thread and no real clock in here; what waits, waits for something to change.

use crate::fault::Fault;
use crate::kernel::DomU;
use crate::ledger::{Ledger, ResourceKind};
use crate::limits::{DEFAULT_HOST_FRAMES, DOM0_PAGES, HOST_CPUS, POLL_INTERVAL};
use crate::machine::{Frames, Memory};
use crate::simhost::SimHost;
use crate::state::{Shared, State};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xen_abi::domain::{CreateDomain, DomainKind};
use xen_abi::host::HostCapabilities;
use xen_abi::ids::{DomId, Handle};
use xen_abi::version::{Abi, XenVersion};
use xen_host::error::Error;
use xen_host::xenstore::store::{StoreExt, TxId};

/// A simulated host. Clones are the same world.
#[derive(Debug, Clone)]
pub struct World {
    shared: Arc<Shared>,
}

/// How a world is to be.
#[derive(Debug, Clone)]
pub struct WorldBuilder {
    seed: u64,
    version: XenVersion,
    frames: u64,
    capabilities: Option<HostCapabilities>,
    patched: bool,
}

impl WorldBuilder {
    /// The release of Xen (4.20 if not said).
    #[must_use]
    pub fn release(mut self, abi: Abi) -> Self {
        self.version = abi.version();
        self
    }

    /// Any version word, supported or not.
    #[must_use]
    pub fn version(mut self, version: XenVersion) -> Self {
        self.version = version;
        self
    }

    /// Memory for guests, in MiB (at most 4096).
    #[must_use]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.frames = mib * 256;
        self
    }

    /// What `physinfo` says the hypervisor can do.
    #[must_use]
    pub fn capabilities(mut self, capabilities: HostCapabilities) -> Self {
        self.capabilities = Some(capabilities);
        self
    }

    /// A hypervisor with the patches of `xen-patches/`; without them if not said.
    #[must_use]
    pub fn patched(mut self) -> Self {
        self.patched = true;
        self
    }

    /// Makes the world, with a running dom0 and an empty xenstore.
    ///
    /// # Panics
    /// When this machine has no memory or no descriptor left for it.
    #[must_use]
    pub fn build(self) -> World {
        let frames = Frames::new(self.frames);
        let memory = match Memory::new(self.frames) {
            Ok(memory) => Arc::new(memory),
            Err(error) => panic!("no memory for a simulated world: {error}"),
        };
        let mut state = State::new(self.seed, self.version, memory, frames);
        if let Some(capabilities) = self.capabilities {
            state.capabilities = capabilities;
        }
        state.patched = self.patched;
        state.add_dom0();
        let world = World {
            shared: Arc::new(Shared::new(state)),
        };
        world.write_dom0_nodes();
        world
    }
}

impl State {
    fn add_dom0(&mut self) {
        use crate::hypervisor::domain::{Domain, Vcpu};
        let create = CreateDomain {
            kind: DomainKind::Pv,
            handle: Handle([0; 16]),
            max_vcpus: HOST_CPUS,
            max_event_port: crate::limits::DOM0_PORTS,
            max_grant_frames: None,
            max_maptrack_frames: None,
            grant_version: 1,
            cpupool: 0,
            ssidref: 0,
        };
        let mut dom0 = Domain::new(DomId::DOM0, &create, 0, 0);
        dom0.grant_frames.clear();
        (dom0.pauses, dom0.finished) = (0, true);
        (dom0.tot_pages, dom0.max_pages) = (DOM0_PAGES, DOM0_PAGES);
        let mut cpus = xen_abi::domain::CpuMap::default();
        (0..HOST_CPUS as usize).for_each(|cpu| cpus.insert(cpu));
        let vcpu = Vcpu {
            online: true,
            hard: cpus.clone(),
            soft: cpus,
            context: None,
            parts: std::collections::BTreeMap::new(),
        };
        dom0.vcpus = vec![vcpu; HOST_CPUS as usize];
        self.domains.insert(DomId::DOM0, dom0);
    }
}

impl World {
    /// From now on memory that a domain is given holds what somebody left there: Xen promises nothing else.
    pub fn leave_memory_stale(&self) {
        self.shared.change(|state| state.stale = true);
    }

    /// A world of Xen 4.20 with 1 GiB for guests; everything by chance in it comes from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::builder(seed).build()
    }

    /// A world with other properties.
    #[must_use]
    pub fn builder(seed: u64) -> WorldBuilder {
        WorldBuilder {
            seed,
            version: Abi::V4_20.version(),
            frames: DEFAULT_HOST_FRAMES,
            capabilities: None,
            patched: false,
        }
    }

    fn write_dom0_nodes(&self) {
        let boot = self.host("boot");
        for (path, value) in [
            ("/tool/xenstored/domid", "0"),
            ("/local/domain/0/name", "Domain-0"),
            ("/local/domain/0/domid", "0"),
            ("/local/domain/0/memory/target", "524288"),
        ] {
            if let Err(error) = boot.write_text(TxId::NONE, path, value) {
                panic!("the simulated xenstored refuses {path}: {error}");
            }
        }
        self.kill(&boot);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A new process of dom0 with this label (faults name processes by it).
    #[must_use]
    pub fn host(&self, label: &str) -> SimHost {
        let process = self.shared.change(|state| state.new_process(label));
        SimHost::new(Arc::clone(&self.shared), process)
    }

    /// As [`World::host`], with the checks a program makes when it opens Xen.
    ///
    /// # Errors
    /// The release of this world is not supported.
    pub fn open(&self, label: &str) -> Result<SimHost, Error> {
        Abi::for_version(self.shared.lock().version)?;
        Ok(self.host(label))
    }

    /// `kill -9`: mappings go, ports become unbound towards dom0, watches and transactions go; xenstore nodes and grants stay.
    ///
    /// What the test still holds of the process (regions, handles) is dead weight: drop it.
    pub fn kill(&self, process: &SimHost) {
        let id = process.process();
        self.shared.change(|state| {
            if let Some(process) = state.processes.get_mut(&id) {
                process.dead = true;
            }
            state.events.close_handles_of(id);
            state.store.disconnect(id);
            state.drop_maps_of(id);
        });
    }

    /// From now on a crash of this process unwinds the thread that makes the call (payload [`crate::Crashed`]), as does every call after it: for programs that
    /// also act on the world outside of the seam (files), and must not do so after their death.
    pub fn crash_by_unwinding(&self, process: &SimHost) {
        let id = process.process();
        self.shared.change(|state| {
            if let Some(process) = state.processes.get_mut(&id) {
                process.unwinds = true;
            }
        });
    }

    /// Whether a fault has crashed this process (or it was killed).
    #[must_use]
    pub fn is_dead(&self, process: &SimHost) -> bool {
        self.shared
            .lock()
            .processes
            .get(&process.process())
            .is_none_or(|process| process.dead)
    }

    /// The kernel of a guest.
    #[must_use]
    pub fn domu(&self, domid: DomId) -> DomU {
        DomU::new(self.clone(), domid)
    }

    // ---- faults ----

    /// Plans a fault.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.plan(fault);
    }

    /// Forgets all planned faults (for the clean-up part of a test).
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// How often a fault has hit.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.shared.lock().faults.fired()
    }

    /// Calls of the seam so far, watch events included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.lock().faults.calls()
    }

    /// Remembers every call from now on; see [`World::call_log`].
    pub fn record_calls(&self) {
        self.shared.lock().faults.record();
    }

    /// (process, operation) of every call since [`World::record_calls`].
    #[must_use]
    pub fn call_log(&self) -> Vec<(String, &'static str)> {
        self.shared.lock().faults.log()
    }

    /// Exchanges with xenstored so far.
    #[must_use]
    pub fn xenstore_round_trips(&self) -> u64 {
        self.shared.lock().store.round_trips
    }

    /// Stops (or starts again) xenstored: calls answer that it cannot be reached.
    pub fn set_xenstored_down(&self, down: bool) {
        self.shared.change(|state| state.store_down = down);
    }

    /// Lets grant unmaps wait for [`World::settle_unmaps`], as the kernel does while a page is pinned.
    pub fn defer_unmaps(&self, defer: bool) {
        self.shared.change(|state| state.maps.defer = defer);
    }

    /// Ends all deferred unmaps.
    pub fn settle_unmaps(&self) {
        self.shared.change(State::settle_unmaps);
    }

    // ---- time ----

    /// Time since the world began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.lock().now
    }

    /// Lets time pass; running guests use up CPU time.
    pub fn advance(&self, time: Duration) {
        self.shared.change(|state| {
            state.now += time;
            let used = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            for domain in state.domains.values_mut() {
                if domain.info().running {
                    domain.cpu_time_ns = domain.cpu_time_ns.saturating_add(used);
                }
            }
        });
    }

    /// Waits until `ready` holds, looking again whenever the world changes. False when `most` (of real time) was not enough.
    ///
    /// For tests with threads: a driver that runs by itself, a frontend that waits for its answer.
    #[must_use]
    pub fn wait_until(&self, most: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + most;
        loop {
            if ready() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.shared.wait_for_bell(POLL_INTERVAL);
        }
    }

    // ---- ledger ----

    /// What is held right now.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(&self.shared.lock())
    }

    /// Something of another simulation was opened: a tap, a loop device, a process, a file.
    pub fn note_open(&self, kind: ResourceKind, name: &str) {
        let mut state = self.shared.lock();
        *state.resources.entry((kind, name.to_owned())).or_insert(0) += 1;
    }

    /// It was closed. Closing what is not open is a violation.
    pub fn note_closed(&self, kind: ResourceKind, name: &str) {
        let mut state = self.shared.lock();
        let key = (kind, name.to_owned());
        match state.resources.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                state.resources.remove(&key);
            }
            None => state
                .violations
                .push(format!("{kind:?} {name} was closed, but is not open")),
        }
    }

    /// Somebody broke a rule of the protocol; shows in the ledger.
    pub fn violation(&self, what: impl Into<String>) {
        self.shared.lock().violations.push(what.into());
    }

    /// Broken rules so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }
}
