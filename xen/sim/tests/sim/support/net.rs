//! The network half of the test backend: takes packets, gives packets.

use super::{BackRing, number, write};
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::netif::{
    Extra, ExtraInfo, RSP_NULL, RSP_OKAY, RX_ENTRY_BYTES, RXF_CSUM_BLANK, RXF_DATA_VALIDATED,
    RXF_EXTRA_INFO, RXF_MORE_DATA, RxRequest, RxResponse, TX_ENTRY_BYTES, TXF_CSUM_BLANK,
    TXF_DATA_VALIDATED, TXF_EXTRA_INFO, TXF_MORE_DATA, TxRequest, TxResponse,
};
use xen_abi::layout::copy_out;
use xen_host::region::SharedRegion;
use xen_host::seam::{Devices, Direction, Events, GrantCopy, Grants};
use xen_sim::SimHost;
use xen_sim::frontend::net::Frame;
use xen_sim::frontend::xenbus::DeviceAddress;
use zerocopy::IntoBytes;

/// How the backend breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    None,
    TxTwice,
    TxMapped,
    ExtraAnsweredAsData,
    RxOutOfSlot,
    RxBeyondPage,
    RxGsoUnasked,
}

pub struct NetBackend {
    host: SimHost,
    at: DeviceAddress,
    grants: Box<dyn Grants>,
    events: Box<dyn Events>,
    tx: BackRing,
    rx: BackRing,
    pub received: Vec<Frame>,
    pub misdeed: Misdeed,
    kept: Vec<SharedRegion>,
    last: Option<TxResponse>,
    buffer: SharedRegion,
}

pub fn offer(host: &SimHost, at: &DeviceAddress) {
    for (key, value) in [
        ("feature-sg", "1"),
        ("feature-gso-tcpv4", "1"),
        ("feature-rx-copy", "1"),
        ("feature-split-event-channels", "1"),
        ("state", "2"),
    ] {
        write(host, at, key, value);
    }
}

impl NetBackend {
    pub fn connect(host: &SimHost, at: &DeviceAddress) -> Self {
        let grants = host.open_grants().unwrap();
        let events = host.open_events(Some(at.domid)).unwrap();
        let dir = at.frontend();
        let get = |key: &str| number(host, &dir, key);
        let ring = |key: &str, bytes: usize, ports: [&str; 2]| {
            let gref = GrantRef(get(key).unwrap());
            let mut ring = BackRing::map(grants.as_ref(), at.domid, &[gref], bytes);
            let port = Port(get(ports[0]).or(get(ports[1])).unwrap());
            ring.port = events.bind_interdomain(at.domid, port).ok();
            ring
        };
        let tx = ring(
            "tx-ring-ref",
            TX_ENTRY_BYTES,
            ["event-channel-tx", "event-channel"],
        );
        let mut rx = ring(
            "rx-ring-ref",
            RX_ENTRY_BYTES,
            ["event-channel-rx", "event-channel"],
        );
        rx.port = rx.port.or(tx.port);
        write(host, at, "state", "4");
        let buffer = SharedRegion::anonymous(1).unwrap();
        Self {
            host: host.clone(),
            at: at.clone(),
            grants,
            events,
            tx,
            rx,
            received: Vec::new(),
            misdeed: Misdeed::None,
            kept: Vec::new(),
            last: None,
            buffer,
        }
    }

