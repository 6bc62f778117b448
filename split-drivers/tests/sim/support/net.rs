//! An interface between a simulated frontend and the driver's queues, stepped without threads: a tap needs a kernel that has one.

use super::link::Lists;
use super::{gref, number, port, read, write};
use parapet_wire::driver::{ConnectNet, NetFeatures, NetQueue as Queue};
use split_drivers::net::features;
use split_drivers::net::queue::{NetFault, NetQueue, Progress, Setup, buffer_pages};
use split_drivers::ring::back::{BackRing, RingIndices, published};
use split_drivers::stats::Counters;
use std::sync::Arc;
use xen_abi::ids::{GrantRef, Port};
use xen_abi::io::netif;
use xen_host::seam::{Devices, Events};
use xen_sim::frontend::net::{NetFront, NetOptions};
use xen_sim::frontend::xenbus::DeviceAddress;
use xen_sim::{Guest, SimHost, World};

pub struct Net {
    pub front: NetFront,
    pub queues: Vec<Served>,
    pub order: ConnectNet,
    pub counters: Arc<Counters>,
    pub host: SimHost,
    at: DeviceAddress,
    agent: SimHost,
}

/// One queue with its ports.
pub struct Served {
    pub queue: NetQueue<Lists>,
    events: Box<dyn Events>,
    tx_port: Port,
    rx_port: Port,
}

/// A frontend that has read what we offer and published its rings.
pub fn offered(
    agent: &SimHost,
    guest: &Guest,
    at: &DeviceAddress,
    options: NetOptions,
) -> NetFront {
    for key in [
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
        "feature-rx-copy",
        "feature-split-event-channels",
    ] {
        write(agent, &at.backend(), key, "1");
    }
    write(agent, &at.backend(), "multi-queue-max-queues", "8");
    write(agent, &at.backend(), "state", "2");
    let mut front = NetFront::new(guest.domu(), at.clone(), options);
    front.step();
    front
}

impl Net {
    pub fn connected(world: &World, guest: &Guest, options: NetOptions) -> Self {
        let agent = world.host("agent");
        let at = world.plug_vif(guest.domu(), 0, &[]);
        let front = offered(&agent, guest, &at, options);
        let order = agreed(&agent, &at);
        features::check(&order).unwrap();
        let host = world.host("driver");
        let mut net = Self {
            front,
            queues: Vec::new(),
            order,
            counters: Arc::default(),
            host,
            at,
            agent,
        };
        net.serve(false);
        write(&net.agent, &net.at.backend(), "state", "4");
        net.front.step();
        net
    }

    fn serve(&mut self, resume: bool) {
        for queue in self.order.queues.clone() {
            let grants = self.host.open_grants().unwrap();
            let events = self.host.open_events(Some(self.at.domid)).unwrap();
            let bind = |port| events.bind_interdomain(self.at.domid, port).unwrap();
            let tx_port = bind(queue.tx_port);
            let rx_port = if queue.rx_port == queue.tx_port {
                tx_port
            } else {
                bind(queue.rx_port)
            };
            let ring = |gref: GrantRef, stride| {
                let page = grants.map(self.at.domid, &[gref], true).unwrap();
                let at = published(&page);
                BackRing::new(
                    page,
                    stride,
                    RingIndices {
                        req_cons: at,
                        rsp_prod: at,
                    },
                )
            };
            let (tx, rx) = (
                ring(queue.tx_ref, netif::TX_ENTRY_BYTES),
                ring(queue.rx_ref, netif::RX_ENTRY_BYTES),
            );
            let setup = Setup {
                domid: self.at.domid,
                features: self.order.features,
                tx,
                rx,
                grants,
                link: Lists::new(buffer_pages()),
                counters: Arc::clone(&self.counters),
                resume,
            };
            let (queue, owed) = NetQueue::new(setup).unwrap();
            let served = Served {
                queue,
                events,
                tx_port,
                rx_port,
            };
            served.tell(owed);
            self.queues.push(served);
        }
    }

    /// The driver is gone between two of its stores; another one takes over.
    pub fn succeed(&mut self, world: &World) {
        self.queues.clear();
        world.kill(&self.host);
        self.host = world.host("driver");
        self.serve(true);
    }

    /// Passes until nothing moves.
    pub fn run(&mut self) -> Result<(), NetFault> {
        for served in &mut self.queues {
            loop {
                let progress = served.queue.pass()?;
                served.tell(progress);
                if progress.sent + progress.received == 0 && served.queue.arm()?.is_some() {
                    break;
                }
            }
            for port in served.events.pending().unwrap() {
                served.events.unmask(port).unwrap();
            }
        }
        Ok(())
    }

    pub fn link(&mut self, queue: usize) -> &mut Lists {
        self.queues[queue].queue.link_mut()
    }

    /// Takes everything down in order.
    pub fn close(mut self) {
        self.front.close();
        self.queues.clear();
        write(&self.agent, &self.at.backend(), "state", "6");
        self.front.step();
        self.front.free();
    }
}

impl Served {
    fn tell(&self, progress: Progress) {
        if progress.notify_tx {
            self.events.notify(self.tx_port).unwrap();
        }
        if progress.notify_rx && !(progress.notify_tx && self.rx_port == self.tx_port) {
            self.events.notify(self.rx_port).unwrap();
        }
    }
}

pub fn agreed(agent: &SimHost, at: &DeviceAddress) -> ConnectNet {
    let dir = at.frontend();
    let flag = |key| read(agent, &dir, key).as_deref() == Some("1");
    let features = NetFeatures {
        sg: flag("feature-sg"),
        gso_tcpv4: flag("feature-gso-tcpv4"),
        gso_tcpv6: flag("feature-gso-tcpv6"),
        csum_ipv4: !flag("feature-no-csum-offload"),
        csum_ipv6: flag("feature-ipv6-csum-offload"),
        rx_notify: flag("feature-rx-notify"),
    };
    let queue = |dir: &str| {
        let both = number(agent, dir, "event-channel").map(Port);
        Queue {
            tx_ref: gref(agent, dir, "tx-ring-ref"),
            rx_ref: gref(agent, dir, "rx-ring-ref"),
            tx_port: both.unwrap_or_else(|| port(agent, dir, "event-channel-tx")),
            rx_port: both.unwrap_or_else(|| port(agent, dir, "event-channel-rx")),
        }
    };
    let queues = match number(agent, &dir, "multi-queue-num-queues").unwrap_or(1) {
        1 => vec![queue(&dir)],
        more => (0..more)
            .map(|n| queue(&format!("{dir}/queue-{n}")))
            .collect(),
    };
    ConnectNet {
        devid: at.devid,
        mac: [0; 6],
        queues,
        features,
        resume: false,
    }
}
