//! Disks: opened once, connected and disconnected as the guest's frontend comes and goes.

use super::pool::Pool;
use super::threads::{Bound, FaultLine, RingThread, bind, fault, name, stop_all, unbind};
use super::tracking::Tracking;
use crate::blk::features;
use crate::blk::journal::{self, Journal, RingJournal};
use crate::blk::queue::Setup;
use crate::blk::recover::{Recovered, recover};
use crate::blk::reins::{self, Reins};
use crate::blk::request::Geometry;
use crate::blk::wire;
use crate::blk::worker::{Tools, serve};
use crate::disk::file::{Image, OpenError};
use crate::ring::back::{BackRing, RingIndices};
use crate::stats::Counters;
use parapet_wire::driver::{ConnectDisk, DeviceKind, DeviceStats, DriverFault, Medium, OpenDisk};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use xen_host::eventfd::EventFd;
use xen_host::memfd::map_file;
use xen_host::region::SharedRegion;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    opened: OpenDisk,
    image: Arc<Image>,
    serving: Option<Serving>,
    pub(super) tracking: Tracking,
}

#[derive(Debug)]
struct Serving {
    order: ConnectDisk,
    threads: Vec<Served>,
    counters: Arc<Counters>,
}

/// A ring's thread, and the reins it is held by.
#[derive(Debug)]
struct Served {
    thread: RingThread,
    reins: Reins,
}

fn refused(order: &OpenDisk, error: &OpenError) -> DriverFault {
    let retry = matches!(error, OpenError::Locked(_));
    fault(format!("disk {}: {error}", order.devid), retry)
}

/// Ends threads together and puts their handles back.
fn end_all(served: Vec<Served>, pool: &mut Pool) {
    served.iter().for_each(|served| served.reins.end());
    stop_all(
        served.into_iter().map(|served| served.thread).collect(),
        pool,
    );
}

impl Disk {
    /// Opens the medium.
    ///
    /// # Errors
    /// See [`OpenError`]; a lock that is held is worth another try.
    pub fn open(order: &OpenDisk, fd: OwnedFd) -> Result<Self, DriverFault> {
        Image::open(fd, order)
            .map(|image| Self::of(order, image))
            .map_err(|error| refused(order, &error))
    }

