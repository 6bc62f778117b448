//! The backend half of a shared ring: private indices, one read of what the guest says, one copy of each request.
//!
//! ```text
//!    answered      taken            produced by the guest
//!   rsp_prod ──▶ req_cons ───────▶ req_prod          free-running u32, slot = index mod entries
//!      │  in flight  │   waiting      │
//!      └─────────────┴── at most `entries` ──┘
//!
//!   page:  req_prod | req_event | rsp_prod | rsp_event | 48 bytes | slot 0 | slot 1 ...
//! ```
//!
//! The guest can write every byte of the page at any time. So `req_prod` is read once per question and bounded, a slot is copied
//! once and never looked at again, and `req_cons` and `rsp_prod` exist only here: what the page says of them is never read back
//! (but at a take-over, where it is checked by the journal or against a bound). An impossible `req_prod` is a [`RingFault`]: the device stops, since
//! a guest that breaks the ring's rules cannot be answered sensibly and must not fill our log. Source: `xen/io/ring.h`.

use crate::fuse::burn;
use xen_abi::ids::PAGE_SIZE;
use xen_host::region::{SharedRegion, full_barrier};

/// Offset of the guest's producer index.
const REQ_PROD: usize = 0;
/// Offset of the index at which we want an event.
const REQ_EVENT: usize = 4;
/// Offset of our producer index.
const RSP_PROD: usize = 8;
/// Offset of the index at which the guest wants an event.
const RSP_EVENT: usize = 12;
/// Offset of the first slot.
const SLOTS: usize = 64;

/// The guest broke the ring's rules; the ring cannot be served any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// `req_prod` claims more requests than the ring has room for, or moved backwards.
    #[error(
        "request producer {req_prod} is impossible: {taken} were taken, {answered} answered, the ring holds {entries}"
    )]
    Producer {
        /// What the page said.
        req_prod: u32,
        /// Requests taken so far.
        taken: u32,
        /// Requests answered so far.
        answered: u32,
        /// Slots.
        entries: u32,
    },
}

/// Where a ring stands: all that a successor must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingIndices {
    /// Requests taken.
    pub req_cons: u32,
    /// Responses published.
    pub rsp_prod: u32,
}

/// One ring, mapped.
#[derive(Debug)]
pub struct BackRing {
    page: SharedRegion,
    stride: usize,
    entries: u32,
    at: RingIndices,
    /// Responses written into slots but not published yet: `at.rsp_prod..written`.
    written: u32,
}

/// Slots of a ring of `pages` pages whose larger entry has `stride` bytes: the largest power of two that fits, 0 if none does.
#[must_use]
pub fn entries_of(pages: usize, stride: usize) -> u32 {
    let room = (pages * PAGE_SIZE).saturating_sub(SLOTS);
    match room.checked_div(stride) {
        None | Some(0) => 0,
        Some(count) => 1 << u32::try_from(count).unwrap_or(u32::MAX).ilog2(),
    }
}

/// What the page of a ring says was answered: where a ring that was never served by us stands. The guest wrote it, so it is no more than a
/// starting point; everything after it is bounded.
#[must_use]
pub fn published(page: &SharedRegion) -> u32 {
    page.load_u32(RSP_PROD)
}

impl BackRing {
    /// Takes over a mapped ring whose larger entry (request or response) has `stride` bytes, standing at `at`.
    #[must_use]
    pub fn new(page: SharedRegion, stride: usize, at: RingIndices) -> Self {
        let entries = entries_of(page.len() / PAGE_SIZE, stride);
        assert!(
            entries > 0,
            "a ring of {} bytes holds no entry of {stride}",
            page.len()
        );
        Self {
            page,
            stride,
            entries,
            at,
            written: at.rsp_prod,
        }
    }

    /// Slots.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Where it stands.
    #[must_use]
    pub fn indices(&self) -> RingIndices {
        self.at
    }

