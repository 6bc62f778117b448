//! A correct blkfront for this crate's tests: puts requests into a ring and takes answers out, and notices a backend that breaks the rules.

use super::dirty::DirtyMap;
use super::journal::{Journal, bytes};
use super::queue::{BlkQueue, Progress, Setup};
use super::recover::recover;
use super::request::Geometry;
use super::wire::{self, MAX_REQUEST_BYTES};
use crate::disk::Disk;
use crate::ring::back::{BackRing, RingIndices, entries_of};
use crate::testing::{GUEST, GuestMemory};
use parapet_wire::driver::{ConnectDisk, Protocol, Ring};
use std::collections::HashMap;
use std::sync::Arc;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::blkif::{self, Segment};
use xen_host::memfd::MemFd;
use xen_host::region::SharedRegion;

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub id: u64,
    pub operation: u8,
    pub status: i16,
}

/// The guest's side of one ring, and the journal that outlives its backends.
pub struct Front {
    pub memory: GuestMemory,
    pub page: SharedRegion,
    pub order: ConnectDisk,
    pub journal: MemFd,
    /// Where backends that are made from now on note writes.
    pub tracking: Option<Arc<DirtyMap>>,
    entries: u32,
    req_prod: u32,
    rsp_cons: u32,
    next_id: u64,
    waiting: HashMap<u64, u8>,
}

impl Front {
    pub fn new(protocol: Protocol, persistent: bool, pages: usize) -> Self {
        let memory = GuestMemory::new(4096);
        let refs: Vec<GrantRef> = (0..pages).map(|_| memory.page()).collect();
        let page = memory.view(&refs);
        page.store_u32(4, 1);
        page.store_u32(12, 1);
        let rings = vec![Ring {
            refs,
            port: Port(3),
        }];
        let order = ConnectDisk {
            devid: 51712,
            protocol,
            persistent,
            rings,
            resume: false,
        };
        let entries = entries_of(pages, wire::stride(protocol));
        let journal = MemFd::create("journal", bytes(1, entries)).unwrap();
        Self {
            memory,
            page,
            order,
            journal,
            tracking: None,
            entries,
            req_prod: 0,
            rsp_cons: 0,
            next_id: 1,
            waiting: HashMap::new(),
        }
    }

    /// A backend, first or successor.
    pub fn backend<D: Disk>(&self, disk: D, geometry: Geometry, resume: bool) -> BlkQueue<D> {
        let region = self.journal.map().unwrap();
        let (journal, recovered) = if resume {
            let journal = Journal::open(region, &self.order, self.entries).unwrap();
            let recovered = recover(&journal.ring(0)).unwrap();
            (journal, Some(recovered))
        } else {
            (
                Journal::create(region, &self.order, self.entries).unwrap(),
                None,
            )
        };
        let at = recovered
            .as_ref()
            .map_or(RingIndices::default(), |recovered| recovered.at);
        let page = self.memory.view(&self.order.rings[0].refs);
        BlkQueue::new(Setup {
            domid: GUEST,
            protocol: self.order.protocol,
            persistent: self.order.persistent,
            geometry,
            ring: BackRing::new(page, wire::stride(self.order.protocol), at),
            journal: journal.ring(0),
            recovered,
            grants: self.memory.grants(),
            disk,
            counters: Arc::default(),
            tracking: self.tracking.clone(),
        })
        .unwrap()
    }

