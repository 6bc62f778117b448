//! The frontend's end of a shared ring: pages granted to the backend, and the macros of `ring.h` as methods.

use crate::kernel::{DomU, GuestPage, StillMapped};
use xen_abi::ids::{GrantRef, PAGE_SIZE};
use xen_abi::io::ring::{
    FrontIndexes, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingOverflow, entries, entry_offset,
    need_notify,
};
use xen_host::region::full_barrier;

/// A ring of one or more pages.
#[derive(Debug)]
pub struct FrontRing {
    domu: DomU,
    pages: Vec<GuestPage>,
    grefs: Vec<GrantRef>,
    entry_bytes: usize,
    size: u32,
    index: FrontIndexes,
    pushed: u32,
    /// What this end wrote into the entries, to find what the other end wrote.
    written: Vec<u8>,
}

impl FrontRing {
    /// A fresh ring of `1 << order` pages, granted to dom0.
    ///
    /// # Panics
    /// For an order or entry size that no ring has.
    #[must_use]
    pub fn new(domu: &DomU, order: u32, entry_bytes: usize) -> Self {
        let Some((size, index)) = entries(order, entry_bytes)
            .and_then(|size| FrontIndexes::new(size).map(|index| (size, index)))
        else {
            panic!("no ring has order {order} and entries of {entry_bytes} bytes");
        };
        let pages: Vec<GuestPage> = (0..1u32 << order).map(|_| domu.page()).collect();
        let grefs = pages.iter().map(|page| domu.grant(page, false)).collect();
        let bytes = pages.len() * PAGE_SIZE;
        let ring = Self {
            domu: domu.clone(),
            pages,
            grefs,
            entry_bytes,
            size,
            index,
            pushed: 0,
            written: vec![0; bytes],
        };
        ring.pages[0].store_u32(REQ_EVENT, 1);
        ring.pages[0].store_u32(RSP_EVENT, 1);
        ring
    }

    /// Its grants, in order.
    #[must_use]
    pub fn grefs(&self) -> &[GrantRef] {
        &self.grefs
    }

    /// Entries.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of one entry.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Copies bytes of the ring, over page borders.
    #[must_use]
    pub fn read_at(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len();
            let part = (PAGE_SIZE - at % PAGE_SIZE).min(len - bytes.len());
            bytes.extend(self.pages[at / PAGE_SIZE].read_vec(at % PAGE_SIZE, part));
        }
        bytes
    }

    /// Writes bytes of the ring, over page borders.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.written[offset..offset + bytes.len()].copy_from_slice(bytes);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done;
            let part = (PAGE_SIZE - at % PAGE_SIZE).min(bytes.len() - done);
            self.pages[at / PAGE_SIZE].write(at % PAGE_SIZE, &bytes[done..done + part]);
            done += part;
        }
    }

    /// Where an entry lies.
    #[must_use]
    pub fn offset_of(&self, index: u32) -> usize {
        entry_offset(index, self.size, self.entry_bytes)
    }

    /// One entry, as it stands now.
    #[must_use]
    pub fn entry(&self, index: u32) -> Vec<u8> {
        self.read_at(self.offset_of(index), self.entry_bytes)
    }

    /// A byte of an entry as page and offset, for whoever wants to change it behind everybody's back.
    #[must_use]
    pub fn cell(&self, index: u32, byte: usize) -> (GuestPage, usize) {
        let at = self.offset_of(index) + byte;
        (self.pages[at / PAGE_SIZE].clone(), at % PAGE_SIZE)
    }

    /// Offsets in the ring where the backend wrote outside of its responses, which are `response_bytes` long: memory of its own that it
    /// leaks (XSA-216).
    #[must_use]
    pub fn foreign_bytes(&self, response_bytes: usize) -> Vec<usize> {
        let now = self.read_at(0, self.written.len());
        let first = self.offset_of(0);
        let end = first + self.size as usize * self.entry_bytes;
        (first..now.len())
            .filter(|at| *at >= end || (at - first) % self.entry_bytes >= response_bytes)
            .filter(|at| now[*at] != self.written[*at])
            .collect()
    }

    /// Puts one request; `None` when the ring is full. Not visible before [`FrontRing::push`].
    pub fn put(&mut self, entry: &[u8]) -> Option<u32> {
        let index = self.index.put()?;
        self.write_at(self.offset_of(index), entry);
        Some(index)
    }

    /// Requests put so far.
    #[must_use]
    pub fn req_prod(&self) -> u32 {
        self.index.req_prod()
    }

    /// Makes all requests visible; true when the backend wants an event.
    pub fn push(&mut self) -> bool {
        let (old, new) = (self.pushed, self.index.req_prod());
        full_barrier();
        self.pages[0].store_u32(REQ_PROD, new);
        full_barrier();
        self.pushed = new;
        need_notify(old, new, self.pages[0].load_u32(REQ_EVENT))
    }

    /// The index of the next response, if one was published.
    ///
    /// # Errors
    /// The backend published more responses than there are requests.
    pub fn take(&mut self) -> Result<Option<u32>, RingOverflow> {
        let rsp_prod = self.pages[0].load_u32(RSP_PROD);
        full_barrier();
        Ok(if self.index.unconsumed(rsp_prod)? == 0 {
            None
        } else {
            self.index.take()
        })
    }

    /// Asks for an event at the next response; true when one came in the meantime.
    ///
    /// # Errors
    /// As [`FrontRing::take`].
    pub fn final_check(&self) -> Result<bool, RingOverflow> {
        self.pages[0].store_u32(RSP_EVENT, self.index.wake_at());
        full_barrier();
        Ok(self.index.unconsumed(self.pages[0].load_u32(RSP_PROD))? > 0)
    }

    /// Writes the shared producer index, right or wrong.
    pub fn force_req_prod(&self, value: u32) {
        self.pages[0].store_u32(REQ_PROD, value);
    }

    /// What the backend published last.
    #[must_use]
    pub fn rsp_prod(&self) -> u32 {
        self.pages[0].load_u32(RSP_PROD)
    }

    /// Takes the grants back and frees the pages.
    ///
    /// # Errors
    /// The backend still maps a page; the rest is freed.
    pub fn end(self) -> Result<(), StillMapped> {
        let mut result = Ok(());
        for (gref, page) in self.grefs.into_iter().zip(self.pages) {
            match self.domu.end_access(gref) {
                Ok(()) => self.domu.free(page),
                Err(still) => result = Err(still),
            }
        }
        result
    }
}
