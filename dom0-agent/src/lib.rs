//! Guest lifecycle for Xen: the daemon, and the xl command.

#![forbid(unsafe_code)]

pub mod agent;
pub mod build;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod device;
pub mod disks;
pub mod dump;
pub mod format;
pub mod image;
pub mod layout;
pub mod peer;
pub mod ranges;
pub mod restore;
pub mod save;
pub mod xenbus;
