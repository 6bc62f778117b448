//! Machines for the tests: nested Xen hosts under QEMU, booted once and forked for every test.
//!
//! ```text
//!   images/ ──mmdebstrap──▶ base image ──QEMU boot──▶ snapshot ──fork──▶ Host ──▶ exec, put, get, guests
//!   (recipe)   image.rs     (cached)     snapshot.rs  (cached)  host.rs
//! ```
//!
//! Everything lives under `target/lab` and is keyed by what went into it, so a second run starts at the fork. The rig never uses
//! root rights of its own, loop devices or host networks.

pub mod cpio;
pub mod deadline;
pub mod delegate;
pub mod dirs;
pub mod guest;
pub mod hang;
pub mod host;
pub mod image;
pub mod initrd;
pub mod key;
pub mod leaks;
pub mod lock;
pub mod nested;
pub mod port;
pub mod postmortem;
pub mod product;
pub mod qemu;
pub mod qmp;
pub mod shape;
pub mod snapshot;
pub mod statics;

pub use guest::Guest;
pub use host::Host;
pub use nested::nested;
pub use shape::Shape;
