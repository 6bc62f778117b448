//! A disk's contents to another host while its guest runs: the part of moving a guest that shared storage would make needless.
//!
//! ```text
//!   driver: notes what the guest writes (a map in our memory)
//!      │ session.rs: track ─▶ round ─▶ round ... ─▶ (guest suspended) freeze ─▶ last rounds ─▶ end
//!      ▼
//!   copy.rs    which extents go next, and when to suspend                     pure
//!   source.rs  the image, read beside the driver, in bounded pieces
//!   format.rs  records of a disk section, framed, numbered, checksummed       pure
//!      │ send.rs                                    receive.rs
//!      └──────────▶ records ──────────▶ a new sparse file, judged byte by byte
//!      ◀────────── reports: what must come again ◀──┘
//!      talk.rs: which disks, and whose turn it is on the line                    pure
//! ```
//!
//! Nothing here decides what becomes of the guest: `agent/luggage.rs` and `agent/landing.rs` do, the two ends of a move. A copy that is given up, for
//! whatever reason, leaves the guest and its disk as they were, and nothing at the other side.
//!
//! The section's format lives here and not with Xen's formats (`xen-stream` holds those alone), nor with the messages of `parapet-wire`: only
//! agents speak it, to each other, and it is bulk, which that vocabulary never carries.

pub mod copy;
pub mod error;
pub mod extents;
pub mod format;
pub mod limits;
pub mod map;
pub mod place;
pub mod receive;
pub mod send;
pub mod session;
pub mod source;
pub mod talk;

pub use copy::{Policy, Why};
pub use error::{CopyError, ReceiveError};
pub use extents::ExtentSet;
pub use place::{Landed, Place};
pub use receive::{Heard, Receiver};
pub use session::{DiskCopy, Next, Tracked};
pub use source::Source;
