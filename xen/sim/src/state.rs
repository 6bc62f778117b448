//! Everything a world consists of, behind one lock, and the one way in: [`Shared::call`].
//!
//! A call is counted, may be hit by a planned fault, has its effect, and wakes whoever waits for the world to change. Watch events and
//! port wake-ups leave while the lock is held; they only queue.

use crate::events::EventTable;
use crate::fault::{FaultKind, Faults};
use crate::grants::Maps;
use crate::hypervisor::Outcome;
use crate::hypervisor::domain::Domain;
use crate::hypervisor::host::default_capabilities;
use crate::kernel::Kernel;
use crate::ledger::ResourceKind;
use crate::machine::{Frames, Memory};
use crate::rng::Rng;
use crate::store::StoreState;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xen_abi::host::HostCapabilities;
use xen_abi::ids::DomId;
use xen_abi::version::{Abi, XenVersion};

/// The errno of every call of a process that has crashed.
pub const DEAD: Errno = Errno::EOWNERDEAD;

/// Calls whose answer is something to be dropped; one of these that fails has no effect.
const ANSWERS_WITH_RESOURCE: [&str; 7] = [
    "map_foreign",
    "map_grant_table",
    "gnttab.map",
    "xs.watch",
    "xs.begin",
    "open_events",
    "open_grants",
];

/// One simulated process (or guest kernel, or xenstored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId(pub(crate) u32);

impl ProcessId {
    /// xenstored, which maps guests' xenstore pages and binds their ports like anybody else.
    pub(crate) const XENSTORED: ProcessId = ProcessId(0);
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) label: String,
    /// Crashed by a fault; nothing it asks works any more.
    pub(crate) dead: bool,
    /// A crash unwinds the calling thread, so that not one statement of the program runs after its death.
    pub(crate) unwinds: bool,
}

/// What a crash throws in a process of [`crate::World::crash_by_unwinding`]; caught by whoever started the program under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

/// Ends the calling thread's part of the program, without a word from the panic hook. While it ends already (destructors), calls just fail.
fn unwind() {
    if !std::thread::panicking() {
        std::panic::resume_unwind(Box::new(Crashed));
    }
}

/// All of a world.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) version: XenVersion,
    pub(crate) abi: Abi,
    pub(crate) capabilities: HostCapabilities,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) memory: Arc<Memory>,
    pub(crate) frames: Frames,
    pub(crate) pool_pages: u64,
    pub(crate) domains: BTreeMap<DomId, Domain>,
    pub(crate) rover: u16,
    pub(crate) maps: Maps,
    pub(crate) events: EventTable,
    pub(crate) store: StoreState,
    pub(crate) store_down: bool,
    pub(crate) faults: Faults,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) kernels: BTreeMap<DomId, Kernel>,
    pub(crate) resources: BTreeMap<(ResourceKind, String), u64>,
    pub(crate) violations: Vec<String>,
    pub(crate) console: Vec<u8>,
    pub(crate) debug_keys: String,
    /// Whether this hypervisor has the patches of `xen-patches/`.
    pub(crate) patched: bool,
    /// Memory that a domain is given holds what somebody left there.
    pub(crate) stale: bool,
}

impl State {
    pub(crate) fn new(seed: u64, version: XenVersion, memory: Arc<Memory>, frames: Frames) -> Self {
        let xenstored = Process {
            label: "xenstored".into(),
            dead: false,
            unwinds: false,
        };
        Self {
            version,
            abi: Abi::nearest(version),
            capabilities: default_capabilities(),
            rng: Rng::seeded(seed),
            now: Duration::ZERO,
            memory,
            frames,
            pool_pages: 0,
            domains: BTreeMap::new(),
            rover: 0,
            maps: Maps::default(),
            events: EventTable::default(),
            store: StoreState::new(),
            store_down: false,
            faults: Faults::default(),
            processes: BTreeMap::from([(ProcessId::XENSTORED, xenstored)]),
            kernels: BTreeMap::new(),
            resources: BTreeMap::new(),
            violations: Vec::new(),
            console: Vec::new(),
            debug_keys: String::new(),
            patched: false,
            stale: false,
        }
    }

