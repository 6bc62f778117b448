//! Death between any two stores: a guest that writes, reads back and flushes on a seeded schedule, and backends that are killed at every
//! possible step. Each request is answered exactly once, with the right data, whoever answers it.

use super::front::{Front, settle};
use super::queue::BlkQueue;
use super::request::Geometry;
use crate::disk::memory::{Medium, MemoryDisk};
use crate::disk::{Disk, Done, Step};
use crate::fuse::{Dead, light};
use crate::limits::{BLK_BUFFER_PAGES, BLK_POISON_STARTS};
use nix::errno::Errno;
use parapet_wire::driver::Protocol;
use std::collections::HashMap;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::{self, Segment};
use xen_host::region::SharedRegion;

const BLOCKS: u64 = 24;
const DISK: Geometry = Geometry {
    sectors: BLOCKS * 8,
    sector_size: 512,
    read_only: false,
    discard: false,
};

/// Chance from a seed, the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Write { block: u64, stamp: u8 },
    Read { block: u64, page: GrantRef },
    Flush,
}

struct Guest {
    front: Front,
    dice: Dice,
    medium: Medium,
    /// What each block holds as far as the guest was told.
    told: Vec<u8>,
    doing: HashMap<u64, Doing>,
    pages: Vec<GrantRef>,
    descriptors: Vec<GrantRef>,
    left: u32,
}

impl Guest {
    fn new(seed: u64, requests: u32) -> Self {
        let protocol = if seed.is_multiple_of(2) {
            Protocol::X86_64
        } else {
            Protocol::X86_32
        };
        let front = Front::new(protocol, seed.is_multiple_of(3), 1);
        let pages = (0..BLOCKS).map(|_| front.memory.page()).collect();
        let descriptors = (0..BLOCKS).map(|_| front.memory.page()).collect();
        let medium = Medium::new(usize::try_from(BLOCKS).unwrap() * 4096);
        let told = vec![0; usize::try_from(BLOCKS).unwrap()];
        Self {
            front,
            dice: Dice(seed),
            medium,
            told,
            doing: HashMap::new(),
            pages,
            descriptors,
            left: requests,
        }
    }

    fn is_idle(&self, block: u64) -> bool {
        !self.doing.values().any(|doing| match doing {
            Doing::Write { block: other, .. } | Doing::Read { block: other, .. } => *other == block,
            Doing::Flush => false,
        })
    }

    /// Perhaps one more request: never two on one block, whose order would be nobody's.
    fn act(&mut self) {
        if self.left == 0 || !self.front.has_room() || self.dice.roll(3) == 0 {
            return;
        }
        let block = self.dice.roll(BLOCKS);
        if !self.is_idle(block) {
            return;
        }
        self.left -= 1;
        let page = self.pages[usize::try_from(block).unwrap()];
        let descriptors = self.descriptors[usize::try_from(block).unwrap()];
        let halves = [
            Segment {
                gref: page,
                first: 0,
                last: 3,
            },
            Segment {
                gref: page,
                first: 4,
                last: 7,
            },
        ];
        let (operation, doing) = match self.dice.roll(8) {
            0 => (blkif::OP_FLUSH_DISKCACHE, Doing::Flush),
            1..4 => (blkif::OP_READ, Doing::Read { block, page }),
            _ => {
                let stamp = u8::try_from(self.dice.roll(255)).unwrap() + 1;
                self.front.memory.write(page, 0, &[stamp; 4096]);
                (blkif::OP_WRITE, Doing::Write { block, stamp })
            }
        };
        let id = match doing {
            Doing::Flush => self.front.direct(operation, 0, &[]),
            _ if self.dice.roll(2) == 0 => self.front.direct(operation, block * 8, &halves),
            _ => self
                .front
                .indirect(operation, block * 8, &halves, &[descriptors]),
        };
        self.doing.insert(id, doing);
    }

    fn check_answers(&mut self) {
        for answer in self.front.answers() {
            assert_eq!(answer.status, 0, "{answer:?}");
            match self
                .doing
                .remove(&answer.id)
                .expect("an answer to a request that was made")
            {
                Doing::Write { block, stamp } => self.told[usize::try_from(block).unwrap()] = stamp,
                Doing::Read { block, page } => {
                    let stamp = self.told[usize::try_from(block).unwrap()];
                    assert_eq!(
                        self.front.memory.read(page, 0, 4096),
                        [stamp; 4096],
                        "block {block}"
                    );
                }
                Doing::Flush => {}
            }
        }
    }

