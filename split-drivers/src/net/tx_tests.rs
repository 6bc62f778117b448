//! Slots from correct and from hostile frontends.

use super::*;
use crate::ring::back::RingIndices;
use crate::testing::GuestMemory;
use proptest::prelude::*;
use xen_abi::ids::GrantRef;
use xen_host::region::SharedRegion;

pub struct Slots {
    pub page: SharedRegion,
    pub produced: u32,
}

impl Slots {
    pub fn new() -> (Self, BackRing) {
        let memory = GuestMemory::new(16);
        let gref = memory.page();
        let ring = BackRing::new(
            memory.view(&[gref]),
            netif::TX_ENTRY_BYTES,
            RingIndices::default(),
        );
        (
            Self {
                page: memory.view(&[gref]),
                produced: 0,
            },
            ring,
        )
    }

    pub fn put(&mut self, bytes: &[u8]) {
        let at = 64 + (self.produced % 256) as usize * netif::TX_ENTRY_BYTES;
        self.page.write(at, bytes);
        self.produced += 1;
        self.page.store_u32(0, self.produced);
    }

    pub fn request(&mut self, flags: u16, offset: u16, size: u16) {
        let id = u16::try_from(self.produced).unwrap();
        self.put(
            TxRequest {
                gref: 100 + u32::from(id),
                offset,
                flags,
                id,
                size,
            }
            .as_bytes(),
        );
    }
}

fn taken(fill: impl FnOnce(&mut Slots)) -> Result<Option<Packet>, TxFault> {
    let (mut slots, mut ring) = Slots::new();
    fill(&mut slots);
    let waiting = ring.waiting()?;
    take(&mut ring, waiting)
}

const MORE: u16 = netif::TXF_MORE_DATA;
const EXTRA: u16 = netif::TXF_EXTRA_INFO;

#[test]
fn a_packet_in_pieces_gives_the_first_what_the_others_leave() {
    let packet = taken(|slots| {
        slots.request(MORE | netif::TXF_CSUM_BLANK, 100, 3000);
        slots.request(MORE, 0, 1000);
        slots.request(0, 4000, 96);
    })
    .unwrap()
    .unwrap();
    let pieces: Vec<_> = packet
        .pieces
        .iter()
        .map(|p| (p.gref, p.offset, p.len))
        .collect();
    assert_eq!(
        pieces,
        [
            (GrantRef(100), 100, 1904),
            (GrantRef(101), 0, 1000),
            (GrantRef(102), 4000, 96)
        ]
    );
    assert!(packet.undone.csum_blank && packet.slots() == 3 && packet.len == 3000);
}

#[test]
fn segmentation_comes_as_an_extra_that_is_answered_as_nothing() {
    let (mut slots, mut ring) = Slots::new();
    slots.request(EXTRA | MORE, 0, 6000);
    slots.put(ExtraInfo::gso(netif::GSO_TCPV4, 1448, false).as_bytes());
    slots.request(0, 0, 4000);
    let packet = take(&mut ring, 3).unwrap().unwrap();
    assert_eq!(
        packet.undone.gso,
        Some(Gso {
            ip: Ip::V4,
            size: 1448
        })
    );
    packet.answer(&mut ring, netif::RSP_OKAY);
    let answers: Vec<_> = (0..3)
        .map(|i| slots.page.read_vec(64 + i * netif::TX_ENTRY_BYTES, 4))
        .collect();
    assert_eq!(
        answers,
        [vec![0, 0, 0, 0], vec![1, 0, 1, 0], vec![2, 0, 0, 0]]
    );
}

#[test]
fn accidents_are_dropped_and_answered() {
    // More in the others than in the whole; shorter than a header; 19 slots; nothing at all; an order about multicast.
    let cases: [fn(&mut Slots); 5] = [
        |slots| {
            slots.request(MORE, 0, 1000);
            slots.request(0, 0, 1001);
        },
        |slots| slots.request(0, 0, 13),
        |slots| {
            slots.request(MORE, 0, 2000);
            (0..18).for_each(|i| slots.request(if i < 17 { MORE } else { 0 }, 0, 100));
        },
        |slots| slots.request(0, 0, 0),
        |slots| {
            slots.request(EXTRA, 0, 60);
            slots.put(&[netif::EXTRA_MCAST_ADD, 0, 1, 2, 3, 4, 5, 6]);
        },
    ];
    for case in cases {
        assert!(taken(case).unwrap().unwrap().is_dropped());
    }
}

