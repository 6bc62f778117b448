//! Bad packets and bad receive buffers, one at a time.

use super::Expect;
use crate::frontend::net::{Frame, NetFront};
use crate::grants::{GTF_PERMIT_ACCESS, GTF_READONLY};
use xen_abi::ids::{DomId, GrantRef};
use xen_abi::io::netif::{
    ExtraInfo, GSO_TCPV4, RxRequest, TX_ENTRY_BYTES, TXF_CSUM_BLANK, TXF_EXTRA_INFO, TXF_MORE_DATA,
    TxRequest,
};
use zerocopy::IntoBytes;

/// Ids of raw transmit slots begin here, so that their answers are not taken for a correct packet's.
const RAW_ID: u16 = 0x4000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetAttack {
    /// Transmit: `req_prod` is 2^31 ahead.
    TxReqProdJumps,
    /// Transmit: `req_prod` is one more than the ring holds.
    TxReqProdOneTooMany,
    /// A packet of no byte.
    SizeZero,
    /// Shorter than an Ethernet header.
    Runt(u16),
    /// The pieces are longer than the packet.
    PiecesExceedSize,
    /// A piece leaves its page.
    LeavesPage,
    /// A packet in so many slots.
    Slots(u16),
    /// Every slot of the ring says more data follows.
    EndlessMoreData,
    /// An empty piece at this place (0 is the first).
    EmptyPiece(u16),
    /// Says that an extra follows, and none does.
    ExtraMissing,
    /// The same extra twice.
    ExtraTwice,
    /// An extra nobody knows.
    ExtraUnknown(u8),
    /// Every slot of the ring is an extra that says another follows.
    EndlessExtras,
    /// Segments of no byte.
    GsoSizeZero,
    /// Segments longer than the packet.
    GsoSizeHuge,
    /// Segmentation of an unknown protocol.
    GsoKindUnknown(u8),
    /// A checksum to be filled in where no packet is.
    CsumOfRunt,
    /// A checksum to be filled in behind many VLAN tags.
    VlanNest,
    /// A grant that does not exist.
    BadGrant,
    /// A grant that does not exist, in the second piece.
    BadSecondGrant,
    /// A grant that was taken back.
    RevokedGrant,
    /// A page granted to another domain.
    ForeignGrant,
    /// Receive: `req_prod` is 2^31 ahead.
    RxReqProdJumps,
    /// Receive: the page offered is not granted.
    RxBadGrant,
    /// Receive: the page offered is read-only.
    RxReadOnlyGrant,
}

impl NetAttack {
    /// Every attack, those with a number at the numbers that matter.
    pub const ALL: &[NetAttack] = &[
        Self::TxReqProdJumps,
        Self::TxReqProdOneTooMany,
        Self::SizeZero,
        Self::Runt(1),
        Self::Runt(13),
        Self::PiecesExceedSize,
        Self::LeavesPage,
        Self::Slots(18),
        Self::Slots(19),
        Self::Slots(21),
        Self::Slots(100),
        Self::EndlessMoreData,
        Self::EmptyPiece(0),
        Self::EmptyPiece(1),
        Self::EmptyPiece(5),
        Self::ExtraMissing,
        Self::ExtraTwice,
        Self::ExtraUnknown(0),
        Self::ExtraUnknown(200),
        Self::EndlessExtras,
        Self::GsoSizeZero,
        Self::GsoSizeHuge,
        Self::GsoKindUnknown(0),
        Self::GsoKindUnknown(77),
        Self::CsumOfRunt,
        Self::VlanNest,
        Self::BadGrant,
        Self::BadSecondGrant,
        Self::RevokedGrant,
        Self::ForeignGrant,
        Self::RxReqProdJumps,
        Self::RxBadGrant,
        Self::RxReadOnlyGrant,
    ];

