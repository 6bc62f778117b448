//! What the tests stand on.

mod driver;
mod host;
mod machine;
mod plain;
mod yard;

pub use host::{Host, small_kernel};
pub use machine::Machine;
