//! Packets from the guest: slots become packets, or the reason why not. Source: `xen/io/netif.h`.
//!
//! ```text
//!   slot  0: first request (its size is the whole packet's)  [extra_info?] [more_data?]
//!         1: extra ... until one without MORE                 only with extra_info
//!         n: request (its own size) ... until one without more_data
//! ```
//!
//! A packet that makes no sense is answered and dropped. What only a broken or hostile frontend does (a chain that the ring does not hold, too
//! many slots, a piece that leaves its page, an unknown or repeated extra) is a [`TxFault`], and the interface stops. Slots are copied once.

use super::frame::{ETHERNET_BYTES, Ip};
use super::offload::{Gso, Undone};
use crate::limits::{NET_EXTRAS, NET_SLOTS, NET_SLOTS_FATAL};
use crate::ring::back::{BackRing, RingFault};
use crate::ring::copy::GrantRange;
use xen_abi::ids::PAGE_SIZE;
use xen_abi::io::netif::{self, Extra, ExtraInfo, TxRequest, TxResponse};
use xen_abi::layout::copy_out;
use zerocopy::IntoBytes;

/// The frontend broke a rule; the interface stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TxFault {
    /// Indices.
    #[error(transparent)]
    Ring(#[from] RingFault),
    /// A chain that goes on where the ring ends.
    #[error("a packet of more slots than were sent ({0})")]
    Cut(u32),
    /// A chain without end.
    #[error("a packet of more than {NET_SLOTS_FATAL} slots")]
    Slots,
    /// A piece outside of its page.
    #[error("a piece of {size} bytes at {offset} leaves its page")]
    Piece {
        /// First byte.
        offset: u16,
        /// Bytes.
        size: u16,
    },
    /// An extra that was not offered, or the same twice.
    #[error("extra of type {0} is unknown or repeated")]
    Extra(u8),
    /// Segments of nothing, or of an unknown protocol.
    #[error("segmentation of type {kind} into {size} bytes")]
    Gso {
        /// Type.
        kind: u8,
        /// Bytes.
        size: u16,
    },
}

/// A slot, for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Data {
        id: u16,
    },
    /// What stood in its first two bytes: kept there, so that a successor that finds the answer before it counts still sees an extra.
    Extra {
        head: [u8; 2],
    },
}

/// One packet, or what is left of one that is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packet {
    slots: Vec<Slot>,
    /// Pieces in order; empty if it is to be dropped.
    pub pieces: Vec<GrantRange>,
    /// Bytes.
    pub len: usize,
    /// What the guest left undone.
    pub undone: Undone,
}

impl Packet {
    /// Slots in the ring.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether it is to be answered only.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Answers every slot; nothing is published.
    pub fn answer(&self, ring: &mut BackRing, status: i16) {
        for slot in &self.slots {
            let response = match slot {
                Slot::Data { id } => TxResponse { id: *id, status },
                Slot::Extra { head } => TxResponse {
                    id: u16::from_le_bytes(*head),
                    status: netif::RSP_NULL,
                },
            };
            ring.respond(response.as_bytes());
        }
    }
}

/// Takes the next packet; `None` when the ring is empty. Not more than `waiting` slots (from [`BackRing::waiting`]) are looked at.
///
/// # Errors
/// The frontend broke a rule. Nothing was taken then.
pub fn take(ring: &mut BackRing, waiting: u32) -> Result<Option<Packet>, TxFault> {
    if waiting == 0 {
        return Ok(None);
    }
    let mut reader = Reader {
        ring,
        waiting,
        next: 0,
    };
    let first = reader.request()?;
    let mut packet = Packet {
        slots: vec![Slot::Data { id: first.id }],
        ..Packet::default()
    };
    packet.undone.csum_blank = first.flags & netif::TXF_CSUM_BLANK != 0;
    packet.undone.data_validated = first.flags & netif::TXF_DATA_VALIDATED != 0;
    let multicast =
        first.flags & netif::TXF_EXTRA_INFO != 0 && read_extras(&mut reader, &mut packet)?;
    let rest = read_rest(&mut reader, &mut packet, first.flags)?;
    let slots = reader.next;
    let data_slots = rest.len() + 1;
    packet.len = usize::from(first.size);
    let others: usize = rest.iter().map(|request| usize::from(request.size)).sum();
    // The first request's size is the packet's; what the others do not hold is in its own page.
    let first_len = packet.len.checked_sub(others);
    let fits = data_slots <= NET_SLOTS && packet.len >= ETHERNET_BYTES && !multicast;
    match first_len.and_then(|len| u16::try_from(len).ok()) {
        Some(size) if fits => {
            packet.pieces.push(piece(TxRequest { size, ..first })?);
            for request in rest {
                packet.pieces.push(piece(request)?);
            }
        }
        // Dropped, but a piece that leaves its page is no accident.
        _ => {
            for request in rest {
                piece(request)?;
            }
        }
    }
    ring.skip(slots);
    Ok(Some(packet))
}

