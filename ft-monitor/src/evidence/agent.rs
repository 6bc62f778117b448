//! The connection to the agent as evidence: while it is away, nothing that is not heard proves anything.

use crate::time::Mono;

/// Whether the agent is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Never yet, since this program started.
    Never,
    /// Connected and greeted; the snapshot of all guests has not come yet.
    Greeted {
        /// The agent's release.
        release: String,
        /// Xen's release.
        xen: String,
    },
    /// Everything is heard since then.
    Up {
        /// When the snapshot came.
        since: Mono,
        /// The agent's release.
        release: String,
        /// Xen's release.
        xen: String,
    },
    /// Lost.
    Down {
        /// When.
        since: Mono,
        /// Why, in one line.
        why: String,
    },
}

impl Link {
    /// Whether guests are heard now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Link::Up { .. })
    }

    /// The snapshot came.
    #[must_use]
    pub fn snapshot(self, at: Mono) -> Link {
        match self {
            Link::Greeted { release, xen } => Link::Up {
                since: at,
                release,
                xen,
            },
            up @ Link::Up { .. } => up,
            // A snapshot without a greeting is not worth less.
            Link::Never | Link::Down { .. } => Link::Up {
                since: at,
                release: String::new(),
                xen: String::new(),
            },
        }
    }
}
