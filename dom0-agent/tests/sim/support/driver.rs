//! Driver processes of a yard, and the agent's connection to them.
//!
//! A connection counts its steps as calls of the agent, so that an agent can fail or die before, between and after them; what the driver
//! itself asks of Xen counts for the process `driver`.

use super::plain::Plain;
use super::yard::Yard;
use dom0_agent::agent::drivers::{Driver, DriverSpec, Drivers, NewsSink, OrderError};
use parapet_wire::driver::{DeviceFault, DeviceKind, DriverFault, Order, OrderBody, Outcome};
use split_drivers::control::driver::Driver as RealDriver;
use split_drivers::control::pool::Pool;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_sim::{Crashed, SimHost};

/// Why a dead driver does not answer.
const DIED: &str = "it died";

/// A driver process.
pub struct Living {
    pub pid: u32,
    pub process: SimHost,
    pub engine: Engine,
    /// The connected agent's ear.
    pub news: Option<NewsSink>,
}

impl std::fmt::Debug for Living {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Living")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// What a driver process runs.
#[derive(Debug)]
pub enum Engine {
    /// Binds and maps what it is told and moves no data.
    Plain(Plain),
    /// The real thing, its rings served by threads.
    Real(Box<RealDriver>),
}

impl Engine {
    pub fn new(real: bool, process: &SimHost, domid: DomId) -> Result<Self, String> {
        if !real {
            return Ok(Self::Plain(Plain::new(process.clone(), domid)));
        }
        let open = || {
            let pool = Pool::open(process, domid).map_err(|error| error.to_string())?;
            RealDriver::new(pool).map_err(|error| error.to_string())
        };
        let driver = unless_it_dies(open).unwrap_or_else(|| Err(DIED.to_owned()))?;
        Ok(Self::Real(Box::new(driver)))
    }

    pub fn obey(&mut self, body: OrderBody, fds: Vec<OwnedFd>) -> Result<Outcome, DriverFault> {
        let obeyed = unless_it_dies(|| match self {
            Self::Plain(plain) => plain.obey(body, fds),
            Self::Real(driver) => driver.obey(Order { id: 0, body }, fds),
        });
        obeyed.unwrap_or_else(|| {
            Err(DriverFault {
                text: DIED.to_owned(),
                retry: false,
            })
        })
    }

    /// A device stops by itself.
    pub fn stop(&mut self, kind: DeviceKind, devid: u32) {
        match self {
            Self::Plain(plain) => plain.stop(kind, devid),
            Self::Real(_) => panic!("real drivers stop devices for real reasons only"),
        }
    }

    pub fn faults(&mut self) -> Vec<DeviceFault> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Real(driver) => driver.take_faults(),
        }
    }
}

impl Drop for Engine {
    /// Ends the threads of a process that is dead already: nothing they ask of Xen works any more.
    fn drop(&mut self) {
        if let Self::Real(driver) = self {
            let body = OrderBody::Quiesce;
            let _ = unless_it_dies(|| driver.obey(Order { id: 0, body }, Vec::new()));
        }
    }
}

/// What a driver's own code answers; `None` when a fault kills it there.
fn unless_it_dies<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(payload) if payload.is::<Crashed>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Starts and finds drivers for one agent.
#[derive(Debug)]
pub struct SimDrivers {
    pub yard: Arc<Yard>,
    pub agent: SimHost,
}

impl SimDrivers {
    fn connection(&self, uuid: Uuid, pid: u32) -> Box<dyn Driver> {
        Box::new(Connection {
            yard: Arc::clone(&self.yard),
            agent: self.agent.clone(),
            uuid,
            pid,
        })
    }
}

fn lost(error: &xen_host::error::Error) -> OrderError {
    OrderError::Lost(error.to_string())
}

impl Drivers for SimDrivers {
    fn start(&self, spec: DriverSpec, news: NewsSink) -> Result<Box<dyn Driver>, OrderError> {
        self.agent
            .outside("driver.start")
            .map_err(|error| lost(&error))?;
        let uuid = spec.uuid;
        if let Some(old) = self.yard.pid_of(uuid) {
            self.yard.end(uuid, old);
        }
        let pid = self.yard.spawn(spec, news)?;
        if let Err(error) = self.agent.outside("driver.hello") {
            self.yard.end(uuid, pid);
            return Err(lost(&error));
        }
        Ok(self.connection(uuid, pid))
    }

    fn attach(
        &self,
        spec: DriverSpec,
        news: NewsSink,
    ) -> Result<Option<Box<dyn Driver>>, OrderError> {
        self.agent
            .outside("driver.attach")
            .map_err(|error| lost(&error))?;
        let reached = self.yard.reach(spec.uuid, news);
        Ok(reached.map(|pid| self.connection(spec.uuid, pid)))
    }

    fn end(&self, uuid: Uuid) -> Result<(), OrderError> {
        self.agent
            .outside("driver.end")
            .map_err(|error| lost(&error))?;
        if let Some(pid) = self.yard.pid_of(uuid) {
            self.yard.end(uuid, pid);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Connection {
    yard: Arc<Yard>,
    agent: SimHost,
    uuid: Uuid,
    pid: u32,
}

impl Driver for Connection {
    fn order(&mut self, body: OrderBody, fds: Vec<OwnedFd>) -> Result<Outcome, OrderError> {
        // A connection that fails is broken for good, whether the driver lives or not.
        let broken = |error: xen_host::error::Error| {
            self.yard.disconnect(self.uuid, self.pid);
            lost(&error)
        };
        self.agent.outside("driver.order").map_err(broken)?;
        let outcome = self.yard.obey(self.uuid, self.pid, body, fds)?;
        self.agent.outside("driver.answer").map_err(broken)?;
        Ok(outcome)
    }

    fn serve_as(&mut self, spec: DriverSpec) -> Result<(), OrderError> {
        self.agent
            .outside("driver.rename")
            .map_err(|error| lost(&error))?;
        self.yard.rename(self.uuid, spec.uuid);
        self.uuid = spec.uuid;
        self.agent
            .outside("driver.renamed")
            .map_err(|error| lost(&error))
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn kill(&mut self) {
        // A signal cannot be refused, but the agent may die around it.
        let _ = self.agent.outside("driver.kill");
        if self.yard.world().is_dead(&self.agent) {
            return;
        }
        self.yard.end(self.uuid, self.pid);
        let _ = self.agent.outside("driver.gone");
    }
}
