//! The page by which a guest's kernel talks to xenstored. Source: `xen/io/xs_wire.h`, `xenstore_domain_interface`.
//!
//! A builder only clears it; a migrating toolstack sets [`CONNECTION_RECONNECT`] where the server can do that.

use crate::layout;

crate::constants! {
    /// [`Interface::server_features`]: can reconnect.
    pub const FEATURE_RECONNECTION: u32 = 1 => "XENSTORE_SERVER_FEATURE_RECONNECTION";
    /// [`Interface::server_features`]: writes errors.
    pub const FEATURE_ERROR: u32 = 2 => "XENSTORE_SERVER_FEATURE_ERROR";
    /// [`Interface::connection`]: in use.
    pub const CONNECTION_CONNECTED: u32 = 0 => "XENSTORE_CONNECTED";
    /// [`Interface::connection`]: being connected anew.
    pub const CONNECTION_RECONNECT: u32 = 1 => "XENSTORE_RECONNECT";
}

layout! {
    /// The page, as far as every release has it.
    pub struct Interface: "struct xenstore_domain_interface", 2076 {
        /// Requests of the guest.
        pub req: [u8; 1024] = 0 => "req",
        /// Answers and events.
        pub rsp: [u8; 1024] = 1024 => "rsp",
        /// Requests taken.
        pub req_cons: u32 = 2048 => "req_cons",
        /// Requests put.
        pub req_prod: u32 = 2052 => "req_prod",
        /// Answers taken.
        pub rsp_cons: u32 = 2056 => "rsp_cons",
        /// Answers put.
        pub rsp_prod: u32 = 2060 => "rsp_prod",
        /// `FEATURE_*`.
        pub server_features: u32 = 2064 => "server_features",
        /// `CONNECTION_*`.
        pub connection: u32 = 2068 => "connection",
        /// Why the connection broke.
        pub error: u32 = 2072 => "error",
    }
}
