//! What a successor does with a predecessor's journal: which requests it takes over, and where the ring stands.
//!
//! | death came ... | entry looks | verdict |
//! |---|---|---|
//! | before the request counted as taken | BUSY, index >= `req_cons` | forget it: it is still in the ring, and would be run twice |
//! | while it ran, or before the response counted as given | BUSY, no response or one >= `rsp_intended` | run it again |
//! | after the response counted as given | BUSY, response < `rsp_intended` | forget it: publishing is all that is missing |
//!
//! Every ring value comes from the journal, never from the page that the guest can write. Precondition: the predecessor's I/O is over
//! (the lock on the medium is the fence). Afterwards the caller publishes, runs [`Recovered::redo`] in order, and notifies the guest
//! once, unasked, since an event may have been lost. Running a request twice is harmless: reads, writes, flush and discard are idempotent, and requests
//! that overlap were in flight together, so their order was never defined.

use super::journal::{Found, JournalError, RingJournal};
use crate::ring::back::RingIndices;

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Where the ring stands: `rsp_prod` is to be published.
    pub at: RingIndices,
    /// Requests to run again, in the order in which they were taken.
    pub redo: Vec<Found>,
    /// The next sequence number.
    pub next_seq: u64,
}

/// Reads a predecessor's journal and cleans it: afterwards exactly the requests to run again are busy, without promises. May die at any
/// point and be run again.
///
/// # Errors
/// The journal is damaged or does not add up: going on could answer a request twice.
pub fn recover(journal: &RingJournal) -> Result<Recovered, JournalError> {
    let at = RingIndices {
        req_cons: journal.taken(),
        rsp_prod: journal.intended(),
    };
    let entries = journal.entries();
    let in_flight = at.req_cons.wrapping_sub(at.rsp_prod);
    if in_flight > entries {
        return Err(journal.damaged(format!(
            "{in_flight} requests in flight in a ring of {entries}"
        )));
    }
    let (mut redo, mut drop) = (Vec::new(), Vec::new());
    let mut next_seq = 0;
    for found in journal.busy()? {
        next_seq = next_seq.max(found.seq.saturating_add(1));
        if is_at_or_after(found.index, at.req_cons)
            || found
                .rsp_idx
                .is_some_and(|index| !is_at_or_after(index, at.rsp_prod))
        {
            drop.push(found.entry);
        } else {
            redo.push(found);
        }
    }
    if redo.len() != in_flight as usize {
        return Err(journal.damaged(format!(
            "{} entries for {in_flight} requests in flight",
            redo.len()
        )));
    }
    drop.into_iter().for_each(|entry| journal.free(entry));
    redo.iter().for_each(|found| journal.unpromise(found.entry));
    redo.sort_by_key(|found| found.seq);
    Ok(Recovered { at, redo, next_seq })
}

/// Whether free-running index `a` is `b` or later.
fn is_at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Journal, bytes};
    use super::super::wire::MAX_REQUEST_BYTES;
    use super::*;
    use parapet_wire::driver::{ConnectDisk, Protocol, Ring};
    use xen_abi::ids::{GrantRef, Port};
    use xen_host::memfd::MemFd;

    const START: u32 = u32::MAX - 1; // Indices wrap in the middle of each test.

    fn ring() -> RingJournal {
        let rings = vec![Ring {
            refs: vec![GrantRef(1)],
            port: Port(1),
        }];
        let order = ConnectDisk {
            devid: 1,
            protocol: Protocol::X86_64,
            persistent: false,
            rings,
            resume: false,
        };
        let memory = MemFd::create("journal", bytes(1, 32)).unwrap();
        let journal = Journal::create(memory.map().unwrap(), &order, 32).unwrap();
        let ring = journal.ring(0);
        ring.start_at(START, START);
        ring
    }

    fn busy(ring: &RingJournal, count: u32) {
        for i in 0..count {
            ring.set_busy(
                i,
                START.wrapping_add(i),
                u64::from(i),
                &[0; MAX_REQUEST_BYTES],
            );
        }
    }

    fn redone(ring: &RingJournal) -> Vec<u32> {
        recover(ring)
            .unwrap()
            .redo
            .iter()
            .map(|found| found.entry)
            .collect()
    }

    #[test]
    fn death_before_the_requests_counted_leaves_them_in_the_ring() {
        let ring = ring();
        busy(&ring, 3);
        ring.set_taken(START.wrapping_add(1));
        assert_eq!(redone(&ring), [0]);
        assert_eq!(ring.busy().unwrap().len(), 1, "the others were freed");
    }

    #[test]
    fn death_before_the_response_counted_runs_the_request_again() {
        let ring = ring();
        busy(&ring, 3);
        ring.set_taken(START.wrapping_add(3));
        ring.promise(2, START);
        ring.promise(0, START.wrapping_add(1));
        ring.intend(START.wrapping_add(1));
        assert_eq!(redone(&ring), [0, 1], "2 was answered; 0 was only promised");
        assert!(
            ring.busy()
                .unwrap()
                .iter()
                .all(|found| found.rsp_idx.is_none())
        );
    }

    #[test]
    fn recovering_twice_is_recovering_once() {
        let ring = ring();
        busy(&ring, 3);
        ring.set_taken(START.wrapping_add(2));
        ring.promise(0, START);
        ring.intend(START.wrapping_add(1));
        let first = recover(&ring).unwrap();
        assert_eq!(recover(&ring).unwrap().redo, first.redo);
    }

    #[test]
    fn a_journal_that_does_not_add_up_is_refused() {
        let ring = ring();
        busy(&ring, 2);
        ring.set_taken(START.wrapping_add(3));
        assert!(
            recover(&ring)
                .unwrap_err()
                .to_string()
                .contains("2 entries for 3 requests")
        );
        ring.set_taken(START.wrapping_add(40));
        assert!(recover(&ring).is_err());
    }
}
