//! Calls that only a hypervisor with the patches of `xen-patches/` knows. Source: the headers as those patches leave them.
//!
//! Their numbers are far away from upstream's, and a hypervisor without the patches refuses them: [`NOTIFY_SHUTDOWN`] by `ENOSYS` or `EOPNOTSUPP`,
//! [`FOREIGN_COPY`] by `ENOSYS`. So they are found by trying. Debian's headers do not have them; the header check compares them with the patches.

use crate::domctl::Call;
use crate::ids::{DomId, Port};
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;
use zerocopy::{FromZeros, IntoBytes};

/// `XENMEM_foreign_copy`, a `memory_op`: [`ForeignCopy`].
pub const FOREIGN_COPY: u64 = 60;
/// [`ForeignCopy::flags`]: into the domain instead of out of it.
pub const FOREIGN_COPY_TO_DOMAIN: u16 = 1 << 0;
/// [`ForeignCopy::flags`]: look for pages of zeroes, and leave their part of the buffer alone.
pub const FOREIGN_COPY_FIND_ZERO: u16 = 1 << 1;
/// Status of a page that was copied.
pub const FOREIGN_COPY_COPIED: i32 = 0;
/// Status of a page of zeroes, which was not copied.
pub const FOREIGN_COPY_ZERO: i32 = 1;

/// `XEN_DOMCTL_notify_shutdown`, a domctl: [`NotifyShutdown`].
pub const NOTIFY_SHUTDOWN: u32 = 0x5041_0001;
/// [`NotifyShutdown::flags`]: not any more.
pub const NOTIFY_SHUTDOWN_STOP: u32 = 1 << 0;
/// Listeners that a domain has room for.
pub const SHUTDOWN_LISTENERS: usize = 4;

/// Operation numbers of `memory_op` have six bits; the rest of the word is upstream's way to continue a call.
const MEMORY_OP_NUMBERS: u64 = 1 << 6;
const _: () = assert!(FOREIGN_COPY < MEMORY_OP_NUMBERS);

layout! {
    /// Argument of [`FOREIGN_COPY`].
    pub struct ForeignCopy: "struct xen_foreign_copy", 40 {
        /// The other domain; not the caller.
        pub domid: u16 = 0 => "domid",
        /// `FOREIGN_COPY_*`.
        pub flags: u16 = 2 => "flags",
        /// Entries of `frames` and `status`, pages of `buffer`.
        pub nr_pages: u32 = 4 => "nr_pages",
        /// 0; out: pages that are dealt with.
        pub done: u32 = 8 => "done",
        /// Padding, zero.
        pub pad: u32 = 12 => "pad",
        /// Array of u64: gfns of a translated domain, mfns of any other.
        pub frames: UserPtr = 16 => "frames",
        /// Page N of it belongs to entry N.
        pub buffer: UserPtr = 24 => "buffer",
        /// Out: array of i32, `FOREIGN_COPY_*` or a negative errno.
        pub status: UserPtr = 32 => "status",
    }
}

layout! {
    /// Payload of [`NOTIFY_SHUTDOWN`].
    pub struct NotifyShutdown: "struct xen_domctl_notify_shutdown", 8 {
        /// A port of the caller that is bound to another port of the caller.
        pub port: u32 = 0 => "port",
        /// `NOTIFY_SHUTDOWN_*`.
        pub flags: u32 = 4 => "flags",
    }
}

/// Asks for an event through `port` at every shutdown of the domain, or for no more.
#[must_use]
pub fn notify_shutdown(abi: Abi, domain: DomId, port: Port, stop: bool) -> Call {
    let mut call = Call::new_zeroed();
    call.cmd = NOTIFY_SHUTDOWN;
    call.interface_version = abi.domctl_version();
    call.domain = domain.0;
    let payload = NotifyShutdown {
        port: port.0,
        flags: if stop { NOTIFY_SHUTDOWN_STOP } else { 0 },
    };
    call.payload[..size_of::<NotifyShutdown>()].copy_from_slice(payload.as_bytes());
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domctl::C_COMMANDS;

    #[test]
    fn the_call_says_which_port_and_whether_to_stop() {
        let call = notify_shutdown(Abi::V4_20, DomId(7), Port(0x0102), true);
        assert_eq!((call.cmd, call.domain), (NOTIFY_SHUTDOWN, 7));
        assert_eq!(call.payload[..8], [2, 1, 0, 0, 1, 0, 0, 0]);
        let call = notify_shutdown(Abi::V4_22, DomId(7), Port(3), false);
        assert_eq!(call.interface_version, Abi::V4_22.domctl_version());
        assert_eq!(call.payload[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn our_numbers_are_far_away_from_upstreams() {
        let far = |ours: u64, theirs: u64| ours > theirs + 16;
        assert!(
            C_COMMANDS
                .iter()
                .all(|(_, number)| far(NOTIFY_SHUTDOWN.into(), *number))
        );
        assert!(far(FOREIGN_COPY, crate::memory::ACQUIRE_RESOURCE));
    }
}
