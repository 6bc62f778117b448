//! What the product is shown to do: one story, told by the demo and checked by the tests.

pub mod continuity;
pub mod debian;
pub mod harm;
pub mod main_job;
pub mod soak;
