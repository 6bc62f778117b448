//! Dom0 around the agent, which outlives it: driver processes, taps, bridges.
//!
//! A [`Yard`] plays the part of Linux. A driver in it lives until somebody kills it, whoever started it; a tap stays until it is removed. Both
//! are in the ledger. A tap's queue is one end of a socket pair; the other end is the bridge's.

use super::driver::{Engine, Living};
use dom0_agent::agent::drivers::{DriverNews, DriverSpec, NewsSink, OrderError};
use dom0_agent::agent::links::{Link, LinkSpec, Links};
use parapet_wire::driver::{DeviceFault, DriverFault, OrderBody, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard};
use uuid::Uuid;
use xen_sim::{ResourceKind, SimHost, World};

/// An order as a driver got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub uuid: Uuid,
    pub pid: u32,
    pub body: OrderBody,
    pub fds: usize,
}

#[derive(Debug, Default)]
struct State {
    drivers: BTreeMap<Uuid, Living>,
    /// With the bridge's ends of all queues that were ever opened.
    taps: BTreeMap<String, Vec<UnixDatagram>>,
    bridges: BTreeSet<String>,
    told: Vec<Told>,
    last_pid: u32,
    refuse: Vec<(&'static str, String)>,
}

/// See the module.
#[derive(Debug)]
pub struct Yard {
    world: World,
    real_drivers: bool,
    state: Mutex<State>,
}

impl Yard {
    pub fn new(world: &World, real_drivers: bool) -> Arc<Self> {
        let state = State {
            bridges: BTreeSet::from(["xenbr0".to_owned()]),
            last_pid: 1000,
            ..State::default()
        };
        Arc::new(Self {
            world: world.clone(),
            real_drivers,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Orders so far, of all drivers.
    pub fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    pub fn forget_told(&self) {
        self.state().told.clear();
    }

    /// The living driver's process id.
    pub fn pid_of(&self, uuid: Uuid) -> Option<u32> {
        self.state().drivers.get(&uuid).map(|living| living.pid)
    }

    pub fn taps(&self) -> Vec<String> {
        self.state().taps.keys().cloned().collect()
    }

    /// Frames that came out of this tap since the last call, with the tap's header before each.
    pub fn frames_out(&self, tap: &str) -> Vec<Vec<u8>> {
        let state = self.state();
        let ends = state.taps.get(tap).into_iter().flatten();
        let mut frames = Vec::new();
        let mut frame = vec![0; 1 << 17];
        for end in ends {
            while let Ok(len) = end.recv(&mut frame) {
                frames.push(frame[..len].to_vec());
            }
        }
        frames
    }

    /// From now on drivers refuse this kind of order with this text.
    pub fn refuse(&self, order: &'static str, text: &str) {
        self.state().refuse.push((order, text.to_owned()));
    }

    /// Drivers take everything again.
    pub fn refuse_nothing(&self) {
        self.state().refuse.clear();
    }

    // ---- drivers ----

    pub fn spawn(&self, spec: DriverSpec, news: NewsSink) -> Result<u32, OrderError> {
        let process = self.world.host("driver");
        // A driver that dies does nothing more: least of all may its threads answer the guest that Xen does not obey them.
        self.world.crash_by_unwinding(&process);
        let engine = Engine::new(self.real_drivers, &process, spec.domid);
        let engine = match engine {
            Ok(engine) => engine,
            Err(text) => {
                self.world.kill(&process);
                return Err(OrderError::Lost(text));
            }
        };
        let mut state = self.state();
        state.last_pid += 1;
        let pid = state.last_pid;
        let living = Living {
            pid,
            process,
            engine,
            news: Some(news),
        };
        self.world
            .note_open(ResourceKind::Process, &name(spec.uuid));
        if let Some(other) = state.drivers.insert(spec.uuid, living) {
            self.world
                .violation(format!("a second driver beside {}", other.pid));
        }
        Ok(pid)
    }

    /// Connects to a driver that lives.
    pub fn reach(&self, uuid: Uuid, news: NewsSink) -> Option<u32> {
        let mut state = self.state();
        let living = state.drivers.get_mut(&uuid)?;
        living.news = Some(news);
        Some(living.pid)
    }

    pub fn obey(
        &self,
        uuid: Uuid,
        pid: u32,
        body: OrderBody,
        fds: Vec<OwnedFd>,
    ) -> Result<Outcome, OrderError> {
        let mut state = self.state();
        state.told.push(Told {
            uuid,
            pid,
            body: body.clone(),
            fds: fds.len(),
        });
        let refused = state
            .refuse
            .iter()
            .find(|(order, _)| format!("{body:?}").starts_with(order))
            .map(|(_, text)| text.clone());
        let quits = body == OrderBody::Quiesce;
        let Some(living) = state.drivers.get_mut(&uuid).filter(|it| it.pid == pid) else {
            return Err(OrderError::Lost(format!("driver process {pid} ended")));
        };
        if let Some(text) = refused {
            return Err(DriverFault { text, retry: false }.into());
        }
        let answer = living.engine.obey(body, fds);
        if self.world.is_dead(&living.process) {
            let dead = state.drivers.remove(&uuid);
            drop(state);
            self.bury(uuid, dead, true);
            return Err(OrderError::Lost(format!("driver process {pid} ended")));
        }
        if quits {
            let done = state.drivers.remove(&uuid);
            drop(state);
            self.bury(uuid, done, true);
        }
        Ok(answer?)
    }

    /// A driver is found under another uuid from now on.
    pub fn rename(&self, from: Uuid, to: Uuid) {
        let mut state = self.state();
        if let Some(living) = state.drivers.remove(&from) {
            self.world.note_closed(ResourceKind::Process, &name(from));
            self.world.note_open(ResourceKind::Process, &name(to));
            state.drivers.insert(to, living);
        }
    }

    /// Ends a driver; nobody is told.
    pub fn end(&self, uuid: Uuid, pid: u32) {
        let mut state = self.state();
        if state.drivers.get(&uuid).is_some_and(|it| it.pid == pid) {
            let dead = state.drivers.remove(&uuid);
            drop(state);
            self.bury(uuid, dead, false);
        }
    }

    /// `kill -9` from outside.
    pub fn kill_driver(&self, uuid: Uuid) {
        let dead = self.state().drivers.remove(&uuid);
        assert!(dead.is_some(), "no driver to kill");
        self.bury(uuid, dead, true);
    }

    /// `kill -9` of the only driver there is.
    pub fn kill_any_driver(&self) {
        let uuids: Vec<Uuid> = self.state().drivers.keys().copied().collect();
        assert_eq!(uuids.len(), 1, "more than one driver");
        self.kill_driver(uuids[0]);
    }

    /// The driver stops a device, and says so.
    pub fn fault(&self, uuid: Uuid, fault: DeviceFault) {
        let mut state = self.state();
        let living = state.drivers.get_mut(&uuid).unwrap();
        living.engine.stop(fault.kind, fault.devid);
        let news = living.news.clone();
        drop(state);
        news.unwrap()(DriverNews::Fault { uuid, fault });
    }

    /// What is heard of drivers without asking: faults of real ones are passed on, and who died by a fault of the world is buried.
    pub fn pass_on_faults(&self) {
        let mut dead = Vec::new();
        for (uuid, living) in &mut self.state().drivers {
            let faults = living.engine.faults();
            if self.world.is_dead(&living.process) {
                dead.push(*uuid);
                continue;
            }
            for fault in faults {
                if let Some(news) = &living.news {
                    news(DriverNews::Fault { uuid: *uuid, fault });
                }
            }
        }
        for uuid in dead {
            let dead = self.state().drivers.remove(&uuid);
            self.bury(uuid, dead, true);
        }
    }

    /// A connection breaks: the agent takes the driver for dead.
    pub fn disconnect(&self, uuid: Uuid, pid: u32) {
        let mut state = self.state();
        let living = state.drivers.get_mut(&uuid).filter(|it| it.pid == pid);
        if let Some(news) = living.and_then(|it| it.news.take()) {
            drop(state);
            news(DriverNews::Died { uuid, pid });
        }
    }

    /// An agent is dead: its connections are closed, which drivers survive.
    pub fn disconnect_all(&self) {
        for living in self.state().drivers.values_mut() {
            living.news = None;
        }
    }

    fn bury(&self, uuid: Uuid, dead: Option<Living>, tell: bool) {
        let Some(living) = dead else { return };
        self.world.kill(&living.process);
        drop(living.engine);
        self.world.note_closed(ResourceKind::Process, &name(uuid));
        if let Some(news) = living.news.filter(|_| tell) {
            news(DriverNews::Died {
                uuid,
                pid: living.pid,
            });
        }
    }

    // ---- taps ----

    fn tap_up(&self, name: &str) -> bool {
        let mut state = self.state();
        let fresh = !state.taps.contains_key(name);
        if fresh {
            state.taps.insert(name.to_owned(), Vec::new());
            self.world.note_open(ResourceKind::Tap, name);
        }
        fresh
    }

    fn queue(&self, name: &str) -> OwnedFd {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        if let Some(ends) = self.state().taps.get_mut(name) {
            ends.push(ours);
        }
        theirs.into()
    }

    fn tap_down(&self, name: &str) {
        if self.state().taps.remove(name).is_some() {
            self.world.note_closed(ResourceKind::Tap, name);
        }
    }
}

fn name(uuid: Uuid) -> String {
    format!("driver of {uuid}")
}

/// The agent's hand on the taps of a yard.
#[derive(Debug)]
pub struct SimLinks {
    pub yard: Arc<Yard>,
    pub agent: SimHost,
}

impl Links for SimLinks {
    fn make(&self, spec: &LinkSpec) -> Result<Link, String> {
        let text = |error: xen_host::error::Error| error.to_string();
        self.agent.outside("tap.make").map_err(text)?;
        let bridge = spec.bridge.clone().unwrap_or_else(|| "xenbr0".to_owned());
        if !self.yard.state().bridges.contains(&bridge) {
            return Err(format!("bridge {bridge} does not exist; make it"));
        }
        let fresh = self.yard.tap_up(&spec.ifname);
        if let Err(error) = self.agent.outside("tap.join") {
            if fresh {
                self.yard.tap_down(&spec.ifname);
            }
            return Err(text(error));
        }
        let queues = (0..spec.queues).map(|_| self.yard.queue(&spec.ifname));
        Ok(Link {
            bridge,
            mtu: spec.mtu.unwrap_or(1500),
            queues: queues.collect(),
        })
    }

    fn remove(&self, ifname: &str) -> Result<(), String> {
        self.agent
            .outside("tap.remove")
            .map_err(|error| error.to_string())?;
        self.yard.tap_down(ifname);
        Ok(())
    }
}
