//! Kernels and initrds: from a file somebody named to bytes that can be placed into a guest.
//!
//! ```text
//!                                   ┌───────── worker process ─────────────────┐
//!   vmlinuz ─▶ source ─▶ cache ─miss▶ bzimage ▶ unpack ▶ elf + notes ▶ compact ─▶ memfd + metadata ─▶ store (later)
//!                          └──hit───────────────────────────────────────────────▶ LoadedKernel ─▶ build
//!   initrd  ─▶ source ─▶ ramdisk (its headers are judged) ──────────────────────▶ Initrd ───────▶ build
//! ```
//!
//! The files are untrusted: the parsers are pure and bounded by [`limits`]; what unpacks runs in a sandbox ([`worker`], [`sandbox`]).
//! Nothing here knows a domain.

pub mod bzimage;
pub mod cache;
pub mod compact;
pub mod elf;
pub mod error;
pub mod initrd;
pub mod limits;
pub mod loaded;
pub mod notes;
pub mod ramdisk;
pub mod sandbox;
pub mod source;
mod store;
pub mod unpack;
pub mod worker;
pub mod zstd_frame;

pub use cache::KernelCache;
pub use elf::{KernelMeta, Segment};
pub use error::{Fault, Format, ImageError};
pub use initrd::Initrd;
pub use loaded::LoadedKernel;
pub use notes::{PvKernel, PvhKernel, XenNotes};
pub use source::FileKey;
pub use worker::{WORKER_ARGUMENT, Worker, worker_main};
