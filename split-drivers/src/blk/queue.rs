//! One ring of a disk, as an object that is driven by calls: [`BlkQueue::pass`] does all that can be done now and never waits.
//!
//! ```text
//!           take          check, plan           begin              reap                answer
//!   ring ─────────▶ fresh ───────────▶ backlog ───────▶ running ─────────▶ finished ─────────▶ ring
//!        journal BUSY      │ refused     (in order;       │ steps at the    journal promise,
//!                          └────────────▶ barriers,       │ medium, one     intend, free
//!                                         buffer space)   └─ after another
//! ```
//!
//! The thread in [`super::worker`] is a loop around it; simulation drives it step by step, without threads, and kills it between any two stores.
//! It never blocks, never reads a clock, and never looks at guest memory but through [`crate::ring`] and [`super::exec`].

use super::buffers::{Buffers, Run};
use super::dirty::DirtyMap;
use super::exec::Mover;
use super::journal::RingJournal;
use super::plan::Plan;
use super::recover::Recovered;
use super::request::{Geometry, Request, Transfer, Way};
use super::run::Flush;
use super::wire::{self, MAX_REQUEST_BYTES, Status};
use crate::disk::{Disk, Done};
use crate::limits::{BLK_INDIRECT_PAGES, BLK_REFUSALS_LOGGED, BLK_REQUESTS_PER_PASS};
use crate::ring::back::{BackRing, RingFault};
use crate::ring::copy::GrantRange;
use crate::stats::{Counters, add};
use nix::errno::Errno;
use parapet_wire::driver::Protocol;
use std::collections::VecDeque;
use std::sync::Arc;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_abi::io::blkif::{self, Segment};
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, Grants};

/// Why a queue cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFault {
    /// The guest broke the ring.
    #[error("the guest broke its ring: {0}")]
    Ring(#[from] RingFault),
    /// The medium is gone.
    #[error("the medium failed for good: {0}")]
    Medium(Errno),
}

/// What one pass achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Requests taken.
    pub taken: u32,
    /// Operations that ended at the medium.
    pub completed: u32,
    /// Responses published.
    pub answered: u32,
    /// The guest is to be notified.
    pub notify: bool,
}

impl Progress {
    /// Whether anything moved: another pass is worth while.
    #[must_use]
    pub fn moved(&self) -> bool {
        self.taken + self.completed + self.answered > 0
    }
}

/// What a queue is made of.
#[derive(Debug)]
pub struct Setup<D> {
    /// The guest.
    pub domid: DomId,
    /// Layout of its requests.
    pub protocol: Protocol,
    /// It keeps its grants.
    pub persistent: bool,
    /// What requests may do.
    pub geometry: Geometry,
    /// Its ring, standing where the journal says.
    pub ring: BackRing,
    /// The ring's journal.
    pub journal: RingJournal,
    /// What a predecessor left.
    pub recovered: Option<Recovered>,
    /// For this queue alone.
    pub grants: Box<dyn Grants>,
    /// The medium, opened for this queue; its buffer holds the largest request.
    pub disk: D,
    /// Shared by the queues of a disk.
    pub counters: Arc<Counters>,
    /// Where to note what is written, if somebody copies the disk: known before a predecessor's requests are issued again.
    pub tracking: Option<Arc<DirtyMap>>,
}

impl Setup<()> {
    /// The same with a medium, once the ring's thread has opened it.
    #[must_use]
    pub fn with_disk<D>(self, disk: D) -> Setup<D> {
        Setup {
            domid: self.domid,
            protocol: self.protocol,
            persistent: self.persistent,
            geometry: self.geometry,
            ring: self.ring,
            journal: self.journal,
            recovered: self.recovered,
            grants: self.grants,
            disk,
            counters: self.counters,
            tracking: self.tracking,
        }
    }
}

#[derive(Debug)]
pub(super) enum Stage {
    Free,
    /// Taken, not looked at.
    Fresh,
    /// To be begun when its turn comes.
    Waiting(Plan),
    /// `plan.steps[step]` is at the medium, of which `moved` bytes are done.
    Running {
        plan: Plan,
        step: usize,
        moved: usize,
        run: Option<Run>,
    },
    /// To be answered.
    Finished(Status),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request: [u8; MAX_REQUEST_BYTES],
    pub(super) id: u64,
    pub(super) operation: u8,
    /// Starts by predecessors.
    pub(super) starts: u32,
    pub(super) stage: Stage,
}

