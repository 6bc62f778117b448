//! The backend half of the xenbus handshake.
//!
//! [`machine`] decides, [`keys`] reads what a frontend published; the agent (`crate::agent::settle`) performs.

pub mod keys;
pub mod machine;
