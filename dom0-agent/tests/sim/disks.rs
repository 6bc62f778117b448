//! A disk is copied while its guest writes at random through real drivers, which are killed and replaced meanwhile: in the end both images
//! are the same, byte for byte.
//!
//! The line itself stirs things up: at each write to it the guest may ask for something, a driver may die, one may be replaced. So all of
//! it happens in the middle of rounds, and between any two orders.

use crate::support::{Host, Setup};
use dom0_agent::agent::Agent;
use dom0_agent::agent::error::AgentError;
use dom0_agent::agent::guest::SharedGuest;
use dom0_agent::agent::tracking::GuestDisk;
use dom0_agent::disks::{
    CopyError, DiskCopy, ExtentSet, Next, Place, Policy, ReceiveError, Receiver, Tracked,
};
use std::cell::RefCell;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_sim::frontend::blk::{BlkFront, BlkRequest};
use xen_sim::rng::Rng;

const GUEST: DomId = DomId(1);
const DISK: u32 = 51712;
/// More extents than a word of the map has bits.
const KIB: u64 = 70 * 64 + 1;
const SECTORS: u64 = KIB * 2;
/// Longest a test waits for threads that are only slow.
const MOST: Duration = Duration::from_secs(60);
/// Requests of the guest beside those that it makes while the first round goes.
const REQUESTS: u32 = 150;

struct Scene {
    host: Host,
    rng: Rng,
    /// Requests that the guest will still make.
    left: u32,
    /// Deaths and replacements to come.
    upsets: u32,
    upset: u32,
}

type Shared = Rc<RefCell<Scene>>;

impl Scene {
    fn new(seed: u64, upsets: u32) -> Shared {
        let mut host = Host::with(Setup {
            real_drivers: true,
            ..Setup::default()
        });
        let image = host.image("disk.img", KIB);
        let mut rng = Rng::seeded(seed);
        // Something is on it, and something is not.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .unwrap();
        for extent in [0, 1, 2, 30, 31, 69] {
            file.write_all_at(&rng.bytes(65536), extent << 16).unwrap();
        }
        let line = format!("disk=['{},raw,xvda,rw']", image.display());
        let config = host.config("pvh", "web1", &line);
        host.start(config);
        Rc::new(RefCell::new(Self {
            host,
            rng,
            left: REQUESTS,
            upsets,
            upset: 0,
        }))
    }

    fn front(&mut self) -> &mut BlkFront {
        self.host.machine(GUEST).disks.get_mut(&DISK).unwrap()
    }

    /// The guest takes answers, and perhaps asks for something, over what is in flight as well.
    fn guest(&mut self) {
        let answers = self.front().answers();
        assert!(
            answers.iter().all(|answer| answer.status == 0),
            "{answers:?}"
        );
        for _ in 0..self.rng.below(4) {
            if self.left == 0 || !self.front().has_room(0) {
                return;
            }
            self.left -= 1;
            let pages = 1 + self.rng.below(20);
            let sector = self.rng.below(SECTORS - pages * 8);
            let request = match self.rng.below(8) {
                0 => BlkRequest::Discard {
                    sector,
                    count: pages * 8,
                },
                1 => BlkRequest::Flush,
                2 => BlkRequest::Read { sector, len: 4096 },
                _ => BlkRequest::Write {
                    sector,
                    data: self.rng.bytes(usize::try_from(pages).unwrap() * 4096),
                },
            };
            self.front().submit(&request);
        }
    }

    /// Perhaps its driver dies, with or without a successor at once, or is replaced in order.
    fn upset(&mut self) {
        if self.upsets == 0 || !self.rng.one_in(4) {
            return;
        }
        self.upsets -= 1;
        self.upset += 1;
        let uuid = self.host.uuid(GUEST);
        match self.rng.below(3) {
            0 => drop(self.host.agent.replace_drivers(None)),
            which => {
                if self.host.yard.pid_of(uuid).is_some() {
                    self.host.yard.kill_driver(uuid);
                }
                if which == 1 {
                    self.host.settle();
                }
            }
        }
    }

    fn stir(&mut self) {
        self.guest();
        self.upset();
    }

