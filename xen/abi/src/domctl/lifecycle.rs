//! Verbs that change whether and how a domain lives.
//!
//! The controller's pause is counted: as many unpauses as pauses are needed, and a new domain starts with one pause.
//! Destroying runs until the memory is freed; `EAGAIN`-like continuations are Xen's own business.

use super::{Call, Command};
use crate::domain::Trigger;
use crate::ids::{DomId, Gfn, Handle, Port, VcpuId};
use crate::layout;
use crate::version::Abi;

crate::constants! {
    table LIFECYCLE_CONSTANTS;
    /// `sendtrigger`: non-maskable interrupt.
    pub const TRIGGER_NMI: u32 = 0 => "XEN_DOMCTL_SENDTRIGGER_NMI";
    /// `sendtrigger`: reset.
    pub const TRIGGER_RESET: u32 = 1 => "XEN_DOMCTL_SENDTRIGGER_RESET";
    /// `sendtrigger`: INIT.
    pub const TRIGGER_INIT: u32 = 2 => "XEN_DOMCTL_SENDTRIGGER_INIT";
    /// `sendtrigger`: power button.
    pub const TRIGGER_POWER: u32 = 3 => "XEN_DOMCTL_SENDTRIGGER_POWER";
    /// `sendtrigger`: sleep button.
    pub const TRIGGER_SLEEP: u32 = 4 => "XEN_DOMCTL_SENDTRIGGER_SLEEP";
}

layout! {
    /// `XEN_DOMCTL_setdomainhandle`.
    pub struct SetDomainHandle: "struct xen_domctl_setdomainhandle", 16 {
        /// The uuid.
        pub handle: [u8; 16] = 0 => "handle",
    }
}

layout! {
    /// `XEN_DOMCTL_hypercall_init`.
    pub struct HypercallInit: "struct xen_domctl_hypercall_init", 8 {
        /// Frame to fill with the hypercall stubs.
        pub gmfn: u64 = 0 => "gmfn",
    }
}

layout! {
    /// `XEN_DOMCTL_settimeoffset`.
    pub struct SetTimeOffset: "struct xen_domctl_settimeoffset", 8 {
        /// Added to the guest's wall clock, seconds.
        pub time_offset_seconds: i64 = 0 => "time_offset_seconds",
    }
}

layout! {
    /// `XEN_DOMCTL_sendtrigger`.
    pub struct SendTrigger: "struct xen_domctl_sendtrigger", 8 {
        /// `TRIGGER_*`.
        pub trigger: u32 = 0 => "trigger",
        /// Which vcpu.
        pub vcpu: u32 = 4 => "vcpu",
    }
}

layout! {
    /// `XEN_DOMCTL_subscribe`.
    pub struct Subscribe: "struct xen_domctl_subscribe", 4 {
        /// A port of the guest, or 0 to unsubscribe.
        pub port: u32 = 0 => "port",
    }
}

/// Destroys a domain; returns when its memory is freed.
#[must_use]
pub fn destroy(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::DestroyDomain, domain)
}

/// Takes one pause.
#[must_use]
pub fn pause(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::PauseDomain, domain)
}

/// Gives one pause back.
#[must_use]
pub fn unpause(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::UnpauseDomain, domain)
}

/// Lets a domain that shut down with code suspend run on.
#[must_use]
pub fn resume(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::ResumeDomain, domain)
}

/// Puts a domain that shut down for a soft reset back to a state a new kernel can start in.
#[must_use]
pub fn soft_reset(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::SoftReset, domain)
}

/// Changes the uuid.
#[must_use]
pub fn set_handle(abi: Abi, domain: DomId, handle: Handle) -> Call {
    Call::with(
        abi,
        Command::SetDomainHandle,
        domain,
        &SetDomainHandle { handle: handle.0 },
    )
}

/// Fills a guest frame with hypercall stubs, for kernels that have a note asking for it. A PV guest's frames have no
/// number of their own: for it, `frame` is the machine frame's.
#[must_use]
pub fn hypercall_init(abi: Abi, domain: DomId, frame: Gfn) -> Call {
    Call::with(
        abi,
        Command::HypercallInit,
        domain,
        &HypercallInit { gmfn: frame.0 },
    )
}

/// Moves the guest's wall clock.
#[must_use]
pub fn set_time_offset(abi: Abi, domain: DomId, seconds: i64) -> Call {
    let raw = SetTimeOffset {
        time_offset_seconds: seconds,
    };
    Call::with(abi, Command::SetTimeOffset, domain, &raw)
}

/// Presses a button or raises an interrupt.
#[must_use]
pub fn send_trigger(abi: Abi, domain: DomId, trigger: Trigger, vcpu: VcpuId) -> Call {
    let trigger = match trigger {
        Trigger::Nmi => TRIGGER_NMI,
        Trigger::Reset => TRIGGER_RESET,
        Trigger::Init => TRIGGER_INIT,
        Trigger::Power => TRIGGER_POWER,
        Trigger::Sleep => TRIGGER_SLEEP,
    };
    Call::with(
        abi,
        Command::SendTrigger,
        domain,
        &SendTrigger {
            trigger,
            vcpu: vcpu.0,
        },
    )
}

/// Asks that one of the guest's ports be signalled when it suspends, *instead of* the global interrupt; the last
/// subscriber wins. `None` unsubscribes.
#[must_use]
pub fn subscribe_suspend(abi: Abi, domain: DomId, port: Option<Port>) -> Call {
    let port = port.map_or(0, |port| port.0);
    Call::with(abi, Command::Subscribe, domain, &Subscribe { port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_land_where_xen_reads_them() {
        let abi = Abi::V4_20;
        let dom = DomId(7);
        assert_eq!(
            send_trigger(abi, dom, Trigger::Sleep, VcpuId(2)).payload[..8],
            [4, 0, 0, 0, 2, 0, 0, 0]
        );
        assert_eq!(set_time_offset(abi, dom, -1).payload[..8], [0xff; 8]);
        assert_eq!(set_handle(abi, dom, Handle([9; 16])).payload[..17], {
            let mut expected = [9; 17];
            expected[16] = 0;
            expected
        });
        assert_eq!(subscribe_suspend(abi, dom, None).payload[0], 0);
        assert_eq!(resume(abi, dom).cmd, 27);
        assert_eq!(soft_reset(abi, dom).cmd, 79);
    }
}
