//! The part of a queue between the backlog and the answer: requests at the medium, their data on its way.
//!
//! Steps of one request follow one another; a short transfer is continued where it stopped (each time by at least a sector, so
//! it ends); the buffer is given back only when the data has reached the guest. It decides nothing about the ring or the journal but the count of starts.

use super::buffers::Run;
use super::dirty::DirtyMap;
use super::queue::{BlkQueue, QueueFault, Stage};
use super::request::Way;
use super::wire::Status;
use crate::disk::{Disk, Done, Step};
use crate::limits::{BLK_POISON_STARTS, BLK_SUSPECT_STARTS};
use crate::stats::add;
use nix::errno::Errno;
use std::sync::Arc;
use xen_host::seam::Direction;

/// Token of a flush that no request asked for; those of requests are smaller than a ring has slots.
const FLUSH: u32 = u32::MAX;

/// A flush that no request asked for: one at a time at the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    Idle,
    /// At the medium; `again`: it began too early for who asked last.
    Running {
        again: bool,
    },
    Over(Result<(), Errno>),
}

/// What follows an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Submit,
    Finish(Status),
    GiveToGuest,
    Flush,
    Nothing,
}

impl<D: Disk> BlkQueue<D> {
    /// Begins what may begin, in order: data of writes comes in by one copy, then the first steps go to the medium.
    pub(super) fn begin(&mut self) {
        let mut begun = Vec::new();
        while let Some(&number) = self.backlog.front() {
            let Some(run) = self.admit(number) else { break };
            self.backlog.pop_front();
            if self.start_one(number, run) {
                begun.push(number);
            }
        }
        let mut failed = Vec::new();
        self.mover
            .run(self.disk.buffer(), |number| failed.push(number));
        for number in begun {
            if failed.contains(&number) {
                self.finish(number, Status::Error);
            } else {
                self.submit(number);
            }
        }
    }

    /// Whether the next request may begin now, and where its data goes.
    fn admit(&mut self, number: u32) -> Option<Option<Run>> {
        let entry = &self.entries[number as usize];
        let Stage::Waiting(plan) = &entry.stage else {
            return None;
        };
        let alone = plan.alone || entry.starts >= BLK_SUSPECT_STARTS;
        if self.alone || (alone && self.running > 0) {
            return None;
        }
        let run = if plan.bytes == 0 {
            None
        } else {
            Some(self.buffers.take(plan.bytes)?)
        };
        self.alone = alone;
        Some(run)
    }

    /// Moves an admitted request to [`Stage::Running`]; false if it ended at once.
    fn start_one(&mut self, number: u32, run: Option<Run>) -> bool {
        let entry = &mut self.entries[number as usize];
        let Stage::Waiting(plan) = std::mem::replace(&mut entry.stage, Stage::Free) else {
            return false;
        };
        self.running += 1;
        let add_data = plan.way == Way::Write && run.is_some();
        let at = run.map_or(0, Run::offset);
        entry.stage = Stage::Running {
            plan,
            step: 0,
            moved: 0,
            run,
        };
        if self.journal.mark_started(number) > BLK_POISON_STARTS {
            self.refuse(
                number,
                Status::Error,
                "it has killed the driver each time it was started",
            );
            return false;
        }
        let Stage::Running { plan, .. } = &self.entries[number as usize].stage else {
            return false;
        };
        if add_data
            && !self.mover.add(
                number,
                Direction::FromGuest,
                &plan.pieces,
                self.disk.buffer(),
                at,
            )
        {
            self.finish(number, Status::Error);
            return false;
        }
        true
    }

    /// Gives the current step, or what is left of it, to the medium.
    fn submit(&mut self, number: u32) {
        let Stage::Running {
            plan,
            step,
            moved,
            run,
        } = &self.entries[number as usize].stage
        else {
            return;
        };
        let at = run.map_or(0, Run::offset) + moved;
        let left = match plan.steps[*step] {
            Step::Read { offset, len } => Step::Read {
                offset: offset + *moved as u64,
                len: len - moved,
            },
            Step::Write { offset, len } => Step::Write {
                offset: offset + *moved as u64,
                len: len - moved,
            },
            other => other,
        };
        if let Some(map) = &self.tracking {
            map.note_begin(&left);
        }
        if self.disk.submit(number, left, at).is_err() {
            self.finish(number, Status::Error);
        }
    }

    /// Notes writes in `map` from now on, or no more. Those that are at the medium are noted at once.
    pub fn track(&mut self, map: Option<Arc<DirtyMap>>) {
        if let Some(map) = &map {
            for entry in &self.entries {
                if let Stage::Running { plan, .. } = &entry.stage {
                    plan.steps.iter().for_each(|step| map.note_begin(step));
                }
            }
        }
        self.tracking = map;
    }

