//! What is remembered about a guest on disk: enough for an agent that was killed anywhere to finish or undo.
//!
//! One JSON file per guest, `<state>/guests/<key>.json`, replaced by rename. It needs no fsync: it guards against the death of this process;
//! the guests themselves do not outlive the kernel it runs on.

use crate::config::domain::DomainConfig;
use crate::disks::Landed;
use crate::image::FileKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use xen_abi::ids::{DomId, Handle, Port};

/// Format of the file; a file of another version is refused, not guessed at.
const VERSION: u32 = 1;
/// Largest record read, in bytes.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// How far a guest is, as far as an agent that starts again must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Under construction: undo it.
    Building,
    /// Built and handed over: adopt it.
    Running,
    /// Built, and being saved or moved away: let it run on, and adopt it.
    Saving,
    /// It suspended to be moved, and its devices were let go: let it run on, and adopt it.
    Leaving,
    /// The other side was told that the guest is its own: it must not run here unless somebody knows that it does not run there.
    HandedOver,
    /// Its domain is gone, or being removed or put aside, and it is to come back by a restart.
    Waiting,
    /// To be removed for good: finish that.
    Dying,
    /// No guest: a domain built in advance that waits for one (see `shells.rs`).
    Shell,
}

impl Stage {
    /// Its domain is complete and belongs to the guest: devices are served, drivers replaced.
    #[must_use]
    pub const fn is_up(self) -> bool {
        match self {
            Self::Running | Self::Saving => true,
            Self::Building
            | Self::Leaving
            | Self::HandedOver
            | Self::Waiting
            | Self::Dying
            | Self::Shell => false,
        }
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Names the record, its driver and its journals, for as long as there is a record. The guest's uuid, but for a guest that was moved here:
    /// while it arrives, the one that left may still be on this host.
    #[serde(rename = "uuid")]
    pub key: Uuid,
    /// Its configuration, with everything drawn that was left open (uuid, MAC addresses).
    pub config: DomainConfig,
    /// How far it is.
    pub stage: Stage,
    /// Its domain, while there is one.
    pub domid: Option<DomId>,
    /// The guest's console port and page, for a driver that takes over.
    pub console: Option<ConsoleFacts>,
    /// Nobody acts on its events.
    pub unmanaged: bool,
    /// Times it was started.
    pub starts: u32,
    /// It was asked to suspend by a save that is over: if it does, it is to run on.
    #[serde(default)]
    pub asked_to_suspend: bool,
    /// It is being moved here.
    #[serde(default)]
    pub arrival: Option<Arrival>,
    /// Its disks that came along, or are coming, until it is ours: they go with it if it does not stay.
    #[serde(default)]
    pub landed: Vec<Landed>,
    /// What its domain is called since another host was told that the guest is its own.
    #[serde(default)]
    pub away: Option<Uuid>,
    /// Its domain stopped and is being put aside, to be kept.
    #[serde(default)]
    pub aside: Option<Aside>,
    /// It is, or is becoming, a shell: what was built into it.
    #[serde(default)]
    pub shell: Option<ShellFacts>,
}

/// What a guest's stopped domain is called once it is put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub uuid: Uuid,
}

/// How far a guest is that is being moved here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// It runs where it was: undo it.
    Expected,
    /// It is ours, and runs nowhere: give it its name and let it run.
    Accepted {
        /// It stays paused.
        paused: bool,
    },
}

/// What was built into a shell, besides its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellFacts {
    /// Name of the template it belongs to.
    pub template: String,
    /// Keys of the kernel's and the ramdisk's file.
    pub files: Vec<FileKey>,
    /// Release of the agent that built it: another one may build otherwise.
    pub release: String,
}

/// Facts about the primary console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleFacts {
    /// The guest's port.
    pub port: Port,
    /// Frame of the ring.
    pub frame: u64,
}

impl Record {
    /// A record for a guest that is about to be built.
    #[must_use]
    pub fn new(config: DomainConfig, unmanaged: bool) -> Self {
        Self {
            version: VERSION,
            key: config.uuid,
            config,
            stage: Stage::Building,
            domid: None,
            console: None,
            unmanaged,
            starts: 0,
            asked_to_suspend: false,
            arrival: None,
            landed: Vec::new(),
            away: None,
            aside: None,
            shell: None,
        }
    }

    /// A record for a guest that is about to be moved here, perhaps from this very host.
    #[must_use]
    pub fn arriving(config: DomainConfig, unmanaged: bool) -> Self {
        Self {
            key: Uuid::new_v4(),
            arrival: Some(Arrival::Expected),
            ..Self::new(config, unmanaged)
        }
    }

    /// What the domain is called in Xen and xenstore: the guest's uuid, unless that means a copy elsewhere, which may be on this host too.
    #[must_use]
    pub fn identity(&self) -> Uuid {
        match (self.arrival, self.away) {
            (Some(Arrival::Expected), _) => self.key,
            (_, Some(away)) => away,
            (Some(Arrival::Accepted { .. }) | None, None) => self.config.uuid,
        }
    }

    /// Whether this is what the guest's uuid means: not a copy that is still on its way, nor one that another took the place of.
    #[must_use]
    pub fn is_the_guest(&self) -> bool {
        self.arrival != Some(Arrival::Expected) && self.away.is_none()
    }

    /// Whether a domain of this handle, of the id on record, is this guest's. Between two steps of a move, or of being put aside, it may have either name.
    #[must_use]
    pub fn is_called(&self, handle: Handle) -> bool {
        let aside = self.aside.as_ref().map(|aside| aside.uuid);
        let names = [Some(self.key), Some(self.config.uuid), self.away, aside];
        names
            .iter()
            .flatten()
            .any(|name| handle.0 == *name.as_bytes())
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Records below `state`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("guests");
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, key: Uuid) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    /// Writes a record, all or nothing.
    ///
    /// # Errors
    /// The disk is full, or worse.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(record.key);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(record)?)?;
        fs::rename(&fresh, &path)
    }

    /// Forgets a guest; a missing record is fine.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, key: Uuid) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every readable record; a damaged one is reported and set aside, never acted on.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load_all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                // Somebody died while writing; what it was to replace is still there.
                fs::remove_file(&path)?;
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match load(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "guest record cannot be used; set aside as .bad");
                    fs::rename(&path, path.with_extension("bad"))?;
                }
            }
        }
        records.sort_by_key(|record| record.key);
        Ok(records)
    }
}

fn load(path: &Path) -> io::Result<Record> {
    let size = fs::metadata(path)?.len();
    if size > MAX_RECORD_BYTES {
        return Err(io::Error::other(format!("{size} bytes is too long")));
    }
    let record: Record = serde_json::from_slice(&fs::read(path)?)?;
    if record.version != VERSION {
        return Err(io::Error::other(format!(
            "version {} (this agent knows {VERSION})",
            record.version
        )));
    }
    Ok(record)
}
