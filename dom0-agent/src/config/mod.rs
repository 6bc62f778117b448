//! The xl configuration language: text in, typed guest description out.
//!
//! ```text
//!  bytes ──lex──▶ tokens ──parse──▶ Tree ──interpret──▶ DomainConfig
//!                                     │        │ disk, vif, pci, cpulist, rate, ...
//!                                     ▼        ▼
//!                              Report (file, line, column, stock wording)
//! ```
//!
//! Everything here is a pure function of its input: no clock, no random number, no Xen, no network. What depends on
//! the host (its CPUs, xl.conf, a fresh UUID) comes in through [`interpret::Ambient`]. The one place that touches a
//! file is [`read_source`]. Source of the grammar: xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5).

pub mod boot;
mod choices;
pub mod cpu;
pub mod cpulist;
pub mod defaults;
pub mod diag;
pub mod disk;
mod disk_rules;
pub mod domain;
pub mod events;
pub mod graphics;
pub mod interpret;
pub mod keys;
pub mod lex;
pub mod limits;
pub mod memory;
pub mod number;
pub mod parse;
pub mod pci;
pub mod protect;
pub mod ranges;
pub mod rate;
pub mod size;
pub mod tree;
pub mod unserved;
pub mod vdev;
pub mod view;
pub mod vif;
pub mod xlconf;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a configuration file, at most [`limits::MAX_SOURCE_BYTES`] of it.
///
/// # Errors
/// The file cannot be read, or it is larger than the limit.
pub fn read_source(path: &Path) -> io::Result<Vec<u8>> {
    let limit = limits::MAX_SOURCE_BYTES;
    let mut text = Vec::new();
    File::open(path)?
        .take(limit as u64 + 1)
        .read_to_end(&mut text)?;
    if text.len() > limit {
        let message = format!("larger than the limit of {limit} bytes for a configuration");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}
