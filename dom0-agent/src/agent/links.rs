//! The seam between the agent and dom0's network: a tap in a bridge for each interface of a guest.
//!
//! The real implementation is [`crate::device::bridge`]. A tap stays while its guest lives, whoever serves it, so that a replaced driver
//! costs no link flap.

use std::fmt::Debug;
use std::os::fd::OwnedFd;

/// What a guest's interface needs on our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Name of the tap.
    pub ifname: String,
    /// Bridge to put it into; `None`: the host's default bridge.
    pub bridge: Option<String>,
    /// MTU; `None`: the bridge's.
    pub mtu: Option<u32>,
    /// Queues.
    pub queues: u32,
}

/// A link that is ready.
#[derive(Debug)]
pub struct Link {
    /// Bridge it is in.
    pub bridge: String,
    /// MTU in effect.
    pub mtu: u32,
    /// One descriptor per queue.
    pub queues: Vec<OwnedFd>,
}

/// Makes and removes links.
pub trait Links: Debug + Send + Sync {
    /// Makes the tap (or takes the one of this name that a dead agent left), puts it into its bridge and sets it up.
    ///
    /// # Errors
    /// One line naming what is missing and what to do.
    fn make(&self, spec: &LinkSpec) -> Result<Link, String>;

    /// Removes the tap; a missing one is fine.
    ///
    /// # Errors
    /// One line.
    fn remove(&self, ifname: &str) -> Result<(), String>;
}
