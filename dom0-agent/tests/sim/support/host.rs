//! One host: a world, an agent on it, its directories, its guests. Everything acts only when the test says so.

use super::driver::SimDrivers;
use super::machine::Machine;
use super::reflex::{Reflex, ReflexStore, Reflexes};
use super::yard::{SimLinks, Yard};
use crate::kernels::{Elf, VIRT_BASE, word};
use dom0_agent::agent::create::CreateOptions;
use dom0_agent::agent::drivers::DriverNews;
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::guest::SharedGuest;
use dom0_agent::agent::{Agent, Dirs, News, Outlets, Seams};
use dom0_agent::config::domain::DomainConfig;
use dom0_agent::config::interpret::{Ambient, load};
use dom0_agent::image::{KernelCache, Worker};
use parapet_wire::agent::Event;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use uuid::Uuid;
use xen_abi::ids::DomId;
use xen_sim::{Crashed, SimHost, World};

/// The daemon, as worker for unpacking kernels.
const DAEMON: &str = env!("CARGO_BIN_EXE_dom0-agent");
/// Rounds after which a host that still changes counts as endless.
const MAX_ROUNDS: usize = 60;
/// Where the test kernel is loaded.
const LOAD: u64 = 0x10_0000;

/// How a host is to be.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    pub memory_mib: u64,
    /// Drivers move data.
    pub real_drivers: bool,
    /// Xen with the patches of `xen-patches/`.
    pub patched: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 7,
            memory_mib: 256,
            real_drivers: false,
            patched: false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Host {
    pub world: World,
    pub yard: Arc<Yard>,
    pub dirs: Dirs,
    pub agent: Arc<Agent>,
    pub process: SimHost,
    pub machines: BTreeMap<DomId, Machine>,
    /// What failed while the host was tended, in words.
    pub troubles: Vec<String>,
    news: Arc<Mutex<VecDeque<News>>>,
    events: Arc<Mutex<Vec<Event>>>,
    /// A monitor listens to the agent.
    watched: bool,
    /// How much later than now it is.
    late: Duration,
    reflexes: Reflexes,
    root: tempfile::TempDir,
}

/// Kernel, initrd and cache of all tests of this process.
struct Files {
    kernel: PathBuf,
    cache: PathBuf,
    _root: tempfile::TempDir,
}

impl Files {
    fn kernel_cache(&self) -> KernelCache {
        KernelCache::with_worker(&self.cache, Worker::of(Path::new(DAEMON)))
    }
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("vmlinuz");
        std::fs::write(&kernel, small_kernel().build()).unwrap();
        let files = Files {
            kernel,
            cache: root.path().join("cache"),
            _root: root,
        };
        // Unpacked once, so that no guest waits for a worker process.
        let cache = files.kernel_cache();
        cache.load(&files.kernel).unwrap();
        cache.settle();
        files
    })
}

/// A kernel for both kinds of guest that needs little memory.
pub fn small_kernel() -> Elf {
    Elf {
        loads: vec![(LOAD, vec![0x90; 5000], 8192)],
        ..Elf::debian()
    }
    .note(1, &word(VIRT_BASE + LOAD + 0x40))
    .note(18, &word(LOAD + 0x20))
}

/// Longest pause between two turns of a daemon to which nothing is told.
const TURN: Duration = Duration::from_millis(2);

