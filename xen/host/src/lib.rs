//! How we reach Xen: privcmd, grants, event channels, foreign memory and xenstore, behind the seam traits.
//!
//! The only crate with `unsafe`. Programs take the traits of [`seam`]; the real implementations live in the other modules, the
//! simulated ones in `xen-sim`.

pub mod error;
pub mod region;
pub mod seam;
pub mod xen;
pub mod xenstore;

pub mod devices;
pub mod evtchn;
pub mod extras;
pub mod gntdev;

pub mod activation;
pub mod blockdev;
pub mod eventfd;
pub mod fdpass;
pub mod frames;
pub mod localtime;
pub mod memfd;
pub mod mover;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod sched;
pub mod scratch;
pub mod tap;
pub mod uring;
pub mod users;
