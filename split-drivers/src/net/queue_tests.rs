//! One queue between a guest's rings and a pair of lists.

use super::super::frame::{Ip, Protocol, build};
use super::super::offload::Gso;
use super::*;
use crate::ring::back::RingIndices;
use crate::testing::{Flips, GUEST, GuestMemory};
use proptest::prelude::*;
use xen_abi::ids::GrantRef;
use xen_abi::io::netif::{ExtraInfo, RxRequest, RxResponse, TxRequest, TxResponse};
use xen_abi::layout::copy_out;
use zerocopy::IntoBytes;

/// A link whose other end is two lists; each entry with the tap's header.
#[derive(Debug)]
struct Lists {
    buffer: SharedRegion,
    sent: Vec<Vec<u8>>,
    coming: VecDeque<Vec<u8>>,
}

impl Link for Lists {
    fn buffer(&self) -> &SharedRegion {
        &self.buffer
    }
    fn send(&mut self, frames: &[Span]) -> Result<usize, Errno> {
        self.sent.extend(
            frames
                .iter()
                .map(|span| self.buffer.read_vec(span.at, span.len)),
        );
        Ok(frames.len())
    }
    fn receive(&mut self, rooms: &[Span], into: &mut Vec<Span>) -> Result<(), Errno> {
        for room in rooms {
            let Some(frame) = self.coming.pop_front() else {
                break;
            };
            self.buffer.write(room.at, &frame);
            into.push(Span {
                at: room.at,
                len: frame.len(),
            });
        }
        Ok(())
    }
}

struct Guest {
    memory: GuestMemory,
    rings: [GrantRef; 2],
    tx: SharedRegion,
    rx: SharedRegion,
    tx_prod: u32,
    rx_prod: u32,
    rx_cons: u32,
    pages: Vec<GrantRef>,
    features: NetFeatures,
}

const ALL: NetFeatures = NetFeatures {
    sg: true,
    gso_tcpv4: true,
    gso_tcpv6: true,
    csum_ipv4: true,
    csum_ipv6: true,
    rx_notify: true,
};

impl Guest {
    fn new() -> Self {
        let memory = GuestMemory::new(1024);
        let rings = [memory.page(), memory.page()];
        let (tx, rx) = (memory.view(&rings[..1]), memory.view(&rings[1..]));
        tx.store_u32(12, 1);
        rx.store_u32(12, 1);
        Self {
            memory,
            rings,
            tx,
            rx,
            tx_prod: 0,
            rx_prod: 0,
            rx_cons: 0,
            pages: Vec::new(),
            features: ALL,
        }
    }

    fn backend(&self, resume: bool) -> (NetQueue<Lists>, Progress) {
        let ring = |which: usize, stride| {
            let page = self.memory.view(&self.rings[which..=which]);
            let at = crate::ring::back::published(&page);
            BackRing::new(
                page,
                stride,
                RingIndices {
                    req_cons: at,
                    rsp_prod: at,
                },
            )
        };
        let link = Lists {
            buffer: SharedRegion::anonymous(buffer_pages()).unwrap(),
            sent: Vec::new(),
            coming: VecDeque::new(),
        };
        let (tx, rx) = (
            ring(0, netif::TX_ENTRY_BYTES),
            ring(1, netif::RX_ENTRY_BYTES),
        );
        let (features, grants) = (self.features, self.memory.grants());
        NetQueue::new(Setup {
            domid: GUEST,
            features,
            tx,
            rx,
            grants,
            link,
            counters: Arc::default(),
            resume,
        })
        .unwrap()
    }

