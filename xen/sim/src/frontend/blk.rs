//! A blkfront that behaves as Linux's does, and notices everything Linux would disable the disk for (and more).
//!
//! ```text
//!            back 2: rings, keys, state 3         back 4: properties, state 4
//!   Waiting ─────────────────────────▶ Offered ─────────────────────────▶ Connected
//!      ▲                                                                     │ back 5 or 6, or close()
//!      └───────────────── reconnect() ─────── Closed ◀───────────────────────┘
//! ```
//!
//! Answers are checked for id, operation, padding, number and for grants that are still mapped. Request ids are the slot's number with
//! noise above it, so that a backend which cuts or invents ids is found out.

use super::ring::FrontRing;
use super::xenbus::{DeviceAddress, FrontDevice};
use crate::kernel::DomU;
use crate::world::World;
use request::{Pending, Pool};
use std::collections::BTreeMap;
use std::time::Duration;
use xen_abi::ids::Port;
use xen_abi::io::blkif::{self, Protocol, Response};
use xen_abi::io::xenbus::XenbusState;

mod handshake;
mod request;
pub(crate) use request::direct;
pub use request::{Answer, BlkRequest, RequestId};

/// How the frontend was built and loaded.
#[derive(Debug, Clone, Copy)]
pub struct BlkOptions {
    /// Layout of its requests.
    pub protocol: Protocol,
    /// Largest ring it would use, as log2 of pages.
    pub ring_order: u32,
    /// Most queues it would use.
    pub queues: u32,
    /// Uses persistent grants when offered.
    pub persistent: bool,
    /// Most segments of an indirect request it would use; 0 for none.
    pub indirect: u16,
    /// Puts data at odd places in its pages (small segments, first sector not 0).
    pub scatter: bool,
}

impl Default for BlkOptions {
    /// Debian's stock driver on a guest with one vcpu.
    fn default() -> Self {
        Self {
            protocol: Protocol::X86_64,
            ring_order: 0,
            queues: 1,
            persistent: true,
            indirect: 32,
            scatter: false,
        }
    }
}

/// What the backend said of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskInfo {
    /// Size in sectors of 512 bytes.
    pub sectors: u64,
    /// Smallest unit of access in bytes.
    pub sector_size: u64,
    /// Unit the medium likes best, in bytes.
    pub physical_sector_size: u64,
    /// `VDISK_*`.
    pub info: u64,
    /// Can flush.
    pub flush: bool,
    /// Can do barriers.
    pub barrier: bool,
    /// Can discard.
    pub discard: bool,
    /// Discard can be secure.
    pub discard_secure: bool,
    /// Persistent grants were agreed.
    pub persistent: bool,
    /// Segments per request that were agreed.
    pub segments: usize,
}

/// Where the frontend stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlkState {
    /// Waits for the backend to offer.
    Waiting,
    /// Has offered its rings.
    Offered,
    /// The disk is in use.
    Connected,
    /// The disk is gone.
    Closed,
}

#[derive(Debug)]
struct Queue {
    ring: FrontRing,
    port: Port,
    pending: BTreeMap<u64, Pending>,
    free: Vec<u16>,
    pool: Pool,
}

/// The frontend of one disk.
#[derive(Debug)]
pub struct BlkFront {
    device: FrontDevice,
    options: BlkOptions,
    state: BlkState,
    queues: Vec<Queue>,
    info: DiskInfo,
    disabled: Option<String>,
    spurious: u64,
    sent: u64,
    overrides: Vec<(String, Option<String>)>,
}

impl World {
    /// Plugs a disk: the toolstack's part, for a backend that needs no scripts.
    #[must_use]
    pub fn plug_disk(&self, domu: &DomU, devid: u32, backend: &[(&str, &str)]) -> DeviceAddress {
        let at = DeviceAddress::new(domu.domid(), "vbd", devid);
        let number = devid.to_string();
        let frontend = [("virtual-device", number.as_str()), ("device-type", "disk")];
        self.plug(&at, backend, &frontend);
        at
    }
}

