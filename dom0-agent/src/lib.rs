//! Guest lifecycle for Xen: the daemon, and the xl and parapet commands.

pub mod config;
pub mod format;
pub mod image;
