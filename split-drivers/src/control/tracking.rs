//! A disk that somebody copies: its map, and whether it is frozen. What the rings' threads are asked, and what happens when one does not answer.
//!
//! Both end with the connection of the agent that ordered them: it is the agent that copies, and a guest must not wait for one that is gone.

use super::disks::Disk;
use super::threads::fault;
use crate::blk::dirty::DirtyMap;
use crate::blk::reins::{NoAnswer, Reins};
use crate::limits::FREEZE_MAX;
use parapet_wire::driver::{DriverFault, TrackDisk};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct Tracking {
    /// Where writes are noted, if they are.
    pub map: Option<Arc<DirtyMap>>,
    /// Rings take nothing; those that are connected from now on neither.
    pub frozen: bool,
}

impl Disk {
    /// Notes writes in the agent's map from now on.
    ///
    /// # Errors
    /// It is no map of this disk, or a ring's thread does not answer; nothing is noted then.
    pub fn track(&mut self, order: &TrackDisk, fd: OwnedFd) -> Result<(), DriverFault> {
        let bytes = self.medium().sectors * 512;
        let map = DirtyMap::adopt(fd, bytes).map_err(|error| self.named(&error.to_string()))?;
        let map = Arc::new(map);
        let told = self.tell_all(|reins| reins.track(Some(&map)));
        if let Err(error) = told {
            self.untrack();
            return Err(error);
        }
        self.tracking.map = Some(map);
        // Of rings that run already, the present state counts: only freezing them proves that they are quiet.
        self.tracking.frozen |= order.frozen && !self.is_serving();
        Ok(())
    }

    /// Moves what was noted to the agent's half of the map; answers how many extents.
    ///
    /// # Errors
    /// Nothing is being noted.
    pub fn take_dirty(&self) -> Result<u64, DriverFault> {
        let map = self.tracking.map.as_ref();
        Ok(map.ok_or_else(|| self.not_tracked())?.take())
    }

    /// Notes no more, and serves the rings again; fine when there is nothing to end.
    pub fn untrack(&mut self) {
        self.thaw();
        if let Err(error) = self.tell_all(|reins| reins.track(None)) {
            tracing::warn!(%error, "untrack");
        }
        self.tracking.map = None;
    }

    /// Ends both, if there is anything to end.
    pub fn forget_copier(&mut self) {
        if self.tracking.map.is_some() {
            self.untrack();
        }
    }

    /// Makes the rings quiet: everything that was taken is answered, and the medium flushed. Answers how many requests wait in the rings.
    ///
    /// # Errors
    /// The disk is not tracked, or did not become quiet in time; it is served then.
    pub fn freeze(&mut self, within: Duration) -> Result<u32, DriverFault> {
        if self.tracking.map.is_none() {
            return Err(self.not_tracked());
        }
        let until = Instant::now() + within.min(FREEZE_MAX);
        // All at once, then all answers: the rings end their I/O side by side.
        let pending: Vec<_> = self.reins().map(|reins| reins.freeze(until)).collect();
        let answers: Vec<_> = pending
            .into_iter()
            .map(|answer| answer.wait(until))
            .collect();
        let mut untaken = 0_u32;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(Ok(more)) => untaken = untaken.saturating_add(more),
                Ok(Err(why)) => failed = Some(why),
                Err(why) => failed = Some(why.to_string()),
            }
        }
        if let Some(why) = failed {
            self.thaw();
            return Err(fault(
                format!("disk {} does not become quiet: {why}", self.devid()),
                true,
            ));
        }
        self.tracking.frozen = true;
        Ok(untaken)
    }

    /// Takes requests again; fine when it does.
    pub fn thaw(&mut self) {
        self.tracking.frozen = false;
        if let Err(error) = self.tell_all(Reins::thaw) {
            tracing::warn!(%error, "thaw");
        }
    }

    fn tell_all(
        &self,
        ask: impl Fn(&Reins) -> crate::blk::reins::Pending<()>,
    ) -> Result<(), DriverFault> {
        let pending: Vec<_> = self.reins().map(ask).collect();
        let answers: Vec<Result<(), NoAnswer>> = pending
            .into_iter()
            .map(|answer| answer.wait(Instant::now()))
            .collect();
        answers
            .into_iter()
            .collect::<Result<(), NoAnswer>>()
            .map_err(|error| fault(format!("disk {}: {error}", self.devid()), true))
    }

    fn not_tracked(&self) -> DriverFault {
        self.named("nobody tracks its writes")
    }

    fn named(&self, text: &str) -> DriverFault {
        fault(format!("disk {}: {text}", self.devid()), false)
    }
}
