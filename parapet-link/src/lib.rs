//! The line between two hosts that moves of guests go over: TCP, TLS 1.3, and on both sides a certificate that the other one has pinned.
//!
//! ```text
//!   xl migrate ─pipe─▶ parapet link connect ══ TLS ══▶ parapet-link ─socketpair─▶ agent
//!                      (root, dial)                    (own uid, serve)
//! ```
//!
//! | | |
//! |---|---|
//! | [`fingerprint`], [`token`], [`identity`], [`book`] | who we are, what the other host is told, whom we know |
//! | [`tls`] | that nobody else is talked to |
//! | [`greeting`], [`request`], [`frame`] | the words, pure |
//! | [`pump`] | bytes between the line and a pipe |
//! | [`dial`], [`serve`] | the two ends |
//! | [`limits`] | every bound |
//!
//! There is no authority and no name that is checked: the fingerprint is the identity. What the line carries is not looked into, but for one request at its
//! beginning, of a few kinds with a few flags: nothing that the other side sends is ever a command line.

#![forbid(unsafe_code)]

pub mod book;
pub mod dial;
pub mod error;
pub mod fingerprint;
pub mod frame;
pub mod greeting;
pub mod identity;
pub mod limits;
pub mod options;
pub mod pump;
pub mod request;
pub mod serve;
pub mod tls;
pub mod token;
