//! Why a domain could not be built.
//!
//! Nothing is left of it then: whoever gets one of these finds the host as it was, but for [`BuildError::LeftBehind`].

use crate::image::ImageError;
use xen_abi::ids::DomId;
use xen_host::error::Error;

/// Failure of [`super::build`].
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel or the initrd is no good, or not for this kind of guest.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The host's memory does not suffice.
    #[error(
        "not enough memory: the guest needs {need_mib} MiB, the host has {free_mib} MiB free; \
             `xl mem-set 0 ...` or a smaller `memory=` would help"
    )]
    NoMemory {
        /// MiB the guest needs, the hypervisor's own share included.
        need_mib: u64,
        /// MiB free when it was asked.
        free_mib: u64,
    },
    /// The guest's memory cannot hold what is loaded into it.
    #[error(
        "`memory={memory_mib}` is too small: kernel, initrd and what belongs to them take {need_mib} MiB"
    )]
    TooSmall {
        /// MiB taken before the guest has started.
        need_mib: u64,
        /// MiB of the guest.
        memory_mib: u64,
    },
    /// The request asks for something no guest can have.
    #[error("`{key}={value}` is not possible: {why}")]
    Request {
        /// Configuration key.
        key: &'static str,
        /// What was asked.
        value: String,
        /// Why not.
        why: String,
    },
    /// The host cannot run this kind of guest.
    #[error("this host cannot run {kind} guests: {why}")]
    Host {
        /// `pv`, `pvh` or `hvm`.
        kind: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// No layout exists for the kernel.
    #[error("no memory layout for this kernel: {why}")]
    NoLayout {
        /// Why not.
        why: &'static str,
    },
    /// Xen refused a step.
    #[error("{step}: {source}")]
    Xen {
        /// What was being done.
        step: &'static str,
        /// Xen's answer.
        source: Error,
    },
    /// Xen answered with something it should not.
    #[error("{step}: unexpected answer of the hypervisor: {what}")]
    Answer {
        /// What was being done.
        step: &'static str,
        /// What came.
        what: String,
    },
    /// Building failed, and so did removing what was built.
    #[error(
        "{cause}; moreover domain {domid} could not be destroyed ({destroy}), `xl destroy {domid}` may help"
    )]
    LeftBehind {
        /// The half-built domain.
        domid: DomId,
        /// Why building failed.
        #[source]
        cause: Box<BuildError>,
        /// Why destroying failed.
        destroy: Error,
    },
}

/// Names the step that a call of the seam belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, BuildError>;
}

impl<T> Step<T> for Result<T, Error> {
    fn step(self, step: &'static str) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Xen { step, source })
    }
}
