//! Frontends that attack their backend: one entry per rule that a backend must keep.
//!
//! ```text
//!   blk    bad requests        net   bad packets, bad buffers      keys      bad xenstore values
//!   console  bad indexes       pressure   storms, toggling states, a second vcpu that flips bytes
//! ```
//!
//! An attack is launched on a frontend that is connected (keys: before it connects) and says what may come of it ([`Expect`]). A test then
//! checks that the backend lives, that other devices still work, and that nothing leaked.

pub mod blk;
pub mod console;
pub mod keys;
pub mod net;
pub mod pressure;

pub use blk::BlkAttack;
pub use console::ConsoleAttack;
pub use keys::KeyAttack;
pub use net::NetAttack;
pub use pressure::Flipper;

/// What a good backend makes of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It is no attack at all: the request is done as asked.
    Done,
    /// The request (packet) is answered with an error or dropped; everything else goes on.
    Refused,
    /// Done or refused, the protocol allows both; everything else goes on.
    Either,
    /// The ring cannot be trusted any more: the backend stops it or closes the device.
    Stopped,
    /// Refused or stopped, both are sound.
    RefusedOrStopped,
}
