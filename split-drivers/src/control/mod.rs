//! Control: the agent's orders, and everything that happens once: handles, threads, the sandbox.
//!
//! ```text
//!   server (socket) ──order, descriptors──▶ driver ──▶ disks, nets, consoles ──threads──▶ rings
//!        ▲                                     │ handles from the pool
//!        └──────── answers, faults ◀───────────┘
//! ```
//!
//! One thread; orders are carried out one after the other. The agent may go and come back: the guest is served meanwhile.

pub mod consoles;
pub mod disks;
pub mod driver;
pub mod nets;
pub mod options;
pub mod pool;
pub mod sandbox;
pub mod server;
pub mod threads;
pub mod tracking;
