//! Fault tolerance for Xen guests: evidence, verdict, plan, act.
//!
//! ```text
//!   evidence ──▶ verdict ──▶ plan ──▶ journal ──▶ act ──▶ (the agent does it, and it becomes evidence)
//!      raw         pure        pure      durable     thin
//! ```
//!
//! [`monitor`] holds the pure machine over all guests. A restart of
//! the monitor, of the agent or of both is not a failure of any guest.

#![forbid(unsafe_code)]

pub mod act;
pub mod api;
pub mod availability;
pub mod book;
pub mod cli;
pub mod config;
pub mod evidence;
pub mod journal;
pub mod limits;
pub mod monitor;
pub mod options;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod record;
pub mod report;
pub mod shell;
pub mod time;
pub mod verdict;
