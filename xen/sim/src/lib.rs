//! How we test without Xen: the seam traits in memory, seeded, with fault injection and a leak ledger.
//!
//! ```text
//!   program under test ──▶ seam traits ──▶ simhost ──▶ state ◀── kernel ◀── frontend/*  guest
//!                                            │           │        (the guest's side of everything)
//!                                          fault       ledger
//! ```
//!
//! A [`world::World`] is one host. A program gets a [`simhost::SimHost`] in place of the real seam; the guest's side is played by
//! [`kernel::DomU`] and the frontends on top of it. Rules are Xen's own, taken from its behaviour on 4.20; where a release differs, the
//! world's release decides. No `unsafe`, no real clock, no sleeping; chance comes from the seed only.

#![forbid(unsafe_code)]

pub mod descriptors;
pub mod fault;
pub mod frontend;
pub mod grants;
pub mod guest;
pub mod kernel;
pub mod ledger;
pub mod limits;
pub mod rng;
pub mod simhost;
pub mod store;
pub mod world;

mod events;
mod hypervisor;
mod inspect;
mod machine;
mod mover;
mod state;

pub use fault::{Fault, FaultKind, Filter, exhaust};
pub use guest::{Guest, GuestSpec};
pub use kernel::{DomU, GuestPage};
pub use ledger::{Ledger, ResourceKind};
pub use simhost::SimHost;
pub use state::{Crashed, DEAD};
pub use store::SimStore;
pub use world::World;
