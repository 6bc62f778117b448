//! Guests that are moved with their disks, to a host that has none of them: whatever breaks, one guest runs in the end, on a disk with all that it was
//! promised, and nothing of a copy is left where it did not arrive.

use crate::migrate::{options, settle_on_one};
use crate::support::faults::explain;
use crate::support::line::{Cut, Ear, Pair, Went, travel, travel_to};
use crate::support::reflex::Reflex;
use crate::support::{Host, Machine, Setup};
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::landing::LandingOptions;
use dom0_agent::agent::lock;
use dom0_agent::agent::luggage::LuggageOptions;
use dom0_agent::agent::migrate::{MoveError, MoveOptions};
use dom0_agent::agent::receive::ArrivalOptions;
use dom0_agent::config::domain::DomainConfig;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::frontend::blk::{BlkRequest, RequestId};
use xen_sim::rng::Rng;
use xen_sim::{FaultKind, Filter, exhaust};

const GUEST: DomId = DomId(1);
const DISK: u32 = 51712;
/// More extents than a word of the map has bits.
const KIB: u64 = 70 * 64 + 1;
const NAMES: [&str; 2] = ["root.img", "tools.img"];

fn with_disks() -> MoveOptions {
    let disks = LuggageOptions {
        pause: || {},
        ..LuggageOptions::default()
    };
    MoveOptions {
        disks: Some(disks),
        ..options()
    }
}

/// A guest with a disk that it writes to and one that it reads, and a host that has neither.
fn pair(real_drivers: bool) -> Pair {
    let setup = Setup {
        real_drivers,
        ..Setup::default()
    };
    let (mut here, there) = (Host::with(setup), Host::with(setup));
    let mut rng = Rng::seeded(11);
    for name in NAMES {
        let image = here.image(name, KIB);
        let file = OpenOptions::new().write(true).open(image).unwrap();
        for extent in [0, 1, 30, 69] {
            file.write_all_at(&rng.bytes(65536), extent << 16).unwrap();
        }
    }
    let [root, tools] = NAMES.map(|name| here.file(name).display().to_string());
    let lines = format!(
        "disk=['{root},raw,xvda,rw','{tools},raw,xvdb,r']\nvif=['mac=00:16:3e:00:00:01,bridge=xenbr0']"
    );
    let config = here.config("pvh", "web1", &lines);
    here.start(config);
    here.reflex(GUEST, Reflex::Suspend);
    Pair { here, there }
}

/// The guest's configuration, with the other host's paths.
fn config_there(pair: &Pair) -> DomainConfig {
    let shared = pair.here.agent.by_domid(GUEST).unwrap();
    let mut config = lock(&shared).record.config.clone();
    for (disk, name) in config.disks.iter_mut().zip(NAMES) {
        disk.target = Some(pair.there.file(name).display().to_string());
    }
    config
}

fn go(pair: &Pair, cut: Cut, ear: &Ear<'_>) -> Went {
    let config = config_there(pair);
    let (from, to) = (&pair.here.agent, &pair.there.agent);
    travel(from, to, GUEST, config, &with_disks(), cut, ear)
}

fn simply(pair: &Pair, cut: Cut) -> Went {
    go(pair, cut, &Ear::with(&|_| {}))
}

fn bytes(host: &Host, name: &str) -> Vec<u8> {
    std::fs::read(host.file(name)).unwrap()
}

/// Images at a host, whole or not.
fn images(host: &Host) -> Vec<PathBuf> {
    let root = host.file("");
    let entries = std::fs::read_dir(root).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains(".img"))
        .collect()
}

/// One guest in the end; where it arrived its disks are those that it had, and where it did not nothing is left of them.
#[track_caller]
fn settle_with_disks(pair: &mut Pair, before: &[Vec<u8>]) -> bool {
    // Nobody writes from here on.
    let arrived = settle_on_one(pair);
    for (name, before) in NAMES.iter().zip(before) {
        assert!(bytes(&pair.here, name) == *before, "{name} here");
        if arrived {
            assert!(bytes(&pair.there, name) == *before, "{name} there");
        }
    }
    if !arrived {
        assert_eq!(images(&pair.there), Vec::<PathBuf>::new());
    }
    arrived
}

fn contents(pair: &Pair) -> Vec<Vec<u8>> {
    NAMES.map(|name| bytes(&pair.here, name)).to_vec()
}

