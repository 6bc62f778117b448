//! The guest's end of a PV console, as `hvc_xen` plays it: the primary one, which has no handshake, and further ones on xenbus.
//!
//! Bytes written go into `out`, bytes read come from `in`. The guest writes `out_prod` and `in_cons`; if the backend's two indexes are
//! impossible, that is a violation.

use super::xenbus::{DeviceAddress, FrontDevice};
use crate::guest::Guest;
use crate::kernel::{DomU, GuestPage};
use crate::world::World;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::console::{IN_BYTES, OUT_BYTES, pending, stretches};
use xen_abi::io::xenbus::XenbusState;
use xen_host::region::full_barrier;

const OUT_OFFSET: usize = 1024;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// A console of a guest.
#[derive(Debug)]
pub struct ConsoleFront {
    domu: DomU,
    page: GuestPage,
    port: Port,
    name: String,
    extra: Option<(FrontDevice, GrantRef)>,
}

impl World {
    /// Plugs a further console (devid 1 to 9): the toolstack's part.
    #[must_use]
    pub fn plug_console(&self, domu: &DomU, devid: u32) -> DeviceAddress {
        let at = DeviceAddress::new(domu.domid(), "console", devid);
        self.plug(
            &at,
            &[("protocol", "vt100")],
            &[("limit", "1048576"), ("output", "pty")],
        );
        at
    }
}

impl ConsoleFront {
    /// The primary console of a guest; `None` when its builder left none.
    #[must_use]
    pub fn primary(guest: &Guest) -> Option<Self> {
        let (page, port) = (guest.console_page()?, guest.console_port()?);
        let domu = guest.domu().clone();
        let name = format!("console of domain {}", domu.domid());
        Some(Self {
            domu,
            page,
            port,
            name,
            extra: None,
        })
    }

    /// A further console; acts in [`ConsoleFront::step`].
    #[must_use]
    pub fn further(domu: &DomU, at: DeviceAddress) -> Self {
        let page = domu.page();
        let gref = domu.grant(&page, false);
        let port = domu.alloc_port().unwrap_or(Port(0));
        let name = at.to_string();
        let device = FrontDevice::new(domu, at);
        Self {
            domu: domu.clone(),
            page,
            port,
            name,
            extra: Some((device, gref)),
        }
    }

    /// The handshake of a further console: 1 to 3 with its keys, 4 when the backend is at 4. True when it did something.
    pub fn step(&mut self) -> bool {
        let Some((device, gref)) = &mut self.extra else {
            return false;
        };
        let _ = device.backend_changed();
        let (own, backend) = (device.state(), device.backend_state());
        let next = match (own, backend) {
            (XenbusState::Initialising, XenbusState::Initialising | XenbusState::InitWait) => {
                let keys = [
                    ("ring-ref".to_owned(), gref.to_string()),
                    ("port".to_owned(), self.port.to_string()),
                ];
                if device.publish(&keys).is_err() {
                    return false;
                }
                XenbusState::Initialised
            }
            (XenbusState::Initialised, XenbusState::Connected) => XenbusState::Connected,
            (
                XenbusState::Initialised | XenbusState::Connected,
                XenbusState::Closing | XenbusState::Closed,
            ) => XenbusState::Closed,
            _ => return false,
        };
        device.switch(next);
        true
    }

    /// Its state on xenbus; a primary console is always connected.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        self.extra
            .as_ref()
            .map_or(XenbusState::Connected, |(device, _)| device.state())
    }

    /// The guest's kernel.
    #[must_use]
    pub fn domu(&self) -> &DomU {
        &self.domu
    }

    /// Its page, for raw access.
    #[must_use]
    pub fn page(&self) -> &GuestPage {
        &self.page
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    fn complain(&self, what: &str) {
        self.domu
            .world()
            .violation(format!("{}: {what}", self.name));
    }

    /// Writes as much as there is room for and sends an event; answers how many bytes.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let (prod, cons) = (self.page.load_u32(OUT_PROD), self.page.load_u32(OUT_CONS));
        full_barrier();
        let used = match pending(prod, cons, OUT_BYTES) {
            Ok(used) => used,
            Err(error) => {
                self.complain(&error.to_string());
                return 0;
            }
        };
        let room = (OUT_BYTES - used) as usize;
        let count = bytes.len().min(room);
        let length = u32::try_from(count).unwrap_or(0);
        let (first, second) = stretches(prod, length, OUT_BYTES);
        let cut = first.len();
        self.page.write(OUT_OFFSET + first.start, &bytes[..cut]);
        self.page
            .write(OUT_OFFSET + second.start, &bytes[cut..count]);
        full_barrier();
        self.page.store_u32(OUT_PROD, prod.wrapping_add(length));
        if count > 0 {
            self.domu.send(self.port);
        }
        count
    }

    /// Reads what has come and sends an event if it was anything.
    pub fn read(&mut self) -> Vec<u8> {
        let (prod, cons) = (self.page.load_u32(IN_PROD), self.page.load_u32(IN_CONS));
        full_barrier();
        let count = match pending(prod, cons, IN_BYTES) {
            Ok(count) => count,
            Err(error) => {
                self.complain(&error.to_string());
                return Vec::new();
            }
        };
        let (first, second) = stretches(cons, count, IN_BYTES);
        let mut bytes = self.page.read_vec(first.start, first.len());
        bytes.extend(self.page.read_vec(second.start, second.len()));
        full_barrier();
        self.page.store_u32(IN_CONS, cons.wrapping_add(count));
        if count > 0 {
            self.domu.send(self.port);
        }
        bytes
    }

    /// Bytes the backend has not taken yet.
    #[must_use]
    pub fn unread(&self) -> u32 {
        self.page
            .load_u32(OUT_PROD)
            .wrapping_sub(self.page.load_u32(OUT_CONS))
    }
}