    /// What a good backend makes of it.
    #[must_use]
    pub fn expect(self) -> Expect {
        match self {
            Self::TxReqProdJumps | Self::TxReqProdOneTooMany | Self::RxReqProdJumps => {
                Expect::Stopped
            }
            Self::Slots(..=18) => Expect::Done,
            Self::VlanNest | Self::CsumOfRunt | Self::GsoSizeHuge => Expect::Either,
            _ => Expect::RefusedOrStopped,
        }
    }

    /// Puts it on the first queue of a connected frontend.
    pub fn launch(self, front: &mut NetFront) {
        let (tx, rx) = (front.tx_ring(0).req_prod(), front.rx_ring(0).req_prod());
        let size = front.tx_ring(0).size();
        let (tx_port, rx_port) = front.ports(0);
        match self {
            Self::TxReqProdJumps => front.tx_ring(0).force_req_prod(tx.wrapping_add(1 << 31)),
            Self::TxReqProdOneTooMany => front.tx_ring(0).force_req_prod(tx.wrapping_add(size + 1)),
            Self::RxReqProdJumps => front.rx_ring(0).force_req_prod(rx.wrapping_add(1 << 31)),
            Self::RxBadGrant | Self::RxReadOnlyGrant => self.offer_bad_buffer(front),
            _ => {
                let slots = self.slots(front);
                for slot in slots {
                    let _ = front.tx_ring(0).put(&slot);
                }
                front.push_tx(0);
            }
        }
        front.device().domu().send(tx_port);
        front.device().domu().send(rx_port);
    }

    fn offer_bad_buffer(self, front: &mut NetFront) {
        let domu = front.device().domu().clone();
        let page = domu.page();
        let gref = domu.grant(&page, false);
        if self == Self::RxBadGrant {
            domu.revoke(gref);
        } else {
            let frame = domu.frame_name(&page);
            domu.write_grant(gref, GTF_PERMIT_ACCESS | GTF_READONLY, DomId::DOM0, frame);
        }
        let request = RxRequest {
            id: 0,
            pad: 0,
            gref: gref.0,
        };
        let _ = front.rx_ring(0).put(request.as_bytes());
        let _ = front.rx_ring(0).push();
    }

    /// A page with a plausible packet in it, granted (or not) as the attack wants it.
    fn page(self, front: &NetFront) -> GrantRef {
        let domu = front.device().domu();
        let page = domu.page();
        page.write(0, &packet(if self == Self::VlanNest { 40 } else { 0 }));
        let gref = domu.grant(&page, true);
        match self {
            Self::BadGrant => return GrantRef(0x00FF_FFFF),
            Self::RevokedGrant => domu.revoke(gref),
            Self::ForeignGrant => {
                let frame = domu.frame_name(&page);
                domu.write_grant(gref, GTF_PERMIT_ACCESS, DomId(0x7FEF), frame);
            }
            _ => {}
        }
        gref
    }

    /// The slots that make it up.
    fn slots(self, front: &mut NetFront) -> Vec<Vec<u8>> {
        let gref = self.page(front);
        let room = front.tx_room(0);
        match self {
            Self::PiecesExceedSize => chain(gref, &[100, 90, 90]),
            Self::LeavesPage => {
                let request = TxRequest {
                    gref: gref.0,
                    offset: 4000,
                    flags: 0,
                    id: RAW_ID,
                    size: 97,
                };
                vec![request.as_bytes().to_vec()]
            }
            Self::Slots(count) => {
                let mut sizes = vec![1; usize::from(count)];
                sizes[0] = 100 + count - 1;
                chain(gref, &sizes)
            }
            Self::EndlessMoreData => {
                let ids = 0..u16::try_from(room).unwrap_or(0);
                ids.map(|n| slot(gref, n, 10, TXF_MORE_DATA)).collect()
            }
            Self::EmptyPiece(at) => {
                let mut sizes = vec![20; 8];
                sizes[0] = 200;
                sizes[usize::from(at)] = 0;
                chain(gref, &sizes)
            }
            Self::BadSecondGrant => {
                let mut slots = chain(gref, &[200, 50]);
                slots[1][..4].copy_from_slice(&0x00FF_FFFFu32.to_le_bytes());
                slots
            }
            Self::SizeZero => vec![slot(gref, 0, 0, 0)],
            Self::Runt(size) => vec![slot(gref, 0, size, 0)],
            Self::CsumOfRunt => vec![slot(gref, 0, 20, TXF_CSUM_BLANK)],
            Self::VlanNest => vec![slot(gref, 0, 1000, TXF_CSUM_BLANK)],
            Self::ExtraMissing => vec![slot(gref, 0, 1000, TXF_EXTRA_INFO)],
            _ => match self.extras(room) {
                extras if extras.is_empty() => vec![slot(gref, 0, 200, 0)],
                extras => {
                    let first = slot(gref, 0, 1000, TXF_EXTRA_INFO | TXF_CSUM_BLANK);
                    std::iter::once(first).chain(extras).collect()
                }
            },
        }
    }

