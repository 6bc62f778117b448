//! A process that moves pages between a domain and a file, and ends with them still mapped.
//!
//! ```text
//!   parent.rs (whoever saves, restores, builds)              child.rs = /proc/self/exe move-pages DOMID read|write
//!     open(frames) ───────────── order, frames ────────────▶ maps them: the window       (earlier windows stay mapped)
//!     write(head, pages) ─────── order, head ──────────────▶ writev: head, pages ──────▶ file (its standard output)
//!     read(pages) ────────────── order ────────────────────▶ read, pread ◀────────────── file
//!     clear(pages) ───────────── order ────────────────────▶ memset
//!     end ─────────── hangs up, and waits for its exit ────▶ exit: everything is unmapped at once
//! ```
//!
//! Where dom0 is a PV domain, each page that is unmapped is a trap into the hypervisor, for an ending process it is not, since its page tables are
//! no longer Xen's business by then. Measured on Xen 4.20 and Linux 6.12 by instructions (2 ns each): mapping a page takes 2.9 us (PVH guest; 1.9 PV),
//! unmapping it 6.8, letting an exit do it 2.2. So a page goes through a process that never unmaps, and that is replaced when it has [`MAX_PAGES`].
//!
//! The two ends are one program of one build; what they say to each other (`words.rs`) is no interface to anybody.

mod child;
mod parent;
mod words;

pub use child::mover_main;
pub use parent::Process;

use crate::seam::Result;
use std::fmt::Debug;
use std::ops::Range;

/// First argument that makes a program a mover.
pub const MOVER_ARGUMENT: &str = "move-pages";
/// Most pages of one window (4 MiB).
pub const WINDOW_PAGES: usize = 1024;
/// Pages one mover may map (4 GiB): their page tables take 8 MiB of dom0's memory until it ends.
pub const MAX_PAGES: usize = 1 << 20;
/// So many pages are worth a process: starting one costs what it saves on about 1300.
pub const WORTH_PAGES: u64 = 2048;
/// Longest head of a write, in bytes: the small records and the list that stand before a record's pages.
pub const MAX_HEAD: usize = 1 << 20;

/// Moves pages between a domain and a file without their passing through this process. Made by [`crate::seam::MemoryControl::mover`].
///
/// The file's position is shared with whoever gave it.
pub trait Mover: Debug + Send {
    /// Opens a window on at most [`WINDOW_PAGES`] frames, in this order, in place of the one before. Answers which of them hold nothing but zeroes,
    /// where `look` asks for that; else nothing.
    ///
    /// # Errors
    /// A frame cannot be mapped, or the process is gone.
    fn open(&mut self, frames: &[u64], look: Look) -> Result<Vec<bool>>;

    /// Writes `head` (at most [`MAX_HEAD`] bytes) and then these pages of the window, all of it.
    ///
    /// # Errors
    /// The file's, a full disk for example.
    fn write(&mut self, head: &[u8], pages: Range<usize>) -> std::io::Result<()>;

    /// Fills these pages of the window, from `at` on or from where the file stands. Answers how many bytes came: fewer only where the file ends.
    ///
    /// # Errors
    /// The file's.
    fn read(&mut self, pages: Range<usize>, at: Option<u64>) -> std::io::Result<usize>;

    /// Fills these pages of the window with zeroes.
    ///
    /// # Errors
    /// The process is gone.
    fn clear(&mut self, pages: Range<usize>) -> Result<()>;

    /// Ends it. Afterwards it maps nothing of the domain.
    ///
    /// # Errors
    /// It was killed, or failed.
    fn end(self: Box<Self>) -> Result<()>;
}

/// Whether a window's pages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// They are only moved.
    Away,
    /// Pages of zeroes are told.
    ForZeroes,
}

/// What a mover may do to the domain's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only [`Mover::write`] is of use.
    Read,
    /// Only [`Mover::read`] and [`Mover::clear`] need this.
    Write,
}

impl Access {
    /// Whether mappings are writable.
    #[must_use]
    pub fn is_write(self) -> bool {
        self == Self::Write
    }
}
