//! The block half of the test backend.

use super::{BackRing, number, read, write};
use xen_abi::ids::{DomId, GrantRef, Port};
use xen_abi::io::blkif::{
    OP_DISCARD, OP_FLUSH_DISKCACHE, OP_READ, OP_WRITE, Protocol, RSP_EOPNOTSUPP, RSP_ERROR,
    RSP_OKAY, Request, Response, SEGMENTS_PER_INDIRECT_PAGE, Segment,
};
use xen_host::region::SharedRegion;
use xen_host::seam::{Devices, Direction, Events, GrantCopy, Grants};
use xen_sim::SimHost;
use xen_sim::frontend::xenbus::DeviceAddress;

/// How the backend breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    None,
    AnswersTwice,
    InventsIds,
    NamesOtherOperation,
    LeavesPadding,
    KeepsGrants,
    PublishesTooMuch,
    NotifiesForNothing,
}

pub struct BlkBackend {
    host: SimHost,
    at: DeviceAddress,
    grants: Box<dyn Grants>,
    events: Box<dyn Events>,
    rings: Vec<BackRing>,
    protocol: Protocol,
    pub disk: Vec<u8>,
    pub misdeed: Misdeed,
    kept: Vec<SharedRegion>,
    last: Option<Vec<u8>>,
    buffer: SharedRegion,
}

impl BlkBackend {
    pub fn new(host: &SimHost, at: &DeviceAddress, sectors: usize) -> Self {
        Self {
            host: host.clone(),
            at: at.clone(),
            grants: host.open_grants().unwrap(),
            events: host.open_events(Some(at.domid)).unwrap(),
            rings: Vec::new(),
            protocol: Protocol::X86_64,
            disk: vec![0; sectors * 512],
            misdeed: Misdeed::None,
            kept: Vec::new(),
            last: None,
            buffer: SharedRegion::anonymous(1).unwrap(),
        }
    }

    pub fn offer(&self, persistent: bool) {
        let sectors = (self.disk.len() / 512).to_string();
        for (key, value) in [
            ("sectors", sectors.as_str()),
            ("sector-size", "512"),
            ("feature-flush-cache", "1"),
            ("feature-discard", "1"),
            ("feature-persistent", if persistent { "1" } else { "0" }),
            ("feature-max-indirect-segments", "64"),
            ("max-ring-page-order", "2"),
            ("multi-queue-max-queues", "4"),
            ("state", "2"),
        ] {
            write(&self.host, &self.at, key, value);
        }
    }

    pub fn connect(&mut self) {
        let dir = self.at.frontend();
        self.protocol = Protocol::parse(&read(&self.host, &dir, "protocol").unwrap()).unwrap();
        let queues = number(&self.host, &dir, "multi-queue-num-queues").unwrap_or(1);
        let order = number(&self.host, &dir, "ring-page-order").unwrap_or(0);
        for queue in 0..queues {
            let dir = if queues > 1 {
                format!("{dir}/queue-{queue}")
            } else {
                dir.clone()
            };
            let refs: Vec<GrantRef> = if order == 0 {
                vec![GrantRef(number(&self.host, &dir, "ring-ref").unwrap())]
            } else {
                (0..1u32 << order)
                    .map(|n| GrantRef(number(&self.host, &dir, &format!("ring-ref{n}")).unwrap()))
                    .collect()
            };
            let bytes = self.protocol.entry_bytes();
            let mut ring = BackRing::map(self.grants.as_ref(), self.at.domid, &refs, bytes);
            let port = Port(number(&self.host, &dir, "event-channel").unwrap());
            ring.port = Some(self.events.bind_interdomain(self.at.domid, port).unwrap());
            self.rings.push(ring);
        }
        write(&self.host, &self.at, "state", "4");
    }

    pub fn wait(&self, most: std::time::Duration) -> bool {
        self.events.wait(Some(most)).unwrap()
    }

