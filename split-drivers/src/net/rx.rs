//! Packets to the guest: which slots a frame takes, and their answers. Source: `xen/io/netif.h`.
//!
//! An answer stands in the slot of its request (netfront goes by the slot, not by the id), so slots are taken and answered in order and a
//! packet's slots are published together: first piece, extra if it is to be cut, other pieces.

use super::frame::Ip;
use super::offload::{Gso, Marks};
use crate::ring::back::BackRing;
use xen_abi::ids::{GrantRef, PAGE_SIZE};
use xen_abi::io::netif::{self, ExtraInfo, RxRequest, RxResponse};
use xen_abi::layout::copy_out;
use zerocopy::IntoBytes;

/// Slots that a packet takes.
#[must_use]
pub fn slots_of(len: usize, gso: Option<Gso>) -> u32 {
    let pages = len.div_ceil(PAGE_SIZE).max(1);
    u32::try_from(pages)
        .unwrap_or(u32::MAX)
        .saturating_add(u32::from(gso.is_some()))
}

/// One slot to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A piece of `len` bytes at the start of its page.
    Piece {
        /// Of the request.
        id: u16,
        /// Where it goes.
        gref: GrantRef,
        /// First byte in the frame.
        from: usize,
        /// Bytes.
        len: u16,
        /// `RXF_*`.
        flags: u16,
    },
    /// Segmentation.
    Extra(Gso),
}

/// Takes the slots for a frame of `len` bytes, of which the ring has enough waiting ([`slots_of`]).
pub fn take(ring: &mut BackRing, len: usize, marks: Marks, into: &mut Vec<Answer>) {
    let mut from = 0;
    loop {
        let piece = (len - from).min(PAGE_SIZE);
        let more = from + piece < len;
        let mut flags = if more { netif::RXF_MORE_DATA } else { 0 };
        if from == 0 {
            flags |= marks.flags;
            flags |= if marks.gso.is_some() {
                netif::RXF_EXTRA_INFO
            } else {
                0
            };
        }
        let request = next(ring);
        let piece_len = u16::try_from(piece).unwrap_or(0);
        into.push(Answer::Piece {
            id: request.id,
            gref: GrantRef(request.gref),
            from,
            len: piece_len,
            flags,
        });
        if from == 0
            && let Some(gso) = marks.gso
        {
            next(ring);
            into.push(Answer::Extra(gso));
        }
        from += piece;
        if !more {
            return;
        }
    }
}

/// Answers one slot; `failed` if its bytes did not arrive. Nothing is published.
pub fn answer(ring: &mut BackRing, answer: &Answer, failed: bool) {
    match answer {
        Answer::Piece { id, len, flags, .. } => {
            let status = if failed {
                netif::RSP_ERROR
            } else {
                i16::try_from(*len).unwrap_or(netif::RSP_ERROR)
            };
            ring.respond(
                RxResponse {
                    id: *id,
                    offset: 0,
                    flags: *flags,
                    status,
                }
                .as_bytes(),
            );
        }
        Answer::Extra(gso) => {
            let kind = if gso.ip == Ip::V4 {
                netif::GSO_TCPV4
            } else {
                netif::GSO_TCPV6
            };
            ring.respond(ExtraInfo::gso(kind, gso.size, false).as_bytes());
        }
    }
}

/// Answers the next request with an error, so that the guest puts its page up again.
pub fn refuse_next(ring: &mut BackRing) {
    let id = next(ring).id;
    ring.respond(
        RxResponse {
            id,
            offset: 0,
            flags: 0,
            status: netif::RSP_ERROR,
        }
        .as_bytes(),
    );
}

fn next(ring: &mut BackRing) -> RxRequest {
    let mut slot = [0; netif::RX_ENTRY_BYTES];
    ring.take(&mut slot);
    copy_out(&slot).unwrap_or(RxRequest {
        id: 0,
        pad: 0,
        gref: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_pages_and_an_extra() {
        let gso = Some(Gso {
            ip: Ip::V4,
            size: 1448,
        });
        for (len, gso, slots) in [
            (60, None, 1),
            (4096, None, 1),
            (4097, None, 2),
            (65535, gso, 17),
            (1500, gso, 2),
        ] {
            assert_eq!(slots_of(len, gso), slots);
        }
    }
}
