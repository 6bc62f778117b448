//! Register state of vcpus, as builders and savers of PV domains need it.
//!
//! The state itself is in a buffer of the caller; see [`crate::pv::vcpu_context`] for the registers. A null buffer asks
//! how large it must be where a size is part of the call.

use super::{Call, Command};
use crate::ids::{DomId, VcpuId};
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;
use zerocopy::FromZeros;

layout! {
    /// `XEN_DOMCTL_getvcpucontext` and `setvcpucontext`.
    pub struct VcpuContext: "struct xen_domctl_vcpucontext", 16 {
        /// Which.
        pub vcpu: u32 = 0 => "vcpu",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// A `vcpu_guest_context`.
        pub ctxt: UserPtr = 8 => "ctxt",
    }
}

layout! {
    /// `XEN_DOMCTL_get_ext_vcpucontext` and `set_ext_vcpucontext`: callbacks and machine check state.
    pub struct ExtVcpuContext: "struct xen_domctl_ext_vcpucontext", 64 {
        /// Which.
        pub vcpu: u32 = 0 => "vcpu",
        /// Bytes of this structure: given when setting, answered when getting.
        pub size: u32 = 4 => "size",
        /// SYSCALL from 32-bit mode.
        pub syscall32_callback_eip: u64 = 8 => "syscall32_callback_eip",
        /// SYSENTER.
        pub sysenter_callback_eip: u64 = 16 => "sysenter_callback_eip",
        /// Its code segment.
        pub syscall32_callback_cs: u16 = 24 => "syscall32_callback_cs",
        /// Its code segment.
        pub sysenter_callback_cs: u16 = 26 => "sysenter_callback_cs",
        /// Events off on entry.
        pub syscall32_disables_events: u8 = 28 => "syscall32_disables_events",
        /// Events off on entry.
        pub sysenter_disables_events: u8 = 29 => "sysenter_disables_events",
        /// Padding, zero.
        pub pad: u16 = 30,
        /// Machine check capabilities and controls.
        pub vmce: [u64; 4] = 32 => "vmce",
    }
}

layout! {
    /// `XEN_DOMCTL_getvcpuextstate` and `setvcpuextstate`: XSAVE area.
    pub struct VcpuExtState: "struct xen_domctl_vcpuextstate", 32 {
        /// Which.
        pub vcpu: u32 = 0 => "vcpu",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// Features in the area.
        pub xfeature_mask: u64 = 8 => "xfeature_mask",
        /// Bytes.
        pub size: u64 = 16 => "size",
        /// The area.
        pub buffer: UserPtr = 24 => "buffer",
    }
}

layout! {
    /// `XEN_DOMCTL_get_vcpu_msrs` and `set_vcpu_msrs`.
    pub struct VcpuMsrs: "struct xen_domctl_vcpu_msrs", 16 {
        /// Which.
        pub vcpu: u32 = 0 => "vcpu",
        /// Entries; on a refusal the index of the culprit.
        pub msr_count: u32 = 4 => "msr_count",
        /// Array of [`VcpuMsr`].
        pub msrs: UserPtr = 8 => "msrs",
    }
}

layout! {
    /// One model specific register of a vcpu.
    pub struct VcpuMsr: "struct xen_domctl_vcpu_msr", 16 {
        /// Which.
        pub index: u32 = 0 => "index",
        /// Zero.
        pub reserved: u32 = 4 => "reserved",
        /// What it holds.
        pub value: u64 = 8 => "value",
    }
}

fn context(abi: Abi, command: Command, domain: DomId, vcpu: VcpuId, ctxt: UserPtr) -> Call {
    Call::with(
        abi,
        command,
        domain,
        &VcpuContext {
            vcpu: vcpu.0,
            pad: 0,
            ctxt,
        },
    )
}

