//! Saving a domain: from a guest that suspended to the bytes of a libxl stream.
//!
//! ```text
//!   suspend (asked, acknowledged, shut down)
//!        │
//!   Saver::begin ─▶ round(set of pages) ... ─▶ Saver::finish        image.rs
//!   headers,          pages.rs: windows ─▶ types ─▶ one mapping ─▶ PAGE_DATA     pvh.rs, pv.rs: what is not memory
//!   CPU policy        rounds.rs: which pages go next      copied.rs: no mapping, where Xen copies
//! ```
//!
//! Nothing here decides what becomes of the guest: see [`crate::agent::save`]. A saver only reads the domain, and whoever drops
//! one half-way has changed nothing. Contents of a PVH guest's pages go from the mapped guest to the file by `writev`.

pub mod error;
pub mod image;
pub mod limits;
pub mod p2m;
pub mod policy;
pub mod rounds;
pub mod suspend;

mod copied;
mod pages;
pub(crate) mod pv;
mod pvh;

pub use error::SaveError;
pub use image::{Saver, Subject};
pub use rounds::{Everything, PageSet, PageSource};
pub use suspend::{Patience, SuspendError};
