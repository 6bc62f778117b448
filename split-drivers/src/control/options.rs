//! The command line, which is between the agent and this program only.

use crate::limits::UID_BASE;
use clap::Parser;
use xen_abi::ids::DomId;

/// Serves the disks, networks and consoles of one guest.
///
/// Started by dom0-agent as root, with a listening unix socket as descriptor 0 (orders come there) and the log as stderr; it gives every right
/// away before it looks at its guest. Not meant to be started by hand.
#[derive(Debug, Parser)]
#[command(name = "split-driver", version)]
pub struct Arguments {
    /// The guest's domain id.
    #[arg(long)]
    pub domid: u16,
    /// User and group that the driver becomes; by default 0x50000000 plus the domain id.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Stay root and outside of any sandbox: for a debugger only.
    #[arg(long, hide = true)]
    pub no_sandbox: bool,
}

impl Arguments {
    /// The guest.
    #[must_use]
    pub fn guest(&self) -> DomId {
        DomId(self.domid)
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> u32 {
        self.uid.unwrap_or(UID_BASE + u32::from(self.domid))
    }
}
