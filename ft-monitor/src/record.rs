//! What the monitor writes down: one [`Entry`] per fact, in the words of the journal.
//!
//! Everything that must survive a restart of the monitor is derived from these by [`crate::book::Book::apply`] and from nothing else. Append
//! variants and fields (with `#[serde(default)]`); never rename one: old journals must stay readable.

use crate::book::Page;
use crate::evidence::Signs;
use crate::time::Now;
use crate::verdict::Cause;
use parapet_wire::agent::Protection;
use serde::{Deserialize, Serialize};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, Handle};

/// Number of an intent, unique in one journal.
pub type IntentId = u64;

/// One fact, when it was noted, and its place in the order of all facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was noted.
    pub at: Now,
    /// The fact.
    pub record: Record,
}

/// What the monitor meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Restart in place.
    Restart,
    /// Have the agent take away what is left.
    GiveUp,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done by the agent for this intent.
    Done {
        /// The new domain, after a restart.
        domid: Option<DomId>,
    },
    /// When we looked, it was done already.
    FoundDone {
        /// The domain that was found.
        domid: Option<DomId>,
    },
    /// The agent refused or failed.
    Failed {
        /// Its words.
        why: String,
    },
    /// The answer never came; the next snapshot shows what is true.
    Unknown {
        /// Why it never came.
        why: String,
    },
    /// The guest was removed by somebody else meanwhile.
    Gone,
}

/// How an outage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The guest serves again, as far as it is watched.
    Restored,
    /// Somebody removed or stopped the guest.
    Removed,
    /// The monitor gave up.
    GivenUp,
    /// The host was rebooted meanwhile.
    HostRebooted,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Record {
    /// A monitor started.
    Opened {
        /// The kernel's id of this boot of the host: `Mono` times of other boots mean nothing.
        boot: String,
        /// Its release.
        release: String,
    },
    /// The agent is heard: the snapshot of all guests came.
    AgentUp {
        /// Its release.
        release: String,
        /// Xen's release.
        xen: String,
    },
    /// The agent is not heard any more.
    AgentDown {
        /// Why.
        why: String,
    },
    /// The monitor itself stood still; nothing was heard meanwhile.
    Stalled {
        /// For this long.
        ms: u64,
    },
    /// A guest is there, or has another domain, name or class than before.
    Known {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// Its name.
        name: String,
        /// Its domain.
        domid: Option<DomId>,
        /// Its class.
        protection: Protection,
    },
    /// The guest's present domain shows more signs of service than before.
    Signs {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// All it has shown.
        signs: Signs,
    },
    /// Its domain shut down.
    ShutDown {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// Why.
        reason: ShutdownReason,
    },
    /// It was removed.
    Gone {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
    },
    /// Something to tell about a guest that changes nothing.
    Remark {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// One line.
        text: String,
    },
    /// An outage began.
    OutageBegan {
        /// Whose.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// What failed.
        cause: Cause,
        /// The last moment at which the guest may have been well; the entry's own time is when it was detected.
        began: Now,
        /// What it must show to count as restored.
        expected: Signs,
    },
    /// The outage ended.
    OutageEnded {
        /// Whose.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// How.
        end: End,
    },
    /// The monitor is about to do something. Durable before it is done.
    Intent {
        /// Its number.
        id: IntentId,
        /// To whom.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// The domain it was decided about.
        domid: Option<DomId>,
        /// What.
        deed: Deed,
        /// Why, in one line.
        why: String,
        /// The first attempt of a new row: the guest had lived long enough.
        fresh: bool,
    },
    /// It was done, or not.
    Outcome {
        /// The intent.
        id: IntentId,
        /// Whose.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// What became of it.
        outcome: Outcome,
    },
    /// The monitor will not restart the guest any more.
    GaveUp {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
        /// Why.
        why: String,
    },
    /// The guest lived long enough again that the monitor takes care of it again.
    Pardoned {
        /// Which.
        #[serde(with = "uuid_text")]
        guest: Handle,
    },
    /// Only brings the accounts up to date.
    Alive,
    /// First line of a journal that follows another one.
    Continued {
        /// The host's boot.
        boot: String,
        /// The number that the next intent gets.
        next_intent: IntentId,
        /// Whether the agent was heard.
        listening: bool,
    },
    /// Everything known about one guest, at the start of a journal that follows another one.
    Page(Box<Page>),
}

impl Record {
    /// Whether it must be on disk before anything that follows from it is done.
    #[must_use]
    pub fn durable(&self) -> bool {
        !matches!(
            self,
            Record::Alive | Record::Remark { .. } | Record::Stalled { .. }
        )
    }

    /// The guest it is about.
    #[must_use]
    pub fn guest(&self) -> Option<Handle> {
        match self {
            Record::Opened { .. }
            | Record::AgentUp { .. }
            | Record::AgentDown { .. }
            | Record::Stalled { .. }
            | Record::Alive
            | Record::Continued { .. } => None,
            Record::Known { guest, .. }
            | Record::Signs { guest, .. }
            | Record::ShutDown { guest, .. }
            | Record::Gone { guest }
            | Record::Remark { guest, .. }
            | Record::OutageBegan { guest, .. }
            | Record::OutageEnded { guest, .. }
            | Record::Intent { guest, .. }
            | Record::Outcome { guest, .. }
            | Record::GaveUp { guest, .. }
            | Record::Pardoned { guest } => Some(*guest),
            Record::Page(page) => Some(page.guest),
        }
    }
}

/// A uuid as its usual text, for journals that people read.
pub mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use xen_abi::ids::Handle;

    /// Writes the text.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(handle: &Handle, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&handle.to_string())
    }

    /// Reads the text.
    ///
    /// # Errors
    /// The deserializer's, or that it is no uuid.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Handle, D::Error> {
        let text = String::deserialize(from)?;
        let uuid = uuid::Uuid::parse_str(&text)
            .map_err(|error| D::Error::custom(format!("uuid {text:?}: {error}")))?;
        Ok(Handle(uuid.into_bytes()))
    }
}