impl Host {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        if std::env::var_os("SIM_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        }
        let mut builder = World::builder(setup.seed).memory_mib(setup.memory_mib);
        if setup.patched {
            builder = builder.patched();
        }
        let world = builder.build();
        let yard = Yard::new(&world, setup.real_drivers);
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            state: root.path().join("state"),
            run: root.path().join("run"),
            logs: root.path().join("logs"),
            userdata: root.path().join("userdata"),
            dumps: root.path().join("dumps"),
        };
        let news = Arc::default();
        let events = Arc::default();
        let process = world.host("agent");
        let reflexes = Reflexes::default();
        let seams = seams(&world, &process, &reflexes);
        let agent = agent(&yard, &process, seams, &dirs, &news, &events);
        Self {
            reflexes,
            world,
            yard,
            dirs,
            agent,
            process,
            machines: BTreeMap::new(),
            troubles: Vec::new(),
            news,
            events,
            watched: false,
            late: Duration::ZERO,
            root,
        }
    }

    /// A file of this host.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A disk image of this many KiB.
    pub fn image(&self, name: &str, kib: u64) -> PathBuf {
        let path = self.file(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(kib * 1024).unwrap();
        path
    }

    /// A configuration of a small guest, with more lines of xl.cfg.
    pub fn config(&self, kind: &str, name: &str, lines: &str) -> DomainConfig {
        let kernel = files().kernel.display();
        let text =
            format!("name=\"{name}\"\ntype=\"{kind}\"\nkernel=\"{kernel}\"\nmemory=16\n{lines}\n");
        let mut hash = DefaultHasher::new();
        name.hash(&mut hash);
        let uuid = Uuid::from_u64_pair(0x5eed, hash.finish());
        let ambient = Ambient::new("test.cfg", uuid, 4);
        match load(text.as_bytes(), &[], &ambient) {
            Ok(loaded) => loaded.config,
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    /// As [`Host::config`], with one disk and one interface.
    pub fn equipped(&self, kind: &str, name: &str, lines: &str) -> DomainConfig {
        let image = self.image(&format!("{name}.img"), 64);
        let devices = format!(
            "disk=['{},raw,xvda,rw']\nvif=['mac=00:16:3e:00:00:01,bridge=xenbr0']\n{lines}",
            image.display()
        );
        self.config(kind, name, &devices)
    }

    pub fn create(&self, config: DomainConfig) -> Result<DomId, AgentError> {
        self.agent.create(config, CreateOptions::default())
    }

    /// Creates a guest and lets everything settle: it runs and uses its devices.
    pub fn start(&mut self, config: DomainConfig) -> DomId {
        let domid = self.create(config).unwrap();
        self.settle();
        assert!(self.machines[&domid].is_connected());
        domid
    }

    pub fn machine(&mut self, domid: DomId) -> &mut Machine {
        self.machines.get_mut(&domid).unwrap()
    }

    /// The agent's guests.
    pub fn guests(&self) -> Vec<SharedGuest> {
        let uuids = self.agent.guests().into_iter().map(|guest| guest.uuid);
        uuids
            .filter_map(|uuid| self.agent.by_uuid(Uuid::from_bytes(uuid.0)))
            .collect()
    }

    pub fn uuid(&self, domid: DomId) -> Uuid {
        let shared = self.agent.by_domid(domid).unwrap();
        dom0_agent::agent::lock(&shared).record.key
    }

    /// Events since the last call.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    /// From now on this guest answers at once when it is asked to suspend.
    pub fn reflex(&self, domid: DomId, reflex: Reflex) {
        self.reflexes.lock().unwrap().insert(domid, reflex);
    }

    /// A monitor comes or goes.
    pub fn watch(&mut self, there: bool) {
        match (std::mem::replace(&mut self.watched, there), there) {
            (false, true) => self.agent.listener_came(),
            (true, false) => self.agent.listener_left(),
            _ => {}
        }
    }

    /// It is later.
    pub fn pass(&mut self, time: Duration) {
        self.late += time;
        self.world.advance(time);
    }

    // ---- everybody acts ----

    /// What the daemon would do now: news, devices, domains that stopped. What fails is tried again the next time.
    pub fn tend(&mut self) {
        self.yard.pass_on_faults();
        let news = std::mem::take(&mut *self.news.lock().unwrap());
        for item in news {
            if let Err(error) = self.heed(&item) {
                self.troubles.push(error.to_string());
                self.news.lock().unwrap().push_back(item);
            }
        }
        for shared in self.guests() {
            if let Err(error) = self.agent.settle(&shared) {
                self.troubles.push(error.to_string());
            }
        }
        if let Err(error) = self.agent.reap_at(Instant::now() + self.late) {
            self.troubles.push(error.to_string());
        }
    }

    /// The daemon acts until something has happened; false when `most` was not enough.
    pub fn tend_until(&mut self, most: Duration, mut ready: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + most;
        loop {
            if ready(self) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.tend();
            // Told or not, the next turn looks.
            let _ = self
                .world
                .wait_until(TURN, || !self.news.lock().unwrap().is_empty());
        }
    }

    fn heed(&self, item: &News) -> Result<(), AgentError> {
        match item {
            News::Started { .. } => Ok(()),
            News::Shells => {
                self.agent.refill_at(Instant::now() + self.late);
                Ok(())
            }
            News::Dump { uuid } => {
                if let Some(shared) = self.agent.by_key(*uuid) {
                    self.agent.make_dump(&shared);
                }
                Ok(())
            }
            News::Driver(DriverNews::Died { uuid, pid }) => {
                self.agent.shell_driver_died(*uuid);
                self.agent
                    .by_key(*uuid)
                    .map_or(Ok(()), |shared| self.agent.driver_died(&shared, *pid))
            }
            News::Driver(DriverNews::Fault { uuid, fault }) => self
                .agent
                .by_key(*uuid)
                .map_or(Ok(()), |shared| self.agent.device_fault(&shared, fault)),
        }
    }

    /// Guests act once; new ones boot, old ones are forgotten.
    pub fn step_guests(&mut self) {
        let world = self.world.clone();
        let domains = world.domains();
        self.machines.retain(|domid, _| domains.contains(domid));
        for domid in domains.into_iter().filter(|domid| *domid != DomId::DOM0) {
            if !self.machines.contains_key(&domid) && Machine::runs(&world, domid) {
                self.machines.insert(domid, Machine::boot(&world, domid));
            }
        }
        for machine in self.machines.values_mut() {
            machine.step(&world);
        }
    }

    /// Agent and guests act in turn until nothing changes any more.
    pub fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let before = self.fingerprint();
            self.tend();
            self.step_guests();
            if self.fingerprint() == before && self.news.lock().unwrap().is_empty() {
                return;
            }
        }
        panic!("this host never comes to rest");
    }

    fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for path in self.world.xs_tree("/") {
            self.world.xs_read(&path).hash(&mut hash);
            path.hash(&mut hash);
        }
        for domid in self.world.domains() {
            format!("{:?}", self.world.domain(domid)).hash(&mut hash);
        }
        self.machines.keys().for_each(|domid| domid.hash(&mut hash));
        hash.finish()
    }

    // ---- death ----

    /// From now on the agent's crash ends what it does at that very call.
    pub fn mortal_agent(&self) {
        self.world.crash_by_unwinding(&self.process);
    }

    /// Lets somebody use the agent; `None` when it died meanwhile.
    pub fn unless_it_dies<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Crashed>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// `kill -9` of the agent (unless it is dead already), and its successor, which has recovered what there was.
    pub fn next_agent(&mut self) {
        self.next_agent_raw();
        self.agent.recover().unwrap();
    }

    /// As [`Host::next_agent`], before it recovers.
    pub fn next_agent_raw(&mut self) {
        self.world.kill(&self.process);
        self.yard.disconnect_all();
        self.news.lock().unwrap().clear();
        self.process = self.world.host("agent");
        self.agent = agent(
            &self.yard,
            &self.process,
            seams(&self.world, &self.process, &self.reflexes),
            &self.dirs,
            &self.news,
            &self.events,
        );
        self.watched = false;
    }

    // ---- the end ----

    /// Nothing is left: not in Xen, not in xenstore, not on disk.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.world.ledger().assert_empty();
        assert_eq!(self.left_files(), Vec::<PathBuf>::new());
        assert_eq!(self.agent.guests(), []);
    }

    /// Files that belong to some guest, logs aside.
    pub fn left_files(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for root in [&self.dirs.state, &self.dirs.run, &self.dirs.userdata] {
            collect(root, &mut left);
        }
        // The directory of all records and that of all journals stay.
        left.retain(|path| !path.ends_with("state/guests") && !path.ends_with("run/journals"));
        left
    }
}

