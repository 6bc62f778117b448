//! What can go wrong between us and Xen: the operation, the domain and the hypervisor's reason, never a bare errno.

use nix::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::version::UnsupportedXen;

/// Failure of a call of the seam.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A hypercall or an ioctl on a Xen device was refused.
    #[error("{op}{}: {} ({errno})", of(*.domid), meaning(*.errno))]
    Refused {
        /// What was asked, in Xen's words (`createdomain`, `populate_physmap` ...).
        op: &'static str,
        /// Which domain it concerned.
        domid: Option<DomId>,
        /// Xen's answer.
        errno: Errno,
    },
    /// An operation on something with a name of its own (a tap, a file, a socket) failed.
    #[error("{op} {object}: {errno}{}", named_hint(*.errno))]
    Named {
        /// What was asked.
        op: &'static str,
        /// The thing.
        object: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A device node could not be opened.
    #[error("cannot open {path}: {errno}{}", device_hint(*.errno))]
    Device {
        /// Device node.
        path: &'static str,
        /// Why.
        errno: Errno,
    },
    /// This is no place to control Xen from.
    #[error(transparent)]
    Host(#[from] HostProblem),
    /// The hypervisor's release has no layout here.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedXen),
    /// An answer did not have the promised shape.
    #[error("{op}: {what}")]
    Malformed {
        /// What was asked.
        op: &'static str,
        /// What was wrong with the answer.
        what: String,
    },
    /// Xenstore said no, or is not there.
    #[error(transparent)]
    Store(#[from] crate::xenstore::error::StoreError),
}

/// Why Xen cannot be controlled from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostProblem {
    /// No Xen at all.
    #[error("this machine is not running under Xen; boot the Xen entry of the boot menu")]
    NotXen,
    /// A guest.
    #[error("this is a Xen guest, not the control domain; run this in dom0")]
    NotControlDomain,
    /// Not root.
    #[error("cannot open {path}: this needs root")]
    NotRoot {
        /// The device.
        path: &'static str,
    },
}

impl Error {
    /// A refused operation without a domain.
    #[must_use]
    pub fn refused(op: &'static str, errno: Errno) -> Self {
        Self::Refused {
            op,
            domid: None,
            errno,
        }
    }

    /// A refused operation on a domain.
    #[must_use]
    pub fn refused_for(op: &'static str, domid: DomId, errno: Errno) -> Self {
        Self::Refused {
            op,
            domid: Some(domid),
            errno,
        }
    }

    /// A refused operation on something with a name.
    #[must_use]
    pub fn named(op: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self::Named {
            op,
            object: object.into(),
            errno,
        }
    }

    /// The errno behind it, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. }
            | Self::Named { errno, .. }
            | Self::Device { errno, .. } => Some(*errno),
            Self::Store(error) => error.errno(),
            Self::Host(_) | Self::Unsupported(_) | Self::Malformed { .. } => None,
        }
    }
}

fn of(domid: Option<DomId>) -> String {
    domid.map_or_else(String::new, |domid| format!(" of domain {domid}"))
}

/// What Xen means by an errno, where that differs from the libc text.
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => "the hypervisor speaks another interface version",
        Errno::ENOMEM => "not enough memory in the hypervisor",
        Errno::ESRCH => "no such domain",
        Errno::EPERM => "not permitted; this needs the control domain",
        Errno::ENOSYS | Errno::EOPNOTSUPP => "the hypervisor does not offer this",
        Errno::EINVAL => "the hypervisor refused the arguments (its log, `xl dmesg`, may say why)",
        _ => "refused",
    }
}

fn device_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
            "; is this a Xen control domain, and is the module loaded?"
        }
        Errno::EACCES | Errno::EPERM => "; this needs root",
        _ => "",
    }
}

fn named_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => "; this needs root",
        Errno::EBUSY => "; somebody else uses it",
        _ => "",
    }
}
