//! One queue of an interface, driven by calls: [`NetQueue::pass`] moves what can be moved in both directions and never waits.
//!
//! ```text
//!   tx ring ─take─▶ packets ─one grant copy─▶ buffer ─header─▶ answers ─▶ link.send
//!   rx ring ◀─publish─ answers ◀─one grant copy─ buffer ◀─marks─ held ◀─ link.receive
//! ```
//!
//! What is queued for a guest that takes nothing is one batch of frames; the rest waits in the tap, which drops what it cannot hold. A frame sent
//! is answered as soon as its bytes are copied: its pages are not used after that.

use super::link::{Link, Span};
use super::offload::{
    Abilities, HEADER_BYTES, Marks, VNET_BYTES, VnetHeader, checksum, from_guest, to_guest,
};
use super::rx::{self, Answer};
use super::tx::{self, Packet, TxFault};
use crate::limits::{
    NET_RX_BATCH, NET_RX_FRAME_BYTES, NET_TX_BUFFER_BYTES, NET_TX_PACKETS_PER_PASS,
};
use crate::ring::back::{BackRing, RingFault};
use crate::ring::copy::{CopyBatch, GrantRange};
use crate::stats::{Counters, add};
use nix::errno::Errno;
use parapet_wire::driver::NetFeatures;
use std::collections::VecDeque;
use std::sync::Arc;
use xen_abi::ids::{DomId, PAGE_SIZE};
use xen_abi::io::netif;
use xen_host::region::SharedRegion;
use xen_host::seam::{Direction, Grants};

/// Why a queue cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetFault {
    /// Transmit ring.
    #[error("the guest broke its transmit ring: {0}")]
    Tx(#[from] TxFault),
    /// Receive ring.
    #[error("the guest broke its receive ring: {0}")]
    Rx(#[from] RingFault),
    /// The tap is gone.
    #[error("the tap is gone: {0}")]
    Link(Errno),
}

/// What one pass achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Packets from the guest, sent or dropped.
    pub sent: u32,
    /// Frames given to the guest.
    pub received: u32,
    /// Notify on the transmit port.
    pub notify_tx: bool,
    /// Notify on the receive port.
    pub notify_rx: bool,
}

/// What to sleep on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    /// Frames from the link can be delivered: wait for them too.
    pub link: bool,
    /// The guest does not say when it has room: look again soon.
    pub soon: bool,
}

/// What a queue is made of.
#[derive(Debug)]
pub struct Setup<L> {
    /// The guest.
    pub domid: DomId,
    /// What the frontend can take.
    pub features: NetFeatures,
    /// Transmit ring.
    pub tx: BackRing,
    /// Receive ring.
    pub rx: BackRing,
    /// For this queue alone.
    pub grants: Box<dyn Grants>,
    /// The link, with [`buffer_pages`] of buffer.
    pub link: L,
    /// Shared by the queues of an interface.
    pub counters: Arc<Counters>,
    /// A predecessor served the rings.
    pub resume: bool,
}

impl Setup<()> {
    /// The same with a link, once the queue's thread has opened it.
    #[must_use]
    pub fn with_link<L>(self, link: L) -> Setup<L> {
        Setup {
            domid: self.domid,
            features: self.features,
            tx: self.tx,
            rx: self.rx,
            grants: self.grants,
            link,
            counters: self.counters,
            resume: self.resume,
        }
    }
}

/// Pages of buffer that a queue needs: the packets of one pass, then rooms for frames.
#[must_use]
pub fn buffer_pages() -> usize {
    (NET_TX_BUFFER_BYTES + NET_RX_BATCH * NET_RX_FRAME_BYTES).div_ceil(PAGE_SIZE)
}

/// A frame that waits for slots.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// First byte of the frame in the buffer.
    at: usize,
    len: usize,
    marks: Marks,
}

impl Held {
    fn slots(&self) -> u32 {
        rx::slots_of(self.len, self.marks.gso)
    }
}

/// See the module.
#[derive(Debug)]
pub struct NetQueue<L> {
    features: NetFeatures,
    tx: BackRing,
    rx: BackRing,
    grants: Box<dyn Grants>,
    link: L,
    counters: Arc<Counters>,
    batch: CopyBatch,
    held: VecDeque<Held>,
    frames: Vec<Span>,
    answers: Vec<Answer>,
    failed: Vec<u32>,
}

