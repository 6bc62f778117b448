//! Why a domain could not be dumped. It is as it was before.

use crate::save::SaveError;
use xen_abi::ids::DomId;
use xen_host::error::Error;

/// Failure of a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// There is no such domain any more.
    #[error("there is no domain {0}")]
    Gone(DomId),
    /// A PV guest does not say where its memory is.
    #[error("the memory of this guest cannot be found: {0}")]
    Memory(#[source] SaveError),
    /// Xen refused a step.
    #[error("{step}: {source}")]
    Xen {
        /// What was being done.
        step: &'static str,
        /// Xen's answer.
        source: Error,
    },
    /// The file cannot be written, or not from where it must be.
    #[error("writing the dump: {0}")]
    File(#[source] std::io::Error),
}

/// Names the step that a call of the seam belongs to.
pub(super) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, DumpError>;
}

impl<T> Step<T> for Result<T, Error> {
    fn step(self, step: &'static str) -> Result<T, DumpError> {
        self.map_err(|source| DumpError::Xen { step, source })
    }
}
