//! The in-flight journal of a disk: what a successor needs to finish what this driver had begun, and nothing else.
//!
//! ```text
//!   file (memory-backed, held by the agent)
//!   ┌──────────────── page 0 ────────────────┬────── ring 0 ──────┬─ ring 1 ─┬ ...
//!   │ magic, version, generation, identity,  │ req_cons           │          │
//!   │ checksum of the identity               │ rsp_intended       │          │
//!   └────────────────────────────────────────┤ entry 0 .. n-1     │          │
//!                                            └────────────────────┴──────────┘
//!   entry:  state | starts | rsp_idx u64 | seq u64 | ring index | crc | request bytes (112)
//!           FREE ──set_busy──▶ BUSY ──promise (rsp_idx)──▶ ──free──▶ FREE
//! ```
//!
//! Order of the stores of a request's life, each visible before the next (a killed process loses no store that it made):
//!
//! 1. [`RingJournal::set_busy`] for each request taken, then [`RingJournal::set_taken`] once: the requests are ours.
//! 2. I/O; [`RingJournal::mark_started`] just before.
//! 3. [`RingJournal::promise`] the response's index, write the response into its slot.
//! 4. [`RingJournal::intend`]: from here on the responses count as given. Publish them in the ring.
//! 5. [`RingJournal::free`].
//!
//! Death between any two of these is undone or finished by [`super::recover`]. The journal is written by us only, and read only by a successor:
//! still it is checked (magic, identity, checksums, counts) and a journal that does not add up stops the device rather than
//! answer a request twice. See `docs/recovery.md`.

use super::wire::MAX_REQUEST_BYTES;
use crate::fuse::burn;
use parapet_wire::driver::{ConnectDisk, Protocol};
use std::sync::Arc;
use xen_abi::ids::PAGE_SIZE;
use xen_host::region::SharedRegion;

const MAGIC: u64 = u64::from_le_bytes(*b"PRPTJNL\x01");
const VERSION: u32 = 1;

/// Offsets in page 0.
mod head {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const IDENTITY_CRC: usize = 12;
    pub const GENERATION: usize = 16;
    pub const RINGS: usize = 24;
    pub const ENTRIES: usize = 28;
    pub const IDENTITY_LEN: usize = 32;
    pub const IDENTITY: usize = 64;
}

/// Offsets in a ring's area, and the size of its header.
mod ring {
    pub const REQ_CONS: usize = 0;
    pub const RSP_INTENDED: usize = 4;
    pub const BYTES: usize = 64;
}

/// Offsets in an entry, and its size: a multiple of a cache line.
mod entry {
    pub const STATE: usize = 0;
    pub const STARTS: usize = 4;
    pub const RSP_IDX: usize = 8;
    pub const SEQ: usize = 16;
    pub const INDEX: usize = 24;
    pub const CRC: usize = 28;
    pub const REQUEST: usize = 32;
    pub const BYTES: usize = 192;
}
const _: () = assert!(entry::REQUEST + MAX_REQUEST_BYTES <= entry::BYTES);

const FREE: u32 = 0;
const BUSY: u32 = 0x4255_5359;
/// No response index was chosen. Indices are 32 bits wide, so this is none.
const NO_RESPONSE: u64 = u64::MAX;

/// Why a journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The file is too small for the rings.
    #[error("the journal has {have} bytes, {need} are needed")]
    Size {
        /// What it has.
        have: usize,
        /// What the rings need.
        need: usize,
    },
    /// Not a journal, or of another release.
    #[error("the journal is not one of version {VERSION} (magic {magic:#x}, version {version})")]
    Foreign {
        /// First bytes.
        magic: u64,
        /// Its version.
        version: u32,
    },
    /// It belongs to other rings.
    #[error(
        "the journal belongs to other rings than the order names; the device must be connected anew"
    )]
    Identity,
    /// It does not add up.
    #[error("the journal of ring {ring} is damaged: {what}")]
    Damaged {
        /// Which ring.
        ring: usize,
        /// What was seen.
        what: String,
    },
}

/// The journal of one disk, mapped.
#[derive(Debug)]
pub struct Journal {
    region: Arc<SharedRegion>,
    rings: usize,
    entries: u32,
}

/// Bytes of a journal for `rings` rings of `entries` slots.
#[must_use]
pub fn bytes(rings: usize, entries: u32) -> usize {
    PAGE_SIZE + rings * ring_bytes(entries)
}

fn ring_bytes(entries: u32) -> usize {
    (ring::BYTES + entries as usize * entry::BYTES).next_multiple_of(PAGE_SIZE)
}

