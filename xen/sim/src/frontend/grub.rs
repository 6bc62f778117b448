//! The block frontend of a boot loader: one page, one request, id 0, no waiting for offers, and a hand-over to the kernel.
//!
//! ```text
//!   keys, state 3 ─▶ back 2? wait, anything else: read sectors at once ─▶ read, read ... ─▶ state 6 ─▶ back 6 ─▶ state 1
//! ```
//!
//! GRUB never reaches 4, polls instead of waiting for events, and sends an event for every request whether asked or not.

use super::blk::RequestId;
use super::ring::FrontRing;
use super::xenbus::{DeviceAddress, FrontDevice};
use crate::kernel::{DomU, GuestPage};
use xen_abi::ids::{GrantRef, PAGE_SIZE, Port};
use xen_abi::io::blkif::{OP_READ, Protocol, Response, Segment};
use xen_abi::io::xenbus::XenbusState;

/// A boot loader's disk.
#[derive(Debug)]
pub struct GrubDisk {
    device: FrontDevice,
    ring: FrontRing,
    port: Port,
    page: GuestPage,
    gref: GrantRef,
    waiting: Option<usize>,
}

impl GrubDisk {
    /// Writes its keys and state 3, whatever the backend's state is.
    #[must_use]
    pub fn open(domu: &DomU, at: DeviceAddress) -> Self {
        let device = FrontDevice::new(domu, at);
        let ring = FrontRing::new(domu, 0, Protocol::X86_64.entry_bytes());
        let port = domu.alloc_port().unwrap_or(Port(0));
        let page = domu.page();
        let gref = domu.grant(&page, false);
        let keys = [
            ("ring-ref".to_owned(), ring.grefs()[0].to_string()),
            ("event-channel".to_owned(), port.to_string()),
            ("protocol".to_owned(), Protocol::X86_64.as_str().to_owned()),
        ];
        let _ = device.publish(&keys);
        device.switch(XenbusState::Initialised);
        Self {
            device,
            ring,
            port,
            page,
            gref,
            waiting: None,
        }
    }

    /// The xenbus side.
    #[must_use]
    pub fn device(&self) -> &FrontDevice {
        &self.device
    }

    /// GRUB waits only while the backend's state is exactly 2; then it reads the size. `None` while it waits.
    #[must_use]
    pub fn sectors(&self) -> Option<u64> {
        if self.device.backend_state() == XenbusState::InitWait {
            return None;
        }
        let sectors = self.device.backend_number("sectors");
        if sectors.is_none() || self.device.backend_number("sector-size").is_none() {
            self.device
                .complain("sectors and sector-size must be there before state 4");
        }
        sectors
    }

    /// Asks for up to a page, id 0.
    ///
    /// # Panics
    /// When a read is under way: GRUB does one at a time.
    pub fn start_read(&mut self, sector: u64, len: usize) {
        assert!(self.waiting.is_none(), "one request at a time");
        assert!(
            (1..=PAGE_SIZE).contains(&len) && len.is_multiple_of(512),
            "whole sectors"
        );
        let last = u8::try_from(len / 512 - 1).unwrap_or(7);
        let segment = Segment {
            gref: self.gref,
            first: 0,
            last,
        };
        let request = super::blk::direct(OP_READ, 0, sector, &[segment]);
        let _ = self.ring.put(&request.encode(Protocol::X86_64));
        let _ = self.ring.push();
        self.device.domu().send(self.port);
        self.waiting = Some(len);
    }

    /// What came back, if it did: the data, or the status.
    pub fn poll(&mut self) -> Option<Result<Vec<u8>, i16>> {
        let len = self.waiting?;
        let index = match self.ring.take() {
            Ok(index) => index?,
            Err(error) => {
                self.device.complain(&error.to_string());
                return None;
            }
        };
        self.waiting = None;
        let answer = Response::decode(&self.ring.entry(index))?;
        if (answer.id, answer.operation) != (0, OP_READ) {
            let got = RequestId {
                queue: 0,
                id: answer.id,
            };
            self.device
                .complain(&format!("GRUB got an answer to {got:?}"));
        }
        let okay = answer.status == 0;
        Some(if okay {
            Ok(self.page.read_vec(0, len))
        } else {
            Err(answer.status)
        })
    }

    /// Writes 6; GRUB then waits for the backend's 6.
    pub fn start_close(&self) {
        self.device.switch(XenbusState::Closed);
    }

    /// The backend is at 6: takes everything back and writes 1, ready for the kernel. False while the backend is not there.
    pub fn finish_close(&mut self) -> bool {
        if self.device.backend_state() != XenbusState::Closed {
            return false;
        }
        let domu = self.device.domu().clone();
        domu.close_port(self.port);
        for gref in self.ring.grefs().iter().chain([&self.gref]) {
            if let Err(still) = domu.end_access(*gref) {
                self.device.complain(&still.to_string());
            }
        }
        for key in ["ring-ref", "event-channel", "protocol"] {
            self.device.remove_key(key);
        }
        self.device.switch(XenbusState::Initialising);
        true
    }
}
