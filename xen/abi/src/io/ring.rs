//! Shared rings: where the indexes are, and what may be concluded from them. Source: `xen/io/ring.h`.
//!
//! ```text
//!   page 0:  req_prod 0 | req_event 4 | rsp_prod 8 | rsp_event 12 | private 16 | ... | entries 64 ...
//!
//!   req_prod ─┐ requests not taken ┌─ req_cons ─┐ taken, not answered ┌─ rsp_prod     all free-running u32
//!             └────────────────────┘            └─────────────────────┘               at most `size` apart
//! ```
//!
//! Both ends write all of the header, so an end keeps its own indexes in private memory ([`BackIndexes`],
//! [`FrontIndexes`]) and takes only `req_prod` or `rsp_prod` and the event threshold from the other, one copy each. This
//! module does the arithmetic; barriers and copies are for whoever holds the mapping.

crate::constants! {
    /// Offset of the frontend's producer index.
    pub const REQ_PROD: usize = 0 => "offsetof(struct blkif_sring, req_prod)";
    /// Offset of the request index at which the backend wants an event.
    pub const REQ_EVENT: usize = 4 => "offsetof(struct blkif_sring, req_event)";
    /// Offset of the backend's producer index.
    pub const RSP_PROD: usize = 8 => "offsetof(struct blkif_sring, rsp_prod)";
    /// Offset of the response index at which the frontend wants an event.
    pub const RSP_EVENT: usize = 12 => "offsetof(struct blkif_sring, rsp_event)";
    /// Offset of the first entry.
    pub const ENTRIES: usize = 64 => "offsetof(struct blkif_sring, ring)";
}

/// Largest ring, as log2 of its pages, that any protocol here negotiates.
pub const MAX_PAGE_ORDER: u32 = 4;
const _: () = assert!((crate::ids::PAGE_SIZE << MAX_PAGE_ORDER) as u64 <= u32::MAX as u64);

/// Entries of a ring of `2^page_order` pages with entries of `entry_bytes`: as many as fit, down to a power of two.
/// `None` for an order beyond [`MAX_PAGE_ORDER`] or an entry that does not fit once.
#[must_use]
pub const fn entries(page_order: u32, entry_bytes: usize) -> Option<u32> {
    if page_order > MAX_PAGE_ORDER || entry_bytes == 0 {
        return None;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "at most 16 pages, asserted above"
    )]
    let fit = (((crate::ids::PAGE_SIZE << page_order) - ENTRIES) / entry_bytes) as u32;
    if fit == 0 {
        None
    } else {
        Some(1 << fit.ilog2())
    }
}

/// Offset of an entry, for any index of a ring of `size` entries of `entry_bytes`.
#[must_use]
pub const fn entry_offset(index: u32, size: u32, entry_bytes: usize) -> usize {
    ENTRIES + (index & (size - 1)) as usize * entry_bytes
}

/// Whether the other end wants an event after a producer moved from `old` to `new`: it does if its threshold is one of the
/// indexes just passed.
#[must_use]
pub const fn need_notify(old: u32, new: u32, event: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}

/// The other end's producer claims more than the ring can hold: it is broken or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ring producer {claimed} is {ahead} ahead of {from}, in a ring of {size} entries")]
pub struct RingOverflow {
    /// What it claims.
    pub claimed: u32,
    /// What it is measured from.
    pub from: u32,
    /// Their distance.
    pub ahead: u32,
    /// What the ring holds.
    pub size: u32,
}

const fn within(claimed: u32, from: u32, size: u32) -> Result<(), RingOverflow> {
    let ahead = claimed.wrapping_sub(from);
    if ahead > size {
        Err(RingOverflow {
            claimed,
            from,
            ahead,
            size,
        })
    } else {
        Ok(())
    }
}

/// A backend's own indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackIndexes {
    size: u32,
    req_cons: u32,
    rsp_prod: u32,
}

impl BackIndexes {
    /// For a ring of `size` entries, a power of two, fresh or left by a predecessor: requests before `req_cons` were
    /// taken and answers before `rsp_prod` were given. `None` if these contradict each other or the size is none.
    #[must_use]
    pub fn attach(size: u32, req_cons: u32, rsp_prod: u32) -> Option<Self> {
        let sane = size.is_power_of_two() && req_cons.wrapping_sub(rsp_prod) <= size;
        sane.then_some(Self {
            size,
            req_cons,
            rsp_prod,
        })
    }

