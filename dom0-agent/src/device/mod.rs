//! What a guest's devices need in dom0: media for disks, taps in bridges, a pty for the console.

pub mod bridge;
pub mod medium;
pub mod userdata;
