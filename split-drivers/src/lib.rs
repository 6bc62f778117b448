//! Paravirtual backends: disks, networks and consoles of one guest, served by one sandboxed process.
//!
//! ```text
//!   agent ──orders, descriptors──▶ control ──▶ one thread per ring
//!                                              blk  ──▶ disk (io_uring)
//!                                              net  ──▶ tap
//!                                              console ──▶ pty, log
//!                    guest ◀──── rings, grants, events ────┘   through the seam of xen-host
//! ```
//!
//! The process sees no xenstore, no hypercalls and no filesystem: the agent does the handshakes and opens everything. What a guest can
//! write is copied once and judged before it is used; a guest that breaks a rule loses its device and nothing else happens. The process may be killed at
//! any moment: a successor continues on the same rings (`blk/journal.rs`).

#![forbid(unsafe_code)]

pub mod blk;
pub mod console;
pub mod control;
pub mod disk;
mod fuse;
pub mod limits;
pub mod net;
pub mod ring;
pub mod stats;

#[cfg(test)]
mod testing;