    /// For a fresh ring.
    #[must_use]
    pub fn new(size: u32) -> Option<Self> {
        Self::attach(size, 0, 0)
    }

    /// Requests that may be taken, given the frontend's producer index; never more than the ring holds free.
    ///
    /// # Errors
    /// [`RingOverflow`]: the index is impossible; close the device.
    pub const fn unconsumed(&self, req_prod: u32) -> Result<u32, RingOverflow> {
        // Behind what was already taken is as impossible as too far ahead, and a worse number to trust.
        if let Err(overflow) = within(req_prod, self.rsp_prod, self.size) {
            return Err(overflow);
        }
        let ahead = req_prod.wrapping_sub(self.req_cons);
        if ahead > self.size {
            let from = self.req_cons;
            return Err(RingOverflow {
                claimed: req_prod,
                from,
                ahead,
                size: self.size,
            });
        }
        Ok(ahead)
    }

    /// Takes one request: its index. `None` if every entry is taken and unanswered.
    pub fn take(&mut self) -> Option<u32> {
        let full = self.unanswered() >= self.size;
        let index = self.req_cons;
        if full {
            return None;
        }
        self.req_cons = index.wrapping_add(1);
        Some(index)
    }

    /// Claims the entry for one response: its index. `None` if no request is unanswered.
    pub fn answer(&mut self) -> Option<u32> {
        if self.unanswered() == 0 {
            return None;
        }
        let index = self.rsp_prod;
        self.rsp_prod = index.wrapping_add(1);
        Some(index)
    }

    /// Requests taken and not answered.
    #[must_use]
    pub const fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// What to write to [`REQ_EVENT`] before sleeping: the next request.
    #[must_use]
    pub const fn wake_at(&self) -> u32 {
        self.req_cons.wrapping_add(1)
    }

    /// Entries of the ring.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Requests taken so far.
    #[must_use]
    pub const fn req_cons(&self) -> u32 {
        self.req_cons
    }

    /// Answers given so far: what to write to [`RSP_PROD`].
    #[must_use]
    pub const fn rsp_prod(&self) -> u32 {
        self.rsp_prod
    }
}

/// A frontend's own indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontIndexes {
    size: u32,
    req_prod: u32,
    rsp_cons: u32,
}

impl FrontIndexes {
    /// For a fresh ring of `size` entries, a power of two.
    #[must_use]
    pub fn new(size: u32) -> Option<Self> {
        size.is_power_of_two().then_some(Self {
            size,
            req_prod: 0,
            rsp_cons: 0,
        })
    }

    /// Claims the entry for one request: its index. `None` if the ring is full.
    pub fn put(&mut self) -> Option<u32> {
        let index = self.req_prod;
        if index.wrapping_sub(self.rsp_cons) >= self.size {
            return None;
        }
        self.req_prod = index.wrapping_add(1);
        Some(index)
    }

    /// Responses that may be taken, given the backend's producer index.
    ///
    /// # Errors
    /// [`RingOverflow`]: more answers than requests.
    pub const fn unconsumed(&self, rsp_prod: u32) -> Result<u32, RingOverflow> {
        let asked = self.req_prod.wrapping_sub(self.rsp_cons);
        match within(rsp_prod, self.rsp_cons, asked) {
            Ok(()) => Ok(rsp_prod.wrapping_sub(self.rsp_cons)),
            Err(overflow) => Err(overflow),
        }
    }

    /// Takes one response: its index. `None` if nothing was asked that is not answered.
    pub fn take(&mut self) -> Option<u32> {
        let index = self.rsp_cons;
        if index == self.req_prod {
            return None;
        }
        self.rsp_cons = index.wrapping_add(1);
        Some(index)
    }

    /// Requests put so far: what to write to [`REQ_PROD`].
    #[must_use]
    pub const fn req_prod(&self) -> u32 {
        self.req_prod
    }

