//! The middle layer: libxl's stream of version 2, around the image and beside it the device model's state.
//!
//! [`header`] is what it begins with, [`record`] its records, [`order`] what may follow what. Source:
//! `docs/specs/libxl-migration-stream.pandoc`.

pub mod header;
pub mod order;
pub mod record;

pub use header::LibxlHeader;
pub use order::{Order, Refusal};
pub use record::{Emulator, EmulatorId, Kind, Record};
