//! A guest's disk that is being copied: orders to its driver, and the map that outlives drivers.
//!
//! The map is with the guest before the driver hears of it, and a successor gets it before its rings (`track_again`), so no write is
//! served that is not noted. An agent that is started anew knows nothing of maps: drivers end tracking and freezes with its predecessor's
//! connection.

use super::error::AgentError;
use super::furnish::order_driver;
use super::guest::{Guest, SharedGuest};
use super::record::Stage;
use super::{Agent, lock};
use crate::disks::limits::{FREEZE_WITHIN, ORDER_PAUSE, ORDER_TRIES};
use crate::disks::map::DirtyMap;
use crate::disks::{ExtentSet, Tracked};
use parapet_wire::driver::{DeviceKind, OrderBody, Outcome, TrackDisk};
use std::fmt;
use std::ops::Deref;
use xen_abi::ids::DomId;

/// A disk that is being copied.
#[derive(Debug)]
pub struct TrackedDisk {
    map: DirtyMap,
    frozen: bool,
}

impl Agent {
    /// Lets the writes of a disk be noted from now on.
    ///
    /// # Errors
    /// There is no such disk, it is being copied already, or its driver does not do it: nothing is noted then.
    pub fn track_disk(
        &self,
        shared: &SharedGuest,
        devid: u32,
        disk_bytes: u64,
    ) -> Result<(), AgentError> {
        let mut guest = lock(shared);
        let domid = running(&guest)?;
        let device = |what: &str| AgentError::Device {
            device: devid.to_string(),
            what: what.to_owned(),
        };
        if !guest.devices.contains_key(&(DeviceKind::Disk, devid)) {
            return Err(device("the guest has no such disk"));
        }
        if guest.tracked.contains_key(&devid) {
            return Err(device("is being copied already"));
        }
        let map = DirtyMap::create(disk_bytes)?;
        let map = map.ok_or_else(|| device("is empty, or too large to be copied live"))?;
        guest
            .tracked
            .insert(devid, TrackedDisk { map, frozen: false });
        let told = tell(&mut guest, domid, devid);
        if told.is_err() {
            guest.tracked.remove(&devid);
        }
        told
    }

    /// What was noted since the last call.
    ///
    /// # Errors
    /// The disk is not tracked (any more), or its driver is away: nothing is lost, and the successor may be asked.
    pub fn take_dirty(&self, shared: &SharedGuest, devid: u32) -> Result<ExtentSet, AgentError> {
        let mut guest = lock(shared);
        let domid = running(&guest)?;
        find(&mut guest, devid)?;
        if is_let_go(&guest) {
            // What the last driver noted and did not take any more counts as well.
            return Ok(find(&mut guest, devid)?.map.drain_all());
        }
        order_driver(
            &mut guest,
            domid,
            OrderBody::TakeDirty { devid },
            Vec::new(),
        )?;
        Ok(find(&mut guest, devid)?.map.drain())
    }

    /// Makes a tracked disk quiet, successors included, until [`Agent::untrack_disk`]. Answers how many requests wait in its rings.
    ///
    /// # Errors
    /// It does not become quiet; it is served then.
    pub fn freeze_disk(&self, shared: &SharedGuest, devid: u32) -> Result<u32, AgentError> {
        let mut guest = lock(shared);
        let domid = running(&guest)?;
        find(&mut guest, devid)?;
        if is_let_go(&guest) {
            return Ok(0);
        }
        find(&mut guest, devid)?.frozen = true;
        let order = OrderBody::FreezeDisk {
            devid,
            within_ms: u64::try_from(FREEZE_WITHIN.as_millis()).unwrap_or(u64::MAX),
        };
        let untaken = match order_driver(&mut guest, domid, order, Vec::new()) {
            Ok(Outcome::Frozen { untaken }) => Ok(untaken),
            Ok(other) => Err(AgentError::Driver {
                domid,
                what: format!("answered a freeze with {other:?}"),
            }),
            Err(error) => Err(error),
        };
        // A driver that is away was replaced by one that starts frozen; one that says no serves the disk.
        if untaken.as_ref().is_err_and(|error| !error.passes()) {
            find(&mut guest, devid)?.frozen = false;
        }
        untaken
    }