    /// What to write to [`RSP_EVENT`] before sleeping: the next response.
    #[must_use]
    pub const fn wake_at(&self) -> u32 {
        self.rsp_cons.wrapping_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bases around which an index wraps, and where it does not.
    fn bases() -> impl Iterator<Item = u32> {
        (0..10)
            .chain(u32::MAX - 10..=u32::MAX)
            .chain([1 << 31, (1 << 31) - 3])
    }

    #[test]
    fn ring_sizes_are_those_of_the_protocols() {
        assert_eq!(entries(0, 112), Some(32), "block, x86_64");
        assert_eq!(entries(0, 108), Some(32), "block, x86_32");
        assert_eq!(entries(4, 112), Some(512));
        assert_eq!(entries(0, 12), Some(256), "net, transmit");
        assert_eq!(entries(0, 8), Some(256), "net, receive: 504 fit");
        assert_eq!(entries(0, 4033), None);
        assert_eq!(entries(5, 112), None);
        assert_eq!(entries(0, 0), None);
        assert_eq!(entry_offset(u32::MAX, 32, 112), 64 + 31 * 112);
    }

    #[test]
    fn an_event_is_due_exactly_when_the_threshold_was_passed() {
        for old in bases() {
            for moved in 0..12u32 {
                let new = old.wrapping_add(moved);
                for distance in 0..40u32 {
                    let event = old.wrapping_sub(14).wrapping_add(distance);
                    let passed = (1..=moved).any(|step| old.wrapping_add(step) == event);
                    assert_eq!(need_notify(old, new, event), passed, "{old} {new} {event}");
                }
            }
        }
    }

    #[test]
    fn every_claim_of_a_producer_is_judged() {
        let size = 4;
        for base in bases() {
            for taken in 0..=size {
                let back = BackIndexes::attach(size, base.wrapping_add(taken), base).unwrap();
                for claim in 0..=2 * size {
                    let claimed = base.wrapping_add(claim);
                    let possible = (taken..=size).contains(&claim);
                    let judged = back.unconsumed(claimed);
                    assert_eq!(judged.is_ok(), possible, "{base} {taken} {claim}");
                    if possible {
                        assert_eq!(judged, Ok(claim - taken));
                    }
                }
                assert!(back.unconsumed(base.wrapping_sub(1)).is_err());
                assert!(back.unconsumed(base.wrapping_add(1 << 31)).is_err());
            }
            assert_eq!(BackIndexes::attach(size, base.wrapping_add(5), base), None);
            assert_eq!(BackIndexes::attach(3, base, base), None);
        }
    }

    proptest! {
        #[test]
        fn two_ends_never_lose_or_repeat_an_entry(
            order in 0..4u32,
            steps in proptest::collection::vec(0..4u8, 0..300),
        ) {
            let size = 1 << order;
            let mut front = FrontIndexes::new(size).unwrap();
            let mut back = BackIndexes::new(size).unwrap();
            let (mut put, mut taken, mut answered, mut heard) = (0u32, 0, 0, 0);
            for step in steps {
                match step {
                    0 => if let Some(index) = front.put() {
                        prop_assert_eq!(index, put);
                        put += 1;
                    },
                    1 => if back.unconsumed(front.req_prod()).unwrap() > 0 {
                        prop_assert_eq!(back.take(), Some(taken));
                        taken += 1;
                    },
                    2 => if let Some(index) = back.answer() {
                        prop_assert_eq!(index, answered);
                        answered += 1;
                    },
                    _ => if front.unconsumed(back.rsp_prod()).unwrap() > 0 {
                        prop_assert_eq!(front.take(), Some(heard));
                        heard += 1;
                    },
                }
                prop_assert!(heard <= answered && answered <= taken && taken <= put);
                prop_assert!(put - heard <= size);
                prop_assert_eq!(back.unanswered(), taken - answered);
            }
        }

        #[test]
        fn no_claim_makes_an_end_take_more_than_the_ring(cons: u32, behind in 0..=32u32, claim: u32) {
            let back = BackIndexes::attach(32, cons, cons.wrapping_sub(behind)).unwrap();
            if let Ok(count) = back.unconsumed(claim) {
                prop_assert!(count + behind <= 32);
            }
        }
    }
}
