//! The rig that boots nested Xen under QEMU, and the scenarios that run on it.
//!
//! [`rig`] knows machines: images, snapshots, hosts, commands in dom0 and in guests. [`scenario`] knows the product: the
//! main job, shared by the tests, the demo and the benchmarks. Measured facts about the emulation stand in `images/README.md`.

#![forbid(unsafe_code)]

pub mod bench;
pub mod probe;
pub mod product;
pub mod rig;
pub mod scenario;
pub mod stock;
pub mod timeline;