/// Sets all registers from a buffer of [`crate::pv::vcpu_context::BYTES`]; a null buffer resets the vcpu.
#[must_use]
pub fn set_vcpu_context(abi: Abi, domain: DomId, vcpu: VcpuId, buffer: UserPtr) -> Call {
    context(abi, Command::SetVcpuContext, domain, vcpu, buffer)
}

/// Reads all registers into a buffer of [`crate::pv::vcpu_context::BYTES`].
#[must_use]
pub fn get_vcpu_context(abi: Abi, domain: DomId, vcpu: VcpuId, buffer: UserPtr) -> Call {
    context(abi, Command::GetVcpuContext, domain, vcpu, buffer)
}

/// Reads callbacks and machine check state; the answer is the payload.
#[must_use]
pub fn get_ext_vcpu_context(abi: Abi, domain: DomId, vcpu: VcpuId) -> Call {
    let mut raw = ExtVcpuContext::new_zeroed();
    raw.vcpu = vcpu.0;
    Call::with(abi, Command::GetExtVcpuContext, domain, &raw)
}

/// Sets what [`get_ext_vcpu_context`] answered; up to 128 bytes, as Xen gave them.
#[must_use]
pub fn set_ext_vcpu_context(abi: Abi, domain: DomId, state: &[u8]) -> Option<Call> {
    let mut call = Call::bare(abi, Command::SetExtVcpuContext, domain);
    call.payload.get_mut(..state.len())?.copy_from_slice(state);
    Some(call)
}

/// Reads the XSAVE area into a buffer for which features and size are those that Xen answered when both were zero and the buffer null.
#[must_use]
pub fn get_vcpu_ext_state(
    abi: Abi,
    domain: DomId,
    vcpu: VcpuId,
    features: u64,
    buffer: UserPtr,
    size: u64,
) -> Call {
    let raw = VcpuExtState {
        vcpu: vcpu.0,
        pad: 0,
        xfeature_mask: features,
        size,
        buffer,
    };
    Call::with(abi, Command::GetVcpuExtState, domain, &raw)
}

/// Sets the XSAVE area.
#[must_use]
pub fn set_vcpu_ext_state(
    abi: Abi,
    domain: DomId,
    vcpu: VcpuId,
    buffer: UserPtr,
    size: u64,
) -> Call {
    let raw = VcpuExtState {
        vcpu: vcpu.0,
        pad: 0,
        xfeature_mask: 0,
        size,
        buffer,
    };
    Call::with(abi, Command::SetVcpuExtState, domain, &raw)
}

/// Reads model specific registers, or with a null buffer how many there may be ([`VcpuMsrs::msr_count`]).
#[must_use]
pub fn get_vcpu_msrs(abi: Abi, domain: DomId, vcpu: VcpuId, msrs: UserPtr, count: u32) -> Call {
    let raw = VcpuMsrs {
        vcpu: vcpu.0,
        msr_count: count,
        msrs,
    };
    Call::with(abi, Command::GetVcpuMsrs, domain, &raw)
}

/// Sets model specific registers.
#[must_use]
pub fn set_vcpu_msrs(abi: Abi, domain: DomId, vcpu: VcpuId, msrs: UserPtr, count: u32) -> Call {
    let raw = VcpuMsrs {
        vcpu: vcpu.0,
        msr_count: count,
        msrs,
    };
    Call::with(abi, Command::SetVcpuMsrs, domain, &raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_state_goes_back_as_it_came_and_never_overflows() {
        let mut call = get_ext_vcpu_context(Abi::V4_20, DomId(1), VcpuId(1));
        assert_eq!(call.payload[0], 1);
        call.payload[4] = 128;
        call.payload[127] = 9;
        let back = set_ext_vcpu_context(Abi::V4_20, DomId(1), &call.payload).unwrap();
        assert_eq!((back.cmd, back.payload), (42, call.payload));
        assert_eq!(set_ext_vcpu_context(Abi::V4_20, DomId(1), &[0; 129]), None);
    }
}
