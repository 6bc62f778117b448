//! Frontends as stock guests have them: correct ones that notice every broken rule, and hostile ones that break them.
//!
//! ```text
//!   blk  net  console  grub        hostile
//!     \   |     |      /              │ raw slots, raw keys, revoked grants
//!      xenbus (handshake)  ring ◀─────┘
//!              \            /
//!               kernel::DomU
//! ```
//!
//! A correct frontend never panics because of a backend: what it would complain about in the kernel log becomes a violation of the
//! world, and what would make Linux disable the device makes it disabled here. Everything is driven by calls; no thread, no clock.

pub mod blk;
pub mod console;
pub mod grub;
pub mod hostile;
pub mod net;
pub mod ring;
pub mod xenbus;
