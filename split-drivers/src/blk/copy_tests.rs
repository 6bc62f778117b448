//! A disk is copied while its guest writes and its drivers die: whatever the moment, the copy ends as the disk does.
//!
//! The copier is as simple as can be: everything once, then again whatever was noted, in any order and at any time. Completions come in
//! an order that only the seed knows, so notes are taken between a write's start and its end as often as not. Broken trackers prove that the test can fail.

use super::dirty::{Broken, DirtyMap, tests as maps};
use super::front::Front;
use super::queue::BlkQueue;
use super::request::Geometry;
use crate::disk::memory::{Medium, MemoryDisk};
use crate::fuse::{Dead, light};
use crate::limits::BLK_POISON_STARTS;
use parapet_wire::dirty::EXTENT_BYTES;
use parapet_wire::driver::Protocol;
use std::sync::Arc;
use xen_abi::ids::GrantRef;
use xen_abi::io::blkif::{self, Segment};
use xen_host::memfd::MemFd;

const EXTENTS: u64 = 70; // More than a word of the map.
const BYTES: u64 = EXTENTS * EXTENT_BYTES - 4096; // The last one is shorter.
const DISK: Geometry = Geometry {
    sectors: BYTES / 512,
    sector_size: 512,
    read_only: false,
    discard: true,
};
/// Pages of the largest write: it touches two extents or three.
const MOST_PAGES: u8 = 24;

/// Pages of a backend's buffer: the largest write twice, so that some wait.
const BUFFER_PAGES: usize = 2 * MOST_PAGES as usize;

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

/// A guest at work and whoever copies its disk, both of whom outlive drivers.
struct Scene {
    front: Front,
    dice: Dice,
    medium: Medium,
    pages: Vec<GrantRef>,
    left: u32,
    memory: MemFd,
    broken: Broken,
    /// The order to track was answered.
    tracked: bool,
    todo: Vec<u64>,
    copy: Vec<u8>,
    deaths: u32,
}

impl Scene {
    fn new(seed: u64, requests: u32, broken: Broken) -> Self {
        let front = Front::new(Protocol::X86_64, seed.is_multiple_of(3), 1);
        let pages = (0..=MOST_PAGES).map(|_| front.memory.page()).collect();
        let bytes = usize::try_from(BYTES).unwrap();
        Self {
            front,
            dice: Dice(seed),
            medium: Medium::new(bytes),
            pages,
            left: requests,
            memory: maps::agents_map(BYTES),
            broken,
            tracked: false,
            todo: Vec::new(),
            copy: vec![0xee; bytes],
            deaths: 0,
        }
    }

    fn map(&self) -> Arc<DirtyMap> {
        let mut map = maps::adopt(&self.memory, BYTES);
        map.broken = self.broken;
        Arc::new(map)
    }

    fn backend(&mut self, resume: bool) -> BlkQueue<MemoryDisk> {
        // A successor gets the map before its rings.
        if self.front.tracking.is_some() {
            self.front.tracking = Some(self.map());
        }
        let seed = self.dice.roll(1 << 20) + 1;
        let disk = MemoryDisk::open(&self.medium, BUFFER_PAGES, seed).unwrap();
        self.front.backend(disk, DISK, resume)
    }

    /// Perhaps one more write or discard, anywhere, of any size, over others in flight as well.
    fn guest(&mut self) {
        if self.left == 0 || !self.front.has_room() || self.dice.roll(3) == 0 {
            return;
        }
        self.left -= 1;
        let pages = 1 + self.dice.roll(MOST_PAGES.into());
        let block = self.dice.roll(BYTES / 4096 - pages);
        if self.dice.roll(4) == 0 {
            self.front.discard(block * 8, pages * 8);
            return;
        }
        let stamp = u8::try_from(self.dice.roll(255)).unwrap() + 1;
        let segments: Vec<Segment> = self.pages[1..=usize::try_from(pages).unwrap()]
            .iter()
            .map(|gref| {
                self.front.memory.write(*gref, 0, &[stamp; 4096]);
                Segment {
                    gref: *gref,
                    first: 0,
                    last: 7,
                }
            })
            .collect();
        self.front
            .indirect(blkif::OP_WRITE, block * 8, &segments, &self.pages[..1]);
    }

    /// Perhaps one step of the copy: begin, take notes, or read an extent.
    fn copier(&mut self, queue: &mut BlkQueue<MemoryDisk>) {
        match self.dice.roll(6) {
            0 if !self.tracked => self.begin(queue),
            0 => self.take(queue),
            1..4 => self.read_one(),
            _ => {}
        }
    }

    fn begin(&mut self, queue: &mut BlkQueue<MemoryDisk>) {
        let map = self.map();
        self.front.tracking = Some(Arc::clone(&map));
        queue.track(Some(map));
        self.tracked = true;
        self.todo = (0..EXTENTS).collect();
    }

