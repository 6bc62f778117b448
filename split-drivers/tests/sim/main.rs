//! Whole drivers against simulated guests: correct frontends that notice every broken rule, and hostile ones that break them all.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world may panic"
)]

mod block;
mod block_hostile;
mod console;
mod limits;
mod network;
mod support;
mod tracking;