    pub(crate) fn new_process(&mut self, label: &str) -> ProcessId {
        let next = self
            .processes
            .keys()
            .next_back()
            .map_or(1, |last| last.0 + 1);
        let process = Process {
            label: label.to_owned(),
            dead: false,
            unwinds: false,
        };
        self.processes.insert(ProcessId(next), process);
        ProcessId(next)
    }

    fn label(&self, process: ProcessId) -> String {
        self.processes
            .get(&process)
            .map_or_else(String::new, |process| process.label.clone())
    }

    /// Hands queued watch events to their watchers, unless a fault takes one.
    pub(crate) fn deliver_watches(&mut self) {
        for (process, sender, path) in self.store.take_outbox() {
            let label = self.label(process);
            if self.faults.next(&label, "xs.event") != Some(FaultKind::LoseWatch) {
                sender.send(&path);
            }
        }
    }
}

/// A world's state, its lock, and the bell that rings when anything changed.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    pub(crate) memory: Arc<Memory>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        let memory = Arc::clone(&state.memory);
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            memory,
        }
    }

    /// The state, for what is no call of the seam. Ring the bell yourself if others should look again.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed.
    pub(crate) fn ring(&self) {
        self.changed.notify_all();
    }

    /// Waits until the bell rings or `most` has passed.
    pub(crate) fn wait_for_bell(&self, most: Duration) {
        let state = self.lock();
        drop(
            self.changed
                .wait_timeout(state, most)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Does something to the world from outside of it (a test, a guest kernel): never faulted, watches delivered.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let answer = act(&mut state);
        state.deliver_watches();
        drop(state);
        self.ring();
        answer
    }

    /// One call of the seam by `process`. `act` learns of faults that only it can act out (`Short`, `CrashTorn`).
    pub(crate) fn call<T>(
        &self,
        process: ProcessId,
        op: &'static str,
        act: impl FnOnce(&mut State, Option<FaultKind>) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut state = self.lock();
        let (label, unwinds) = match state.processes.get(&process) {
            Some(process) if !process.dead => (process.label.clone(), process.unwinds),
            other => {
                let unwinds = other.is_some_and(|process| process.unwinds);
                drop(state);
                if unwinds {
                    unwind();
                }
                return Err(DEAD);
            }
        };
        let fault = state.faults.next(&label, op);
        let answer = match fault {
            Some(FaultKind::Fail(errno)) => Err(errno),
            Some(FaultKind::Crash) => Err(DEAD),
            Some(FaultKind::FailAfter(errno)) if ANSWERS_WITH_RESOURCE.contains(&op) => Err(errno),
            Some(FaultKind::FailAfter(errno)) => act(&mut state, fault).and(Err(errno)),
            Some(FaultKind::CrashAfter) => act(&mut state, fault).and(Err(DEAD)),
            Some(FaultKind::CrashTorn) if op != "xs.call" => Err(DEAD),
            Some(FaultKind::CrashTorn) => act(&mut state, fault).and(Err(DEAD)),
            Some(FaultKind::Delay(time)) => {
                state.now += time;
                act(&mut state, None)
            }
            Some(FaultKind::Short(_) | FaultKind::LoseWatch) | None => act(&mut state, fault),
        };
        let crash = matches!(
            fault,
            Some(FaultKind::Crash | FaultKind::CrashAfter | FaultKind::CrashTorn)
        );
        if let Some(process) = state.processes.get_mut(&process).filter(|_| crash) {
            process.dead = true;
        }
        state.deliver_watches();
        drop(state);
        self.ring();
        if crash && unwinds {
            unwind();
        }
        answer
    }
}
