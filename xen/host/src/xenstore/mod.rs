//! Xenstore: the wire client, transactions, watches, and the [`store::Store`] seam that `xen-sim` implements too.

pub mod error;
pub mod store;
pub mod watch;
