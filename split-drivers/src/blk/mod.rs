//! Block: blkif rings served from raw files and block devices.
//!
//! In the order in which a request meets them: [`wire`] (bytes), [`request`] (judgement), [`plan`] (what to do), [`queue`] (when), with `run`
//! (at the medium), [`exec`] and [`cache`] (the guest's pages), [`buffers`] (ours), [`journal`] and [`recover`] (so that a successor
//! can go on), [`features`] (what was agreed), [`worker`] (the thread).

pub mod buffers;
pub mod cache;
pub mod exec;
pub mod features;
pub mod journal;
pub mod plan;
pub mod queue;
pub mod recover;
pub mod request;
mod run;
pub mod wire;
pub mod worker;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod front;
#[cfg(test)]
mod hostile_tests;
