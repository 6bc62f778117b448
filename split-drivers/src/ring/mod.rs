//! Shared rings, from the backend's side.
//!
//! * [`back`]: indices, bounds, notification rule.
//! * [`copy`]: the batch of grant copies of one sweep.
//!
//! Nothing here knows what a request means.

pub mod back;
pub mod copy;