    /// Sends a frame in pieces of `piece` bytes.
    fn send(&mut self, frame: &[u8], piece: usize, flags: u16, gso: Option<ExtraInfo>) {
        let chunks: Vec<&[u8]> = frame.chunks(piece).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let page = self.memory.page();
            self.memory.write(page, 40, chunk);
            let mut flags = if i == 0 { flags } else { 0 };
            flags |= if i + 1 < chunks.len() {
                netif::TXF_MORE_DATA
            } else {
                0
            };
            flags |= if i == 0 && gso.is_some() {
                netif::TXF_EXTRA_INFO
            } else {
                0
            };
            let size = u16::try_from(if i == 0 { frame.len() } else { chunk.len() }).unwrap();
            let id = u16::try_from(self.tx_prod).unwrap();
            self.put(
                TxRequest {
                    gref: page.0,
                    offset: 40,
                    flags,
                    id,
                    size,
                }
                .as_bytes(),
            );
            if i == 0
                && let Some(extra) = gso
            {
                self.put(extra.as_bytes());
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.tx.write(
            64 + (self.tx_prod % 256) as usize * netif::TX_ENTRY_BYTES,
            bytes,
        );
        self.tx_prod += 1;
        self.tx.store_u32(0, self.tx_prod);
    }

    fn tx_statuses(&self) -> Vec<i16> {
        let answer = |i: u32| {
            copy_out::<TxResponse>(&self.tx.read_vec(64 + i as usize * netif::TX_ENTRY_BYTES, 4))
                .unwrap()
                .status
        };
        (0..self.tx.load_u32(8)).map(answer).collect()
    }

    /// Puts pages up for frames.
    fn offer(&mut self, count: u32) {
        for _ in 0..count {
            let page = self.memory.page();
            let id = u16::try_from(self.rx_prod).unwrap();
            let at = 64 + (self.rx_prod % 256) as usize * netif::RX_ENTRY_BYTES;
            self.rx.write(
                at,
                RxRequest {
                    id,
                    pad: 0,
                    gref: page.0,
                }
                .as_bytes(),
            );
            self.pages.push(page);
            self.rx_prod += 1;
        }
        self.rx.store_u32(0, self.rx_prod);
    }

    /// Takes one packet, as netfront does: by slots.
    fn receive(&mut self) -> Option<(Vec<u8>, u16, Option<ExtraInfo>)> {
        if self.rx_cons == self.rx.load_u32(8) {
            return None;
        }
        let (mut frame, mut first, mut extra) = (Vec::new(), None, None);
        loop {
            let slot = self.slot();
            let answer = copy_out::<RxResponse>(&slot).unwrap();
            assert!(answer.status > 0, "{answer:?}");
            let len = usize::from(answer.status.unsigned_abs());
            let page = self.pages[(self.rx_cons - 1) as usize];
            frame.extend(self.memory.read(page, usize::from(answer.offset), len));
            if first.is_none() && answer.flags & netif::RXF_EXTRA_INFO != 0 {
                extra = ExtraInfo::decode(&self.slot());
            }
            first.get_or_insert(answer.flags);
            if answer.flags & netif::RXF_MORE_DATA == 0 {
                self.rx.store_u32(12, self.rx_cons + 1);
                return Some((frame, first.unwrap(), extra));
            }
        }
    }

    fn slot(&mut self) -> Vec<u8> {
        let slot = self.rx.read_vec(
            64 + (self.rx_cons % 256) as usize * netif::RX_ENTRY_BYTES,
            8,
        );
        self.rx_cons += 1;
        slot
    }
}

fn with_header(header: [u8; 12], frame: &[u8]) -> Vec<u8> {
    [&header[..], frame].concat()
}

#[test]
fn frames_from_the_guest_arrive_whole_with_what_is_left_to_do() {
    let mut guest = Guest::new();
    let (mut queue, _) = guest.backend(false);
    let plain = build::frame(Ip::V4, Protocol::Udp, b"ping");
    let large = build::frame(Ip::V4, Protocol::Tcp, &[9; 60_000]);
    guest.send(&plain, 4000, 0, None);
    guest.send(
        &large,
        4000,
        netif::TXF_CSUM_BLANK | netif::TXF_DATA_VALIDATED,
        Some(ExtraInfo::gso(netif::GSO_TCPV4, 1448, false)),
    );
    let progress = queue.pass().unwrap();
    assert_eq!((progress.sent, progress.notify_tx), (2, true));
    assert_eq!(queue.link.sent[0], with_header([0; 12], &plain));
    let header = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    assert_eq!(queue.link.sent[1], with_header(header, &large));
    let statuses = guest.tx_statuses();
    assert_eq!(statuses[..3], [0, 0, 1], "the extra is answered as nothing");
    assert_eq!(
        guest
            .memory
            .copies
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[test]
fn a_header_split_over_tiny_slots_is_read_whole() {
    for piece in [1, 3, 7, 14] {
        let mut guest = Guest::new();
        let (mut queue, _) = guest.backend(false);
        let frame = build::frame(Ip::V4, Protocol::Udp, b"");
        let tail = frame.len().div_ceil(piece) > 18;
        guest.send(
            &frame[..],
            if tail {
                frame.len().div_ceil(17)
            } else {
                piece
            },
            netif::TXF_CSUM_BLANK,
            None,
        );
        queue.pass().unwrap();
        assert_eq!(queue.link.sent[0][12..], frame[..]);
    }
}

#[test]
fn one_bad_grant_loses_one_packet() {
    let mut guest = Guest::new();
    let (mut queue, _) = guest.backend(false);
    guest.send(&[1; 60], 60, 0, None);
    let bad = guest.memory.page();
    guest.memory.revoke(bad);
    guest.put(
        TxRequest {
            gref: bad.0,
            offset: 0,
            flags: 0,
            id: 9,
            size: 60,
        }
        .as_bytes(),
    );
    guest.send(&[2; 60], 60, 0, None);
    queue.pass().unwrap();
    assert_eq!(guest.tx_statuses(), [0, -1, 0]);
    assert_eq!(queue.link.sent.len(), 2);
}

#[test]
fn frames_to_the_guest_take_slots_in_order() {
    let mut guest = Guest::new();
    guest.offer(64);
    let (mut queue, _) = guest.backend(false);
    let small = build::frame(Ip::V6, Protocol::Udp, b"x");
    let large = build::frame(Ip::V6, Protocol::Tcp, &[3; 30_000]);
    let mut gso = [0; 12];
    gso[..10].copy_from_slice(&[1, 4, 74, 0, 0xa8, 5, 54, 0, 16, 0]);
    queue
        .link
        .coming
        .push_back(with_header([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &small));
    queue.link.coming.push_back(with_header(gso, &large));
    queue.link.coming.push_back(with_header([0; 12], &small));
    let progress = queue.pass().unwrap();
    assert_eq!((progress.received, progress.notify_rx), (3, true));
    assert_eq!(
        guest.receive(),
        Some((small.clone(), netif::RXF_DATA_VALIDATED, None))
    );
    let (frame, flags, extra) = guest.receive().unwrap();
    assert_eq!(frame, large);
    assert_eq!(flags & 3, netif::RXF_DATA_VALIDATED | netif::RXF_CSUM_BLANK);
    assert_eq!(extra, Some(ExtraInfo::gso(netif::GSO_TCPV6, 1448, false)));
    assert_eq!(guest.receive().unwrap().0, small);
    assert_eq!(guest.receive(), None);
}

#[test]
fn a_guest_that_takes_nothing_holds_one_batch_and_no_more() {
    let mut guest = Guest::new();
    guest.offer(1);
    let (mut queue, _) = guest.backend(false);
    let frame = build::frame(Ip::V4, Protocol::Udp, &[0; 5000]);
    queue
        .link
        .coming
        .extend((0..500).map(|_| with_header([0; 12], &frame)));
    for _ in 0..100 {
        assert_eq!(
            queue.pass().unwrap().received,
            0,
            "two slots are needed, one is there"
        );
    }
    assert_eq!(queue.held.len(), NET_RX_BATCH);
    assert_eq!(
        queue.arm().unwrap(),
        Some(Sleep {
            link: false,
            soon: false
        })
    );
    assert_eq!(guest.rx.load_u32(4), 2, "woken at the second slot");
    guest.offer(199);
    while queue.pass().unwrap().received > 0 {}
    assert_eq!(queue.held.len() + queue.link.coming.len(), 400);
}

#[test]
fn a_frontend_without_scatter_gather_gets_no_large_frame() {
    let mut guest = Guest::new();
    guest.features.sg = false;
    guest.offer(8);
    let (mut queue, _) = guest.backend(false);
    queue
        .link
        .coming
        .push_back(with_header([0; 12], &[1; 5000]));
    queue
        .link
        .coming
        .push_back(with_header([0; 12], &[2; 1500]));
    assert_eq!(queue.pass().unwrap().received, 1);
    assert_eq!(guest.receive().unwrap().0, [2; 1500]);
}

/// A driver dies after it wrote responses and before they were published: the slots it wrote are no requests any more.
#[test]
fn a_successor_answers_what_was_under_way_and_believes_no_slot() {
    let mut guest = Guest::new();
    guest.offer(4);
    let secret = guest.memory.page();
    guest.memory.write(secret, 0, &[0x5e; 4096]);
    guest.send(&[1; 60], 60, 0, None);
    guest.send(
        &[1; 6000],
        4000,
        0,
        Some(ExtraInfo::gso(netif::GSO_TCPV4, 1448, false)),
    );
    guest.tx.write(
        64,
        TxResponse {
            id: u16::try_from(secret.0).unwrap(),
            status: 0,
        }
        .as_bytes(),
    );
    guest.tx.write(
        64 + 2 * 12,
        TxResponse {
            id: u16::from_le_bytes([netif::EXTRA_GSO, 0]),
            status: 1,
        }
        .as_bytes(),
    );
    let (mut queue, owed) = guest.backend(true);
    assert!(owed.notify_tx && owed.notify_rx);
    assert_eq!(guest.tx_statuses(), [-2, -2, 1, -2]);
    assert_eq!(
        guest.rx.load_u32(8),
        4,
        "the guest puts these pages up again"
    );
    guest.send(&[2; 60], 60, 0, None);
    guest.offer(1);
    queue.link.coming.push_back(with_header([0; 12], &[3; 60]));
    let progress = queue.pass().unwrap();
    assert_eq!((progress.sent, progress.received), (1, 1));
    assert_eq!(queue.link.sent, [with_header([0; 12], &[2; 60])]);
    assert_eq!(guest.memory.read(secret, 0, 4096), [0x5e; 4096]);
}

#[test]
fn marks_of_segmentation_survive_the_way_round() {
    let frame = build::frame(Ip::V4, Protocol::Tcp, &[1; 3000]);
    let gso = Gso {
        ip: Ip::V4,
        size: 1448,
    };
    let undone = super::super::offload::Undone {
        csum_blank: true,
        gso: Some(gso),
        ..Default::default()
    };
    let (header, _) = from_guest(undone, &frame, frame.len()).unwrap();
    let marks = to_guest(
        header,
        &frame,
        Abilities {
            csum_ipv4: true,
            csum_ipv6: true,
        },
    );
    assert_eq!((marks.gso, marks.flags), (Some(gso), 3));
}

/// The size is read once: what is sent has one of the two lengths, and is sent whole.
#[test]
fn a_size_that_changes_while_it_is_read_is_judged_once() {
    for (round, high) in (0..30).flat_map(|round| [(round, 0x0c), (round, 0xff)]) {
        let mut guest = Guest::new();
        let (mut queue, _) = guest.backend(false);
        for _ in 0..64 {
            guest.send(&[7; 3000], 1000, 0, None);
        }
        let size = |packet: usize| 64 + packet * 3 * netif::TX_ENTRY_BYTES + 11;
        let cells = (0..64).map(|packet| (guest.rings[0], size(packet)));
        let flips = Flips::start(&guest.memory, cells.collect(), [0x0b, high]);
        let mut result = Ok(());
        while result.is_ok() && guest.tx.load_u32(8) < guest.tx_prod {
            result = queue.pass().map(drop);
        }
        flips.stop();
        for frame in &queue.link.sent {
            let longer = high == 0x0c && frame.len() == 12 + 3256;
            assert!(
                longer || frame.len() == 12 + 3000,
                "{} in {round}",
                frame.len()
            );
        }
        assert!(high == 0xff || (result.is_ok() && queue.link.sent.len() == 64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn passes_over_any_ring_pages_end_and_answer_no_more_than_was_asked(
        seed: u64, tamed: bool, tx in 0_u32..300, rx in 0_u32..300
    ) {
        let guest = Guest::new();
        let granted: Vec<GrantRef> = (0..64).map(|_| guest.memory.page()).collect();
        prop_assert_eq!(granted.len(), 64);
        let (mut queue, _) = guest.backend(false);
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        for (page, stride) in [(&guest.tx, netif::TX_ENTRY_BYTES), (&guest.rx, netif::RX_ENTRY_BYTES)] {
            let mut slots: Vec<u8> = (0..256 * stride).map(|_| byte()).collect();
            for slot in slots.chunks_exact_mut(stride).filter(|_| tamed) {
                // References that are granted; for transmit, pieces that fit their page.
                let gref = if stride == netif::TX_ENTRY_BYTES { 0 } else { 4 };
                slot[gref] = slot[gref] % 64 + 10;
                slot[gref + 1..gref + 4].fill(0);
                if gref == 0 {
                    (slot[5], slot[7], slot[11]) = (slot[5] % 8, 0, slot[11] % 8);
                }
            }
            page.write(64, &slots);
        }
        guest.tx.store_u32(0, tx);
        guest.rx.store_u32(0, rx);
        queue.link.coming.extend((0..60).map(|n| with_header([0; 12], &vec![9; 60 + n * 90])));
        let mut fault = None;
        for _ in 0..1000 {
            match queue.pass() {
                Ok(progress) if progress.sent + progress.received == 0 => break,
                Ok(_) => {}
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        prop_assert!(tx <= 256 || fault.is_some());
        for (page, asked) in [(&guest.tx, tx), (&guest.rx, rx)] {
            let answered = page.load_u32(8);
            prop_assert!(answered <= asked && answered <= 256, "{answered} of {asked}: {fault:?}");
        }
    }
}