    /// Flushes the medium, from the next pass on; [`BlkQueue::flushed`] has the outcome.
    pub fn flush(&mut self) {
        if let Flush::Running { again } = &mut self.flush {
            *again = true;
            return;
        }
        self.flush = match self.disk.submit(FLUSH, Step::Sync, 0) {
            Ok(()) => Flush::Running { again: false },
            Err(errno) => Flush::Over(Err(errno)),
        };
    }

    /// Outcome of the last flush; `None` while it is under way.
    #[must_use]
    pub fn flushed(&self) -> Option<Result<(), Errno>> {
        match self.flush {
            Flush::Over(result) => Some(result),
            Flush::Idle | Flush::Running { .. } => None,
        }
    }

    /// Takes outcomes from the medium: next step, remainder of a short transfer, or data to the guest and the end.
    pub(super) fn reap(&mut self) -> Result<u32, QueueFault> {
        let mut done = std::mem::take(&mut self.done);
        self.disk.reap(&mut done).map_err(QueueFault::Medium)?;
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        let mut read = Vec::new();
        for outcome in done.drain(..) {
            match self.advance(outcome) {
                After::Submit => self.submit(outcome.token),
                After::Finish(status) => self.finish(outcome.token, status),
                After::GiveToGuest => read.push(outcome.token),
                After::Flush => self.flush(),
                After::Nothing => {}
            }
        }
        self.done = done;
        self.give_to_guest(read);
        Ok(count)
    }

    fn advance(&mut self, outcome: Done) -> After {
        if outcome.token == FLUSH {
            let again = self.flush == Flush::Running { again: true };
            self.flush = Flush::Over(outcome.result.map(drop));
            return if again { After::Flush } else { After::Nothing };
        }
        let Some(entry) = self.entries.get_mut(outcome.token as usize) else {
            return After::Nothing;
        };
        let Stage::Running {
            plan, step, moved, ..
        } = &mut entry.stage
        else {
            return After::Nothing;
        };
        let bytes = match outcome.result {
            Ok(bytes) => bytes,
            Err(Errno::EOPNOTSUPP) if matches!(plan.steps[*step], Step::Discard { .. }) => {
                return After::Finish(Status::NotSupported);
            }
            Err(_) => return After::Finish(Status::Error),
        };
        if let Step::Read { len, .. } | Step::Write { len, .. } = plan.steps[*step] {
            *moved += bytes;
            if *moved < len {
                let aligned = bytes > 0 && bytes.is_multiple_of(self.geometry.sector_size as usize);
                return if aligned {
                    After::Submit
                } else {
                    After::Finish(Status::Error)
                };
            }
        }
        *step += 1;
        *moved = 0;
        if *step < plan.steps.len() {
            return After::Submit;
        }
        if plan.way == Way::Read {
            After::GiveToGuest
        } else {
            After::Finish(Status::Okay)
        }
    }

    fn give_to_guest(&mut self, read: Vec<u32>) {
        if read.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        for number in &read {
            let Stage::Running { plan, run, .. } = &self.entries[*number as usize].stage else {
                continue;
            };
            let at = run.map_or(0, Run::offset);
            add(&self.counters.bytes_to_guest, plan.bytes as u64);
            if !self.mover.add(
                *number,
                Direction::ToGuest,
                &plan.pieces,
                self.disk.buffer(),
                at,
            ) {
                failed.push(*number);
            }
        }
        self.mover
            .run(self.disk.buffer(), |number| failed.push(number));
        add(&self.counters.to_guest, read.len() as u64);
        for number in read {
            let status = if failed.contains(&number) {
                Status::Error
            } else {
                Status::Okay
            };
            self.finish(number, status);
        }
    }

    /// Ends a running request.
    pub(super) fn finish(&mut self, number: u32, status: Status) {
        let entry = &mut self.entries[number as usize];
        if let Stage::Running { plan, run, .. } =
            std::mem::replace(&mut entry.stage, Stage::Finished(status))
        {
            if let Some(map) = &self.tracking {
                plan.steps.iter().for_each(|step| map.note_end(step));
            }
            if plan.way == Way::Write {
                add(&self.counters.bytes_from_guest, plan.bytes as u64);
            }
            if let Some(run) = run {
                self.buffers.give(run);
            }
            self.running -= 1;
            self.alone = false;
        }
        if status != Status::Okay {
            add(&self.counters.refused, 1);
        }
        self.finished.push(number);
    }
}
