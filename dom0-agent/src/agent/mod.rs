//! The agent: what the daemon does, without a runtime.
//!
//! ```text
//!   api, watches, driver news ──▶ Agent ──▶ builder, xenstore, drivers, links, media
//!                                   │
//!                        table: uuid -> Guest (one lock each)
//! ```
//!
//! Every entry point blocks and may be called from any thread; [`crate::daemon`] calls them from a thread pool, simulations directly. Guests are
//! independent: an operation locks its own guest for as long as it takes, and the table only for look-ups.
//!
//! | file | what |
//! |---|---|
//! | `create.rs` | builds a guest, undoes everything on any failure |
//! | `restore.rs` | as `create.rs`, from a save file |
//! | `save.rs` | writes a guest to a file; it is gone then, or runs on |
//! | `migrate.rs`, `receive.rs` | the two ends of a move to another host |
//! | `furnish.rs` | driver, media, taps, console and xenstore around a built domain |
//! | `teardown.rs` | removes every trace of a guest; idempotent, the one way out |
//! | `settle.rs` | devices: xenbus by level, driver replacement |
//! | `publish.rs` | what a backend says of itself in xenstore |
//! | `hotplug.rs` | attach and detach on a running guest |
//! | `chatter.rs` | how much one guest can make us log |
//! | `patience.rs` | how long a driver's "not yet" is waited out |
//! | `reap.rs` | domains that shut down or went away |
//! | `kept.rs` | domains that stopped and are kept under another name |
//! | `recover.rs` | what an earlier agent left |
//! | `shells.rs` | domains built in advance, which guests take over |

pub mod bell;
pub mod chatter;
pub mod create;
pub mod drivers;
pub mod dump;
pub mod error;
pub mod furnish;
pub mod guest;
pub mod heartbeats;
pub mod hotplug;
pub mod kept;
pub mod landing;
pub mod links;
pub mod luggage;
pub mod migrate;
pub mod patience;
pub mod process;
pub mod publish;
pub mod reap;
pub mod receive;
pub mod record;
pub mod recover;
pub mod request;
pub mod restore;
pub mod save;
pub mod settle;
pub mod shells;
pub mod teardown;
pub mod tracking;
pub mod whereabouts;

use crate::build::Hypervisor;
use crate::image::KernelCache;
use drivers::{DriverNews, Drivers, NewsSink};
use error::AgentError;
use guest::{Guest, SharedGuest};
use links::Links;
use parapet_wire::agent as wire;
use record::{Arrival, Record, Records};
use shells::Shells;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;
use xen_abi::ids::{DomId, Handle};
use xen_host::seam::Store;

/// How long a driver may wait for the I/O of its dead predecessor.
pub const DISK_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a guest may take to let go of a device.
pub const DETACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything of Xen that the agent needs.
#[derive(Debug, Clone)]
pub struct Seams {
    /// The hypervisor.
    pub xen: Arc<dyn Hypervisor>,
    /// Xenstore.
    pub store: Arc<dyn Store>,
}

/// Where the agent keeps things.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Durable state.
    pub state: PathBuf,
    /// Volatile state: journals of drivers.
    pub run: PathBuf,
    /// Guest consoles.
    pub logs: PathBuf,
    /// libxl's userdata.
    pub userdata: PathBuf,
    /// Dumps of guests that stopped.
    pub dumps: PathBuf,
}

/// What the daemon around the agent must act upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A guest's domain is ready: watch its nodes.
    Started {
        /// Which.
        uuid: Uuid,
        /// Its domain.
        domid: DomId,
    },
    /// A driver says something.
    Driver(DriverNews),
    /// A guest stopped and is to be dumped before anything else: [`Agent::make_dump`], then [`Agent::reap`].
    Dump {
        /// Which.
        uuid: Uuid,
    },
    /// There is something to do for the pool of shells: [`Agent::refill`].
    Shells,
}

/// Where news and events go; called from any thread, must not block.
pub struct Outlets {
    /// For the daemon.
    pub news: Arc<dyn Fn(News) + Send + Sync>,
    /// For subscribers of the API.
    pub events: Arc<dyn Fn(wire::Event) + Send + Sync>,
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlets").finish_non_exhaustive()
    }
}

/// A guest in the table, and what of it never changes.
#[derive(Debug)]
struct Entry {
    uuid: Uuid,
    /// Its name when it came.
    began_as: String,
    guest: SharedGuest,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    seams: Seams,
    dirs: Dirs,
    records: Records,
    kernels: KernelCache,
    shells: Shells,
    drivers: Arc<dyn Drivers>,
    links: Arc<dyn Links>,
    outlets: Outlets,
    /// By key.
    table: Mutex<BTreeMap<Uuid, Entry>>,
    /// Held between finding a name free and taking it.
    naming: Mutex<()>,
    /// Subscribers of events: while there is one, failed protected guests are theirs.
    listeners: AtomicUsize,
    /// How often somebody began to listen, or had to begin again.
    tellings: AtomicUsize,
}

impl Agent {
    /// An agent with an empty table; [`Agent::recover`] fills it.
    ///
    /// # Errors
    /// The state directory cannot be made.
    pub fn new(
        seams: Seams,
        dirs: Dirs,
        kernels: KernelCache,
        drivers: Arc<dyn Drivers>,
        links: Arc<dyn Links>,
        outlets: Outlets,
    ) -> Result<Self, AgentError> {
        let file = |what, path: &PathBuf| {
            let path = path.clone();
            move |source| AgentError::File { what, path, source }
        };
        let records = Records::open(&dirs.state).map_err(file("cannot make", &dirs.state))?;
        for directory in [&dirs.run, &dirs.logs] {
            std::fs::create_dir_all(directory).map_err(file("cannot make", directory))?;
        }
        Ok(Self {
            seams,
            shells: Shells::new(&dirs.state),
            dirs,
            records,
            kernels,
            drivers,
            links,
            outlets,
            table: Mutex::default(),
            naming: Mutex::default(),
            listeners: AtomicUsize::new(0),
            tellings: AtomicUsize::new(0),
        })
    }