/// See the module.
#[derive(Debug)]
pub struct BlkQueue<D> {
    pub(super) protocol: Protocol,
    pub(super) geometry: Geometry,
    pub(super) ring: BackRing,
    pub(super) journal: RingJournal,
    pub(super) mover: Mover,
    pub(super) disk: D,
    pub(super) counters: Arc<Counters>,
    /// By entry number of the journal.
    pub(super) entries: Vec<Entry>,
    pub(super) free: Vec<u32>,
    pub(super) fresh: VecDeque<u32>,
    pub(super) backlog: VecDeque<u32>,
    pub(super) finished: Vec<u32>,
    pub(super) buffers: Buffers,
    /// Descriptors of the indirect requests of one pass.
    pub(super) descriptors: SharedRegion,
    pub(super) done: Vec<Done>,
    pub(super) running: usize,
    pub(super) alone: bool,
    pub(super) next_seq: u64,
    pub(super) taking: bool,
    pub(super) refusals_logged: u32,
    /// Where writes are noted.
    pub(super) tracking: Option<Arc<DirtyMap>>,
    pub(super) flush: Flush,
}

impl<D: Disk> BlkQueue<D> {
    /// Takes a ring over. With [`Setup::recovered`], the predecessor's responses are published again before anything else.
    ///
    /// # Errors
    /// No memory.
    pub fn new(setup: Setup<D>) -> xen_host::seam::Result<Self> {
        let slots = setup.ring.entries();
        let blank = || Entry {
            request: [0; MAX_REQUEST_BYTES],
            id: 0,
            operation: 0,
            starts: 0,
            stage: Stage::Free,
        };
        let mut queue = Self {
            protocol: setup.protocol,
            geometry: setup.geometry,
            mover: Mover::new(setup.domid, setup.grants, setup.persistent),
            buffers: Buffers::new(setup.disk.buffer().len() / PAGE_SIZE),
            descriptors: SharedRegion::anonymous(
                BLK_REQUESTS_PER_PASS as usize * BLK_INDIRECT_PAGES,
            )?,
            ring: setup.ring,
            journal: setup.journal,
            disk: setup.disk,
            counters: setup.counters,
            entries: (0..slots).map(|_| blank()).collect(),
            free: (0..slots).rev().collect(),
            fresh: VecDeque::new(),
            backlog: VecDeque::new(),
            finished: Vec::new(),
            done: Vec::new(),
            running: 0,
            alone: false,
            next_seq: 0,
            taking: true,
            refusals_logged: 0,
            tracking: setup.tracking,
            flush: Flush::Idle,
        };
        if let Some(recovered) = setup.recovered {
            queue.adopt(recovered);
        }
        Ok(queue)
    }

    fn adopt(&mut self, recovered: Recovered) {
        self.ring.republish();
        self.next_seq = recovered.next_seq;
        for found in recovered.redo {
            self.free.retain(|number| *number != found.entry);
            let entry = &mut self.entries[found.entry as usize];
            entry.request = found.request;
            entry.starts = found.starts;
            entry.stage = Stage::Fresh;
            self.fresh.push_back(found.entry);
        }
    }

    /// Does all that can be done without waiting, within the budget of one pass.
    ///
    /// # Errors
    /// The queue cannot go on; what was answered stays answered.
    pub fn pass(&mut self) -> Result<Progress, QueueFault> {
        let completed = self.reap()?;
        // Before anything new begins: what is done must not be lost to a death that it has no part in.
        let (done, notify_done) = self.answer();
        let taken = if self.taking { self.take()? } else { 0 };
        self.judge();
        self.begin();
        self.disk.start().map_err(QueueFault::Medium)?;
        let (refused, notify_refused) = self.answer();
        let (answered, notify) = (done + refused, notify_done || notify_refused);
        Ok(Progress {
            taken,
            completed,
            answered,
            notify,
        })
    }

    /// Asks the guest for an event at its next request; the number of requests that arrived meanwhile. Zero: it is safe to sleep.
    ///
    /// # Errors
    /// The guest broke the ring.
    pub fn arm(&self) -> Result<u32, QueueFault> {
        if self.taking {
            Ok(self.ring.arm(1)?)
        } else {
            Ok(0)
        }
    }

