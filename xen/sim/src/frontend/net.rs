//! A netfront that behaves as Linux's does, and notices everything Linux would stop the interface for.
//!
//! ```text
//!   back 2: rings, receive buffers, keys, state 4 at once ─▶ Offered ── back 4 ─▶ Connected ── back 5|6 ─▶ Closed
//! ```
//!
//! Transmit: one answer per slot, extras answered `NULL`, each id once, no grant still mapped. Receive: each answer stands in the very slot
//! of its request and names its id, pieces stay within their page, extras take whole slots.

use super::ring::FrontRing;
use super::xenbus::{DeviceAddress, FrontDevice};
use crate::kernel::{DomU, GuestPage};
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::netif::{RING_SLOTS, RX_ENTRY_BYTES, TX_ENTRY_BYTES};
use xen_abi::io::xenbus::XenbusState;

mod rx;
mod tx;

/// How the frontend was built and what it tells the backend.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent features, read by name"
)]
pub struct NetOptions {
    /// Most queues it would use.
    pub queues: u32,
    /// Separate ports for transmit and receive when offered.
    pub split_ports: bool,
    /// Packets over several slots.
    pub sg: bool,
    /// Segmentation offload, both ways.
    pub gso: bool,
    /// IPv4 checksums may be left blank for it.
    pub csum: bool,
    /// IPv6 checksums may be left blank for it.
    pub csum_ipv6: bool,
    /// Says `feature-rx-notify` (everybody does today).
    pub rx_notify: bool,
    /// Says `request-rx-copy`.
    pub rx_copy: bool,
    /// Receive pages it keeps offered; Linux fills the ring, an attacker may leave one (XSA-392).
    pub rx_buffers: u32,
}

impl Default for NetOptions {
    /// Debian's stock driver on a guest with one vcpu.
    fn default() -> Self {
        Self {
            queues: 1,
            split_ports: true,
            sg: true,
            gso: true,
            csum: true,
            csum_ipv6: true,
            rx_notify: true,
            rx_copy: true,
            rx_buffers: RING_SLOTS,
        }
    }
}

/// A packet with what the headers of the ring say about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Ethernet frame without FCS.
    pub data: Vec<u8>,
    /// The checksum field is not filled in.
    pub csum_blank: bool,
    /// The checksum is known good.
    pub data_validated: bool,
    /// Segmentation: `GSO_*` and segment size.
    pub gso: Option<(u8, u16)>,
}

impl Frame {
    /// A packet without any offload.
    #[must_use]
    pub fn plain(data: &[u8]) -> Self {
        Self {
            data: data.to_vec(),
            ..Self::default()
        }
    }
}

/// Where the frontend stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetState {
    /// Waits for the backend to offer.
    Waiting,
    /// Has offered its rings, and says it is connected.
    Offered,
    /// Packets flow.
    Connected,
    /// The interface is gone.
    Closed,
}

#[derive(Debug)]
struct Buffer {
    page: GuestPage,
    gref: GrantRef,
}

#[derive(Debug)]
struct Queue {
    tx: FrontRing,
    rx: FrontRing,
    tx_port: Port,
    rx_port: Port,
    /// By id: the page of one transmit slot.
    sending: BTreeMap<u16, Buffer>,
    free_ids: Vec<u16>,
    /// Answers of status `NULL` that are still to come.
    extras: u32,
    /// By slot.
    buffers: BTreeMap<u32, (u16, Buffer)>,
    /// Half a received packet.
    partial: rx::Partial,
}

/// The frontend of one interface.
#[derive(Debug)]
pub struct NetFront {
    device: FrontDevice,
    options: NetOptions,
    state: NetState,
    queues: Vec<Queue>,
    disabled: Option<String>,
    spurious: u64,
    /// Transmit answers by status: okay, error, dropped.
    answered: (u64, u64, u64),
    overrides: Vec<(String, Option<String>)>,
}

