//! The seam between the agent and the driver processes: start one, talk to it, learn of its end.
//!
//! The real implementation is [`super::process`]; simulations serve guests from threads of their own.

use parapet_wire::driver::{DeviceFault, DriverFault, OrderBody, Outcome};
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use uuid::Uuid;
use xen_abi::ids::DomId;

/// Whom a driver serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSpec {
    /// The guest.
    pub uuid: Uuid,
    /// Its domain.
    pub domid: DomId,
    /// Its name, for the driver's log.
    pub name: String,
}

/// What the agent hears from drivers without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverNews {
    /// The process ended, or closed its connection.
    Died {
        /// The guest it served.
        uuid: Uuid,
        /// Its process id.
        pid: u32,
    },
    /// It stopped a device.
    Fault {
        /// The guest it serves.
        uuid: Uuid,
        /// Which device, and why.
        fault: DeviceFault,
    },
}

/// Where news go. Called from any thread; must not block.
pub type NewsSink = Arc<dyn Fn(DriverNews) + Send + Sync>;

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The driver said no.
    #[error(transparent)]
    Refused(#[from] DriverFault),
    /// The driver is not there, or does not speak.
    #[error("{0}")]
    Lost(String),
}

/// Starts and finds drivers.
pub trait Drivers: Debug + Send + Sync {
    /// Starts a driver and greets it. One of this guest that is still there is ended first.
    ///
    /// # Errors
    /// It could not be started, or did not answer in time; no process is left then.
    fn start(&self, spec: DriverSpec, news: NewsSink) -> Result<Box<dyn Driver>, OrderError>;

    /// Reaches a driver that an earlier agent started; `None` when none is there.
    ///
    /// # Errors
    /// One is there, but does not answer in time.
    fn attach(
        &self,
        spec: DriverSpec,
        news: NewsSink,
    ) -> Result<Option<Box<dyn Driver>>, OrderError>;

    /// Ends a driver that nobody is connected to, and waits until it is gone; fine when there is none.
    ///
    /// # Errors
    /// It does not go away.
    fn end(&self, uuid: Uuid) -> Result<(), OrderError>;
}

/// One driver process.
pub trait Driver: Debug + Send {
    /// Gives an order with its descriptors and waits for the answer.
    ///
    /// # Errors
    /// Refused or lost.
    fn order(&mut self, body: OrderBody, fds: Vec<OwnedFd>) -> Result<Outcome, OrderError>;

    /// From now on it serves this guest, of the same domain, and is found under its uuid.
    ///
    /// # Errors
    /// It may be found under neither uuid then; it can still be killed.
    fn serve_as(&mut self, spec: DriverSpec) -> Result<(), OrderError>;

    /// Process id.
    fn pid(&self) -> u32;

    /// Ends the process at once and waits until it is gone. No news of it follow.
    fn kill(&mut self);
}
