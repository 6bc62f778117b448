//! Attacks by repetition: event storms, key storms, states that toggle, and a second vcpu that changes bytes while they are read.

use crate::frontend::xenbus::FrontDevice;
use crate::kernel::{DomU, GuestPage};
use crate::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use xen_abi::ids::Port;
use xen_abi::io::xenbus::XenbusState;

/// Flips a flipper makes at most, so that a forgotten one ends by itself.
const MAX_FLIPS: u64 = 50_000_000;

/// Sends so many events.
pub fn event_storm(domu: &DomU, port: Port, count: u32) {
    (0..count).for_each(|_| domu.send(port));
}

/// Rewrites its own keys and state so many times, without changing them.
pub fn key_storm(device: &FrontDevice, count: u32) {
    let state = device.state().to_string();
    for n in 0..count {
        device.write_key("state", &state);
        device.write_key(&format!("junk-{}", n % 7), &n.to_string());
    }
}

/// Writes so many states in an order no driver has, impossible ones among them. `look` runs between them.
pub fn toggle_states(device: &FrontDevice, seed: u64, count: u32, mut look: impl FnMut()) {
    let mut rng = Rng::seeded(seed);
    let odd = ["9", "-1", "", "4294967296", "connected"];
    for _ in 0..count {
        if rng.one_in(6) {
            device.write_key("state", odd[rng.index(odd.len())]);
        } else {
            device.switch(XenbusState::ALL[rng.index(XenbusState::ALL.len())]);
        }
        look();
    }
    device.switch(XenbusState::Closed);
    look();
}

/// A second vcpu that flips a byte between two values as fast as it can (XSA-155). Stops when dropped.
#[derive(Debug)]
pub struct Flipper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flipper {
    /// Begins to flip these bytes between `values`.
    #[must_use]
    pub fn start(cells: Vec<(GuestPage, usize)>, values: [u8; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut flips = 0;
            while !heard.load(Ordering::Relaxed) && flips < MAX_FLIPS {
                for value in values {
                    cells
                        .iter()
                        .for_each(|(page, at)| page.write(*at, &[value]));
                    flips += 1;
                }
            }
            flips
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops; answers how often it flipped.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or(0)
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.end();
    }
}