    fn take(&mut self, queue: &BlkQueue<MemoryDisk>) {
        queue.tracking.as_ref().expect("a map").take();
        self.todo.extend(maps::drain(&self.memory, BYTES));
    }

    fn read_one(&mut self) {
        if self.todo.is_empty() {
            return;
        }
        let which = self.dice.roll(self.todo.len() as u64);
        let extent = self.todo.swap_remove(usize::try_from(which).unwrap());
        let start = usize::try_from(extent * EXTENT_BYTES).unwrap();
        let end = self
            .copy
            .len()
            .min(start + usize::try_from(EXTENT_BYTES).unwrap());
        self.copy[start..end].copy_from_slice(&self.medium.read(start, end - start));
    }

    fn run(&mut self, queue: &mut BlkQueue<MemoryDisk>) {
        for _ in 0..100_000 {
            if self.left == 0 && self.front.waiting() == 0 {
                return self.finish(queue);
            }
            self.guest();
            self.guest();
            queue.pass().unwrap();
            assert!(self.front.answers().iter().all(|answer| answer.status == 0));
            self.copier(queue);
        }
        panic!("stuck: {} waiting", self.front.waiting());
    }

    /// Freezes the ring, flushes, and copies what is left.
    fn finish(&mut self, queue: &mut BlkQueue<MemoryDisk>) {
        if !self.tracked {
            self.begin(queue);
        }
        queue.stop_taking();
        queue.flush();
        while queue.in_flight() > 0 || queue.flushed().is_none() {
            queue.pass().unwrap();
        }
        queue.flushed().unwrap().unwrap();
        assert_eq!(
            self.medium.durable(0, self.copy.len()),
            self.medium.read(0, self.copy.len())
        );
        self.take(queue);
        while !self.todo.is_empty() {
            self.read_one();
        }
    }

    /// Lives through drivers that die after so many stores each.
    fn survive(&mut self, lives: &mut dyn FnMut(&mut Dice) -> Option<u64>) {
        drop(self.backend(false));
        loop {
            let fuse = lives(&mut self.dice).unwrap_or(u64::MAX);
            let result: Result<(), Dead> = light(fuse, || {
                let mut queue = self.backend(true);
                // The successor was given the map: it tracks, whether its predecessor lived to say so or not.
                if self.front.tracking.is_some() && !self.tracked {
                    self.begin(&mut queue);
                }
                self.run(&mut queue);
            });
            if result.is_ok() {
                return;
            }
            self.deaths += 1;
        }
    }

    fn is_true(&self) -> bool {
        self.copy == self.medium.read(0, self.copy.len())
    }
}

/// One death, and where.
fn with_one_death(seed: u64, fuse: u64, broken: Broken) -> Scene {
    let mut scene = Scene::new(seed, 10, broken);
    let mut lives = vec![None, Some(fuse)];
    scene.survive(&mut |_| lives.pop().flatten());
    scene
}

fn with_many_deaths(seed: u64, broken: Broken) -> Scene {
    let mut scene = Scene::new(seed, 40, broken);
    let mut left = BLK_POISON_STARTS;
    scene.survive(&mut |dice| {
        left -= 1;
        (left > 0).then(|| dice.roll(250) + 10)
    });
    scene
}

#[test]
fn no_write_is_missed_by_the_copy_whatever_the_step_a_driver_dies_at() {
    let mut steps = 0;
    for fuse in 0.. {
        let scene = with_one_death(5, fuse, Broken::No);
        assert!(scene.is_true(), "death at {fuse}");
        if scene.deaths == 0 {
            steps = fuse;
            break;
        }
    }
    assert!(steps > 150, "only {steps} steps: is the fuse lit?");
}

#[test]
fn no_write_is_missed_on_many_seeds_with_many_deaths() {
    let mut deaths = 0;
    for seed in 1..60 {
        let scene = with_many_deaths(seed, Broken::No);
        assert!(scene.is_true(), "seed {seed}");
        deaths += scene.deaths;
    }
    assert!(deaths > 120, "{deaths}");
}

#[test]
fn a_tracker_that_misses_anything_is_found_out() {
    for broken in [
        Broken::NotAfter,
        Broken::NotDiscard,
        Broken::FirstExtentOnly,
    ] {
        let found = (1..400).any(|seed| !with_many_deaths(seed, broken).is_true());
        assert!(found, "{broken:?} passes");
    }
    // Wrong between two stores only: a death must come right there.
    let found = (5..20).any(|seed| {
        (0..400).any(|fuse| !with_one_death(seed, fuse, Broken::ClearsFirst).is_true())
    });
    assert!(found, "{:?} passes", Broken::ClearsFirst);
}
