//! How our programs talk: framed, versioned, checksummed messages.
//!
//! ```text
//!   xl, parapet, ft-monitor ──[agent]──▶ dom0-agent ──[driver]──▶ split-driver (one per guest)
//! ```
//!
//! [`frame`] is the envelope and the only place that knows bincode. [`agent`] and [`driver`] are the two vocabularies, [`dirty`] is memory that
//! the agent and a driver share. Messages never carry bulk data, and nothing here is ever state on disk.

#![forbid(unsafe_code)]

pub mod agent;
pub mod dirty;
pub mod driver;
pub mod frame;
pub mod heartbeat;
pub mod link;
pub mod paths;
