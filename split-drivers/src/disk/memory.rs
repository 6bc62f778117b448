//! A medium in memory whose operations finish when a seed says so: what a test needs to look at every order of completion, and at what
//! an operation still in flight does after its submitter died.

use super::{Disk, Done, Step};
use crate::fuse::burn;
use nix::errno::Errno;
use std::sync::{Arc, Mutex, PoisonError};
use xen_host::error::Error;
use xen_host::region::SharedRegion;

/// The bytes, shared by whoever opened them.
#[derive(Debug, Clone)]
pub struct Medium {
    bytes: Arc<Mutex<Bytes>>,
}

#[derive(Debug)]
struct Bytes {
    /// What a read sees.
    now: Vec<u8>,
    /// What a sync has made safe.
    durable: Vec<u8>,
}

impl Medium {
    /// `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(Bytes {
                now: vec![0; len],
                durable: vec![0; len],
            })),
        }
    }

    /// What a read would see.
    #[must_use]
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        self.with(|bytes| {
            bytes
                .now
                .get(offset..offset + len)
                .map(<[u8]>::to_vec)
                .unwrap_or_default()
        })
    }

    /// What a loss of power would leave.
    #[must_use]
    pub fn durable(&self, offset: usize, len: usize) -> Vec<u8> {
        self.with(|bytes| {
            bytes
                .durable
                .get(offset..offset + len)
                .map(<[u8]>::to_vec)
                .unwrap_or_default()
        })
    }

    /// Writes past every driver.
    pub fn write(&self, offset: usize, data: &[u8]) {
        self.with(|bytes| {
            if let Some(range) = bytes.now.get_mut(offset..offset + data.len()) {
                range.copy_from_slice(data);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Bytes) -> T) -> T {
        act(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One opening of a [`Medium`].
#[derive(Debug)]
pub struct MemoryDisk {
    medium: Medium,
    buffer: SharedRegion,
    queued: Vec<(u32, Step, usize)>,
    started: Vec<(u32, Step, usize)>,
    seed: u64,
    /// Complete everything at once, in order.
    eager: bool,
}

impl MemoryDisk {
    /// Opens with `pages` pages of buffer. Seed 0 completes everything in order at the next reap; any other seed picks what completes, and when.
    ///
    /// # Errors
    /// No memory.
    pub fn open(medium: &Medium, pages: usize, seed: u64) -> Result<Self, Error> {
        Ok(Self {
            medium: medium.clone(),
            buffer: SharedRegion::anonymous(pages)?,
            queued: Vec::new(),
            started: Vec::new(),
            seed,
            eager: seed == 0,
        })
    }

    fn random(&mut self, below: usize) -> usize {
        // Xorshift: good enough to shuffle, and the same everywhere.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % below.max(1) as u64).unwrap_or(0)
    }

    fn carry_out(&self, step: Step, at: usize) -> Result<usize, Errno> {
        self.medium.with(|bytes| match step {
            Step::Read { offset, len } => {
                let range = range(bytes, offset, len)?;
                self.buffer.write(at, &bytes.now[range]);
                Ok(len)
            }
            Step::Write { offset, len } => {
                let range = range(bytes, offset, len)?;
                self.buffer.read(at, &mut bytes.now[range]);
                Ok(len)
            }
            Step::Sync => {
                bytes.durable.clone_from(&bytes.now);
                Ok(0)
            }
            Step::Discard { offset, len } => {
                let range = range(
                    bytes,
                    offset,
                    usize::try_from(len).map_err(|_| Errno::EINVAL)?,
                )?;
                bytes.now[range].fill(0);
                Ok(0)
            }
        })
    }
}

fn range(bytes: &Bytes, offset: u64, len: usize) -> Result<std::ops::Range<usize>, Errno> {
    let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    if end > bytes.now.len() {
        Err(Errno::EINVAL)
    } else {
        Ok(start..end)
    }
}

impl Disk for MemoryDisk {
    fn buffer(&self) -> &SharedRegion {
        &self.buffer
    }

    fn submit(&mut self, token: u32, step: Step, at: usize) -> Result<(), Errno> {
        burn();
        self.queued.push((token, step, at));
        Ok(())
    }

    fn start(&mut self) -> Result<(), Errno> {
        for operation in self.queued.drain(..) {
            burn();
            self.started.push(operation);
        }
        Ok(())
    }

    fn reap(&mut self, into: &mut Vec<Done>) -> Result<(), Errno> {
        let count = if self.eager {
            self.started.len()
        } else {
            self.random(self.started.len() + 1)
        };
        for _ in 0..count {
            let which = if self.eager {
                0
            } else {
                self.random(self.started.len())
            };
            let (token, step, at) = self.started.remove(which);
            burn();
            into.push(Done {
                token,
                result: self.carry_out(step, at),
            });
        }
        Ok(())
    }
}

/// What the kernel was told to do, it does, also for a dead submitter.
impl Drop for MemoryDisk {
    fn drop(&mut self) {
        while !self.started.is_empty() {
            let which = self.random(self.started.len());
            let (_, step, at) = self.started.remove(which);
            let _ = self.carry_out(step, at);
        }
    }
}
