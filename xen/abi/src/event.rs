//! Event channel operations by hypercall, and the virtual interrupts. Source: `xen/event_channel.h`, `xen/xen.h`.
//!
//! A toolstack needs these for ports of *other* domains (a guest's console and xenstore ports); ports of its own come
//! from [`crate::evtchn`].

use crate::layout;

crate::constants! {
    /// `EVTCHNOP_bind_interdomain`.
    pub const OP_BIND_INTERDOMAIN: u64 = 0 => "EVTCHNOP_bind_interdomain";
    /// `EVTCHNOP_bind_virq`.
    pub const OP_BIND_VIRQ: u64 = 1 => "EVTCHNOP_bind_virq";
    /// Close a port: [`Close`].
    pub const OP_CLOSE: u64 = 3 => "EVTCHNOP_close";
    /// `EVTCHNOP_send`.
    pub const OP_SEND: u64 = 4 => "EVTCHNOP_send";
    /// What a port is: [`Status`].
    pub const OP_STATUS: u64 = 5 => "EVTCHNOP_status";
    /// Make a port in a domain that another may connect to: [`AllocUnbound`].
    pub const OP_ALLOC_UNBOUND: u64 = 6 => "EVTCHNOP_alloc_unbound";
    /// `EVTCHNOP_unmask`.
    pub const OP_UNMASK: u64 = 9 => "EVTCHNOP_unmask";
    /// Close every port of a domain: [`Reset`].
    pub const OP_RESET: u64 = 10 => "EVTCHNOP_reset";

    /// [`Status::status`]: not in use.
    pub const STATUS_CLOSED: u32 = 0 => "EVTCHNSTAT_closed";
    /// [`Status::status`]: waiting for a peer.
    pub const STATUS_UNBOUND: u32 = 1 => "EVTCHNSTAT_unbound";
    /// [`Status::status`]: connected to a peer.
    pub const STATUS_INTERDOMAIN: u32 = 2 => "EVTCHNSTAT_interdomain";
    /// [`Status::status`]: a physical interrupt.
    pub const STATUS_PIRQ: u32 = 3 => "EVTCHNSTAT_pirq";
    /// [`Status::status`]: a virtual interrupt.
    pub const STATUS_VIRQ: u32 = 4 => "EVTCHNSTAT_virq";
    /// [`Status::status`]: between vcpus.
    pub const STATUS_IPI: u32 = 5 => "EVTCHNSTAT_ipi";

    /// Per vcpu: timer.
    pub const VIRQ_TIMER: u32 = 0 => "VIRQ_TIMER";
    /// Per vcpu: dump debug information.
    pub const VIRQ_DEBUG: u32 = 1 => "VIRQ_DEBUG";
    /// Global: bytes on Xen's own console.
    pub const VIRQ_CONSOLE: u32 = 2 => "VIRQ_CONSOLE";
    /// Global: a domain shut down or died. xenstored owns it; a second binding is refused.
    pub const VIRQ_DOM_EXC: u32 = 3 => "VIRQ_DOM_EXC";
    /// Global: trace records.
    pub const VIRQ_TBUF: u32 = 4 => "VIRQ_TBUF";
    /// Global: a domain paused for its debugger.
    pub const VIRQ_DEBUGGER: u32 = 6 => "VIRQ_DEBUGGER";
    /// Global: the console ring has new text.
    pub const VIRQ_CON_RING: u32 = 8 => "VIRQ_CON_RING";
    /// Global: a physical CPU came or went.
    pub const VIRQ_PCPU_STATE: u32 = 9 => "VIRQ_PCPU_STATE";
    /// Global: low on heap memory.
    pub const VIRQ_ENOMEM: u32 = 12 => "VIRQ_ENOMEM";
}

layout! {
    /// Argument of [`OP_ALLOC_UNBOUND`].
    pub struct AllocUnbound: "struct evtchn_alloc_unbound", 8 {
        /// Domain that gets the port.
        pub dom: u16 = 0 => "dom",
        /// Domain that may connect to it.
        pub remote_dom: u16 = 2 => "remote_dom",
        /// Out: the port.
        pub port: u32 = 4 => "port",
    }
}

layout! {
    /// Argument of [`OP_CLOSE`].
    pub struct Close: "struct evtchn_close", 4 {
        /// A port of the calling domain.
        pub port: u32 = 0 => "port",
    }
}

layout! {
    /// Argument of [`OP_STATUS`].
    pub struct Status: "struct evtchn_status", 24 {
        /// Whose port.
        pub dom: u16 = 0 => "dom",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// Which port.
        pub port: u32 = 4 => "port",
        /// Out: `STATUS_*`.
        pub status: u32 = 8 => "status",
        /// Out: vcpu it signals.
        pub vcpu: u32 = 12 => "vcpu",
        /// Out, unbound and interdomain: the peer. Otherwise the low half of the interrupt's number.
        pub peer_dom: u16 = 16 => "u.interdomain.dom",
        /// Out: high half of the interrupt's number.
        pub pad2: u16 = 18,
        /// Out, interdomain: the peer's port.
        pub peer_port: u32 = 20 => "u.interdomain.port",
    }
}

layout! {
    /// Argument of [`OP_RESET`].
    pub struct Reset: "struct evtchn_reset", 2 {
        /// The domain.
        pub dom: u16 = 0 => "dom",
    }
}
