//! Console: a guest's console ring between a pseudo terminal and a bounded log.
//!
//! [`ring`] (the page), [`guard`] (event storms), [`backlog`] and [`log`] (bounded memories), [`queue`] (one pass), [`worker`] (the
//! thread). No journal: every index is in the page, so a successor goes on where the page says, and at most bytes on their way to the log are lost.

pub mod backlog;
pub mod guard;
pub mod log;
pub mod queue;
pub mod ring;
pub mod worker;
