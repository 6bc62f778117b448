//! Why the agent could not do what was asked: the object, the cause and the way out, in one line.

use super::landing::LandingError;
use super::luggage::LuggageError;
use super::migrate::MoveError;
use super::receive::ArrivalError;
use crate::build::BuildError;
use crate::disks::CopyError;
use crate::image::ImageError;
use crate::restore::RestoreError;
use crate::save::{SaveError, SuspendError};
use parapet_wire::agent::{Failure, FailureKind};
use std::path::PathBuf;
use xen_abi::ids::DomId;

/// Failure of an agent operation.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The name belongs to somebody.
    #[error(
        "a domain named \"{name}\" exists already (domain {domid}); choose another name or destroy that one"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        domid: DomId,
    },
    /// The uuid belongs to somebody.
    #[error("a domain with uuid {uuid} exists already (\"{name}\")")]
    UuidInUse {
        /// The uuid.
        uuid: String,
        /// Whose it is.
        name: String,
    },
    /// No domain of that id.
    #[error("domain {0} does not exist")]
    NoDomain(DomId),
    /// No guest of that uuid.
    #[error("no guest has uuid {0}")]
    NoGuest(String),
    /// The guest is not one of ours.
    #[error(
        "domain {domid} was not made by Parapet; {what} works on our guests only (use stock xl for it)"
    )]
    Foreign {
        /// Which.
        domid: DomId,
        /// What was asked.
        what: &'static str,
    },
    /// What is left of a guest that stopped.
    #[error(
        "domain {domid} stopped and is kept as it is (rename-restart): no {what}; it can be looked at with `xl dump-core`, and destroyed"
    )]
    Kept {
        /// Which.
        domid: DomId,
        /// What was asked.
        what: &'static str,
    },
    /// Dom0 was named where only a guest makes sense.
    #[error("domain 0 is the control domain; {0} is refused")]
    ControlDomain(&'static str),
    /// A part of the configuration is not served here.
    #[error("{what} is not there yet: {detail}")]
    NotYet {
        /// The part.
        what: String,
        /// What to do instead.
        detail: String,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The kernel or ramdisk cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The domain could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The guest could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The guest could not be moved.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// The guest did not arrive.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// Its disks could not go along.
    #[error(transparent)]
    Luggage(#[from] LuggageError),
    /// A disk of it could not be sent.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Its disks did not arrive.
    #[error(transparent)]
    Landing(#[from] LandingError),
    /// The guest could not be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A disk's medium cannot be used.
    #[error("disk {vdev}: {path}: {what}")]
    Medium {
        /// Device name.
        vdev: String,
        /// The image or device.
        path: PathBuf,
        /// What is wrong, and the way out.
        what: String,
    },
    /// A network link cannot be made.
    #[error("network interface {ifname}: {what}")]
    Link {
        /// Tap name.
        ifname: String,
        /// What is wrong, and the way out.
        what: String,
    },
    /// A device number that is taken or unknown.
    #[error("device {device}: {what}")]
    Device {
        /// Which.
        device: String,
        /// What is wrong.
        what: String,
    },
    /// The guest's driver process.
    #[error("driver of domain {domid}: {what}")]
    Driver {
        /// Whose.
        domid: DomId,
        /// What is wrong.
        what: String,
    },
    /// The guest's driver process ended: its successor may do it.
    #[error("driver of domain {domid}: {what}")]
    DriverAway {
        /// Whose.
        domid: DomId,
        /// What became of it.
        what: String,
    },
    /// The guest's driver process cannot do it yet, or will never: the same order may be tried again for a while.
    #[error("driver of domain {domid}: {what}")]
    DriverBusy {
        /// Whose.
        domid: DomId,
        /// What it said.
        what: String,
    },
    /// The guest did not answer.
    #[error("{what}: the guest did not answer within {seconds} s")]
    GuestTimedOut {
        /// What was asked of it.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// Xen or xenstore.
    #[error(transparent)]
    Xen(#[from] xen_host::error::Error),
    /// A file of ours.
    #[error("{what} {path}: {source}")]
    File {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl From<xen_host::xenstore::error::StoreError> for AgentError {
    fn from(error: xen_host::xenstore::error::StoreError) -> Self {
        Self::Xen(error.into())
    }
}

impl AgentError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NameInUse { .. }
            | Self::UuidInUse { .. }
            | Self::Arrival(ArrivalError::NameInUse { .. }) => FailureKind::Exists,
            Self::Move(MoveError::Unknown { .. }) => FailureKind::Undefined,
            Self::NoDomain(_) | Self::NoGuest(_) => FailureKind::NoDomain,
            Self::NotYet { .. } => FailureKind::NotImplemented,
            Self::Invalid(_)
            | Self::ControlDomain(_)
            | Self::Foreign { .. }
            | Self::Kept { .. } => FailureKind::Invalid,
            Self::GuestTimedOut { .. } => FailureKind::GuestTimedOut,
            Self::Save(SaveError::Suspend(
                SuspendError::NotAcknowledged(_) | SuspendError::StillRunning(_),
            )) => FailureKind::GuestTimedOut,
            Self::Build(BuildError::NoMemory { .. })
            | Self::Restore(RestoreError::Build(BuildError::NoMemory { .. })) => {
                FailureKind::NoMemory
            }
            Self::Build(BuildError::Request { .. }) => FailureKind::Invalid,
            _ => FailureKind::Failed,
        }
    }

    /// Whether the fault lies beyond the device that met it, and the same attempt may work a little later.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Xen(_) | Self::DriverAway { .. })
    }

    /// What the client is told.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            kind: self.kind(),
            text: self.to_string(),
        }
    }
}
