//! Xenstore: the wire client, transactions, watches, and the [`store::Store`] seam that `xen-sim` implements too.
//!
//! [`client::Client`] is for programs that stay: threads, watches, transactions, reconnect. [`quick::Quick`] is for commands that read a few
//! nodes and end: one connection, no thread. [`gather`] is for looks that are in no hurry.

mod batch;
mod frame;
mod parts;
mod translate;
mod wire;

pub mod client;
pub mod connection;
pub mod endpoint;
pub mod error;
pub mod gather;
pub mod quick;
pub mod store;
pub mod traits;
pub mod watch;

use std::sync::atomic::{AtomicU64, Ordering};

static ROUND_TRIPS: AtomicU64 = AtomicU64::new(0);

/// Writes of requests to xenstored made by this process so far, each with its wait for answers; benchmarks print it.
#[must_use]
pub fn round_trips() -> u64 {
    ROUND_TRIPS.load(Ordering::Relaxed)
}

fn count_round_trip() {
    ROUND_TRIPS.fetch_add(1, Ordering::Relaxed);
}
