//! Reading and writing the whole state of a PVH or HVM domain's vcpus and virtual devices.
//!
//! The state is a blob of records, see [`crate::hvm::save`]. Loading takes every vcpu down first.

use super::{Call, Command};
use crate::ids::DomId;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;

layout! {
    /// `XEN_DOMCTL_gethvmcontext` and `sethvmcontext`.
    pub struct HvmContext: "struct xen_domctl_hvmcontext", 16 {
        /// In: bytes of the buffer; out: bytes used.
        pub size: u32 = 0 => "size",
        /// Padding, zero.
        pub pad: u32 = 4,
        /// The blob.
        pub buffer: UserPtr = 8 => "buffer",
    }
}

layout! {
    /// `XEN_DOMCTL_gethvmcontext_partial`.
    pub struct HvmContextPartial: "struct xen_domctl_hvmcontext_partial", 24 {
        /// Record type.
        pub kind: u32 = 0 => "type",
        /// Instance, a vcpu mostly.
        pub instance: u32 = 4 => "instance",
        /// In: bytes of the buffer; out: bytes written.
        pub bufsz: u64 = 8 => "bufsz",
        /// The record's body, without its header.
        pub buffer: UserPtr = 16 => "buffer",
    }
}

/// Reads the state, or with a null buffer its size; see [`hvm_context_size`].
#[must_use]
pub fn get_hvm_context(abi: Abi, domain: DomId, buffer: UserPtr, size: u32) -> Call {
    Call::with(
        abi,
        Command::GetHvmContext,
        domain,
        &HvmContext {
            size,
            pad: 0,
            buffer,
        },
    )
}

/// Loads the state.
#[must_use]
pub fn set_hvm_context(abi: Abi, domain: DomId, buffer: UserPtr, size: u32) -> Call {
    Call::with(
        abi,
        Command::SetHvmContext,
        domain,
        &HvmContext {
            size,
            pad: 0,
            buffer,
        },
    )
}

/// Bytes of state: needed, if the buffer was null; used, otherwise.
#[must_use]
pub fn hvm_context_size(answer: &Call) -> u32 {
    answer.payload::<HvmContext>().size
}

/// Reads one record's body.
#[must_use]
pub fn get_hvm_context_partial(
    abi: Abi,
    domain: DomId,
    (kind, instance): (u16, u16),
    buffer: UserPtr,
    size: u64,
) -> Call {
    let (kind, instance) = (kind.into(), instance.into());
    let raw = HvmContextPartial {
        kind,
        instance,
        bufsz: size,
        buffer,
    };
    Call::with(abi, Command::GetHvmContextPartial, domain, &raw)
}

/// Bytes of the record's body.
#[must_use]
pub fn hvm_context_partial_size(answer: &Call) -> u64 {
    answer.payload::<HvmContextPartial>().bufsz
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_buffer_asks_the_size() {
        let mut call = get_hvm_context(Abi::V4_20, DomId(1), UserPtr::NULL, 0);
        assert!(call.payload.iter().all(|byte| *byte == 0));
        call.payload[1] = 0x10;
        assert_eq!(hvm_context_size(&call), 0x1000);
        let part = get_hvm_context_partial(Abi::V4_20, DomId(1), (14, 2), UserPtr(8), 96);
        assert_eq!(part.payload[..9], [14, 0, 0, 0, 2, 0, 0, 0, 96]);
        assert_eq!((part.payload[16], hvm_context_partial_size(&part)), (8, 96));
    }
}