    pub fn run(&mut self) {
        for port in self.events.pending().unwrap() {
            self.events.unmask(port).unwrap();
        }
        let mut rings = std::mem::take(&mut self.rings);
        for ring in &mut rings {
            while let Some(entry) = ring.next() {
                let request = Request::decode(self.protocol, &entry).unwrap();
                self.serve(ring, &request);
            }
            ring.publish(self.events.as_ref());
            match self.misdeed {
                Misdeed::PublishesTooMuch => ring.region.store_u32(8, ring.index.rsp_prod() + 5),
                Misdeed::NotifiesForNothing => self.events.notify(ring.port.unwrap()).unwrap(),
                _ => {}
            }
        }
        self.rings = rings;
    }

    fn serve(&mut self, ring: &mut BackRing, request: &Request) {
        let (id, operation) = request.identity();
        let domid = self.at.domid;
        let status = match request {
            Request::Discard {
                sector, nr_sectors, ..
            } => {
                let range = usize::try_from(sector * 512).unwrap()
                    ..usize::try_from((sector + nr_sectors) * 512).unwrap();
                self.disk[range].fill(0);
                RSP_OKAY
            }
            Request::Direct {
                nr_segments,
                sector,
                segments,
                operation,
                ..
            } => match *operation {
                OP_FLUSH_DISKCACHE => RSP_OKAY,
                OP_READ | OP_WRITE => self.transfer(
                    domid,
                    *operation,
                    *sector,
                    &segments[..usize::from(*nr_segments)],
                ),
                _ => RSP_EOPNOTSUPP,
            },
            Request::Indirect {
                nr_segments,
                sector,
                pages,
                operation,
                ..
            } => {
                let mut segments = Vec::new();
                for n in 0..usize::from(*nr_segments) {
                    let page = pages[n / SEGMENTS_PER_INDIRECT_PAGE];
                    let view = self.grants.map(domid, &[page], false).unwrap();
                    let bytes = view.read_vec(0, 4096);
                    segments
                        .push(Segment::in_page(&bytes, n % SEGMENTS_PER_INDIRECT_PAGE).unwrap());
                }
                self.transfer(domid, *operation, *sector, &segments)
            }
        };
        self.respond(
            ring,
            Response {
                id,
                operation,
                status,
            },
        );
    }

    fn transfer(&mut self, domid: DomId, operation: u8, sector: u64, segments: &[Segment]) -> i16 {
        let mut at = usize::try_from(sector * 512).unwrap();
        for segment in segments {
            let (first, last) = (usize::from(segment.first), usize::from(segment.last));
            let len = (last - first + 1) * 512;
            if at + len > self.disk.len() {
                return RSP_ERROR;
            }
            if self.misdeed == Misdeed::KeepsGrants {
                self.kept
                    .push(self.grants.map(domid, &[segment.gref], true).unwrap());
            }
            let direction = if operation == OP_READ {
                Direction::ToGuest
            } else {
                Direction::FromGuest
            };
            let mut copy = [GrantCopy {
                direction,
                domid,
                gref: segment.gref,
                offset: u16::try_from(first * 512).unwrap(),
                local_offset: 0,
                len: u16::try_from(len).unwrap(),
                status: 0,
            }];
            if operation == OP_READ {
                self.buffer.write(0, &self.disk[at..at + len]);
            }
            self.grants.copy(&self.buffer, &mut copy).unwrap();
            if copy[0].status != 0 {
                return RSP_ERROR;
            }
            if operation == OP_WRITE {
                self.buffer.read(0, &mut self.disk[at..at + len]);
            }
            at += len;
        }
        RSP_OKAY
    }

    fn respond(&mut self, ring: &mut BackRing, mut response: Response) {
        match self.misdeed {
            Misdeed::InventsIds => response.id ^= 1 << 40,
            Misdeed::NamesOtherOperation => response.operation = OP_DISCARD + 1,
            _ => {}
        }
        let mut bytes = response.encode(self.protocol);
        if self.misdeed == Misdeed::LeavesPadding {
            bytes[9] = 0xAA;
        }
        if let Some(last) = self
            .last
            .replace(bytes.clone())
            .filter(|_| self.misdeed == Misdeed::AnswersTwice)
        {
            bytes = last;
        }
        ring.answer(&bytes);
    }

    pub fn close(&mut self) {
        self.kept.clear();
        for ring in self.rings.drain(..) {
            self.events.unbind(ring.port.unwrap()).unwrap();
        }
        write(&self.host, &self.at, "state", "6");
    }
}
