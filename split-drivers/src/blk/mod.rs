//! Block: blkif rings served from raw files and block devices.
//!
//! In the order in which a request meets them: [`wire`] (bytes), [`request`] (judgement), [`plan`] (what to do), [`queue`] (when), with `run`
//! (at the medium), [`exec`] and [`cache`] (the guest's pages), [`buffers`] (ours), [`journal`] and [`recover`] (so that a successor
//! can go on), [`dirty`] (what changed, while somebody copies), [`features`] (what was agreed), [`worker`] (the thread), [`reins`] (what it is asked).

pub mod buffers;
pub mod cache;
pub mod dirty;
pub mod exec;
pub mod features;
pub mod journal;
pub mod plan;
pub mod queue;
pub mod recover;
pub mod reins;
pub mod request;
mod run;
pub mod wire;
pub mod worker;

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod front;
#[cfg(test)]
mod hostile_tests;
