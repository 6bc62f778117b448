//! `/dev/xen/evtchn`: ioctl numbers and arguments. Source: `xen/sys/evtchn.h`.
//!
//! Reading the device yields pending ports as `u32`s, each masked from then on; writing a port back unmasks it. The
//! device gives ports of the calling domain only; to make a port for a guest use [`crate::event`].

use crate::layout;
use crate::layout::ioctl_number;

/// Path of the device.
pub const EVTCHN_PATH: &str = "/dev/xen/evtchn";

crate::constants! {
    /// Bind a virtual interrupt ([`BindVirq`]); returns the local port. A global one is bound once per domain.
    pub const IOCTL_BIND_VIRQ: u64 = ioctl_number(b'E', 0, size_of::<BindVirq>()) => "IOCTL_EVTCHN_BIND_VIRQ";
    /// Connect to a remote port ([`BindInterdomain`]); returns the local port.
    pub const IOCTL_BIND_INTERDOMAIN: u64 = ioctl_number(b'E', 1, size_of::<BindInterdomain>()) => "IOCTL_EVTCHN_BIND_INTERDOMAIN";
    /// Make a port a remote domain may connect to ([`BindUnboundPort`]); returns the local port.
    pub const IOCTL_BIND_UNBOUND_PORT: u64 = ioctl_number(b'E', 2, size_of::<BindUnboundPort>()) => "IOCTL_EVTCHN_BIND_UNBOUND_PORT";
    /// Close a local port ([`LocalPort`]).
    pub const IOCTL_UNBIND: u64 = ioctl_number(b'E', 3, size_of::<LocalPort>()) => "IOCTL_EVTCHN_UNBIND";
    /// Signal a local port ([`LocalPort`]).
    pub const IOCTL_NOTIFY: u64 = ioctl_number(b'E', 4, size_of::<LocalPort>()) => "IOCTL_EVTCHN_NOTIFY";
    /// Empty the queue of pending ports and clear an overflow.
    pub const IOCTL_RESET: u64 = ioctl_number(b'E', 5, 0) => "IOCTL_EVTCHN_RESET";
    /// From now on bind to one domain only (argument: `u16` domain id); there is no way back.
    pub const IOCTL_RESTRICT_DOMID: u64 = ioctl_number(b'E', 6, size_of::<u16>()) => "IOCTL_EVTCHN_RESTRICT_DOMID";
}

layout! {
    /// Argument of [`IOCTL_BIND_VIRQ`].
    pub struct BindVirq: "struct ioctl_evtchn_bind_virq", 4 {
        /// One of `event::VIRQ_*`.
        pub virq: u32 = 0 => "virq",
    }
}

layout! {
    /// Argument of [`IOCTL_BIND_INTERDOMAIN`].
    pub struct BindInterdomain: "struct ioctl_evtchn_bind_interdomain", 8 {
        /// The peer.
        pub remote_domain: u32 = 0 => "remote_domain",
        /// The peer's unbound port.
        pub remote_port: u32 = 4 => "remote_port",
    }
}

layout! {
    /// Argument of [`IOCTL_BIND_UNBOUND_PORT`].
    pub struct BindUnboundPort: "struct ioctl_evtchn_bind_unbound_port", 4 {
        /// Who may connect.
        pub remote_domain: u32 = 0 => "remote_domain",
    }
}

layout! {
    /// Argument of [`IOCTL_UNBIND`] and [`IOCTL_NOTIFY`].
    pub struct LocalPort: "struct ioctl_evtchn_notify", 4 {
        /// A port of this domain.
        pub port: u32 = 0 => "port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_the_measured_ones() {
        assert_eq!(IOCTL_BIND_VIRQ, 0x0004_4500);
        assert_eq!(IOCTL_BIND_INTERDOMAIN, 0x0008_4501);
        assert_eq!(IOCTL_BIND_UNBOUND_PORT, 0x0004_4502);
        assert_eq!(IOCTL_UNBIND, 0x0004_4503);
        assert_eq!(IOCTL_NOTIFY, 0x0004_4504);
        assert_eq!(IOCTL_RESET, 0x0000_4505);
        assert_eq!(IOCTL_RESTRICT_DOMID, 0x0002_4506);
    }
}
