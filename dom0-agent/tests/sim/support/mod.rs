//! What the tests stand on.

mod driver;
mod host;
mod machine;
mod plain;
mod yard;

pub use host::{Host, Setup, small_kernel};
pub use machine::Machine;