    /// The extras that follow the first slot, for attacks with extras.
    fn extras(self, room: usize) -> Vec<Vec<u8>> {
        match self {
            Self::ExtraTwice => vec![gso(1448, GSO_TCPV4, true), gso(1448, GSO_TCPV4, false)],
            Self::ExtraUnknown(kind) => vec![padded(ExtraInfo {
                kind,
                flags: 0,
                data: [0; 6],
            })],
            Self::EndlessExtras => vec![gso(257, GSO_TCPV4, true); room.saturating_sub(1)],
            Self::GsoSizeZero => vec![gso(0, GSO_TCPV4, false)],
            Self::GsoSizeHuge => vec![gso(u16::MAX, GSO_TCPV4, false)],
            Self::GsoKindUnknown(kind) => vec![gso(1448, kind, false)],
            _ => Vec::new(),
        }
    }
}

fn slot(gref: GrantRef, n: u16, size: u16, flags: u16) -> Vec<u8> {
    TxRequest {
        gref: gref.0,
        offset: 0,
        flags,
        id: RAW_ID + n,
        size,
    }
    .as_bytes()
    .to_vec()
}

/// Slots of one packet with these sizes in them.
fn chain(gref: GrantRef, sizes: &[u16]) -> Vec<Vec<u8>> {
    let last = sizes.len().saturating_sub(1);
    let numbered = sizes.iter().zip(0u16..);
    numbered
        .map(|(size, n)| {
            let flags = if usize::from(n) < last {
                TXF_MORE_DATA
            } else {
                0
            };
            slot(gref, n, *size, flags)
        })
        .collect()
}

fn padded(extra: ExtraInfo) -> Vec<u8> {
    let mut slot = vec![0; TX_ENTRY_BYTES];
    slot[..size_of::<ExtraInfo>()].copy_from_slice(extra.as_bytes());
    slot
}

fn gso(size: u16, kind: u8, more: bool) -> Vec<u8> {
    padded(ExtraInfo::gso(kind, size, more))
}

/// An Ethernet frame with so many VLAN tags, then TCP over IPv4.
#[must_use]
pub fn packet(vlans: usize) -> Vec<u8> {
    let mut frame = vec![0xFF; 6];
    frame.extend_from_slice(&[0x00, 0x16, 0x3E, 0, 0, 1]);
    for _ in 0..vlans {
        frame.extend_from_slice(&[0x81, 0x00, 0x00, 0x01]);
    }
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, 3, 0xDA, 0, 1, 0, 0, 64, 6, 0, 0]);
    frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend_from_slice(&[0x1F, 0x90, 0x1F, 0x91, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18]);
    frame.extend_from_slice(&[0x20, 0, 0, 0, 0, 0]);
    frame.resize(1000, 0x5A);
    frame
}

/// The same packet with its headers cut at each offset into a piece of its own: all must arrive whole.
#[must_use]
pub fn header_cuts() -> Vec<(Frame, Vec<usize>)> {
    let frame = Frame {
        data: packet(0),
        csum_blank: true,
        ..Frame::default()
    };
    (1..=60)
        .map(|cut| (frame.clone(), vec![cut, frame.data.len() - cut]))
        .collect()
}
