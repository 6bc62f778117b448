//! The agent on a simulated host: real agent code, real files, simulated Xen, xenstored, guests, drivers and taps.
//!
//! ```text
//!   test ─▶ support::Host ─▶ Agent ──seams──▶ xen-sim World ◀── guests (support::Machine)
//!                              └─ drivers, links ─▶ support::Yard: what outlives an agent
//! ```
//!
//! No test waits for time, and every one ends with an empty ledger and no file left.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "../image/kernels.rs"]
#[allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "shared with the tests of kernel images, which use all of it"
)]
mod kernels;
mod support;

mod accord;
mod bell;
mod cli;
mod create;
mod daemon;
mod data;
mod devices;
mod disks;
mod dump;
mod exhaust;
mod heartbeats;
mod hostile;
mod input;
mod kept;
mod linked;
mod migrate;
mod migrate_disks;
mod recover;
mod replaced;
mod save;
mod save_client;
mod save_pv;
mod shells;
mod shells_faults;
mod stop;
mod together;
mod watch;