/// What the journal is about, as bytes: a successor may use it only for the same rings.
fn identity(order: &ConnectDisk) -> Vec<u8> {
    let protocol: u32 = match order.protocol {
        Protocol::X86_64 => 64,
        Protocol::X86_32 => 32,
    };
    let mut words = vec![order.devid, protocol];
    for ring in &order.rings {
        words.push(ring.port.0);
        words.push(u32::try_from(ring.refs.len()).unwrap_or(u32::MAX));
        words.extend(ring.refs.iter().map(|gref| gref.0));
    }
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

impl Journal {
    /// Makes a fresh journal for the rings of an order. The magic comes last: a half-made journal is none.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn create(
        region: SharedRegion,
        order: &ConnectDisk,
        entries: u32,
    ) -> Result<Self, JournalError> {
        let identity = identity(order);
        let need = bytes(order.rings.len(), entries);
        if region.len() < need || head::IDENTITY + identity.len() > PAGE_SIZE {
            return Err(JournalError::Size {
                have: region.len(),
                need,
            });
        }
        region.store_u64(head::MAGIC, 0);
        region.fill(0, need, 0);
        region.write(head::IDENTITY, &identity);
        region.store_u32(
            head::IDENTITY_LEN,
            u32::try_from(identity.len()).unwrap_or(0),
        );
        region.store_u32(head::IDENTITY_CRC, crc32fast::hash(&identity));
        region.store_u32(head::RINGS, u32::try_from(order.rings.len()).unwrap_or(0));
        region.store_u32(head::ENTRIES, entries);
        region.store_u32(head::VERSION, VERSION);
        region.store_u64(head::GENERATION, 1);
        region.store_u64(head::MAGIC, MAGIC);
        Ok(Self {
            region: Arc::new(region),
            rings: order.rings.len(),
            entries,
        })
    }

    /// Whether nobody ever finished making a journal here: the rings of a first connection whose driver died before it served them.
    #[must_use]
    pub fn is_blank(region: &SharedRegion) -> bool {
        region.len() < size_of::<u64>() || region.load_u64(head::MAGIC) == 0
    }

    /// Takes over the journal of a predecessor that served the rings of the same order, and counts the generation up.
    ///
    /// # Errors
    /// It is no journal, or one of other rings.
    pub fn open(
        region: SharedRegion,
        order: &ConnectDisk,
        entries: u32,
    ) -> Result<Self, JournalError> {
        let need = bytes(order.rings.len(), entries);
        if region.len() < need {
            return Err(JournalError::Size {
                have: region.len(),
                need,
            });
        }
        let (magic, version) = (region.load_u64(head::MAGIC), region.load_u32(head::VERSION));
        if magic != MAGIC || version != VERSION {
            return Err(JournalError::Foreign { magic, version });
        }
        let expected = identity(order);
        let len = region.load_u32(head::IDENTITY_LEN) as usize;
        let same = len == expected.len()
            && region.read_vec(head::IDENTITY, len) == expected
            && region.load_u32(head::IDENTITY_CRC) == crc32fast::hash(&expected)
            && region.load_u32(head::RINGS) as usize == order.rings.len()
            && region.load_u32(head::ENTRIES) == entries;
        if !same {
            return Err(JournalError::Identity);
        }
        region.store_u64(
            head::GENERATION,
            region.load_u64(head::GENERATION).wrapping_add(1),
        );
        Ok(Self {
            region: Arc::new(region),
            rings: order.rings.len(),
            entries,
        })
    }

    /// Which driver in a row this is, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.region.load_u64(head::GENERATION)
    }

    /// The part of one ring.
    #[must_use]
    pub fn ring(&self, index: usize) -> RingJournal {
        assert!(
            index < self.rings,
            "ring {index} of a journal of {}",
            self.rings
        );
        let base = PAGE_SIZE + index * ring_bytes(self.entries);
        RingJournal {
            region: Arc::clone(&self.region),
            ring: index,
            base,
            entries: self.entries,
        }
    }
}

/// One entry as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub entry: u32,
    /// Times it was started.
    pub starts: u32,
    /// The response's index, if one was chosen.
    pub rsp_idx: Option<u32>,
    /// Order in which requests were taken.
    pub seq: u64,
    /// Index of the request in the ring.
    pub index: u32,
    /// Private copy of the request.
    pub request: [u8; MAX_REQUEST_BYTES],
}

/// The journal of one ring.
#[derive(Debug)]
pub struct RingJournal {
    region: Arc<SharedRegion>,
    ring: usize,
    base: usize,
    entries: u32,
}