    /// Opens a medium that somebody else may still use.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn prepare(order: &OpenDisk, fd: OwnedFd) -> Result<Self, DriverFault> {
        Image::prepare(fd, order)
            .map(|image| Self::of(order, image))
            .map_err(|error| refused(order, &error))
    }

    fn of(order: &OpenDisk, image: Image) -> Self {
        Self {
            opened: order.clone(),
            image: Arc::new(image),
            serving: None,
            tracking: Tracking::default(),
        }
    }

    /// Takes a prepared medium from everybody else; nothing to do for one that was opened.
    ///
    /// # Errors
    /// See [`OpenError`]; a lock that is held is worth another try.
    pub fn claim(&mut self, order: &OpenDisk) -> Result<(), DriverFault> {
        if !self.is_claimed() {
            let claimed = self.image.claim(order);
            self.image = Arc::new(claimed.map_err(|error| refused(order, &error))?);
        }
        Ok(())
    }

    /// Whether nobody else may use it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.image.is_locked()
    }

    /// Whether it was opened by an order like this.
    #[must_use]
    pub fn is_opened_by(&self, order: &OpenDisk) -> bool {
        OpenDisk {
            lock_timeout_ms: 0,
            ..order.clone()
        } == OpenDisk {
            lock_timeout_ms: 0,
            ..self.opened.clone()
        }
    }

    /// What it is.
    #[must_use]
    pub fn medium(&self) -> Medium {
        self.image.medium()
    }

    /// Its number.
    #[must_use]
    pub fn devid(&self) -> u32 {
        self.opened.devid
    }

    /// The reins of its rings' threads.
    pub(super) fn reins(&self) -> impl Iterator<Item = &Reins> {
        let serving = self.serving.iter();
        serving.flat_map(|serving| serving.threads.iter().map(|served| &served.reins))
    }

    /// Whether its rings are served.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.is_some()
    }

    /// Counters, while it is served.
    #[must_use]
    pub fn stats(&self) -> Option<DeviceStats> {
        Some(
            self.serving
                .as_ref()?
                .counters
                .report(DeviceKind::Disk, self.opened.devid),
        )
    }

    /// Maps the rings and serves them; answers how many requests of a predecessor are issued again. Nothing if they are being served already.
    ///
    /// # Errors
    /// The order is not what was offered, the journal is unusable, or Xen refuses; nothing is left mapped or bound.
    pub fn connect(
        &mut self,
        order: &ConnectDisk,
        journal: OwnedFd,
        pool: &mut Pool,
        faults: &FaultLine,
    ) -> Result<u32, DriverFault> {
        if let Some(serving) = &self.serving {
            let same = ConnectDisk {
                resume: false,
                ..order.clone()
            } == ConnectDisk {
                resume: false,
                ..serving.order.clone()
            };
            let why = format!(
                "disk {}: is served on other rings; disconnect it first",
                order.devid
            );
            return if same { Ok(0) } else { Err(fault(why, false)) };
        }
        let named = |text: String| fault(format!("disk {}: {text}", order.devid), false);
        let slots = features::check(order).map_err(|error| named(error.to_string()))?;
        let rings = map_rings(order, pool)?;
        let journals = match open_journal(order, journal, slots, &rings) {
            Ok(journals) => journals,
            Err(text) => {
                rings.into_iter().for_each(|(bound, _)| unbind(pool, bound));
                return Err(named(text));
            }
        };
        let redone = journals
            .iter()
            .filter_map(|(_, recovered)| recovered.as_ref())
            .map(|recovered| recovered.redo.len())
            .sum::<usize>();
        let counters: Arc<Counters> = Arc::default();
        let mut threads = Vec::new();
        let mut failed = None;
        for (queue, ((bound, page), (journal, recovered))) in
            rings.into_iter().zip(journals).enumerate()
        {
            if failed.is_some() {
                unbind(pool, bound);
                continue;
            }
            let ring = Start {
                order,
                queue,
                bound,
                page,
                journal,
                recovered,
                counters: &counters,
            };
            match self.start(ring, pool, faults) {
                Ok(thread) => threads.push(thread),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            end_all(threads, pool);
            return Err(named(error.text));
        }
        self.serving = Some(Serving {
            order: order.clone(),
            threads,
            counters,
        });
        Ok(u32::try_from(redone).unwrap_or(u32::MAX))
    }

    fn start(
        &self,
        start: Start<'_>,
        pool: &Pool,
        faults: &FaultLine,
    ) -> Result<Served, DriverFault> {
        let Start {
            order,
            queue,
            bound,
            page,
            journal,
            recovered,
            counters,
        } = start;
        let at = recovered.as_ref().map_or_else(
            || RingIndices {
                req_cons: journal.taken(),
                rsp_prod: journal.intended(),
            },
            |recovered| recovered.at,
        );
        let medium = self.image.medium();
        let geometry = Geometry {
            sectors: medium.sectors,
            sector_size: medium.sector_size,
            read_only: self.image.is_read_only(),
            discard: medium.discard_granularity.is_some(),
        };
        let stop = EventFd::new().map_err(|error| fault(error.to_string(), true))?;
        let pair = reins::pair(&stop).map_err(|error| fault(error.to_string(), true));
        let (reins, ears) = pair?;
        let setup = Setup {
            domid: pool.domid(),
            protocol: order.protocol,
            persistent: order.persistent,
            geometry,
            ring: BackRing::new(page, wire::stride(order.protocol), at),
            journal,
            recovered,
            grants: bound.handles.grants,
            disk: (),
            counters: Arc::clone(counters),
            tracking: self.tracking.map.clone(),
        };
        let tools = Tools {
            image: Arc::clone(&self.image),
            events: bound.handles.events,
            port: bound.port,
            ears,
            frozen: self.tracking.frozen,
            may_poll: std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1),
        };
        let (devid, faults) = (order.devid, faults.clone());
        let thread = RingThread::start(
            name("blk", pool.domid(), devid, queue),
            stop,
            move |ready| {
                let (handles, result) = serve(tools, setup, ready);
                if let Err(error) = result {
                    faults.report(DeviceKind::Disk, devid, format!("ring {queue}: {error}"));
                }
                handles
            },
        )?;
        Ok(Served { thread, reins })
    }

    /// Answers what is in flight and lets go of everything, the medium's lock included.
    pub fn let_go(mut self, pool: &mut Pool) {
        self.disconnect(pool);
        self.image.unlock();
    }

    /// Answers what is in flight and unmaps the rings; the medium stays open.
    pub fn disconnect(&mut self, pool: &mut Pool) {
        if let Some(serving) = self.serving.take() {
            end_all(serving.threads, pool);
        }
    }
}