impl World {
    /// Plugs an interface: the toolstack's part, for a backend that needs no scripts.
    #[must_use]
    pub fn plug_vif(&self, domu: &DomU, devid: u32, backend: &[(&str, &str)]) -> DeviceAddress {
        let at = DeviceAddress::new(domu.domid(), "vif", devid);
        let number = devid.to_string();
        let mac = format!(
            "00:16:3e:00:{:02x}:{:02x}",
            domu.domid().0 & 0xFF,
            devid & 0xFF
        );
        let mut keys = vec![("handle", number.as_str()), ("mac", mac.as_str())];
        keys.extend_from_slice(backend);
        let frontend = [
            ("handle", number.as_str()),
            ("mac", mac.as_str()),
            ("mtu", "1500"),
        ];
        self.plug(&at, &keys, &frontend);
        at
    }
}

impl Queue {
    fn new(domu: &DomU, split: bool) -> Self {
        let tx = FrontRing::new(domu, 0, TX_ENTRY_BYTES);
        let rx = FrontRing::new(domu, 0, RX_ENTRY_BYTES);
        let tx_port = domu.alloc_port().unwrap_or(Port(0));
        let rx_port = if split {
            domu.alloc_port().unwrap_or(Port(0))
        } else {
            tx_port
        };
        let free_ids = (0..u16::try_from(tx.size()).unwrap_or(256)).rev().collect();
        Self {
            tx,
            rx,
            tx_port,
            rx_port,
            sending: BTreeMap::new(),
            free_ids,
            extras: 0,
            buffers: BTreeMap::new(),
            partial: rx::Partial::default(),
        }
    }
}

impl NetFront {
    /// The driver finds its interface; it acts in [`NetFront::step`].
    #[must_use]
    pub fn new(domu: &DomU, at: DeviceAddress, options: NetOptions) -> Self {
        Self {
            device: FrontDevice::new(domu, at),
            options,
            state: NetState::Waiting,
            queues: Vec::new(),
            disabled: None,
            spurious: 0,
            answered: (0, 0, 0),
            overrides: Vec::new(),
        }
    }

