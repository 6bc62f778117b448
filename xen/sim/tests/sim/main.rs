//! The simulation keeps Xen's rules, and its frontends find out who does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail a test")]

mod blkfront;
mod devices;
mod extras;
mod grub;
mod hostile;
mod lifecycle;
mod netfront;
mod pagetable;
mod support;
