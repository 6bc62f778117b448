//! Interfaces: one thread per queue, each with a queue of the tap.

use super::pool::Pool;
use super::threads::{Bound, FaultLine, RingThread, bind, fault, name, stop_all, unbind};
use crate::net::features;
use crate::net::queue::Setup;
use crate::net::worker::{Tools, serve};
use crate::ring::back::{BackRing, RingIndices, published};
use crate::stats::Counters;
use nix::errno::Errno;
use parapet_wire::driver::{ConnectNet, DeviceKind, DeviceStats, DriverFault, NetQueue};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use xen_abi::ids::Port;
use xen_abi::io::netif;
use xen_host::eventfd::EventFd;
use xen_host::region::SharedRegion;
use xen_host::tap;

/// An interface that is served.
#[derive(Debug)]
pub struct Net {
    order: ConnectNet,
    threads: Vec<RingThread>,
    counters: Arc<Counters>,
}

/// One queue, bound and mapped.
struct Mapped {
    bound: Bound,
    rx_port: Port,
    tx: SharedRegion,
    rx: SharedRegion,
}

impl Net {
    /// Maps the rings and serves them on `taps`, one each.
    ///
    /// # Errors
    /// The order is not what was offered, or Xen refuses; nothing is left mapped or bound.
    pub fn connect(
        order: &ConnectNet,
        taps: Vec<OwnedFd>,
        pool: &mut Pool,
        faults: &FaultLine,
    ) -> Result<Self, DriverFault> {
        let named = |text: String| fault(format!("interface {}: {text}", order.devid), false);
        features::check(order).map_err(|error| named(error.to_string()))?;
        if taps.len() != order.queues.len() {
            return Err(named(format!(
                "{} tap queues for {} queues",
                taps.len(),
                order.queues.len()
            )));
        }
        for queue in &taps {
            match tap::set_offload(queue.as_fd(), features::offload(order.features)) {
                // No tap but a socket between two of our programs: nobody on its other side has to be told.
                Ok(()) | Err(Errno::ENOTTY) => {}
                Err(errno) => return Err(named(format!("offload of the tap: {errno}"))),
            }
        }
        let mut mapped = Vec::new();
        for queue in &order.queues {
            match map(queue, pool) {
                Ok(queue) => mapped.push(queue),
                Err(error) => {
                    mapped.into_iter().for_each(|queue| release(queue, pool));
                    return Err(fault(
                        format!("interface {}: {}", order.devid, error.text),
                        error.retry,
                    ));
                }
            }
        }
        let mut net = Self {
            order: order.clone(),
            threads: Vec::new(),
            counters: Arc::default(),
        };
        let mut failed = None;
        for (place, (queue, tap)) in mapped.into_iter().zip(taps).enumerate() {
            if failed.is_some() {
                release(queue, pool);
                continue;
            }
            match net.start(place, queue, tap, pool, faults) {
                Ok(thread) => net.threads.push(thread),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            net.disconnect(pool);
            return Err(named(error.text));
        }
        Ok(net)
    }

    fn start(
        &self,
        place: usize,
        queue: Mapped,
        tap: OwnedFd,
        pool: &Pool,
        faults: &FaultLine,
    ) -> Result<RingThread, DriverFault> {
        let stop = EventFd::new().map_err(|error| fault(error.to_string(), true))?;
        let ring = |page: SharedRegion, stride| {
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
        let setup = Setup {
            domid: pool.domid(),
            features: self.order.features,
            tx: ring(queue.tx, netif::TX_ENTRY_BYTES),
            rx: ring(queue.rx, netif::RX_ENTRY_BYTES),
            grants: queue.bound.handles.grants,
            link: (),
            counters: Arc::clone(&self.counters),
            resume: self.order.resume,
        };
        let tools = Tools {
            tap: Arc::new(tap),
            events: queue.bound.handles.events,
            tx_port: queue.bound.port,
            rx_port: queue.rx_port,
            stop: stop
                .try_clone()
                .map_err(|error| fault(error.to_string(), true))?,
        };
        let (devid, faults) = (self.order.devid, faults.clone());
        RingThread::start(
            name("net", pool.domid(), devid, place),
            stop,
            move |ready| {
                let (handles, result) = serve(tools, setup, ready);
                if let Err(error) = result {
                    faults.report(DeviceKind::Net, devid, format!("queue {place}: {error}"));
                }
                handles
            },
        )
    }

    /// Whether it serves the rings of this order.
    #[must_use]
    pub fn serves(&self, order: &ConnectNet) -> bool {
        ConnectNet {
            resume: false,
            ..order.clone()
        } == ConnectNet {
            resume: false,
            ..self.order.clone()
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        self.counters.report(DeviceKind::Net, self.order.devid)
    }

    /// Ends and unmaps it.
    pub fn disconnect(self, pool: &mut Pool) {
        stop_all(self.threads, pool);
    }
}

fn map(queue: &NetQueue, pool: &mut Pool) -> Result<Mapped, DriverFault> {
    let bound = bind(pool, queue.tx_port)?;
    let domid = pool.domid();
    let events = &bound.handles.events;
    let rx_port = if queue.rx_port == queue.tx_port {
        Ok(bound.port)
    } else {
        events.bind_interdomain(domid, queue.rx_port)
    };
    let rx_port = match rx_port {
        Ok(port) => port,
        Err(error) => {
            unbind(pool, bound);
            return Err(fault(
                format!("event channel {}: {error}", queue.rx_port),
                true,
            ));
        }
    };
    let grants = &bound.handles.grants;
    let pages = grants
        .map(domid, &[queue.tx_ref], true)
        .and_then(|tx| Ok((tx, grants.map(domid, &[queue.rx_ref], true)?)));
    match pages {
        Ok((tx, rx)) => Ok(Mapped {
            bound,
            rx_port,
            tx,
            rx,
        }),
        Err(error) => {
            unbind_both(bound, rx_port, pool);
            Err(fault(error.to_string(), false))
        }
    }
}

fn release(queue: Mapped, pool: &mut Pool) {
    unbind_both(queue.bound, queue.rx_port, pool);
}

fn unbind_both(bound: Bound, rx_port: Port, pool: &mut Pool) {
    if rx_port != bound.port
        && let Err(error) = bound.handles.events.unbind(rx_port)
    {
        tracing::error!(%error, "event channel handle is not used again");
        return;
    }
    unbind(pool, bound);
}