fn collect(root: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        }
        into.push(path);
    }
}

fn seams(world: &World, process: &SimHost, reflexes: &Reflexes) -> Seams {
    let store = ReflexStore {
        inner: process.clone(),
        world: world.clone(),
        reflexes: Arc::clone(reflexes),
    };
    Seams {
        xen: Arc::new(process.clone()),
        store: Arc::new(store),
    }
}

fn agent(
    yard: &Arc<Yard>,
    process: &SimHost,
    seams: Seams,
    dirs: &Dirs,
    news: &Arc<Mutex<VecDeque<News>>>,
    events: &Arc<Mutex<Vec<Event>>>,
) -> Arc<Agent> {
    let drivers = SimDrivers {
        yard: Arc::clone(yard),
        agent: process.clone(),
    };
    let links = SimLinks {
        yard: Arc::clone(yard),
        agent: process.clone(),
    };
    let (news, events) = (Arc::clone(news), Arc::clone(events));
    let outlets = Outlets {
        news: Arc::new(move |item| news.lock().unwrap().push_back(item)),
        events: Arc::new(move |event| events.lock().unwrap().push(event)),
    };
    let agent = Agent::new(
        seams,
        dirs.clone(),
        files().kernel_cache(),
        Arc::new(drivers),
        Arc::new(links),
        outlets,
    );
    Arc::new(agent.unwrap())
}