impl BlkFront {
    /// The driver finds its disk; it acts in [`BlkFront::step`].
    #[must_use]
    pub fn new(domu: &DomU, at: DeviceAddress, options: BlkOptions) -> Self {
        Self {
            device: FrontDevice::new(domu, at),
            options,
            state: BlkState::Waiting,
            queues: Vec::new(),
            info: DiskInfo::default(),
            disabled: None,
            spurious: 0,
            sent: 0,
            overrides: Vec::new(),
        }
    }

    /// The xenbus side.
    #[must_use]
    pub fn device(&self) -> &FrontDevice {
        &self.device
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> BlkState {
        self.state
    }

    /// What the backend said.
    #[must_use]
    pub fn info(&self) -> DiskInfo {
        self.info
    }

    /// Why Linux would have disabled the disk for good.
    #[must_use]
    pub fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    /// Queues in use.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Requests that wait for their answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.queues.iter().map(|queue| queue.pending.len()).sum()
    }

    /// Events that came without a response.
    #[must_use]
    pub fn spurious_events(&self) -> u64 {
        self.spurious
    }

    /// Events this frontend has sent.
    #[must_use]
    pub fn events_sent(&self) -> u64 {
        self.sent
    }

    /// Publishes this value of a key in place of the right one, or leaves the key out.
    pub fn override_key(&mut self, key: &str, value: Option<&str>) {
        self.overrides
            .push((key.to_owned(), value.map(str::to_owned)));
    }

    /// Looks at the backend's state and does what Linux does. True when its own state changed.
    pub fn step(&mut self) -> bool {
        let changed = self.device.backend_changed();
        let before = self.state;
        match (self.state, self.device.backend_state()) {
            (BlkState::Waiting, XenbusState::InitWait) => self.offer(),
            (BlkState::Offered, XenbusState::Connected) => self.connect(),
            (BlkState::Connected, XenbusState::Connected) if changed => {
                self.info.sectors = self.device.backend_number("sectors").unwrap_or(0);
            }
            (
                BlkState::Offered | BlkState::Connected,
                XenbusState::Closing | XenbusState::Closed,
            ) => self.close(),
            _ => {}
        }
        before != self.state
    }

    /// Steps until the disk is in use, while something else runs the backend.
    #[must_use]
    pub fn wait_connected(&mut self, most: Duration) -> bool {
        let world = self.device.domu().world().clone();
        world.wait_until(most, || {
            self.step();
            self.state == BlkState::Connected
        })
    }

    /// Closes: 5, 6, and everything of the rings is taken back. A grant that is still mapped then is a violation.
    pub fn close(&mut self) {
        self.device.switch(XenbusState::Closing);
        self.device.switch(XenbusState::Closed);
        self.state = BlkState::Closed;
    }

    /// Frees rings and grants, after the backend is closed (or dead). Answers how many requests were never answered.
    pub fn free(&mut self) -> usize {
        let mut lost = 0;
        for queue in std::mem::take(&mut self.queues) {
            lost += queue.pending.len();
            if let Err(still) = queue.end(self.device.domu()) {
                self.device.complain(&still.to_string());
            }
        }
        lost
    }

    /// From 6 to 1 again: driver reload, kexec, GRUB's hand-over.
    pub fn reconnect(&mut self) {
        let _ = self.free();
        for key in [
            "ring-ref",
            "ring-page-order",
            "event-channel",
            "multi-queue-num-queues",
        ] {
            self.device.remove_key(key);
        }
        self.disabled = None;
        self.device.switch(XenbusState::Initialising);
        self.state = BlkState::Waiting;
    }

