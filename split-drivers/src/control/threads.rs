//! Threads that serve a ring each: started with a word back, stopped together, and heard when they end by themselves.

use super::pool::{Handles, Pool};
use parapet_wire::driver::{DeviceFault, DeviceKind, DriverFault};
use std::sync::Arc;
use std::sync::mpsc::{Sender, sync_channel};
use std::thread::{Builder, JoinHandle};
use xen_abi::ids::{DomId, Port};
use xen_host::error::Error;
use xen_host::eventfd::EventFd;

/// Where a thread that ends with an error says so.
#[derive(Debug, Clone)]
pub struct FaultLine {
    faults: Sender<DeviceFault>,
    bell: Arc<EventFd>,
}

impl FaultLine {
    /// Faults go into `faults`, and `bell` is signalled.
    #[must_use]
    pub fn new(faults: Sender<DeviceFault>, bell: Arc<EventFd>) -> Self {
        Self { faults, bell }
    }

    /// Reports the end of a device.
    pub fn report(&self, kind: DeviceKind, devid: u32, text: String) {
        tracing::error!(?kind, devid, text, "device stopped");
        let _ = self.faults.send(DeviceFault { kind, devid, text });
        if let Err(error) = self.bell.signal() {
            tracing::error!(%error, "fault bell");
        }
    }
}

/// A running thread.
#[derive(Debug)]
pub struct RingThread {
    stop: EventFd,
    join: JoinHandle<Option<Handles>>,
}

/// Tells a starter whether its thread serves.
pub type Ready = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl RingThread {
    /// Starts `body` and waits until it says that it serves; `stop` is the signal that `body` heeds.
    ///
    /// # Errors
    /// No thread, or what `body` said.
    pub fn start(
        name: String,
        stop: EventFd,
        body: impl FnOnce(Ready) -> Option<Handles> + Send + 'static,
    ) -> Result<Self, DriverFault> {
        let (sender, receiver) = sync_channel(1);
        let ready: Ready = Box::new(move |result| {
            let _ = sender.send(result);
        });
        let join = Builder::new()
            .name(name)
            .spawn(move || body(ready))
            .map_err(|error| fault(format!("no thread: {error}"), true))?;
        match receiver.recv() {
            Ok(Ok(())) => Ok(Self { stop, join }),
            Ok(Err(error)) => Err(fault(error.to_string(), false)),
            Err(_) => Err(fault("the ring's thread ended at once".to_owned(), false)),
        }
    }
}

/// Stops threads together, waits for all, and puts their handles back.
pub fn stop_all(threads: Vec<RingThread>, pool: &mut Pool) {
    for thread in &threads {
        if let Err(error) = thread.stop.signal() {
            tracing::error!(%error, "stop signal");
        }
    }
    for thread in threads {
        match thread.join.join() {
            Ok(Some(handles)) => pool.give(handles),
            Ok(None) => {}
            Err(_) => tracing::error!("a ring's thread panicked"),
        }
    }
}

/// A ring's handles with the guest's port bound.
#[derive(Debug)]
pub struct Bound {
    /// Handles.
    pub handles: Handles,
    /// Local port.
    pub port: Port,
}

/// Takes handles and binds the guest's port.
///
/// # Errors
/// No handles left, or the port cannot be bound: then trying again may help, since a dying predecessor holds it for a while.
pub fn bind(pool: &mut Pool, remote: Port) -> Result<Bound, DriverFault> {
    let handles = pool.take().ok_or_else(|| {
        fault(
            format!(
                "no handles left: a driver serves at most {} rings",
                crate::limits::MAX_RINGS
            ),
            false,
        )
    })?;
    match handles.events.bind_interdomain(pool.domid(), remote) {
        Ok(port) => Ok(Bound { handles, port }),
        Err(error) => {
            pool.give(handles);
            Err(fault(
                format!(
                    "event channel {remote} of domain {}: {error} (wrong, or still held by a predecessor)",
                    pool.domid()
                ),
                true,
            ))
        }
    }
}

/// Unbinds and puts the handles back.
pub fn unbind(pool: &mut Pool, bound: Bound) {
    match bound.handles.events.unbind(bound.port) {
        Ok(()) => pool.give(bound.handles),
        Err(error) => tracing::error!(%error, "event channel handle is not used again"),
    }
}

/// An answer that an order failed.
#[must_use]
pub fn fault(text: String, retry: bool) -> DriverFault {
    DriverFault { text, retry }
}

/// A name for a thread, within the kernel's 15 bytes.
#[must_use]
pub fn name(kind: &str, domid: DomId, devid: u32, queue: usize) -> String {
    let mut name = format!("{kind}{domid}-{devid}.{queue}");
    name.truncate(15);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_RINGS;
    use xen_sim::{GuestSpec, World};

    #[test]
    fn a_driver_has_handles_for_so_many_rings_and_no_more() {
        let world = World::seeded(41);
        let guest = world.spawn(&GuestSpec::pvh("web1"));
        let mut pool = Pool::open(&world.host("driver"), guest.domid()).unwrap();
        let mut bind_one = || bind(&mut pool, guest.domu().alloc_port().unwrap());
        let bound: Vec<Bound> = (0..MAX_RINGS).map(|_| bind_one().unwrap()).collect();
        let refused = bind_one().unwrap_err();
        assert!(refused.text.contains("at most 64 rings"), "{refused}");
        assert!(!refused.retry, "it would not help");
        bound.into_iter().for_each(|bound| unbind(&mut pool, bound));
        assert_eq!(pool.free(), MAX_RINGS);
        // A port that is wrong takes no handles with it.
        for _ in 0..2 * MAX_RINGS {
            assert!(bind(&mut pool, Port(1023)).unwrap_err().retry);
        }
        assert_eq!(pool.free(), MAX_RINGS);
        drop(pool);
        world.destroy_guest(guest.domid());
        world.ledger().assert_empty();
    }
}