#[test]
fn zero_length_pieces_are_harmless_wherever_they_stand() {
    for zero in 0..4 {
        let packet = taken(|slots| {
            for i in 0..4 {
                let size = if i == 0 {
                    300
                } else if i == zero {
                    0
                } else {
                    100
                };
                slots.request(if i < 3 { MORE } else { 0 }, 0, size);
            }
        })
        .unwrap()
        .unwrap();
        let sum: usize = packet
            .pieces
            .iter()
            .map(|piece| usize::from(piece.len))
            .sum();
        assert_eq!((sum, packet.slots()), (300, 4));
    }
}

#[test]
fn attacks_stop_the_interface() {
    let gso = |kind, size| ExtraInfo::gso(kind, size, false);
    assert_eq!(taken(|s| s.request(MORE, 0, 100)), Err(TxFault::Cut(1)));
    assert_eq!(taken(|s| s.request(EXTRA, 0, 100)), Err(TxFault::Cut(1)));
    assert_eq!(
        taken(|s| (0..30).for_each(|_| s.request(MORE, 0, 100))),
        Err(TxFault::Slots)
    );
    assert_eq!(
        taken(|s| s.request(0, 4000, 97)),
        Err(TxFault::Piece {
            offset: 4000,
            size: 97
        })
    );
    assert_eq!(
        taken(|s| s.request(0, 0xffff, 0xffff)),
        Err(TxFault::Piece {
            offset: 0xffff,
            size: 0xffff
        })
    );
    for (kind, size) in [(netif::GSO_TCPV4, 0), (0, 1448), (3, 1448)] {
        let fault = taken(|s| {
            s.request(EXTRA, 0, 100);
            s.put(gso(kind, size).as_bytes());
        });
        assert_eq!(fault, Err(TxFault::Gso { kind, size }));
    }
    for kind in [0, 5, 6, 255] {
        let fault = taken(|s| {
            s.request(EXTRA, 0, 100);
            s.put(&[kind, 0, 0, 0, 0, 0, 0, 0]);
        });
        assert_eq!(fault, Err(TxFault::Extra(kind)));
    }
    let repeated = taken(|s| {
        s.request(EXTRA, 0, 100);
        (0..2).for_each(|_| s.put(ExtraInfo::gso(netif::GSO_TCPV4, 1, true).as_bytes()));
    });
    assert_eq!(repeated, Err(TxFault::Extra(netif::EXTRA_GSO)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever the slots hold: no panic, never more slots than were sent, and pieces that stay in their pages and add up.
    #[test]
    fn arbitrary_slots_never_panic(words in prop::collection::vec((any::<u32>(), 0_u16..5000, 0_u16..16, any::<u16>(), 0_u16..9000), 1..60)) {
        let (mut slots, mut ring) = Slots::new();
        for (gref, offset, flags, id, size) in &words {
            slots.put(TxRequest { gref: *gref, offset: *offset, flags: *flags, id: *id, size: *size }.as_bytes());
        }
        let mut left = ring.waiting().unwrap();
        while let Ok(Some(packet)) = take(&mut ring, left) {
            left -= u32::try_from(packet.slots()).unwrap();
            let sum: usize = packet.pieces.iter().map(|piece| usize::from(piece.len)).sum();
            prop_assert!(packet.is_dropped() || sum == packet.len);
            prop_assert!(packet.pieces.iter().all(|p| usize::from(p.offset) + usize::from(p.len) <= PAGE_SIZE));
            prop_assert!(packet.pieces.len() <= NET_SLOTS);
            packet.answer(&mut ring, netif::RSP_OKAY);
        }
        let _ = ring.publish();
    }
}