    pub fn has_room(&self) -> bool {
        self.req_prod.wrapping_sub(self.rsp_cons) < self.entries
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a request with its segments in the slot.
    pub fn direct(&mut self, operation: u8, sector: u64, segments: &[Segment]) -> u64 {
        let (sector_at, rest) = self.offsets();
        let mut slot = [0; MAX_REQUEST_BYTES];
        slot[1] = u8::try_from(segments.len()).unwrap();
        slot[sector_at..sector_at + 8].copy_from_slice(&sector.to_le_bytes());
        for (i, segment) in segments.iter().enumerate() {
            put_segment(&mut slot[rest + i * 8..], *segment);
        }
        self.put(operation, operation, slot)
    }

    /// Puts a request with its segments in pages of their own.
    pub fn indirect(
        &mut self,
        operation: u8,
        sector: u64,
        segments: &[Segment],
        pages: &[GrantRef],
    ) -> u64 {
        let (sector_at, rest) = self.offsets();
        for (chunk, gref) in segments.chunks(512).zip(pages) {
            let mut bytes = vec![0; chunk.len() * 8];
            for (i, segment) in chunk.iter().enumerate() {
                put_segment(&mut bytes[i * 8..], *segment);
            }
            self.memory.write(*gref, 0, &bytes);
        }
        let mut slot = [0; MAX_REQUEST_BYTES];
        slot[1] = operation;
        slot[2..4].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
        slot[sector_at..sector_at + 8].copy_from_slice(&sector.to_le_bytes());
        for (i, gref) in pages.iter().enumerate() {
            slot[rest + 4 + i * 4..rest + 8 + i * 4].copy_from_slice(&gref.0.to_le_bytes());
        }
        self.put(blkif::OP_INDIRECT, operation, slot)
    }

    /// Puts a discard.
    pub fn discard(&mut self, sector: u64, sectors: u64) -> u64 {
        let (sector_at, rest) = self.offsets();
        let mut slot = [0; MAX_REQUEST_BYTES];
        slot[sector_at..sector_at + 8].copy_from_slice(&sector.to_le_bytes());
        slot[rest..rest + 8].copy_from_slice(&sectors.to_le_bytes());
        self.put(blkif::OP_DISCARD, blkif::OP_DISCARD, slot)
    }

    fn put(&mut self, operation: u8, answered_as: u8, mut slot: [u8; MAX_REQUEST_BYTES]) -> u64 {
        assert!(self.has_room(), "the test overfills its ring");
        let id = self.next_id;
        self.next_id += 1;
        slot[0] = operation;
        let id_at = self.offsets().0 - 8;
        slot[id_at..id_at + 8].copy_from_slice(&id.to_le_bytes());
        let stride = wire::stride(self.order.protocol);
        let at = 64 + (self.req_prod % self.entries) as usize * stride;
        self.page.write(at, &slot[..stride]);
        self.req_prod = self.req_prod.wrapping_add(1);
        self.page.store_u32(0, self.req_prod);
        self.waiting.insert(id, answered_as);
        id
    }

    /// Takes the answers that were published, as blkfront does: an idle id or a wrong operation disables the disk for good.
    pub fn answers(&mut self) -> Vec<Answer> {
        let rsp_prod = self.page.load_u32(8);
        assert!(
            rsp_prod.wrapping_sub(self.rsp_cons) <= self.req_prod.wrapping_sub(self.rsp_cons),
            "more answers than requests"
        );
        let mut answers = Vec::new();
        while self.rsp_cons != rsp_prod {
            let at =
                64 + (self.rsp_cons % self.entries) as usize * wire::stride(self.order.protocol);
            let raw = self.page.read_vec(at, 12);
            let id = u64::from_le_bytes(raw[..8].try_into().unwrap());
            let answer = Answer {
                id,
                operation: raw[8],
                status: i16::from_le_bytes([raw[10], raw[11]]),
            };
            assert_eq!(raw[9], 0, "padding");
            let expected = self.waiting.remove(&id);
            assert_eq!(
                expected,
                Some(answer.operation),
                "answer to request {id}, which is idle or another operation"
            );
            answers.push(answer);
            self.rsp_cons = self.rsp_cons.wrapping_add(1);
        }
        self.page.store_u32(12, self.rsp_cons.wrapping_add(1));
        answers
    }

    fn offsets(&self) -> (usize, usize) {
        match self.order.protocol {
            Protocol::X86_64 => (16, 24),
            Protocol::X86_32 => (12, 20),
        }
    }
}

fn put_segment(at: &mut [u8], segment: Segment) {
    at[..4].copy_from_slice(&segment.gref.0.to_le_bytes());
    at[4] = segment.first;
    at[5] = segment.last;
}

/// Passes until nothing moves.
pub fn settle<D: Disk>(queue: &mut BlkQueue<D>) -> Progress {
    let mut sum = Progress::default();
    loop {
        let progress = queue.pass().unwrap();
        sum.taken += progress.taken;
        sum.answered += progress.answered;
        sum.notify |= progress.notify;
        if !progress.moved() && queue.in_flight() == 0 {
            return sum;
        }
    }
}
