//! Counters of one device, written by its ring threads and read by the control thread.

use parapet_wire::driver::{DeviceKind, DeviceStats};
use std::sync::atomic::{AtomicU64, Ordering};

/// See [`DeviceStats`] for what each counts. Relaxed: each is exact by itself, together they are a snapshot taken in passing.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests or packets from the guest.
    pub from_guest: AtomicU64,
    /// Reads answered or packets to the guest.
    pub to_guest: AtomicU64,
    /// Bytes from the guest.
    pub bytes_from_guest: AtomicU64,
    /// Bytes to the guest.
    pub bytes_to_guest: AtomicU64,
    /// Requests refused or packets dropped.
    pub refused: AtomicU64,
    /// Events sent.
    pub notifies: AtomicU64,
    /// Wake-ups by an event.
    pub wakeups: AtomicU64,
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    /// As the agent gets them.
    #[must_use]
    pub fn report(&self, kind: DeviceKind, devid: u32) -> DeviceStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceStats {
            kind,
            devid,
            from_guest: read(&self.from_guest),
            to_guest: read(&self.to_guest),
            bytes_from_guest: read(&self.bytes_from_guest),
            bytes_to_guest: read(&self.bytes_to_guest),
            refused: read(&self.refused),
            notifies: read(&self.notifies),
            wakeups: read(&self.wakeups),
        }
    }
}