    /// The guest is suspended: it asks for nothing more. In half of all cases something is still under way.
    fn suspend(&mut self) {
        self.left = 0;
        if self.rng.one_in(2) {
            self.host.settle();
            let waiting = self.front().unanswered();
            assert_eq!(self.front().wait_answers(waiting, MOST).len(), waiting);
        }
    }

    fn shared_guest(&self) -> SharedGuest {
        self.host.agent.by_domid(GUEST).unwrap()
    }
}

/// The line to the other side.
struct Line {
    scene: Shared,
    to: PipeWriter,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scene.borrow_mut().stir();
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tracked(scene: &Shared) -> GuestDisk<Arc<Agent>, impl FnMut() + use<>> {
    let (agent, guest) = {
        let scene = scene.borrow();
        (scene.host.agent.clone(), scene.shared_guest())
    };
    let scene = Rc::clone(scene);
    GuestDisk::new(agent, guest, DISK, move || scene.borrow_mut().host.settle())
}

/// The other side: a receiver in a thread of its own, which names the disk when all is there.
fn receiving(
    path: PathBuf,
    mut from: PipeReader,
    mut reports: PipeWriter,
) -> std::thread::JoinHandle<Result<(), ReceiveError>> {
    std::thread::spawn(move || {
        let mut receiver = Receiver::new(Place {
            disk: DISK,
            path,
            bytes: Some(KIB << 10),
            replace: false,
        })?;
        receiver.run(&mut from, &mut reports)?;
        receiver.commit()
    })
}

/// Copies the guest's disk while it works. True if both images are the same, once it is suspended.
fn copy_with<T: Tracked>(scene: &Shared, tracked: T) -> bool {
    let image = scene.borrow().host.file("disk.img");
    let other = scene.borrow().host.file("copy.img");
    // Some requests are under way when it begins.
    scene.borrow_mut().guest();
    let mut copy = DiskCopy::begin(DISK, &image, Policy::default(), tracked).unwrap();
    let (from, to) = io::pipe().unwrap();
    let (mut reports, says) = io::pipe().unwrap();
    let other_side = receiving(other.clone(), from, says);
    let mut line = Line {
        scene: Rc::clone(scene),
        to,
    };
    for _ in 0..40 {
        let next = copy.round(&mut line, &mut reports).unwrap();
        let busy = scene.borrow().left > 0;
        match next {
            Next::Suspend(_) if !busy => break,
            // Its memory is not ready, so it runs on.
            Next::Suspend(_) | Next::Round(_) => scene.borrow_mut().stir(),
        }
    }
    scene.borrow_mut().suspend();
    let totals = copy.finish(&mut line, &mut reports).unwrap();
    assert!(totals.records > 0);
    other_side.join().unwrap().unwrap();
    let same = std::fs::read(&image).unwrap() == std::fs::read(&other).unwrap();
    // It thaws, and what waited is answered.
    drop(copy);
    let scene = &mut *scene.borrow_mut();
    scene.host.settle();
    let waiting = scene.front().unanswered();
    assert_eq!(scene.front().wait_answers(waiting, MOST).len(), waiting);
    same
}

fn end(scene: Shared) -> u32 {
    let Ok(scene) = Rc::try_unwrap(scene) else {
        panic!("the scene is still in use")
    };
    let mut scene = scene.into_inner();
    assert_eq!(scene.front().disabled(), None);
    scene.host.agent.destroy(GUEST).unwrap();
    scene.host.settle();
    scene.host.assert_clean();
    scene.upset
}

#[test]
fn a_disk_copied_under_a_guest_at_work_is_the_same_on_both_sides() {
    let mut upsets = 0;
    for seed in 1..=24 {
        let scene = Scene::new(seed, 4);
        let tracked = tracked(&scene);
        assert!(copy_with(&scene, tracked), "seed {seed}");
        upsets += end(scene);
    }
    assert!(upsets > 40, "only {upsets} deaths and replacements");
}

/// Forgets one extent of each set that it is told.
struct Forgetful<T>(T);

impl<T: Tracked> Tracked for Forgetful<T> {
    fn begin(&mut self, disk_bytes: u64) -> Result<(), AgentError> {
        self.0.begin(disk_bytes)
    }

