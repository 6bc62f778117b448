//! What the tests stand on.

pub mod desk;
mod driver;
pub mod faults;
mod host;
pub mod line;
mod machine;
mod plain;
pub mod reflex;
mod yard;

pub use host::{Host, Setup, small_kernel};
pub use machine::Machine;