    /// Most bytes one request can carry.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        let segment = if self.options.scatter { 512 } else { 4096 };
        self.info.segments * segment
    }

    /// Takes all answers of all queues.
    pub fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        for n in 0..self.queues.len() {
            let hit = self.device.domu().take_pending(self.queues[n].port);
            let before = answers.len();
            if let Err(why) = self.drain(n, &mut answers) {
                self.disable(&why);
            }
            self.spurious += u64::from(hit && answers.len() == before);
        }
        answers
    }

    fn drain(&mut self, n: usize, answers: &mut Vec<Answer>) -> Result<(), String> {
        if self.disabled.is_some() {
            return Ok(());
        }
        loop {
            let taken = self.queues[n]
                .ring
                .take()
                .map_err(|error| error.to_string())?;
            if let Some(index) = taken {
                let answer = self.answer(n, index)?;
                answers.push(answer);
            } else if !self.queues[n]
                .ring
                .final_check()
                .map_err(|error| error.to_string())?
            {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, n: usize, index: u32) -> Result<Answer, String> {
        let persistent = self.info.persistent;
        let protocol = self.options.protocol;
        let queue = &mut self.queues[n];
        let raw = queue.ring.entry(index);
        let Some(response) = Response::decode(&raw) else {
            return Err("short entry".into());
        };
        let clean = response.encode(protocol);
        if raw[..clean.len()] != clean[..] {
            let what = format!(
                "response {index} has bytes in its padding: {:02x?}",
                &raw[..16]
            );
            self.device.complain(&what);
        }
        let queue = &mut self.queues[n];
        let Some(pending) = queue.pending.remove(&response.id) else {
            return Err(format!(
                "response for id {:#x}, which waits for none",
                response.id
            ));
        };
        if pending.operation != response.operation {
            let (got, sent) = (response.operation, pending.operation);
            return Err(format!(
                "response names operation {got}, the request was {sent}"
            ));
        }
        queue.free.push(pending.slot);
        let (id, asked) = (pending.id(n), pending.operation);
        let data = pending.finish(self.device.domu(), &mut queue.pool, persistent)?;
        let data = data.filter(|_| asked == blkif::OP_READ && response.status == blkif::RSP_OKAY);
        Ok(Answer {
            id,
            operation: asked,
            status: response.status,
            data,
        })
    }

    fn disable(&mut self, why: &str) {
        self.device.complain(why);
        if self.disabled.is_none() {
            self.disabled = Some(why.to_owned());
        }
    }

    /// Takes answers until `count` have come, while something else runs the backend. Fewer when `most` was not enough.
    pub fn wait_answers(&mut self, count: usize, most: Duration) -> Vec<Answer> {
        let world = self.device.domu().world().clone();
        let mut answers = Vec::new();
        let _ = world.wait_until(most, || {
            answers.extend(self.answers());
            answers.len() >= count || self.disabled.is_some()
        });
        answers
    }

    /// Bytes the backend wrote into rings outside of its responses; there must be none.
    #[must_use]
    pub fn leaked_bytes(&self) -> usize {
        let response = Response {
            id: 0,
            operation: 0,
            status: 0,
        };
        let len = response.encode(self.options.protocol).len();
        self.queues
            .iter()
            .map(|queue| queue.ring.foreign_bytes(len).len())
            .sum()
    }

    /// The ring of a queue, for raw requests.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn ring(&mut self, queue: usize) -> &mut FrontRing {
        &mut self.queues[queue].ring
    }

    /// The port of a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    #[must_use]
    pub fn port(&self, queue: usize) -> Port {
        self.queues[queue].port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GuestSpec, World};

    #[test]
    fn the_offer_follows_what_the_backend_can_do() {
        let world = World::seeded(5);
        let guest = world.spawn(&GuestSpec::pvh("a"));
        let backend = [
            ("max-ring-page-order", "4"),
            ("multi-queue-max-queues", "8"),
        ];
        let at = world.plug_disk(guest.domu(), 51712, &backend);
        let options = BlkOptions {
            ring_order: 2,
            queues: 3,
            ..BlkOptions::default()
        };
        let mut front = BlkFront::new(guest.domu(), at.clone(), options);
        assert!(!front.step(), "the backend has not offered");
        let host = world.host("backend");
        let state = format!("{}/state", at.backend());
        xen_host::xenstore::store::StoreExt::write_text(
            &host,
            xen_host::xenstore::store::TxId::NONE,
            &state,
            "2",
        )
        .unwrap();
        assert!(front.step());
        assert_eq!(front.device().state(), XenbusState::Initialised);
        let dir = at.frontend();
        assert_eq!(
            world.xs_read(&format!("{dir}/ring-page-order")).as_deref(),
            Some("2")
        );
        assert_eq!(
            world
                .xs_read(&format!("{dir}/multi-queue-num-queues"))
                .as_deref(),
            Some("3")
        );
        for key in ["queue-2/ring-ref3", "queue-0/event-channel"] {
            assert!(world.xs_read(&format!("{dir}/{key}")).is_some(), "{key}");
        }
    }
}
