//! Consoles: connected once; a restarted agent brings a new terminal and a new log.

use super::pool::{Handles, Pool};
use super::threads::{FaultLine, bind, fault, name, unbind};
use crate::console::ring::ConsoleRing;
use crate::console::worker::{Ask, Setup, Terminal, serve};
use crate::stats::Counters;
use parapet_wire::driver::{ConnectConsole, DeviceKind, DeviceStats, DriverFault};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use xen_host::eventfd::EventFd;
use xen_host::seam::{Events, Grants};

/// A console that is served.
#[derive(Debug)]
pub struct Console {
    order: ConnectConsole,
    asks: Sender<Ask>,
    asked: EventFd,
    join: JoinHandle<Option<Box<dyn Events>>>,
    grants: Box<dyn Grants>,
    counters: Arc<Counters>,
}

impl Console {
    /// Maps the page and serves it.
    ///
    /// # Errors
    /// Xen refuses, or the page makes no sense; nothing is left mapped or bound.
    pub fn connect(
        order: &ConnectConsole,
        terminal: Terminal,
        pool: &mut Pool,
        faults: &FaultLine,
    ) -> Result<Self, DriverFault> {
        let bound = bind(pool, order.port)?;
        let page = bound
            .handles
            .grants
            .map(pool.domid(), &[order.gref], true)
            .map_err(|error| error.to_string());
        let ring =
            page.and_then(|page| ConsoleRing::attach(page).map_err(|error| error.to_string()));
        let bells = EventFd::new().and_then(|asked| Ok((asked.try_clone()?, asked)));
        let (ring, (bell, asked)) = match (ring, bells) {
            (Ok(ring), Ok(bells)) => (ring, bells),
            (Err(text), _) => {
                unbind(pool, bound);
                return Err(fault(format!("console {}: {text}", order.index), false));
            }
            (_, Err(error)) => {
                unbind(pool, bound);
                return Err(fault(error.to_string(), true));
            }
        };
        let (asks, receiver) = channel();
        let counters: Arc<Counters> = Arc::default();
        let Handles { grants, events } = bound.handles;
        let setup = Setup {
            ring,
            terminal,
            events,
            port: bound.port,
            asks: receiver,
            asked: bell,
            counters: Arc::clone(&counters),
        };
        let (index, faults) = (order.index, faults.clone());
        let join = Builder::new()
            .name(name("con", pool.domid(), index, 0))
            .spawn(move || match serve(setup) {
                Ok(events) => Some(events),
                Err(error) => {
                    faults.report(DeviceKind::Console, index, error.to_string());
                    None
                }
            })
            .map_err(|error| fault(format!("no thread: {error}"), true))?;
        Ok(Self {
            order: order.clone(),
            asks,
            asked,
            join,
            grants,
            counters,
        })
    }

    /// Whether it serves the page and port of this order.
    #[must_use]
    pub fn serves(&self, order: &ConnectConsole) -> bool {
        (self.order.gref, self.order.port) == (order.gref, order.port) && !self.join.is_finished()
    }

    /// Goes on with another terminal and log.
    ///
    /// # Errors
    /// The thread has just ended.
    pub fn reconnect(&mut self, terminal: Terminal) -> Result<(), DriverFault> {
        self.ask(Ask::Reconnect(terminal))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> DeviceStats {
        self.counters.report(DeviceKind::Console, self.order.index)
    }

    /// Ends and unmaps it.
    pub fn disconnect(mut self, pool: &mut Pool) {
        let _ = self.ask(Ask::Stop);
        if let Ok(Some(events)) = self.join.join() {
            pool.give(Handles {
                grants: self.grants,
                events,
            });
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<(), DriverFault> {
        let ended = || {
            fault(
                format!("console {} has just stopped", self.order.index),
                true,
            )
        };
        self.asks.send(ask).map_err(|_| ended())?;
        self.asked
            .signal()
            .map_err(|error| fault(error.to_string(), true))
    }
}
