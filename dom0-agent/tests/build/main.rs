//! Domain builders: plans as values, and whole builds on the simulated hypervisor.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail loudly, and its numbers are small"
)]

mod acpi;
mod cpu_policy;
#[path = "../image/kernels.rs"]
#[allow(dead_code, reason = "shared with the tests of kernel images")]
mod kernels;
mod plan_pv;
mod plan_pvh;
mod world;