impl<L: Link> NetQueue<L> {
    /// Takes the rings over. With [`Setup::resume`], everything that the guest had asked of a predecessor is answered without being carried
    /// out: responses that were written but not published have spoilt the slots they stand in.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn new(setup: Setup<L>) -> Result<(Self, Progress), NetFault> {
        let mut queue = Self {
            features: setup.features,
            tx: setup.tx,
            rx: setup.rx,
            batch: CopyBatch::new(setup.domid),
            grants: setup.grants,
            link: setup.link,
            counters: setup.counters,
            held: VecDeque::new(),
            frames: Vec::new(),
            answers: Vec::new(),
            failed: Vec::new(),
        };
        let mut progress = Progress::default();
        if setup.resume {
            queue.answer_predecessors(&mut progress)?;
        }
        Ok((queue, progress))
    }

    fn answer_predecessors(&mut self, progress: &mut Progress) -> Result<(), NetFault> {
        let mut left = self.tx.waiting().map_err(TxFault::from)?;
        while left > 0 {
            let Some(packet) = tx::take(&mut self.tx, left)? else {
                break;
            };
            left -= u32::try_from(packet.slots()).unwrap_or(left).min(left);
            packet.answer(&mut self.tx, netif::RSP_DROPPED);
        }
        for _ in 0..self.rx.waiting()? {
            rx::refuse_next(&mut self.rx);
        }
        let _ = (self.tx.publish(), self.rx.publish());
        // One event each, asked for or not: one may have been lost.
        (progress.notify_tx, progress.notify_rx) = (true, true);
        Ok(())
    }

    /// Does all that can be done without waiting, within the budget of one pass.
    ///
    /// # Errors
    /// The queue cannot go on.
    pub fn pass(&mut self) -> Result<Progress, NetFault> {
        let mut progress = Progress::default();
        self.transmit(&mut progress)?;
        self.receive(&mut progress)?;
        Ok(progress)
    }

    /// Asks the guest for events and says what to sleep on; `None` if there is work already.
    ///
    /// # Errors
    /// The guest broke a ring.
    pub fn arm(&self) -> Result<Option<Sleep>, NetFault> {
        if self.tx.arm(1).map_err(TxFault::from)? > 0 {
            return Ok(None);
        }
        let needed = self.held.front().map_or(1, Held::slots);
        let waiting = self.rx.waiting()?;
        if waiting >= needed {
            return Ok(self.held.is_empty().then_some(Sleep {
                link: true,
                soon: false,
            }));
        }
        if self.rx.arm(needed)? >= needed {
            return Ok(None);
        }
        Ok(Some(Sleep {
            link: false,
            soon: !self.features.rx_notify,
        }))
    }

    /// The link, for its thread to wait on.
    pub fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// Gives the grant handle back, with nothing mapped.
    #[must_use]
    pub fn into_grants(self) -> Box<dyn Grants> {
        self.grants
    }

    fn transmit(&mut self, progress: &mut Progress) -> Result<(), NetFault> {
        let mut left = self.tx.waiting().map_err(TxFault::from)?;
        if left == 0 {
            return Ok(());
        }
        let mut packets: Vec<(Packet, usize)> = Vec::new();
        let mut at = 0;
        while packets.len() < NET_TX_PACKETS_PER_PASS {
            let Some(packet) = tx::take(&mut self.tx, left)? else {
                break;
            };
            left -= u32::try_from(packet.slots()).unwrap_or(left).min(left);
            self.fetch(packets.len(), &packet, at + VNET_BYTES);
            // A packet that is dropped has a length that nobody checked.
            let room = if packet.is_dropped() {
                0
            } else {
                (VNET_BYTES + packet.len).next_multiple_of(64)
            };
            packets.push((packet, at));
            at += room;
        }
        self.failed.clear();
        let failed = &mut self.failed;
        self.batch.run(&*self.grants, self.link.buffer(), |owner| {
            failed.push(owner)
        });
        self.frames.clear();
        for (place, (packet, at)) in packets.iter().enumerate() {
            let whole = !self.failed.iter().any(|owner| *owner as usize == place);
            let sent = whole && !packet.is_dropped() && self.finish_header(packet, *at);
            packet.answer(
                &mut self.tx,
                if sent {
                    netif::RSP_OKAY
                } else {
                    netif::RSP_ERROR
                },
            );
            let counter = if sent {
                &self.counters.from_guest
            } else {
                &self.counters.refused
            };
            add(counter, 1);
        }
        progress.notify_tx |= self.tx.publish();
        progress.sent = u32::try_from(packets.len()).unwrap_or(u32::MAX);
        if !self.frames.is_empty() {
            let taken = self.link.send(&self.frames).map_err(NetFault::Link)?;
            add(&self.counters.refused, (self.frames.len() - taken) as u64);
        }
        Ok(())
    }

    /// Queues the copies of a packet's pieces to `at`.
    fn fetch(&mut self, place: usize, packet: &Packet, mut at: usize) {
        let owner = u32::try_from(place).unwrap_or(u32::MAX);
        for piece in &packet.pieces {
            // The pieces were checked when they were taken.
            let _ = self.batch.push(owner, Direction::FromGuest, *piece, at);
            at += usize::from(piece.len);
        }
    }

    /// Writes the tap's header of a packet whose bytes are in the buffer; false if it is to be dropped.
    fn finish_header(&mut self, packet: &Packet, at: usize) -> bool {
        let buffer = self.link.buffer();
        let mut head = [0; HEADER_BYTES];
        let head = &mut head[..packet.len.min(HEADER_BYTES)];
        let frame = at + VNET_BYTES;
        if packet.undone.csum_blank || packet.undone.gso.is_some() {
            buffer.read(frame, head);
        }
        let Ok((header, patch)) = from_guest(packet.undone, head, packet.len) else {
            return false;
        };
        buffer.write(at, &header.to_bytes());
        if let Some((offset, sum)) = patch {
            buffer.write(frame + offset, &sum.to_be_bytes());
        }
        self.frames.push(Span {
            at,
            len: VNET_BYTES + packet.len,
        });
        add(&self.counters.bytes_from_guest, packet.len as u64);
        true
    }

    fn receive(&mut self, progress: &mut Progress) -> Result<(), NetFault> {
        let mut waiting = self.rx.waiting()?;
        if waiting > 0 && self.held.is_empty() {
            self.fill_held()?;
        }
        self.answers.clear();
        while let Some(frame) = self.held.front().copied() {
            let slots = frame.slots();
            if slots > waiting {
                break;
            }
            waiting -= slots;
            self.held.pop_front();
            self.deliver(frame);
            progress.received += 1;
        }
        if self.answers.is_empty() {
            return Ok(());
        }
        self.failed.clear();
        let failed = &mut self.failed;
        self.batch.run(&*self.grants, self.link.buffer(), |owner| {
            failed.push(owner)
        });
        for (place, answer) in self.answers.iter().enumerate() {
            let lost = self.failed.iter().any(|owner| *owner as usize == place);
            rx::answer(&mut self.rx, answer, lost);
        }
        progress.notify_rx |= self.rx.publish();
        Ok(())
    }

    /// Queues the copies of one frame into the slots that it takes.
    fn deliver(&mut self, frame: Held) {
        let first = self.answers.len();
        rx::take(&mut self.rx, frame.len, frame.marks, &mut self.answers);
        for (place, answer) in self.answers.iter().enumerate().skip(first) {
            if let Answer::Piece {
                gref, from, len, ..
            } = *answer
            {
                let owner = u32::try_from(place).unwrap_or(u32::MAX);
                let range = GrantRange {
                    gref,
                    offset: 0,
                    len,
                };
                let _ = self
                    .batch
                    .push(owner, Direction::ToGuest, range, frame.at + from);
            }
        }
        add(&self.counters.to_guest, 1);
        add(&self.counters.bytes_to_guest, frame.len as u64);
    }

    /// Reads a batch of frames from the link.
    fn fill_held(&mut self) -> Result<(), NetFault> {
        let room = |i: usize| Span {
            at: NET_TX_BUFFER_BYTES + i * NET_RX_FRAME_BYTES,
            len: NET_RX_FRAME_BYTES,
        };
        let rooms: [Span; NET_RX_BATCH] = std::array::from_fn(room);
        self.frames.clear();
        self.link
            .receive(&rooms, &mut self.frames)
            .map_err(NetFault::Link)?;
        for span in &self.frames {
            let Some(len) = span.len.checked_sub(VNET_BYTES) else {
                continue;
            };
            let frame = span.at + VNET_BYTES;
            let marks = self.marks(span.at, frame, len);
            let held = Held {
                at: frame,
                len,
                marks,
            };
            let fits =
                len > 0 && len <= netif::MAX_TX_SIZE && (self.features.sg || held.slots() == 1);
            if fits {
                self.held.push_back(held);
            } else {
                add(&self.counters.refused, 1);
            }
        }
        Ok(())
    }

    /// What the guest is told of a frame; makes its checksum here if the guest could not.
    fn marks(&self, at: usize, frame: usize, len: usize) -> Marks {
        let buffer = self.link.buffer();
        let mut header = [0; VNET_BYTES];
        buffer.read(at, &mut header);
        let header = VnetHeader::from_bytes(header);
        let mut head = [0; HEADER_BYTES];
        let head = &mut head[..len.min(HEADER_BYTES)];
        buffer.read(frame, head);
        let can = Abilities {
            csum_ipv4: self.features.csum_ipv4,
            csum_ipv6: self.features.csum_ipv6,
        };
        let marks = to_guest(header, head, can);
        if let Some((start, into)) = marks.checksum
            && start < len
            && into + 2 <= len
        {
            make_checksum(buffer, frame, start, into, len);
        }
        marks
    }
}

fn make_checksum(buffer: &SharedRegion, frame: usize, start: usize, into: usize, len: usize) {
    let segment = buffer.read_vec(frame + start, len - start);
    buffer.write(frame + into, &checksum(&segment).to_be_bytes());
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
