//! One request on its way: the pages and grants that belong to it, and what comes back.
//!
//! A page of data is granted for one request and taken back at its answer, or, with persistent grants, kept granted in a pool and
//! copied into and out of, last used first.

use super::{BlkFront, BlkOptions, Queue};
use crate::frontend::ring::FrontRing;
use crate::kernel::{DomU, GuestPage, StillMapped};
use std::collections::BTreeMap;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::blkif::{
    MAX_INDIRECT_PAGES, MAX_SEGMENTS, OP_DISCARD, OP_FLUSH_DISKCACHE, OP_READ, OP_WRITE, Request,
    SEGMENTS_PER_INDIRECT_PAGE, Segment,
};

/// A request of this frontend: its queue and its id on the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Queue.
    pub queue: usize,
    /// Id on the ring.
    pub id: u64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of which request.
    pub id: RequestId,
    /// `OP_*`, for an indirect request the inner one.
    pub operation: u8,
    /// `RSP_*`.
    pub status: i16,
    /// What was read, for a read that worked.
    pub data: Option<Vec<u8>>,
}

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlkRequest {
    /// Bytes from a sector on (whole sectors).
    Read {
        /// First sector of 512 bytes.
        sector: u64,
        /// Bytes, a multiple of 512.
        len: usize,
    },
    /// Bytes to a sector.
    Write {
        /// First sector of 512 bytes.
        sector: u64,
        /// Whole sectors.
        data: Vec<u8>,
    },
    /// Everything answered before becomes durable.
    Flush,
    /// Sectors that are of no use any more.
    Discard {
        /// First sector.
        sector: u64,
        /// How many.
        count: u64,
    },
}

/// A granted page of data.
#[derive(Debug)]
pub(super) struct Granted {
    page: GuestPage,
    gref: GrantRef,
}

/// Pages that stay granted.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pages: Vec<Granted>,
}

impl Pool {
    fn get(&mut self, domu: &DomU) -> Granted {
        self.pages.pop().unwrap_or_else(|| {
            let page = domu.page();
            let gref = domu.grant(&page, false);
            Granted { page, gref }
        })
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) slot: u16,
    pub(super) operation: u8,
    id: u64,
    /// Each with the bytes it carries: offset and length.
    data: Vec<(Granted, usize, usize)>,
    indirect: Vec<Granted>,
}

impl Pending {
    pub(super) fn id(&self, queue: usize) -> RequestId {
        RequestId { queue, id: self.id }
    }