    /// A subscriber of events came.
    pub fn listener_came(&self) {
        self.listeners.fetch_add(1, Ordering::SeqCst);
    }

    /// A subscriber of events left.
    pub fn listener_left(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }

    /// Somebody listens from here on who has heard nothing so far: what heartbeats say is told again.
    pub fn tell_anew(&self) {
        self.tellings.fetch_add(1, Ordering::SeqCst);
    }

    /// Changes with every [`tell_anew`](Self::tell_anew).
    #[must_use]
    pub fn telling(&self) -> usize {
        self.tellings.load(Ordering::SeqCst)
    }

    fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::SeqCst) > 0
    }

    /// The seams, for callers that read the host.
    #[must_use]
    pub fn seams(&self) -> &Seams {
        &self.seams
    }

    /// All guests, for the API: not those that may still arrive, nor what is left of one that was moved from this host to this host.
    #[must_use]
    pub fn guests(&self) -> Vec<wire::Guest> {
        let all = self.every_guest();
        all.iter()
            .filter_map(|shared| {
                let guest = lock(shared);
                let record = &guest.record;
                if record.arrival == Some(Arrival::Expected) {
                    return None;
                }
                let mut public = guest.public();
                // Moved to the host it is on: the one that arrived is the guest, and what is left of it is called by what it has got.
                if let Some(away) = record.away.filter(|_| self.has_namesake(record)) {
                    public.uuid = handle(away);
                    public.protection = wire::Protection::None;
                }
                Some(public)
            })
            .collect()
    }

    /// All guests, without waiting for any of them.
    #[must_use]
    pub fn shared_guests(&self) -> Vec<(Uuid, SharedGuest)> {
        let table = self.table();
        table
            .values()
            .map(|entry| (entry.uuid, Arc::clone(&entry.guest)))
            .collect()
    }

    /// Returns when the table of guests can be looked into: proof that nobody holds it for good.
    pub fn table_answers(&self) {
        drop(self.table());
    }

    /// The guest whose domain this is.
    #[must_use]
    pub fn by_domid(&self, domid: DomId) -> Option<SharedGuest> {
        let all = self.every_guest();
        all.into_iter()
            .find(|guest| lock(guest).record.domid == Some(domid))
    }

    /// The guest of this uuid. While one is moved from this host to this host there are two, and the one that is the guest now is meant.
    #[must_use]
    pub fn by_uuid(&self, uuid: Uuid) -> Option<SharedGuest> {
        let mut found: Vec<SharedGuest> = {
            let table = self.table();
            let same = table.values().filter(|entry| entry.uuid == uuid);
            same.map(|entry| Arc::clone(&entry.guest)).collect()
        };
        if found.len() > 1 {
            found.retain(|guest| lock(guest).record.is_the_guest());
        }
        found.pop()
    }

    /// The guest whose record has this key.
    #[must_use]
    pub fn by_key(&self, key: Uuid) -> Option<SharedGuest> {
        let table = self.table();
        table.get(&key).map(|entry| Arc::clone(&entry.guest))
    }

    /// Whether the table has another guest of this one's uuid.
    fn has_namesake(&self, record: &Record) -> bool {
        let table = self.table();
        table
            .iter()
            .any(|(other, entry)| *other != record.key && entry.uuid == record.config.uuid)
    }

    fn every_guest(&self) -> Vec<SharedGuest> {
        let table = self.table();
        table
            .values()
            .map(|entry| Arc::clone(&entry.guest))
            .collect()
    }

    /// All guests, with the names that they began with.
    fn names_in_table(&self) -> Vec<(String, SharedGuest)> {
        let table = self.table();
        table
            .values()
            .map(|entry| (entry.began_as.clone(), Arc::clone(&entry.guest)))
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, record: Record) -> SharedGuest {
        let (key, uuid) = (record.key, record.config.uuid);
        let began_as = record.config.name.clone();
        let guest = Arc::new(Mutex::new(Guest::new(record)));
        let entry = Entry {
            uuid,
            began_as,
            guest: Arc::clone(&guest),
        };
        self.table().insert(key, entry);
        guest
    }

    fn forget(&self, key: Uuid) {
        self.table().remove(&key);
    }

    /// Tells the daemon.
    fn news(&self, item: News) {
        (self.outlets.news)(item);
    }

    fn save(&self, guest: &Guest) -> Result<(), AgentError> {
        self.records
            .save(&guest.record)
            .map_err(|source| AgentError::File {
                what: "cannot write the record of guest",
                path: self.dirs.state.clone(),
                source,
            })
    }

    fn news_sink(&self) -> NewsSink {
        let news = Arc::clone(&self.outlets.news);
        Arc::new(move |item| news(News::Driver(item)))
    }

    fn tell(&self, event: wire::Event) {
        (self.outlets.events)(event);
    }
}

/// Locks a guest; a panic in another thread does not take the guest away from everybody else.
pub fn lock(guest: &SharedGuest) -> MutexGuard<'_, Guest> {
    guest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hypervisor's form of a uuid.
#[must_use]
pub fn handle(uuid: Uuid) -> Handle {
    Handle(*uuid.as_bytes())
}
