//! The xl configuration language: text in, typed guest description out.
//!
//! ```text
//!  bytes ──lex──▶ tokens ──parse──▶ Tree ──domain::interpret──▶ DomainConfig
//!                                    │          │ disk, vif, cpulist, size, ...
//!                                    ▼          ▼
//!                               Diagnostics (file, line, column, stock wording)
//! ```
//!
//! Everything here is a pure function of its input: no clock, no random number, no Xen, no network. What depends on
//! the host (number of CPUs, default bridge, a fresh UUID) comes in through [`domain::Ambient`]. The one place that
//! touches a file is [`read_source`]. Source of the grammar: xl.cfg(5), xl-disk-configuration(5),
//! xl-network-configuration(5).

pub mod boot;
pub mod diag;
pub mod lex;
pub mod limits;
pub mod number;
pub mod parse;
pub mod size;
pub mod tree;
pub mod vdev;
pub mod cpu;
pub mod cpulist;
pub mod disk;
mod disk_rules;
pub mod domain;
pub mod events;
pub mod memory;
pub mod pci;
pub mod protect;
pub mod rate;
pub mod vif;