    /// Takes the pages back (or into the pool) and hands out what is in them.
    pub(super) fn finish(
        self,
        domu: &DomU,
        pool: &mut Pool,
        persistent: bool,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = Vec::new();
        for (granted, offset, len) in &self.data {
            bytes.extend(granted.page.read_vec(*offset, *len));
        }
        let data = self.data.into_iter().map(|(granted, ..)| granted);
        for granted in data.chain(self.indirect) {
            if persistent {
                pool.pages.push(granted);
            } else {
                give_back(domu, granted).map_err(|still| format!("answered too early: {still}"))?;
            }
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

fn give_back(domu: &DomU, granted: Granted) -> Result<(), StillMapped> {
    domu.end_access(granted.gref)?;
    domu.free(granted.page);
    Ok(())
}

impl Queue {
    pub(super) fn new(domu: &DomU, order: u32, options: BlkOptions) -> Self {
        let ring = FrontRing::new(domu, order, options.protocol.entry_bytes());
        let port = domu.alloc_port().unwrap_or(Port(0));
        let free = (0..u16::try_from(ring.size()).unwrap_or(u16::MAX))
            .rev()
            .collect();
        Self {
            ring,
            port,
            pending: BTreeMap::new(),
            free,
            pool: Pool::default(),
        }
    }

    pub(super) fn end(self, domu: &DomU) -> Result<(), StillMapped> {
        domu.close_port(self.port);
        let mut result = self.ring.end();
        let waiting = self.pending.into_values().flat_map(|pending| {
            pending
                .data
                .into_iter()
                .map(|(granted, ..)| granted)
                .chain(pending.indirect)
        });
        for granted in waiting.chain(self.pool.pages) {
            result = give_back(domu, granted).and(result);
        }
        result
    }
}

impl BlkFront {
    /// Room for another request on a queue.
    #[must_use]
    pub fn has_room(&self, queue: usize) -> bool {
        self.queues
            .get(queue)
            .is_some_and(|queue| !queue.free.is_empty())
    }

    /// Puts a request on a queue without telling the backend; `None` when the ring is full.
    ///
    /// # Panics
    /// When the request is larger than [`BlkFront::max_bytes`] or not in whole sectors.
    pub fn put(&mut self, queue: usize, request: &BlkRequest) -> Option<RequestId> {
        let domu = self.device.domu().clone();
        let slot = self.queues[queue].free.pop()?;
        let noise = domu.world().shared().lock().rng.next_u64();
        let id = noise << 16 | u64::from(slot);
        let mut pending = Pending {
            slot,
            operation: 0,
            id,
            data: Vec::new(),
            indirect: Vec::new(),
        };
        let raw = match request {
            BlkRequest::Read { sector, len } => {
                self.carry(queue, &mut pending, OP_READ, *sector, *len, None)
            }
            BlkRequest::Write { sector, data } => self.carry(
                queue,
                &mut pending,
                OP_WRITE,
                *sector,
                data.len(),
                Some(data),
            ),
            BlkRequest::Flush => {
                pending.operation = OP_FLUSH_DISKCACHE;
                direct(OP_FLUSH_DISKCACHE, id, 0, &[])
            }
            BlkRequest::Discard { sector, count } => {
                pending.operation = OP_DISCARD;
                let (sector, nr_sectors) = (*sector, *count);
                Request::Discard {
                    flag: 0,
                    handle: 0,
                    id,
                    sector,
                    nr_sectors,
                }
            }
        };
        let entry = raw.encode(self.options.protocol);
        let queue_state = &mut self.queues[queue];
        queue_state.ring.put(&entry)?;
        queue_state.pending.insert(id, pending);
        Some(RequestId { queue, id })
    }

    /// Makes what was put visible and sends an event if the backend wants one.
    pub fn push(&mut self, queue: usize) {
        if self.queues[queue].ring.push() {
            self.sent += 1;
            self.device.domu().send(self.queues[queue].port);
        }
    }

    /// Puts and pushes one request on a queue.
    ///
    /// # Panics
    /// When the ring is full; see [`BlkFront::has_room`].
    pub fn submit_on(&mut self, queue: usize, request: &BlkRequest) -> RequestId {
        let Some(id) = self.put(queue, request) else {
            panic!("the ring is full")
        };
        self.push(queue);
        id
    }

    /// Puts and pushes one request on the first queue.
    ///
    /// # Panics
    /// When the ring is full.
    pub fn submit(&mut self, request: &BlkRequest) -> RequestId {
        self.submit_on(0, request)
    }

    /// Puts and pushes a request of any form. `make` gets the id to use and these pages' grants; the pages come back with the answer.
    ///
    /// # Panics
    /// When the ring is full.
    pub fn submit_raw(
        &mut self,
        queue: usize,
        pages: usize,
        make: impl FnOnce(u64, &[(GrantRef, GuestPage)]) -> Request,
    ) -> RequestId {
        let domu = self.device.domu().clone();
        let Some(slot) = self.queues[queue].free.pop() else {
            panic!("the ring is full")
        };
        let noise = domu.world().shared().lock().rng.next_u64();
        let id = noise << 16 | u64::from(slot);
        let granted: Vec<Granted> = (0..pages)
            .map(|_| self.queues[queue].pool.get(&domu))
            .collect();
        let named: Vec<(GrantRef, GuestPage)> = granted
            .iter()
            .map(|granted| (granted.gref, granted.page.clone()))
            .collect();
        let request = make(id, &named);
        let (_, operation) = request.identity();
        let entry = request.encode(self.options.protocol);
        let _ = self.queues[queue].ring.put(&entry);
        let (data, indirect) = (Vec::new(), granted);
        self.queues[queue].pending.insert(
            id,
            Pending {
                slot,
                operation,
                id,
                data,
                indirect,
            },
        );
        self.push(queue);
        RequestId { queue, id }
    }

    /// Gives a read or write its pages, and its form on the ring.
    fn carry(
        &mut self,
        queue: usize,
        pending: &mut Pending,
        operation: u8,
        sector: u64,
        len: usize,
        data: Option<&[u8]>,
    ) -> Request {
        assert!(
            len > 0 && len.is_multiple_of(512),
            "{len} bytes are no whole sectors"
        );
        assert!(
            len <= self.max_bytes(),
            "{len} bytes do not fit into one request"
        );
        let domu = self.device.domu().clone();
        let scatter = self.options.scatter;
        let pool = &mut self.queues[queue].pool;
        let (mut segments, mut done) = (Vec::new(), 0);
        while done < len {
            let granted = pool.get(&domu);
            let first = if scatter { segments.len() * 3 % 8 } else { 0 };
            let part = if scatter { 512 } else { (len - done).min(4096) };
            if let Some(data) = data {
                granted.page.write(first * 512, &data[done..done + part]);
            }
            let last = first + part / 512 - 1;
            segments.push(Segment {
                gref: granted.gref,
                first: u8::try_from(first).unwrap_or(0),
                last: u8::try_from(last).unwrap_or(0),
            });
            pending.data.push((granted, first * 512, part));
            done += part;
        }
        pending.operation = operation;
        if segments.len() <= MAX_SEGMENTS {
            return direct(operation, pending.id, sector, &segments);
        }
        let mut pages = [GrantRef(0); MAX_INDIRECT_PAGES];
        for (chunk, page) in segments.chunks(SEGMENTS_PER_INDIRECT_PAGE).zip(&mut pages) {
            let granted = pool.get(&domu);
            let bytes: Vec<u8> = chunk
                .iter()
                .flat_map(|segment| segment.to_bytes())
                .collect();
            granted.page.write(0, &bytes);
            *page = granted.gref;
            pending.indirect.push(granted);
        }
        let nr_segments = u16::try_from(segments.len()).unwrap_or(u16::MAX);
        Request::Indirect {
            operation,
            nr_segments,
            handle: 0,
            id: pending.id,
            sector,
            pages,
        }
    }
}

/// A request with its segments in the slot.
pub(crate) fn direct(operation: u8, id: u64, sector: u64, given: &[Segment]) -> Request {
    let none = Segment {
        gref: GrantRef(0),
        first: 0,
        last: 0,
    };
    let mut segments = [none; MAX_SEGMENTS];
    segments[..given.len()].copy_from_slice(given);
    let nr_segments = u8::try_from(given.len()).unwrap_or(0);
    Request::Direct {
        operation,
        nr_segments,
        handle: 0,
        id,
        sector,
        segments,
    }
}
