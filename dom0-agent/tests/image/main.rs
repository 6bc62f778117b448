//! Kernels and initrds: from files that are fine to files that are not.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail loudly, and its numbers are small"
)]
mod cache;
mod elf;
mod kernels;
mod ramdisk;
mod unpack;