    fn backend(&mut self, resume: bool) -> BlkQueue<MemoryDisk> {
        let seed = self.dice.roll(1 << 20) + 1;
        let disk = MemoryDisk::open(&self.medium, BLK_BUFFER_PAGES, seed).unwrap();
        self.front.backend(disk, DISK, resume)
    }

    fn is_done(&self) -> bool {
        self.left == 0 && self.doing.is_empty()
    }

    /// Runs until everything is answered; answers are looked at after each pass.
    fn run(&mut self, queue: &mut BlkQueue<MemoryDisk>) {
        for _ in 0..100_000 {
            if self.is_done() {
                return;
            }
            self.act();
            self.act();
            queue.pass().unwrap();
            self.check_answers();
        }
        panic!("stuck: {:?}, {} waiting", self.doing, self.front.waiting());
    }

    /// Lives through drivers that die after so many stores each.
    fn survive(&mut self, lives: &mut dyn FnMut(&mut Dice) -> Option<u64>) -> u32 {
        let mut deaths = 0;
        loop {
            let fuse = lives(&mut self.dice).unwrap_or(u64::MAX);
            let result = light(fuse, || {
                let mut queue = self.backend(true);
                self.run(&mut queue);
            });
            // Dropping the dead driver's disk let its I/O end: what the lock on the medium waits for.
            if result.is_ok() {
                return deaths;
            }
            deaths += 1;
            self.check_answers();
        }
    }
}

/// The first driver is made before the fuse is lit: a death before there is a journal is another test.
#[test]
fn death_at_every_single_step_loses_nothing() {
    let mut steps = 0;
    for fuse in 0.. {
        let mut guest = Guest::new(5, 12);
        let mut lives = vec![None, Some(fuse)];
        drop(guest.backend(false));
        let deaths = guest.survive(&mut |_| lives.pop().flatten());
        if deaths == 0 {
            steps = fuse;
            break;
        }
    }
    assert!(steps > 100, "only {steps} steps: is the fuse lit?");
}

/// Fewer deaths than make a request suspicious of poison, in many schedules.
#[test]
fn many_deaths_on_many_seeds_lose_nothing() {
    let mut deaths = 0;
    for seed in 1..100 {
        let mut guest = Guest::new(seed, 40);
        drop(guest.backend(false));
        let mut left = BLK_POISON_STARTS;
        deaths += guest.survive(&mut |dice| {
            left -= 1;
            (left > 0).then(|| dice.roll(150) + 10)
        });
    }
    assert!(deaths > 300, "{deaths}");
}

/// A medium whose driver dies of one certain write.
#[derive(Debug)]
struct DeadlyDisk(MemoryDisk);

const DEADLY: u64 = 3 * 4096;

impl Disk for DeadlyDisk {
    fn buffer(&self) -> &SharedRegion {
        self.0.buffer()
    }
    fn submit(&mut self, token: u32, step: Step, at: usize) -> Result<(), Errno> {
        if matches!(step, Step::Write { offset: DEADLY, .. }) {
            std::panic::panic_any(Dead);
        }
        self.0.submit(token, step, at)
    }
    fn start(&mut self) -> Result<(), Errno> {
        self.0.start()
    }
    fn reap(&mut self, into: &mut Vec<Done>) -> Result<(), Errno> {
        self.0.reap(into)
    }
}

#[test]
fn a_request_that_kills_every_driver_is_refused_and_its_companions_are_not() {
    let (mut front, medium) = (Front::new(Protocol::X86_64, false, 1), Medium::new(1 << 20));
    let page = front.memory.page();
    let segment = Segment {
        gref: page,
        first: 0,
        last: 7,
    };
    let open = || DeadlyDisk(MemoryDisk::open(&medium, BLK_BUFFER_PAGES, 0).unwrap());
    drop(front.backend(open(), DISK, false));
    let ids: Vec<_> = (0..6)
        .map(|block| front.direct(blkif::OP_WRITE, block * 8, &[segment]))
        .collect();
    let mut deaths = 0;
    while light(u64::MAX, || settle(&mut front.backend(open(), DISK, true))).is_err() {
        deaths += 1;
        assert!(deaths <= BLK_POISON_STARTS);
    }
    assert_eq!(deaths, BLK_POISON_STARTS);
    let mut answers: Vec<_> = front
        .answers()
        .iter()
        .map(|answer| (answer.id, answer.status))
        .collect();
    answers.sort_unstable();
    let expected: Vec<_> = ids
        .iter()
        .map(|id| (*id, if *id == ids[3] { -1 } else { 0 }))
        .collect();
    assert_eq!(answers, expected);
}
