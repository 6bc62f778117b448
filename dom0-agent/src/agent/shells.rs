//! Domains built in advance, which guests take over: the pool of shells.
//!
//! ```text
//!   add ─▶ template ──refill──▶ Building ─▶ Shell (paused, its driver waits, nodes under a name of its own)
//!                      ▲                      │ a create that fits: set_handle, the driver's files, nodes, devices
//!                      │                      ├──────────────▶ Building ─▶ Running      (a guest like any other)
//!                      └──── one is missing ◀─┤ stale, touched, short of memory, dropped
//!                                             └──────────────▶ condemned ─▶ removed, the way a guest goes
//! ```
//!
//! A shell is a guest that nobody asked for: the same record (stage [`Stage::Shell`](super::record::Stage::Shell)), domain, driver and way out, but it
//! stands in the pool and not in the table of guests. Its record stays until its domain has another uuid and what it had under its own is gone, so that
//! an agent that is killed in between leaves one record that undoes the guest, and one that clears up behind the shell.
//!
//! | file | what |
//! |---|---|
//! | `template.rs` | what is kept, on disk; what fits; pure |
//! | `pool.rs` | what there is, and what is missing |
//! | `refill.rs` | builds what is missing, removes what is condemned |
//! | `take.rs` | a guest takes a shell; room for guests that do not fit |
//! | `tend.rs` | what an earlier agent left, what became useless, what the operator asks |

mod pool;
mod refill;
mod take;
mod template;
mod tend;

pub use pool::Shells;
pub use take::Creation;
pub use template::{MAX_SHELLS, MAX_TEMPLATES, NAME_PREFIX, Template};