#[test]
fn a_guest_arrives_with_its_disks() {
    let mut pair = pair(false);
    let before = contents(&pair);
    let ear = Ear::with(&|_| {});
    let went = go(&pair, Cut::NEVER, &ear);
    went.left.unwrap().unwrap();
    went.arrived.unwrap().unwrap();
    let lines = ear.lines.into_inner().unwrap().join("\n");
    assert!(lines.contains("disk xvda, round 1: 0.2 MiB in"), "{lines}");
    assert!(lines.contains("root.img stays here"), "{lines}");
    assert!(settle_with_disks(&mut pair, &before));
}

// ---- a guest that works ----

/// The guest's block driver at work: what it wrote, and what it was told is written.
struct Work {
    machine: Machine,
    rng: Rng,
    asked: BTreeMap<RequestId, (u64, Vec<u8>)>,
    promised: Vec<u8>,
    /// Bytes of which nothing was promised: a write over them was not answered.
    open: Vec<bool>,
    answered: usize,
}

impl Work {
    fn act(&mut self) {
        let front = self.machine.disks.get_mut(&DISK).unwrap();
        for answer in front.answers() {
            assert_eq!(answer.status, 0);
            if let Some((sector, data)) = self.asked.remove(&answer.id) {
                let at = usize::try_from(sector * 512).unwrap();
                self.promised[at..at + data.len()].copy_from_slice(&data);
                self.answered += 1;
            }
        }
        // One at a time for each place: an order among several is nobody's promise.
        let sector = self.rng.below(KIB * 2 / 128) * 128;
        let busy = self.asked.values().any(|(other, _)| *other == sector);
        if front.has_room(0) && !busy && sector + 128 <= KIB * 2 {
            let data = self.rng.bytes(8192);
            let request = BlkRequest::Write {
                sector,
                data: data.clone(),
            };
            let id = front.submit(&request);
            self.asked.insert(id, (sector, data));
        }
    }

    fn end(&mut self) {
        for (sector, data) in self.asked.values() {
            let at = usize::try_from(sector * 512).unwrap();
            self.open[at..at + data.len()].fill(true);
        }
    }
}

/// Moves a guest that writes whenever the agent asks whether the move is still wanted, which it does at each record of a disk.
fn move_at_work(seed: u64, upset: bool) {
    let mut pair = pair(true);
    let machine = pair.here.machines.remove(&GUEST).unwrap();
    let size = usize::try_from(KIB << 10).unwrap();
    let work = Mutex::new(Work {
        machine,
        rng: Rng::seeded(seed),
        asked: BTreeMap::new(),
        promised: bytes(&pair.here, NAMES[0]),
        open: vec![false; size],
        answered: 0,
    });
    let world = pair.here.world.clone();
    let wanted = || {
        if Machine::runs(&world, GUEST) {
            work.lock().unwrap().act();
        }
        true
    };
    let turns = Mutex::new(0);
    let hook = |line: &str| {
        if line.contains("disk xvda, round") {
            *turns.lock().unwrap() += 1;
        }
        // The driver dies between the last round of the disk and the first of memory: nobody replaces it in time.
        if upset && line.contains("round 1: ") && line.contains("xvda") {
            pair.here.yard.kill_any_driver();
        }
    };
    let ear = Ear {
        wanted: &wanted,
        ..Ear::with(&hook)
    };
    let went = go(&pair, Cut::NEVER, &ear);
    let mut work = work.into_inner().unwrap();
    work.end();
    if upset {
        let error = went.left.unwrap().unwrap_err().to_string();
        assert!(error.contains("driver of domain"), "{error}");
        drop(went.arrived);
        pair.here.machines.insert(GUEST, work.machine);
        assert!(!settle_on_one(&mut pair));
        assert_eq!(images(&pair.there), Vec::<PathBuf>::new());
        return;
    }
    went.left.unwrap().unwrap();
    went.arrived.unwrap().unwrap();
    assert!(work.answered > 20, "only {} writes", work.answered);
    assert!(turns.into_inner().unwrap() > 1);
    let (ours, theirs) = (bytes(&pair.here, NAMES[0]), bytes(&pair.there, NAMES[0]));
    assert!(ours == theirs, "the images differ");
    for (at, byte) in theirs.iter().enumerate().filter(|(at, _)| !work.open[*at]) {
        assert_eq!(*byte, work.promised[at], "byte {at}, seed {seed}");
    }
    drop(work);
    assert!(settle_on_one(&mut pair));
}