/// Reads the extras; true if the packet carries an order about multicast, which is not offered, instead of data.
fn read_extras(reader: &mut Reader<'_>, packet: &mut Packet) -> Result<bool, TxFault> {
    let mut seen = Vec::with_capacity(NET_EXTRAS);
    let mut multicast = false;
    loop {
        let extra = reader.extra()?;
        if seen.contains(&extra.kind) || seen.len() == NET_EXTRAS {
            return Err(TxFault::Extra(extra.kind));
        }
        seen.push(extra.kind);
        packet.slots.push(Slot::Extra {
            head: [extra.kind, extra.flags],
        });
        match extra.meaning() {
            Extra::Gso { size, kind } => packet.undone.gso = Some(gso(kind, size)?),
            Extra::MulticastAdd(_) | Extra::MulticastDel(_) => multicast = true,
            Extra::Hash { .. } => {}
            Extra::Xdp(_) | Extra::Unknown(_) => return Err(TxFault::Extra(extra.kind)),
        }
        if !extra.more() {
            return Ok(multicast);
        }
    }
}

fn read_rest(
    reader: &mut Reader<'_>,
    packet: &mut Packet,
    mut flags: u16,
) -> Result<Vec<TxRequest>, TxFault> {
    let mut rest = Vec::new();
    while flags & netif::TXF_MORE_DATA != 0 {
        if rest.len() + 1 >= NET_SLOTS_FATAL {
            return Err(TxFault::Slots);
        }
        let request = reader.request()?;
        flags = request.flags;
        packet.slots.push(Slot::Data { id: request.id });
        rest.push(request);
    }
    Ok(rest)
}

fn gso(kind: u8, size: u16) -> Result<Gso, TxFault> {
    let ip = match kind {
        netif::GSO_TCPV4 if size > 0 => Ip::V4,
        netif::GSO_TCPV6 if size > 0 => Ip::V6,
        _ => return Err(TxFault::Gso { kind, size }),
    };
    Ok(Gso { ip, size })
}

fn piece(request: TxRequest) -> Result<GrantRange, TxFault> {
    let (offset, size) = (request.offset, request.size);
    if usize::from(offset) + usize::from(size) > PAGE_SIZE {
        return Err(TxFault::Piece { offset, size });
    }
    Ok(GrantRange {
        gref: request.gref(),
        offset,
        len: size,
    })
}

/// Copies slots, each once.
struct Reader<'a> {
    ring: &'a BackRing,
    waiting: u32,
    next: u32,
}

impl Reader<'_> {
    fn slot(&mut self) -> Result<[u8; netif::TX_ENTRY_BYTES], TxFault> {
        if self.next >= self.waiting {
            return Err(TxFault::Cut(self.next));
        }
        let mut slot = [0; netif::TX_ENTRY_BYTES];
        self.ring.peek(self.next, &mut slot);
        self.next += 1;
        Ok(slot)
    }

    fn request(&mut self) -> Result<TxRequest, TxFault> {
        let slot = self.slot()?;
        copy_out(&slot).ok_or(TxFault::Cut(self.next))
    }

    fn extra(&mut self) -> Result<ExtraInfo, TxFault> {
        let slot = self.slot()?;
        ExtraInfo::decode(&slot).ok_or(TxFault::Cut(self.next))
    }
}

#[cfg(test)]
#[path = "tx_tests.rs"]
mod tests;