    /// Requests taken and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.ring.in_flight()
    }

    /// Takes no more requests: the queue runs dry.
    pub fn stop_taking(&mut self) {
        self.taking = false;
    }

    /// Takes requests again.
    pub fn start_taking(&mut self) {
        self.taking = true;
    }

    /// Requests in the ring that were not taken.
    ///
    /// # Errors
    /// The guest broke the ring.
    pub fn untaken(&self) -> Result<u32, QueueFault> {
        Ok(self.ring.waiting()?)
    }

    /// The medium, for its thread to wait on.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Unmaps everything and gives the grant handle back.
    #[must_use]
    pub fn into_grants(self) -> Box<dyn Grants> {
        self.mover.into_grants()
    }

    fn take(&mut self) -> Result<u32, QueueFault> {
        let waiting = self.ring.waiting()?.min(BLK_REQUESTS_PER_PASS);
        for _ in 0..waiting {
            let Some(number) = self.free.pop() else { break };
            let entry = &mut self.entries[number as usize];
            let index = self
                .ring
                .take(&mut entry.request[..wire::stride(self.protocol)]);
            self.journal
                .set_busy(number, index, self.next_seq, &entry.request);
            entry.starts = 0;
            entry.stage = Stage::Fresh;
            self.next_seq += 1;
            self.fresh.push_back(number);
        }
        if waiting > 0 {
            self.journal.set_taken(self.ring.indices().req_cons);
            add(&self.counters.from_guest, u64::from(waiting));
        }
        Ok(waiting)
    }

    /// Checks fresh requests: each becomes a plan in the backlog, or is finished with a refusal.
    fn judge(&mut self) {
        let count = self.fresh.len().min(BLK_REQUESTS_PER_PASS as usize);
        if count == 0 {
            return;
        }
        let numbers: Vec<u32> = self.fresh.drain(..count).collect();
        let checked: Vec<Option<Request>> =
            numbers.iter().map(|number| self.check(*number)).collect();
        let unreadable = self.fetch_descriptors(&numbers, &checked);
        for (place, (number, request)) in numbers.into_iter().zip(checked).enumerate() {
            let plan = match request {
                None => continue,
                Some(Request::Indirect { .. }) if unreadable.contains(&number) => {
                    Err("its descriptors cannot be read".to_owned())
                }
                Some(Request::Indirect {
                    way,
                    sector,
                    segments,
                    ..
                }) => self.expand(place, way, sector, segments),
                Some(other) => Plan::of(other).ok_or_else(|| "no plan".to_owned()),
            };
            match plan {
                Ok(plan) => {
                    self.entries[number as usize].stage = Stage::Waiting(plan);
                    self.backlog.push_back(number);
                }
                Err(why) => self.refuse(number, Status::Error, &why),
            }
        }
    }

    fn check(&mut self, number: u32) -> Option<Request> {
        let entry = &mut self.entries[number as usize];
        let raw = blkif::Request::decode(wire::layout(self.protocol), &entry.request)?;
        (entry.id, entry.operation) = raw.identity();
        match Request::check(&raw, &self.geometry) {
            Ok(request) => Some(request),
            Err(refusal) => {
                self.refuse(number, refusal.status(), &refusal.to_string());
                None
            }
        }
    }

    /// Copies the descriptor pages of all indirect requests into private memory; answers those where that failed.
    fn fetch_descriptors(&mut self, numbers: &[u32], checked: &[Option<Request>]) -> Vec<u32> {
        let mut failed = Vec::new();
        for (place, (number, request)) in numbers.iter().zip(checked).enumerate() {
            let Some(Request::Indirect {
                segments, pages, ..
            }) = request
            else {
                continue;
            };
            let mut left = segments * Segment::BYTES;
            let mut pieces = Vec::with_capacity(BLK_INDIRECT_PAGES);
            for gref in pages {
                let len = left.min(PAGE_SIZE);
                if len > 0 {
                    pieces.push(GrantRange {
                        gref: *gref,
                        offset: 0,
                        len: u16::try_from(len).unwrap_or(0),
                    });
                }
                left -= len;
            }
            let at = place * BLK_INDIRECT_PAGES * PAGE_SIZE;
            if !self.mover.add(
                *number,
                Direction::FromGuest,
                &pieces,
                &self.descriptors,
                at,
            ) {
                failed.push(*number);
            }
        }
        self.mover
            .run(&self.descriptors, |number| failed.push(number));
        failed
    }

    fn expand(&self, place: usize, way: Way, sector: u64, segments: usize) -> Result<Plan, String> {
        let bytes = self.descriptors.read_vec(
            place * BLK_INDIRECT_PAGES * PAGE_SIZE,
            segments * Segment::BYTES,
        );
        let segments = (0..segments)
            .map_while(|i| Segment::in_page(&bytes, i))
            .collect();
        let transfer = Transfer::indirect(sector, segments, &self.geometry)
            .map_err(|refusal| refusal.to_string())?;
        Ok(Plan::transfer(way, &transfer))
    }

    pub(super) fn refuse(&mut self, number: u32, status: Status, why: &str) {
        if self.refusals_logged < BLK_REFUSALS_LOGGED {
            self.refusals_logged += 1;
            let operation = self.entries[number as usize].operation;
            tracing::warn!(operation, why, "request refused");
        }
        self.finish(number, status);
    }

    /// Answers everything that is finished: promise, slots, intent, publish, free. See the journal for why this order.
    fn answer(&mut self) -> (u32, bool) {
        if self.finished.is_empty() {
            return (0, false);
        }
        for number in &self.finished {
            let entry = &self.entries[*number as usize];
            let Stage::Finished(status) = entry.stage else {
                continue;
            };
            self.journal.promise(*number, self.ring.next_response());
            let response = blkif::Response {
                id: entry.id,
                operation: entry.operation,
                status: status as i16,
            };
            self.ring
                .respond(&response.encode(wire::layout(self.protocol)));
        }
        self.journal.intend(self.ring.next_response());
        let notify = self.ring.publish();
        let count = u32::try_from(self.finished.len()).unwrap_or(u32::MAX);
        for number in self.finished.drain(..) {
            self.journal.free(number);
            self.entries[number as usize].stage = Stage::Free;
            self.free.push(number);
        }
        (count, notify)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