#[test]
fn what_a_guest_was_promised_while_its_disks_went_is_on_the_disk_that_arrives() {
    for seed in 1..=6 {
        move_at_work(seed, false);
    }
}

#[test]
fn a_driver_that_dies_while_disks_go_and_is_not_replaced_ends_the_move_and_not_the_guest() {
    move_at_work(7, true);
}

// ---- what is there already ----

#[test]
fn what_is_there_is_kept_or_refused_and_replaced_only_when_that_was_asked_for() {
    // A medium that is only read, of the same size.
    let mut both = pair(false);
    let before = contents(&both);
    std::fs::write(both.there.file(NAMES[1]), vec![7; before[1].len()]).unwrap();
    let ear = Ear::with(&|_| {});
    go(&both, Cut::NEVER, &ear).left.unwrap().unwrap();
    let lines = ear.lines.into_inner().unwrap().join("\n");
    assert!(
        lines.contains("disk xvdb: the other side has it"),
        "{lines}"
    );
    assert!(bytes(&both.there, NAMES[0]) == before[0]);
    assert_eq!(bytes(&both.there, NAMES[1])[0], 7);
    assert!(settle_on_one(&mut both));
    // A disk that somebody has put something on.
    let mut both = pair(false);
    std::fs::write(both.there.file(NAMES[0]), b"mine").unwrap();
    let error = simply(&both, Cut::NEVER).left.unwrap().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("root.img: is there and not empty"), "{text}");
    assert_eq!(bytes(&both.there, NAMES[0]), b"mine");
    assert_eq!(images(&both.there).len(), 1);
    // Unless it may go, and even then it is there again if the guest does not come.
    both.there.yard.refuse("ConnectConsole", "not today");
    let arrival = ArrivalOptions {
        disks: Some(LandingOptions { replace: true }),
        ..ArrivalOptions::default()
    };
    let (from, to) = (&both.here.agent, &both.there.agent);
    let config = config_there(&both);
    let (chosen, ear) = (with_disks(), Ear::with(&|_| {}));
    let again = || {
        let guest = (GUEST, config.clone());
        travel_to(from, to, guest, &chosen, arrival, Cut::NEVER, &ear)
    };
    again().left.unwrap().unwrap_err();
    assert_eq!(bytes(&both.there, NAMES[0]), b"mine");
    assert_eq!(images(&both.there).len(), 1);
    both.there.yard.refuse_nothing();
    let went = again();
    went.left.unwrap().unwrap();
    assert!(settle_with_disks(&mut both, &before));
}

#[test]
fn two_ends_that_do_not_agree_about_disks_leave_the_guest_where_it_is() {
    let disagree = |prepare: &dyn Fn(&mut DomainConfig, &mut ArrivalOptions), words: &str| {
        let mut both = pair(false);
        let mut config = config_there(&both);
        let mut arrival = ArrivalOptions {
            disks: Some(LandingOptions::default()),
            ..ArrivalOptions::default()
        };
        prepare(&mut config, &mut arrival);
        let (from, to) = (&both.here.agent, &both.there.agent);
        let ear = Ear::with(&|_| {});
        let guest = (GUEST, config);
        let went = travel_to(from, to, guest, &with_disks(), arrival, Cut::NEVER, &ear);
        let texts = [
            went.left.unwrap().unwrap_err().to_string(),
            went.arrived.unwrap().unwrap_err().to_string(),
        ];
        assert!(texts.iter().any(|text| text.contains(words)), "{texts:?}");
        assert!(!settle_on_one(&mut both));
        assert_eq!(images(&both.there), Vec::<PathBuf>::new());
    };
    disagree(&|config, _| drop(config.disks.pop()), "is in no line");
    disagree(
        &|config, _| config.disks[1].writable = true,
        "writable on one side only",
    );
    // A receiver that was not told, as stock's: to it the offer is a stream that is none, or a disk that does not exist.
    disagree(&|_, arrival| arrival.disks = None, "does not exist");
}

// ---- what breaks ----

fn broken(pair: &mut Pair, went: Went, before: &[Vec<u8>]) -> bool {
    let arrived = settle_with_disks(pair, before);
    match went.left {
        Some(Ok(_)) => assert!(arrived),
        Some(Err(AgentError::Move(MoveError::Unknown { .. }))) | None => {}
        Some(Err(_)) => assert!(!arrived),
    }
    arrived
}

