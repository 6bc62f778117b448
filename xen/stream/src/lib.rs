//! How a domain becomes bytes: the stock save formats of Xen, typed, bounded and pure.
//!
//! ```text
//!   xl save file      "Xen saved domain, xl format" | flags | configuration of the domain
//!     libxl stream v2   LibxlFmt | LIBXC_CONTEXT ┐                  ┌ EMULATOR_... | END
//!       libxc image v3                           └ image | domain | PV_INFO | PAGE_DATA ... | END
//!
//!   saver ──▶ writer::Writer ──▶ bytes ──▶ reader::Reader ──▶ restorer
//!                   └─── libxc::Order, libxl::Order: what may come next ───┘
//! ```
//!
//! [`reader::Reader`] hands out one event at a time: a small record whole, a record of pages as its checked list while the
//! contents stay in the source, to be pulled straight into wherever guest memory is. [`writer::Writer`] is the mirror
//! image. Both keep the order that stock tools keep, so neither accepts nor makes half a domain. [`verify()`] reads a whole
//! file and says what is in it. [`handshake`] holds the words of `xl migrate-receive`.
//!
//! Whatever is read is untrusted: every length has a limit in [`limits`], nothing is allocated on the word of the stream
//! beyond it, and a [`StreamError`] names the record, its offset and the numbers. This crate opens no file, makes no
//! hypercall and holds no `unsafe`. It writes version 3 of the image, and reads 2 and 3; only little-endian.
//!
//! A record of our own rides among those with bit 31 set, which every stock restorer of libxc images skips (that of the
//! libxl layer does not). With it two ends of ours agree upon what stock has no words for: see [`accord`].
//!
//! Sources: Xen's `docs/specs/libxc-migration-stream.pandoc` and `libxl-migration-stream.pandoc`; what stock tools of 4.6 to
//! 4.20 write and accept.

#![forbid(unsafe_code)]

pub mod accord;
mod bytes;
pub mod error;
pub mod handshake;
pub mod libxc;
pub mod libxl;
pub mod limits;
pub mod reader;
pub mod summary;
pub mod verify;
pub mod writer;
pub mod xl_file;

pub use accord::Accord;
pub use error::{Layer, Place, Problem, StreamError};
pub use libxc::Mode;
pub use reader::{Event, Reader};
pub use summary::Summary;
pub use verify::verify;
pub use writer::Writer;
