//! Saving a domain: from a guest that suspended to the bytes of a libxl stream.
//!
//! ```text
//!   suspend (asked, acknowledged, shut down)
//!        │
//!   Saver::begin ─▶ round(set of pages) ... ─▶ Saver::finish        image.rs
//!   headers,          pages.rs: batches ─▶ types ─▶ window ─▶ PAGE_DATA        pvh.rs, pv.rs: what is not memory
//!   CPU policy        rounds.rs: which pages go next      window.rs: copied, moved, buffered or mapped
//! ```
//!
//! A guest that is moved live runs until most of its memory is on the other side: `live.rs` does the rounds, `precopy.rs` says when they are over.
//!
//! Nothing here decides what becomes of the guest: see [`crate::agent::save`]. A saver only reads the domain, and whoever drops
//! one half-way has changed nothing. Contents of pages go straight from the guest to the file or connection.

pub mod error;
pub mod image;
pub mod limits;
pub mod live;
pub mod p2m;
pub mod policy;
pub mod precopy;
pub mod rounds;
pub mod suspend;

mod buffered;
mod copied;
mod mapped;
mod moved;
mod pages;
pub(crate) mod pv;
mod pvh;
mod window;

pub use error::SaveError;
pub use image::{Offer, Saver, Subject};
pub use rounds::PageSet;
pub use suspend::{Patience, SuspendError};