    /// Requests taken and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.at.req_cons.wrapping_sub(self.written)
    }

    /// Index that the next response will get.
    #[must_use]
    pub fn next_response(&self) -> u32 {
        self.written
    }

    /// Requests that wait to be taken.
    ///
    /// # Errors
    /// The guest's index is impossible.
    pub fn waiting(&self) -> Result<u32, RingFault> {
        let req_prod = self.page.load_u32(REQ_PROD);
        let ahead = req_prod.wrapping_sub(self.at.req_cons);
        let room = self.entries
            - self
                .at
                .req_cons
                .wrapping_sub(self.at.rsp_prod)
                .min(self.entries);
        if ahead > room {
            return Err(RingFault::Producer {
                req_prod,
                taken: self.at.req_cons,
                answered: self.at.rsp_prod,
                entries: self.entries,
            });
        }
        Ok(ahead)
    }

    /// Copies the next request out and moves past it; the caller knows from [`BackRing::waiting`] that there is one. Answers its index.
    pub fn take(&mut self, into: &mut [u8]) -> u32 {
        let index = self.at.req_cons;
        let len = into.len().min(self.stride);
        self.page.read(self.offset(index), &mut into[..len]);
        self.at.req_cons = index.wrapping_add(1);
        index
    }

    /// Copies a request that is `ahead` of the next one, without moving. For requests that span slots.
    pub fn peek(&self, ahead: u32, into: &mut [u8]) {
        let len = into.len().min(self.stride);
        self.page.read(
            self.offset(self.at.req_cons.wrapping_add(ahead)),
            &mut into[..len],
        );
    }

    /// Moves past `count` requests that were peeked.
    pub fn skip(&mut self, count: u32) {
        self.at.req_cons = self.at.req_cons.wrapping_add(count);
    }

    /// Writes the next response into its slot; the guest does not see it before [`BackRing::publish`]. Answers its index.
    ///
    /// # Panics
    /// When nothing is in flight: a request would be answered twice.
    pub fn respond(&mut self, response: &[u8]) -> u32 {
        assert!(self.in_flight() > 0, "a response without a request");
        let index = self.written;
        burn();
        self.page.write(
            self.offset(index),
            &response[..response.len().min(self.stride)],
        );
        self.written = index.wrapping_add(1);
        index
    }

    /// Shows the guest every response written so far; true if the guest asked for an event in this range.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.at.rsp_prod, self.written);
        if old == new {
            return false;
        }
        burn();
        self.page.store_u32(RSP_PROD, new);
        self.at.rsp_prod = new;
        full_barrier();
        let wanted = self.page.load_u32(RSP_EVENT);
        new.wrapping_sub(wanted) < new.wrapping_sub(old)
    }

    /// Shows the published index again: the first act of a successor.
    pub fn republish(&self) {
        burn();
        self.page.store_u32(RSP_PROD, self.at.rsp_prod);
    }

    /// Asks for an event at the `nth` request from now (1 = the next) and looks once more: the number waiting, after the guest must have
    /// seen the wish. Zero means that it is safe to sleep.
    ///
    /// # Errors
    /// As [`BackRing::waiting`].
    pub fn arm(&self, nth: u32) -> Result<u32, RingFault> {
        self.page
            .store_u32(REQ_EVENT, self.at.req_cons.wrapping_add(nth.max(1)));
        full_barrier();
        self.waiting()
    }

    fn offset(&self, index: u32) -> usize {
        SLOTS + (index & (self.entries - 1)) as usize * self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STRIDE: usize = 112;

    fn ring_at(index: u32) -> BackRing {
        let at = RingIndices {
            req_cons: index,
            rsp_prod: index,
        };
        let ring = BackRing::new(SharedRegion::anonymous(1).unwrap(), STRIDE, at);
        ring.page.store_u32(REQ_PROD, index);
        ring
    }

    #[test]
    fn a_page_of_blkif_holds_32_and_16_pages_512() {
        assert_eq!(entries_of(1, 112), 32);
        assert_eq!(entries_of(1, 108), 32);
        assert_eq!(entries_of(16, 112), 512);
        assert_eq!(entries_of(1, 12), 256);
        assert_eq!(entries_of(1, 8), 256);
        assert_eq!(entries_of(0, 8), 0);
        assert_eq!(entries_of(1, 5000), 0);
    }

    #[test]
    fn one_request_more_than_the_ring_holds_is_hostile() {
        let ring = ring_at(u32::MAX - 3);
        ring.page
            .store_u32(REQ_PROD, (u32::MAX - 3).wrapping_add(32));
        assert_eq!(ring.waiting(), Ok(32));
        ring.page
            .store_u32(REQ_PROD, (u32::MAX - 3).wrapping_add(33));
        assert!(ring.waiting().is_err());
    }

    #[test]
    fn a_producer_that_moves_back_is_hostile() {
        let mut ring = ring_at(10);
        ring.page.store_u32(REQ_PROD, 12);
        let mut slot = [0; STRIDE];
        ring.take(&mut slot);
        ring.take(&mut slot);
        ring.page.store_u32(REQ_PROD, 11);
        assert!(ring.waiting().is_err());
    }

    #[test]
    fn slots_in_flight_cannot_be_asked_for_again() {
        let mut ring = ring_at(0);
        ring.page.store_u32(REQ_PROD, 32);
        for _ in 0..32 {
            ring.take(&mut [0; STRIDE]);
        }
        ring.page.store_u32(REQ_PROD, 33);
        assert!(ring.waiting().is_err(), "no slot is free before a response");
        ring.respond(&[0; 16]);
        assert!(
            ring.waiting().is_err(),
            "a response that is not published frees nothing"
        );
        let _ = ring.publish();
        assert_eq!(ring.waiting(), Ok(1));
    }

    #[test]
    fn an_event_is_sent_only_when_the_guest_asked_in_this_range() {
        let mut ring = ring_at(0);
        ring.page.store_u32(REQ_PROD, 4);
        for _ in 0..4 {
            ring.take(&mut [0; STRIDE]);
        }
        ring.page.store_u32(RSP_EVENT, 2);
        ring.respond(&[1; 16]);
        assert!(!ring.publish());
        ring.respond(&[1; 16]);
        assert!(ring.publish());
        ring.respond(&[1; 16]);
        assert!(!ring.publish());
        assert!(!ring.publish(), "nothing new");
        ring.page.store_u32(RSP_EVENT, u32::MAX);
        ring.respond(&[1; 16]);
        assert!(!ring.publish());
    }

    #[test]
    fn arming_sees_a_request_that_raced_with_it() {
        let ring = ring_at(7);
        assert_eq!(ring.arm(1), Ok(0));
        assert_eq!(ring.page.load_u32(REQ_EVENT), 8);
        ring.page.store_u32(REQ_PROD, 8);
        assert_eq!(ring.arm(4), Ok(1));
        assert_eq!(ring.page.load_u32(REQ_EVENT), 11);
    }

    #[test]
    #[should_panic(expected = "a response without a request")]
    fn nothing_is_answered_twice() {
        ring_at(0).respond(&[0; 16]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever the guest writes into the page, the consumer takes at most a ring of requests and never leaves the page.
        #[test]
        fn arbitrary_pages_never_panic_and_stay_bounded(
            start: u32,
            words in prop::collection::vec(any::<u32>(), 64),
            answers in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mut ring = ring_at(start);
            for (word, answer) in words.into_iter().zip(answers) {
                ring.page.store_u32(REQ_PROD, if word % 3 == 0 { word } else { ring.at.req_cons.wrapping_add(word % 40) });
                ring.page.store_u32(RSP_EVENT, word.rotate_left(7));
                if let Ok(waiting) = ring.waiting() {
                    prop_assert!(waiting + ring.in_flight() <= ring.entries());
                    for _ in 0..waiting {
                        ring.take(&mut [0; STRIDE]);
                    }
                }
                while answer && ring.in_flight() > 0 {
                    ring.respond(&[0xff; 16]);
                }
                let _ = ring.publish();
                prop_assert!(ring.in_flight() <= ring.entries());
            }
        }
    }
}