    fn dirty(&mut self) -> Result<ExtentSet, AgentError> {
        let mut ranges = self.0.dirty()?.ranges().to_vec();
        if let Some(last) = ranges.last_mut() {
            last.end -= 1;
        }
        Ok(ExtentSet::of(ranges))
    }

    fn freeze(&mut self) -> Result<u32, AgentError> {
        self.0.freeze()
    }

    fn end(&mut self) {
        self.0.end();
    }
}

#[test]
fn a_tracker_that_forgets_is_found_out() {
    let found = (1..20).any(|seed| {
        let scene = Scene::new(seed, 0);
        let tracked = Forgetful(tracked(&scene));
        let same = copy_with(&scene, tracked);
        end(scene);
        !same
    });
    assert!(found);
}

#[test]
fn a_line_that_breaks_costs_what_was_not_confirmed_and_no_more() {
    let scene = Scene::new(77, 0);
    let image = scene.borrow().host.file("disk.img");
    let other = scene.borrow().host.file("copy.img");
    let mut receiver = Receiver::new(Place {
        disk: DISK,
        path: other.clone(),
        bytes: None,
        replace: false,
    })
    .unwrap();
    let mut copy = DiskCopy::begin(DISK, &image, Policy::default(), tracked(&scene)).unwrap();
    for breaks in [true, true, false] {
        let (from, to) = io::pipe().unwrap();
        let (mut reports, mut says) = io::pipe().unwrap();
        std::thread::scope(|scope| {
            let receiver = &mut receiver;
            let other_side = scope.spawn(move || {
                let most = if breaks { 150_000 } else { u64::MAX };
                let mut from = io::Read::take(from, most);
                let result = receiver.run(&mut from, &mut says);
                drop((from, says));
                result
            });
            let mut line = Line {
                scene: Rc::clone(&scene),
                to,
            };
            let round = copy.round(&mut line, &mut reports);
            if breaks {
                let error = round.unwrap_err();
                assert!(error.is_resumable(), "{error}");
                copy.reconnect();
                assert!(other_side.join().unwrap().unwrap_err().is_resumable());
                return;
            }
            round.unwrap();
            scene.borrow_mut().suspend();
            copy.finish(&mut line, &mut reports).unwrap();
            other_side.join().unwrap().unwrap();
        });
    }
    receiver.commit().unwrap();
    assert!(std::fs::read(&image).unwrap() == std::fs::read(&other).unwrap());
    drop(copy);
    scene.borrow_mut().host.settle();
    end(scene);
}

#[test]
fn a_copy_that_is_given_up_leaves_the_guest_and_its_disk_as_they_were() {
    let scene = Scene::new(5, 0);
    let image = scene.borrow().host.file("disk.img");
    let copy = DiskCopy::begin(DISK, &image, Policy::default(), tracked(&scene)).unwrap();
    // One at a time.
    let error = DiskCopy::begin(DISK, &image, Policy::default(), tracked(&scene)).unwrap_err();
    assert!(
        error.to_string().contains("is being copied already"),
        "{error}"
    );
    drop(copy);
    let guest = scene.borrow().shared_guest();
    let agent = scene.borrow().host.agent.clone();
    let text = |error: AgentError| error.to_string();
    let error = text(agent.take_dirty(&guest, DISK).unwrap_err());
    assert!(error.contains("not noted"), "{error}");
    // Frozen and forgotten: it thaws.
    agent.track_disk(&guest, DISK, KIB << 10).unwrap();
    agent.freeze_disk(&guest, DISK).unwrap();
    scene.borrow_mut().guest();
    agent.untrack_disk(&guest, DISK);
    let waiting = scene.borrow_mut().front().unanswered();
    let answers = scene.borrow_mut().front().wait_answers(waiting, MOST);
    assert_eq!(answers.len(), waiting);
    // A disk that is not there.
    let error = text(agent.track_disk(&guest, 51728, 512).unwrap_err());
    assert!(error.contains("no such disk"), "{error}");
    let missing = scene.borrow().host.file("missing.img");
    let error = DiskCopy::begin(DISK, &missing, Policy::default(), tracked(&scene)).unwrap_err();
    assert!(matches!(error, CopyError::Image { .. }), "{error}");
    drop(guest);
    end(scene);
}