    /// The xenbus side.
    #[must_use]
    pub fn device(&self) -> &FrontDevice {
        &self.device
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> NetState {
        self.state
    }

    /// Why Linux would have stopped the interface for good.
    #[must_use]
    pub fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    /// Queues in use.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Transmit answers so far: okay, error, dropped.
    #[must_use]
    pub fn answered(&self) -> (u64, u64, u64) {
        self.answered
    }

    /// Events that came without anything to do.
    #[must_use]
    pub fn spurious_events(&self) -> u64 {
        self.spurious
    }

    /// Publishes this value of a key in place of the right one, or leaves the key out.
    pub fn override_key(&mut self, key: &str, value: Option<&str>) {
        self.overrides
            .push((key.to_owned(), value.map(str::to_owned)));
    }

    /// Looks at the backend's state and does what Linux does. True when its own state changed.
    pub fn step(&mut self) -> bool {
        let _ = self.device.backend_changed();
        let before = self.state;
        match (self.state, self.device.backend_state()) {
            (NetState::Waiting, XenbusState::InitWait) => self.offer(),
            (NetState::Offered, XenbusState::Connected) => self.state = NetState::Connected,
            (
                NetState::Offered | NetState::Connected,
                XenbusState::Closing | XenbusState::Closed,
            ) => self.close(),
            _ => {}
        }
        before != self.state
    }

    /// Steps until packets flow, while something else runs the backend.
    #[must_use]
    pub fn wait_connected(&mut self, most: Duration) -> bool {
        let world = self.device.domu().world().clone();
        world.wait_until(most, || {
            self.step();
            self.state == NetState::Connected
        })
    }

    fn offer(&mut self) {
        if self.device.backend_number("feature-rx-copy") != Some(1) {
            self.device
                .complain("the backend does not offer feature-rx-copy");
            return;
        }
        let offered = |key| self.device.backend_number(key) == Some(1);
        let split = self.options.split_ports && offered("feature-split-event-channels");
        let most = self
            .device
            .backend_number("multi-queue-max-queues")
            .unwrap_or(1)
            .max(1);
        let count = u32::try_from(most).unwrap_or(1).min(self.options.queues);
        self.options.sg &= offered("feature-sg");
        self.options.gso &= offered("feature-gso-tcpv4");
        self.options.split_ports = split;
        let domu = self.device.domu().clone();
        self.queues = (0..count).map(|_| Queue::new(&domu, split)).collect();
        (0..self.queues.len()).for_each(|queue| self.refill(queue));
        let keys = super::xenbus::overridden(self.keys(), &self.overrides);
        if self.device.publish(&keys).is_ok() {
            self.device.switch(XenbusState::Connected);
            self.state = NetState::Offered;
        }
    }

    fn keys(&self) -> Vec<(String, String)> {
        let mut keys: Vec<(String, String)> = Vec::new();
        let mut add = |key: String, value: String| keys.push((key, value));
        let many = self.queues.len() > 1;
        if many {
            add(
                "multi-queue-num-queues".into(),
                self.queues.len().to_string(),
            );
        }
        for (n, queue) in self.queues.iter().enumerate() {
            let dir = if many {
                format!("queue-{n}/")
            } else {
                String::new()
            };
            add(format!("{dir}tx-ring-ref"), queue.tx.grefs()[0].to_string());
            add(format!("{dir}rx-ring-ref"), queue.rx.grefs()[0].to_string());
            if self.options.split_ports {
                add(format!("{dir}event-channel-tx"), queue.tx_port.to_string());
                add(format!("{dir}event-channel-rx"), queue.rx_port.to_string());
            } else {
                add(format!("{dir}event-channel"), queue.tx_port.to_string());
            }
        }
        for (key, on) in [
            ("request-rx-copy", self.options.rx_copy),
            ("feature-rx-notify", self.options.rx_notify),
            ("feature-sg", self.options.sg),
            ("feature-gso-tcpv4", self.options.gso),
            ("feature-gso-tcpv6", self.options.gso),
            ("feature-no-csum-offload", !self.options.csum),
            ("feature-ipv6-csum-offload", self.options.csum_ipv6),
        ] {
            if on {
                add(key.into(), "1".into());
            }
        }
        keys
    }

    /// Closes: 5, then 6.
    pub fn close(&mut self) {
        self.device.switch(XenbusState::Closing);
        self.device.switch(XenbusState::Closed);
        self.state = NetState::Closed;
    }

    /// Frees rings and buffers, after the backend is closed (or dead). A page that is still mapped is a violation.
    pub fn free(&mut self) {
        let domu = self.device.domu().clone();
        for queue in std::mem::take(&mut self.queues) {
            domu.close_port(queue.tx_port);
            domu.close_port(queue.rx_port);
            let sending = queue.sending.into_values();
            let receiving = queue.buffers.into_values().map(|(_, buffer)| buffer);
            let mut results: Vec<_> = sending
                .chain(receiving)
                .map(|buffer| {
                    domu.end_access(buffer.gref)?;
                    domu.free(buffer.page);
                    Ok(())
                })
                .collect();
            results.push(queue.tx.end());
            results.push(queue.rx.end());
            for still in results.into_iter().filter_map(Result::err) {
                self.device.complain(&still.to_string());
            }
        }
    }

    /// From 6 to 1 again.
    pub fn reconnect(&mut self) {
        self.free();
        self.disabled = None;
        self.device.switch(XenbusState::Initialising);
        self.state = NetState::Waiting;
    }

    fn disable(&mut self, why: &str) {
        self.device.complain(why);
        if self.disabled.is_none() {
            self.disabled = Some(why.to_owned());
        }
    }

    /// The transmit ring of a queue, for raw requests.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn tx_ring(&mut self, queue: usize) -> &mut FrontRing {
        &mut self.queues[queue].tx
    }

    /// The receive ring of a queue, for raw requests.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn rx_ring(&mut self, queue: usize) -> &mut FrontRing {
        &mut self.queues[queue].rx
    }

    /// Transmit and receive port of a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    #[must_use]
    pub fn ports(&self, queue: usize) -> (Port, Port) {
        (self.queues[queue].tx_port, self.queues[queue].rx_port)
    }
}