    /// Serves a disk as ever, and notes nothing more; fine when there is nothing to end.
    pub fn untrack_disk(&self, shared: &SharedGuest, devid: u32) {
        let mut guest = lock(shared);
        if guest.tracked.remove(&devid).is_none() {
            return;
        }
        let Some(domid) = guest.record.domid.filter(|_| guest.driver.is_some()) else {
            return;
        };
        // A driver that is away took tracking and freeze with it.
        let order = OrderBody::UntrackDisk { devid };
        if let Err(error) = order_driver(&mut guest, domid, order, Vec::new()) {
            tracing::warn!(%domid, devid, %error, "untrack disk");
        }
    }

    /// Gives a successor the map of a disk that it has opened, before its rings are connected.
    ///
    /// # Errors
    /// The successor is gone as well. One that cannot track (of an older release) serves the disk, and whoever copies it is told.
    pub(super) fn track_again(
        &self,
        guest: &mut Guest,
        domid: DomId,
        devid: u32,
    ) -> Result<(), AgentError> {
        if !guest.tracked.contains_key(&devid) {
            return Ok(());
        }
        match tell(guest, domid, devid) {
            Err(error) if !error.passes() => {
                tracing::error!(%domid, devid, %error, "a successor does not track; the copy of the disk ends");
                guest.tracked.remove(&devid);
                Ok(())
            }
            result => result,
        }
    }
}

fn tell(guest: &mut Guest, domid: DomId, devid: u32) -> Result<(), AgentError> {
    let disk = find(guest, devid)?;
    let frozen = disk.frozen;
    let fd = disk.map.pass().map_err(|error| AgentError::Driver {
        domid,
        what: error.to_string(),
    })?;
    let order = OrderBody::TrackDisk(TrackDisk { devid, frozen });
    order_driver(guest, domid, order, vec![fd]).map(drop)
}

/// The guest has suspended to be moved, its driver has ended, and none takes its place: nobody writes to its disks.
fn is_let_go(guest: &Guest) -> bool {
    guest.record.stage == Stage::Leaving && guest.driver.is_none()
}

fn running(guest: &Guest) -> Result<DomId, AgentError> {
    let domid = guest.record.domid;
    domid.ok_or_else(|| AgentError::Invalid("the guest is not running".to_owned()))
}

fn find(guest: &mut Guest, devid: u32) -> Result<&mut TrackedDisk, AgentError> {
    let missing = || AgentError::Device {
        device: devid.to_string(),
        what: "its writes are not noted (any more); begin the copy anew".to_owned(),
    };
    guest.tracked.get_mut(&devid).ok_or_else(missing)
}

/// A disk of a guest, for [`crate::disks::DiskCopy`]: orders to a driver that is just being replaced are given again, a little later.
pub struct GuestDisk<A, P> {
    agent: A,
    guest: SharedGuest,
    devid: u32,
    /// Lets a little time pass.
    pause: P,
}

impl<A, P> fmt::Debug for GuestDisk<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestDisk")
            .field("devid", &self.devid)
            .finish_non_exhaustive()
    }
}

/// Sleeps for a moment; whoever replaces drivers works meanwhile.
pub fn a_moment() {
    std::thread::sleep(ORDER_PAUSE);
}

impl<A: Deref<Target = Agent>, P: FnMut()> GuestDisk<A, P> {
    /// The disk of this number; `pause` is called between two tries ([`a_moment`]).
    #[must_use]
    pub fn new(agent: A, guest: SharedGuest, devid: u32, pause: P) -> Self {
        Self {
            agent,
            guest,
            devid,
            pause,
        }
    }

    fn patiently<T>(
        &mut self,
        act: impl Fn(&Agent, &SharedGuest, u32) -> Result<T, AgentError>,
    ) -> Result<T, AgentError> {
        let mut left = ORDER_TRIES;
        loop {
            left -= 1;
            match act(&self.agent, &self.guest, self.devid) {
                Err(error) if error.passes() && left > 0 => {
                    tracing::info!(devid = self.devid, %error, "again in a moment");
                    (self.pause)();
                }
                result => return result,
            }
        }
    }
}

impl<A: Deref<Target = Agent>, P: FnMut()> Tracked for GuestDisk<A, P> {
    fn begin(&mut self, disk_bytes: u64) -> Result<(), AgentError> {
        self.patiently(|agent, guest, devid| agent.track_disk(guest, devid, disk_bytes))
    }

    fn dirty(&mut self) -> Result<ExtentSet, AgentError> {
        self.patiently(Agent::take_dirty)
    }

    fn freeze(&mut self) -> Result<u32, AgentError> {
        self.patiently(Agent::freeze_disk)
    }

    fn end(&mut self) {
        self.agent.untrack_disk(&self.guest, self.devid);
    }
}
