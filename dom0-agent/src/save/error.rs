//! Why a domain could not be saved. It is as it was before, but for having been asked to suspend.

use super::suspend::SuspendError;
use xen_host::error::Error;
use xen_stream::StreamError;

/// Failure of saving.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The guest did not suspend.
    #[error(transparent)]
    Suspend(#[from] SuspendError),
    /// The stream could not be written: the file, or something that no stream can hold.
    #[error("writing the image failed: {0}{cause}", cause = because(.0))]
    Stream(#[source] StreamError),
    /// Xen refused a step.
    #[error("{step}: {source}")]
    Xen {
        /// What was being done.
        step: &'static str,
        /// Xen's answer.
        source: Error,
    },
    /// A page is of a kind that cannot be saved.
    #[error("page {pfn:#x} of the guest {why}")]
    Page {
        /// Which.
        pfn: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something about the guest cannot be put into the stock format.
    #[error("this guest cannot be saved: {0}")]
    Unfit(String),
    /// Nobody waits for it any more.
    #[error("whoever asked for it went away, or did not keep the file")]
    Unwanted,
    /// The file cannot be made durable.
    #[error("the file could not be written to its medium: {0}")]
    Sync(#[source] std::io::Error),
}

impl SaveError {
    /// Whether the guest has not been asked to suspend, or the request was taken back before it looked.
    #[must_use]
    pub const fn never_asked(&self) -> bool {
        matches!(
            self,
            Self::Suspend(
                SuspendError::NotAcknowledged(_) | SuspendError::Busy(_) | SuspendError::NoNode
            )
        )
    }
}

/// The operating system's words, which the stream's error keeps for its source.
fn because(error: &StreamError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(" ({source})"))
}

impl From<StreamError> for SaveError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// Names the step that a call of the seam belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, SaveError>;
}

impl<T> Step<T> for Result<T, Error> {
    fn step(self, step: &'static str) -> Result<T, SaveError> {
        self.map_err(|source| SaveError::Xen { step, source })
    }
}
