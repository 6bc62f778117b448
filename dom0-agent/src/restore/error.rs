//! Why a domain could not be restored. Nothing is left of it then, but for [`RestoreError::LeftBehind`].

use crate::build::BuildError;
use std::io::ErrorKind;
use xen_abi::ids::DomId;
use xen_host::error::Error;
use xen_stream::StreamError;
use xen_stream::error::Problem;

/// Failure of [`super::restore`].
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The stream ends early, is damaged, or is not one.
    #[error("the save file cannot be used: {0}{cause}", cause = because(.0))]
    Stream(#[source] StreamError),
    /// The file or connection cannot be shared with whoever moves its contents.
    #[error("the save file cannot be used: {0}")]
    Source(#[source] std::io::Error),
    /// The sender's offer cannot be answered.
    #[error("cannot answer the other side: {0}")]
    Answer(#[source] std::io::Error),
    /// Whoever sends the stream has stopped, and keeps the connection open.
    #[error("the sender went silent: {0}{cause}", cause = because(.0))]
    Silent(#[source] StreamError),
    /// It holds something else than an image.
    #[error("the save file cannot be used: it holds no image of a domain where one must be")]
    NoImage,
    /// The configuration says another kind of guest than the image.
    #[error("the save file holds a {found} guest, and its configuration is of a {wanted} guest")]
    Kind {
        /// In the image.
        found: &'static str,
        /// In the configuration.
        wanted: &'static str,
    },
    /// A page that a guest of this size cannot have.
    #[error(
        "the save file holds page {pfn:#x}, which {why}; was the guest saved with another `maxmem`?"
    )]
    Page {
        /// Which.
        pfn: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that must be in an image is not.
    #[error("the save file cannot be used: its image lacks {0}")]
    Missing(&'static str),
    /// This host has not the CPU that the guest had.
    #[error("this host's CPU cannot be what the guest had where it was saved: {0}")]
    Policy(#[source] Error),
    /// Not possible here.
    #[error("this guest cannot be restored: {0}")]
    Unfit(String),
    /// The domain could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Xen refused a step.
    #[error("{step}: {source}")]
    Xen {
        /// What was being done.
        step: &'static str,
        /// Xen's answer.
        source: Error,
    },
    /// Restoring failed, and so did removing what was made.
    #[error(
        "{cause}; moreover domain {domid} could not be destroyed ({destroy}), `xl destroy {domid}` may help"
    )]
    LeftBehind {
        /// The half-made domain.
        domid: DomId,
        /// Why restoring failed.
        #[source]
        cause: Box<RestoreError>,
        /// Why destroying failed.
        destroy: Error,
    },
}

/// The operating system's words, which the stream's error keeps for its source.
fn because(error: &StreamError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(" ({source})"))
}

impl From<StreamError> for RestoreError {
    fn from(error: StreamError) -> Self {
        match &error.problem {
            Problem::Read(cause) if cause.kind() == ErrorKind::TimedOut => Self::Silent(error),
            _ => Self::Stream(error),
        }
    }
}

/// Names the step that a call of the seam belongs to.
pub(super) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, RestoreError>;
}

impl<T> Step<T> for Result<T, Error> {
    fn step(self, step: &'static str) -> Result<T, RestoreError> {
        self.map_err(|source| RestoreError::Xen { step, source })
    }
}
