//! A guest's memory and grants, as small as they can be, for this crate's own tests: a grant reference is a frame number.

use nix::errno::Errno;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use xen_abi::ids::{DomId, GrantRef, PAGE_SIZE};
use xen_host::error::Error;
use xen_host::frames::FrameFile;
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, GrantCopy, Grants, Result};

pub const GUEST: DomId = DomId(7);

/// Memory of a guest; clones share it.
#[derive(Debug, Clone)]
pub struct GuestMemory {
    frames: Arc<FrameFile>,
    granted: Arc<Mutex<HashSet<u32>>>,
    next: Arc<AtomicUsize>,
    /// Calls of `map` and `copy`.
    pub maps: Arc<AtomicUsize>,
    pub copies: Arc<AtomicUsize>,
}

impl GuestMemory {
    pub fn new(frames: u64) -> Self {
        Self {
            frames: Arc::new(FrameFile::new("guest", frames).unwrap()),
            granted: Arc::default(),
            next: Arc::new(AtomicUsize::new(8)),
            maps: Arc::default(),
            copies: Arc::default(),
        }
    }

    /// A fresh page, granted.
    pub fn page(&self) -> GrantRef {
        let frame = u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap();
        self.granted.lock().unwrap().insert(frame);
        GrantRef(frame)
    }

    pub fn revoke(&self, gref: GrantRef) {
        self.granted.lock().unwrap().remove(&gref.0);
    }

    /// The guest's own view of its pages.
    pub fn view(&self, refs: &[GrantRef]) -> SharedRegion {
        let frames: Vec<u64> = refs.iter().map(|gref| u64::from(gref.0)).collect();
        self.frames.map(&frames, true).unwrap()
    }

    pub fn write(&self, gref: GrantRef, offset: usize, bytes: &[u8]) {
        self.frames.write(u64::from(gref.0), offset, bytes).unwrap();
    }

    pub fn read(&self, gref: GrantRef, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.frames
            .read(u64::from(gref.0), offset, &mut bytes)
            .unwrap();
        bytes
    }

    pub fn grants(&self) -> Box<dyn Grants> {
        Box::new(self.clone())
    }

    fn is_granted(&self, gref: GrantRef) -> bool {
        self.granted.lock().unwrap().contains(&gref.0)
    }
}

impl Grants for GuestMemory {
    fn map(&self, domid: DomId, refs: &[GrantRef], writable: bool) -> Result<SharedRegion> {
        assert_eq!(domid, GUEST);
        self.maps.fetch_add(1, Ordering::Relaxed);
        if refs.iter().any(|gref| !self.is_granted(*gref)) {
            return Err(Error::refused_for("map", domid, Errno::EINVAL));
        }
        let frames: Vec<u64> = refs.iter().map(|gref| u64::from(gref.0)).collect();
        self.frames.map(&frames, writable)
    }

    fn copy(&self, local: &SharedRegion, segments: &mut [GrantCopy]) -> Result<()> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        if segments
            .iter()
            .any(|s| usize::from(s.offset) + usize::from(s.len) > PAGE_SIZE)
        {
            return Err(Error::refused("copy", Errno::EINVAL));
        }
        for segment in segments {
            if !self.is_granted(segment.gref) {
                segment.status = -3;
                continue;
            }
            let (frame, offset, len) = (
                u64::from(segment.gref.0),
                usize::from(segment.offset),
                usize::from(segment.len),
            );
            match segment.direction {
                Direction::FromGuest => {
                    let mut bytes = vec![0; len];
                    self.frames.read(frame, offset, &mut bytes)?;
                    local.write(segment.local_offset, &bytes);
                }
                Direction::ToGuest => {
                    self.frames
                        .write(frame, offset, &local.read_vec(segment.local_offset, len))?;
                }
            }
            segment.status = 0;
        }
        Ok(())
    }
}

/// A second vcpu of the guest that flips bytes of its pages between two values, until it is stopped.
#[derive(Debug)]
pub struct Flips {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Flips {
    /// Begins, and returns when all cells were flipped once.
    pub fn start(memory: &GuestMemory, cells: Vec<(GrantRef, usize)>, values: [u8; 2]) -> Self {
        let (memory, stop, rounds) = (
            memory.clone(),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (heard, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !heard.load(Ordering::Relaxed) {
                for value in values {
                    for (page, at) in &cells {
                        memory.write(*page, *at, &[value]);
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        while rounds.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        Self { stop, thread }
    }

    /// Ends.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Counts lines of the log, without keeping them.
#[derive(Debug, Clone, Default)]
pub struct Lines(pub Arc<AtomicUsize>);

impl Lines {
    /// Counts those of this thread while `act` runs.
    pub fn count<T>(&self, act: impl FnOnce() -> T) -> T {
        let writer = self.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, act)
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.fetch_add(lines, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
