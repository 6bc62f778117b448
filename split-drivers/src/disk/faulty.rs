//! A medium that fails on purpose: the Nth operation, and how.

use super::{Disk, Done, Step};
use nix::errno::Errno;
use xen_host::region::SharedRegion;

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It completes with this errno.
    Fails(Errno),
    /// It moves half of its bytes (at least one sector).
    Short,
    /// It cannot be queued.
    Refused(Errno),
}

/// Another medium with faults in it.
#[derive(Debug)]
pub struct FaultyDisk<D> {
    inner: D,
    faults: Vec<(u64, Fault)>,
    count: u64,
    failed: Vec<Done>,
}

impl<D: Disk> FaultyDisk<D> {
    /// Fails the operations of these numbers (the first is 1).
    pub fn new(inner: D, faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self {
            inner,
            faults: faults.into_iter().collect(),
            count: 0,
            failed: Vec::new(),
        }
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn buffer(&self) -> &SharedRegion {
        self.inner.buffer()
    }

    fn submit(&mut self, token: u32, step: Step, at: usize) -> Result<(), Errno> {
        self.count += 1;
        let fault = self
            .faults
            .iter()
            .find(|(number, _)| *number == self.count)
            .map(|(_, fault)| *fault);
        match fault {
            None => self.inner.submit(token, step, at),
            Some(Fault::Refused(errno)) => Err(errno),
            Some(Fault::Fails(errno)) => {
                self.failed.push(Done {
                    token,
                    result: Err(errno),
                });
                Ok(())
            }
            Some(Fault::Short) => self.inner.submit(token, halve(step), at),
        }
    }

    fn start(&mut self) -> Result<(), Errno> {
        self.inner.start()
    }

    fn reap(&mut self, into: &mut Vec<Done>) -> Result<(), Errno> {
        into.append(&mut self.failed);
        self.inner.reap(into)
    }
}

fn halve(step: Step) -> Step {
    let half = |len: usize| (len / 2).max(512) & !511;
    match step {
        Step::Read { offset, len } => Step::Read {
            offset,
            len: half(len),
        },
        Step::Write { offset, len } => Step::Write {
            offset,
            len: half(len),
        },
        Step::Sync | Step::Discard { .. } => step,
    }
}