impl RingJournal {
    /// Entries, as many as the ring has slots.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Requests taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.region.load_u32(self.base + ring::REQ_CONS)
    }

    /// Responses given, published or about to be.
    #[must_use]
    pub fn intended(&self) -> u32 {
        self.region.load_u32(self.base + ring::RSP_INTENDED)
    }

    /// Sets both indices of a fresh ring.
    pub fn start_at(&self, req_cons: u32, rsp_prod: u32) {
        self.region
            .store_u32(self.base + ring::RSP_INTENDED, rsp_prod);
        self.region.store_u32(self.base + ring::REQ_CONS, req_cons);
    }

    /// Remembers a request that was copied out of the ring. It counts once [`RingJournal::set_taken`] has moved past it.
    pub fn set_busy(&self, number: u32, index: u32, seq: u64, request: &[u8; MAX_REQUEST_BYTES]) {
        let at = self.at(number);
        burn();
        self.region.store_u64(at + entry::RSP_IDX, NO_RESPONSE);
        self.region.store_u32(at + entry::STARTS, 0);
        self.region.store_u64(at + entry::SEQ, seq);
        self.region.store_u32(at + entry::INDEX, index);
        self.region.write(at + entry::REQUEST, request);
        burn();
        self.region
            .store_u32(at + entry::CRC, checksum(index, seq, request));
        burn();
        self.region.store_u32(at + entry::STATE, BUSY);
    }

    /// The requests before `req_cons` are ours.
    pub fn set_taken(&self, req_cons: u32) {
        burn();
        self.region.store_u32(self.base + ring::REQ_CONS, req_cons);
    }

    /// Counts a start of a request; answers how often it was started now.
    pub fn mark_started(&self, number: u32) -> u32 {
        let at = self.at(number) + entry::STARTS;
        let starts = self.region.load_u32(at).saturating_add(1);
        burn();
        self.region.store_u32(at, starts);
        starts
    }

    /// The response of this request will have index `rsp_idx`.
    pub fn promise(&self, number: u32, rsp_idx: u32) {
        burn();
        self.region
            .store_u64(self.at(number) + entry::RSP_IDX, u64::from(rsp_idx));
    }

    /// Forgets a promise that was not kept.
    pub fn unpromise(&self, number: u32) {
        burn();
        self.region
            .store_u64(self.at(number) + entry::RSP_IDX, NO_RESPONSE);
    }

    /// All responses before `rsp_prod` are written into their slots and count as given.
    pub fn intend(&self, rsp_prod: u32) {
        burn();
        self.region
            .store_u32(self.base + ring::RSP_INTENDED, rsp_prod);
    }

    /// The request is answered (or was never ours).
    pub fn free(&self, number: u32) {
        burn();
        self.region.store_u32(self.at(number) + entry::STATE, FREE);
    }

    /// Every entry in use.
    ///
    /// # Errors
    /// An entry that is neither free nor whole.
    pub fn busy(&self) -> Result<Vec<Found>, JournalError> {
        let mut found = Vec::new();
        for number in 0..self.entries {
            let at = self.at(number);
            match self.region.load_u32(at + entry::STATE) {
                FREE => {}
                BUSY => found.push(self.read(number, at)?),
                state => return Err(self.damaged(format!("entry {number} has state {state:#x}"))),
            }
        }
        Ok(found)
    }

    fn read(&self, number: u32, at: usize) -> Result<Found, JournalError> {
        let mut request = [0; MAX_REQUEST_BYTES];
        self.region.read(at + entry::REQUEST, &mut request);
        let index = self.region.load_u32(at + entry::INDEX);
        let seq = self.region.load_u64(at + entry::SEQ);
        if self.region.load_u32(at + entry::CRC) != checksum(index, seq, &request) {
            return Err(self.damaged(format!("entry {number} fails its checksum")));
        }
        let rsp_idx = match self.region.load_u64(at + entry::RSP_IDX) {
            NO_RESPONSE => None,
            index => Some(
                u32::try_from(index)
                    .map_err(|_| self.damaged(format!("entry {number} promises {index:#x}")))?,
            ),
        };
        let starts = self.region.load_u32(at + entry::STARTS);
        Ok(Found {
            entry: number,
            starts,
            rsp_idx,
            seq,
            index,
            request,
        })
    }

    /// An error about this ring.
    #[must_use]
    pub fn damaged(&self, what: String) -> JournalError {
        JournalError::Damaged {
            ring: self.ring,
            what,
        }
    }

    fn at(&self, number: u32) -> usize {
        assert!(number < self.entries, "entry {number} of {}", self.entries);
        self.base + ring::BYTES + number as usize * entry::BYTES
    }
}

fn checksum(index: u32, seq: u64, request: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(&seq.to_le_bytes());
    hasher.update(request);
    hasher.finalize()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