#[test]
fn a_line_that_breaks_or_goes_silent_anywhere_leaves_one_guest_and_no_half_disk() {
    let whole = pair(false);
    let (forth, back) = simply(&whole, Cut::NEVER).bytes;
    drop(whole);
    // Offers, the first disk, the second, the guest's stream, the last rounds, the words at the end.
    let forths = [
        0,
        10,
        60,
        100,
        150,
        70_000,
        262_700,
        300_000,
        600_000,
        forth / 2,
    ];
    let tails = [900, 400, 250, 200, 150, 100, 60, 44, 43, 1].map(|left| forth - left);
    let backs = [
        0,
        1,
        36,
        37,
        60,
        70,
        back - 75,
        back - 74,
        back - 60,
        back - 40,
        back - 1,
    ];
    let cuts = forths.into_iter().chain(tails).map(|at| (at, u64::MAX));
    for (forth, back) in cuts.chain(backs.map(|at| (u64::MAX, at))) {
        let mut pair = pair(false);
        let before = contents(&pair);
        let cut = Cut {
            forth,
            back,
            ..Cut::NEVER
        };
        let went = simply(&pair, cut);
        explain(&format!("{cut:?}"), || {
            broken(&mut pair, went, &before);
        });
    }
    for at in [0, 30, 200, 300_000, forth - 300] {
        let mut pair = pair(false);
        let before = contents(&pair);
        let cut = Cut {
            forth: at,
            silent: Some(Duration::from_millis(500)),
            ..Cut::NEVER
        };
        let went = simply(&pair, cut);
        explain(&format!("{cut:?}"), || {
            let why = went.arrived.as_ref().unwrap().as_ref().unwrap_err();
            assert!(why.to_string().contains("did not move for"), "{why}");
            assert!(!broken(&mut pair, went, &before));
        });
    }
}

fn with_each_fault(side: fn(&mut Pair) -> &mut Host, kind: FaultKind, ops: &[&'static str]) {
    let deadly = kind != FaultKind::Fail(nix::errno::Errno::EIO);
    exhaust(kind, &Filter::process("agent").ops(ops), |fault| {
        let mut pair = pair(false);
        let before = contents(&pair);
        let place = format!("{kind:?} at {}", fault.at);
        if deadly {
            side(&mut pair).mortal_agent();
        }
        side(&mut pair).world.inject(fault);
        let went = simply(&pair, Cut::NEVER);
        side(&mut pair).world.clear_faults();
        explain(&place, || {
            if went.left.is_none() {
                pair.here.next_agent();
            }
            if went.arrived.is_none() {
                pair.there.next_agent();
            }
            broken(&mut pair, went, &before);
        });
        side(&mut pair).world.clone()
    });
}

/// The calls between which disks are copied.
const DRIVER_CALLS: [&str; 4] = [
    "driver.start",
    "driver.order",
    "driver.answer",
    "driver.gone",
];

#[test]
fn a_driver_that_does_not_obey_where_it_leaves_costs_nobody_a_guest_or_a_disk() {
    let failure = FaultKind::Fail(nix::errno::Errno::EIO);
    with_each_fault(|pair| &mut pair.here, failure, &DRIVER_CALLS);
}

#[test]
fn an_agent_that_dies_where_disks_leave_costs_nobody_a_guest_or_a_disk() {
    with_each_fault(|pair| &mut pair.here, FaultKind::Crash, &DRIVER_CALLS);
}

#[test]
fn an_agent_that_dies_where_disks_arrive_costs_nobody_a_guest_or_a_disk() {
    let calls = ["driver.order", "xs.call", "unpausedomain"];
    with_each_fault(|pair| &mut pair.there, FaultKind::Crash, &calls);
}

#[test]
fn a_host_where_disks_arrive_that_fails_a_call_costs_nobody_a_guest_or_a_disk() {
    let failure = FaultKind::Fail(nix::errno::Errno::EIO);
    let calls = ["driver.order", "xs.call", "unpausedomain"];
    with_each_fault(|pair| &mut pair.there, failure, &calls);
}

#[test]
fn no_memory_is_set_aside_while_disks_come() {
    let both = pair(false);
    let free = both.there.world.free_pages();
    let hook = |line: &str| {
        if line.contains("disk xvda, round 1") {
            assert_eq!(both.there.world.free_pages(), free);
        }
    };
    let ear = Ear::with(&hook);
    go(&both, Cut::NEVER, &ear).left.unwrap().unwrap();
}
