//! What frontends and backends say to each other through shared pages. Source: `xen/io/*.h`.
//!
//! Everything here works on private copies: a byte that a guest can still change is never looked at.

pub mod blkif;
pub mod console;
pub mod netif;
pub mod ring;
pub mod xenbus;
pub mod xenstore;