    pub fn run_tx(&mut self) {
        for port in self.events.pending().unwrap() {
            self.events.unmask(port).unwrap();
        }
        while let Some(slot) = self.tx.next() {
            let first: TxRequest = copy_out(&slot).unwrap();
            let mut frame = Frame {
                csum_blank: first.flags & TXF_CSUM_BLANK != 0,
                data_validated: first.flags & TXF_DATA_VALIDATED != 0,
                ..Frame::default()
            };
            let (mut rest, mut answers) = (Vec::new(), vec![(first.id, RSP_OKAY)]);
            if first.flags & TXF_EXTRA_INFO != 0 {
                let extra = ExtraInfo::decode(&self.tx.next().unwrap()).unwrap();
                if let Extra::Gso { size, kind } = extra.meaning() {
                    frame.gso = Some((kind, size));
                }
                let data = self.misdeed == Misdeed::ExtraAnsweredAsData;
                answers.push((0, if data { RSP_OKAY } else { RSP_NULL }));
            }
            let mut more = first.flags & TXF_MORE_DATA != 0;
            while more {
                let next: TxRequest = copy_out(&self.tx.next().unwrap()).unwrap();
                more = next.flags & TXF_MORE_DATA != 0;
                answers.push((next.id, RSP_OKAY));
                rest.push(next);
            }
            let others: u16 = rest.iter().map(|request| request.size).sum();
            self.take_piece(&mut frame, &first, first.size - others);
            rest.iter()
                .for_each(|request| self.take_piece(&mut frame, request, request.size));
            self.received.push(frame);
            for (id, status) in answers {
                let mut answer = TxResponse { id, status };
                if self.misdeed == Misdeed::TxTwice {
                    answer = self.last.replace(answer).unwrap_or(answer);
                }
                self.tx.answer(answer.as_bytes());
            }
        }
        self.tx.publish(self.events.as_ref());
    }

    fn take_piece(&mut self, frame: &mut Frame, request: &TxRequest, len: u16) {
        if self.misdeed == Misdeed::TxMapped {
            self.kept.push(
                self.grants
                    .map(self.at.domid, &[request.gref()], false)
                    .unwrap(),
            );
        }
        let mut copy = [GrantCopy {
            direction: Direction::FromGuest,
            domid: self.at.domid,
            gref: request.gref(),
            offset: request.offset,
            local_offset: 0,
            len,
            status: 0,
        }];
        self.grants.copy(&self.buffer, &mut copy).unwrap();
        assert_eq!(copy[0].status, 0);
        frame.data.extend(self.buffer.read_vec(0, usize::from(len)));
    }

    pub fn send(&mut self, frame: &Frame) {
        let pieces: Vec<&[u8]> = frame.data.chunks(4000).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let request: RxRequest = copy_out(&self.rx.next().unwrap()).unwrap();
            self.buffer.write(0, piece);
            let mut copy = [GrantCopy {
                direction: Direction::ToGuest,
                domid: self.at.domid,
                gref: GrantRef(request.gref),
                offset: 16,
                local_offset: 0,
                len: u16::try_from(piece.len()).unwrap(),
                status: 0,
            }];
            self.grants.copy(&self.buffer, &mut copy).unwrap();
            let mut flags = if n + 1 < pieces.len() {
                RXF_MORE_DATA
            } else {
                0
            };
            let gso = frame.gso.filter(|_| n == 0);
            if n == 0 {
                flags |= if frame.csum_blank { RXF_CSUM_BLANK } else { 0 };
                flags |= if frame.data_validated {
                    RXF_DATA_VALIDATED
                } else {
                    0
                };
                flags |= if gso.is_some() { RXF_EXTRA_INFO } else { 0 };
            }
            let mut answer = RxResponse {
                id: request.id,
                offset: 16,
                flags,
                status: i16::try_from(piece.len()).unwrap(),
            };
            match self.misdeed {
                Misdeed::RxOutOfSlot => answer.id += 1,
                Misdeed::RxBeyondPage => answer.status = 4090,
                _ => {}
            }
            self.rx.answer(answer.as_bytes());
            if let Some((kind, size)) = gso {
                let _ = self.rx.next().unwrap();
                self.rx.answer(ExtraInfo::gso(kind, size, false).as_bytes());
            }
        }
        self.rx.publish(self.events.as_ref());
    }

    pub fn close(mut self) {
        self.kept.clear();
        write(&self.host, &self.at, "state", "6");
    }
}