/// All that one ring is made of.
struct Start<'a> {
    order: &'a ConnectDisk,
    queue: usize,
    bound: Bound,
    page: SharedRegion,
    journal: RingJournal,
    recovered: Option<Recovered>,
    counters: &'a Arc<Counters>,
}

/// Binds and maps all rings, or none.
fn map_rings(
    order: &ConnectDisk,
    pool: &mut Pool,
) -> Result<Vec<(Bound, SharedRegion)>, DriverFault> {
    let mut rings = Vec::new();
    let mut failed = None;
    for ring in &order.rings {
        let bound = match bind(pool, ring.port) {
            Ok(bound) => bound,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        match bound.handles.grants.map(pool.domid(), &ring.refs, true) {
            Ok(page) => rings.push((bound, page)),
            Err(error) => {
                unbind(pool, bound);
                failed = Some(fault(
                    format!("ring of disk {}: {error}", order.devid),
                    false,
                ));
                break;
            }
        }
    }
    match failed {
        None => Ok(rings),
        Some(error) => {
            rings.into_iter().for_each(|(bound, _)| unbind(pool, bound));
            Err(error)
        }
    }
}

type RingState = (RingJournal, Option<Recovered>);

/// The journal: a predecessor's, with what it left, or a new one that stands where the rings do.
fn open_journal(
    order: &ConnectDisk,
    fd: OwnedFd,
    slots: u32,
    rings: &[(Bound, SharedRegion)],
) -> Result<Vec<RingState>, String> {
    let need = journal::bytes(order.rings.len(), slots);
    let file = File::from(fd);
    let have = file
        .metadata()
        .map_err(|error| format!("journal: {error}"))?
        .len();
    let mut resume = order.resume;
    if have < need as u64 {
        // Shorter than a journal of these rings: none was ever made.
        resume = false;
        file.set_len(need as u64)
            .map_err(|error| format!("journal of {need} bytes: {error}"))?;
    }
    let region = map_file(file.as_fd(), need).map_err(|error| format!("journal: {error}"))?;
    if resume && !Journal::is_blank(&region) {
        let journal = Journal::open(region, order, slots).map_err(|error| error.to_string())?;
        tracing::info!(
            devid = order.devid,
            generation = journal.generation(),
            "taking over"
        );
        let state = |queue| {
            let ring = journal.ring(queue);
            let recovered = recover(&ring).map_err(|error| error.to_string())?;
            Ok((ring, Some(recovered)))
        };
        return (0..rings.len()).map(state).collect();
    }
    let journal = Journal::create(region, order, slots).map_err(|error| error.to_string())?;
    let fresh = |(queue, (_, page)): (usize, &(Bound, SharedRegion))| {
        let ring = journal.ring(queue);
        let at = crate::ring::back::published(page);
        ring.start_at(at, at);
        (ring, None)
    };
    Ok(rings.iter().enumerate().map(fresh).collect())
}
