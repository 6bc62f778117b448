//! `domctl`: what the control domain does to one domain. Source: `xen/domctl.h`.
//!
//! ```text
//!   Call (144 bytes)   command 0 | interface version 4 | domain 8 | pad 10 | payload 16..144
//! ```
//!
//! One function per verb makes a [`Call`]; the caller copies its bytes into a hypercall buffer, makes hypercall
//! [`crate::hypercall::DOMCTL`] with that address, copies the bytes back and asks the matching function for the answer.
//! Only `createdomain` differs in layout between the supported releases: see [`v15`], [`v17`] and [`v17_421`].

mod cpu;
mod create;
mod hvm_context;
mod info;
mod lifecycle;
mod memory;
mod sched;
mod shadow;
pub mod v15;
pub mod v17;
pub mod v17_421;
mod vcpu;
mod vcpu_state;

pub use cpu::*;
pub use create::*;
pub use hvm_context::*;
pub use info::*;
pub use lifecycle::*;
pub use memory::*;
pub use sched::*;
pub use shadow::*;
pub use vcpu::*;
pub use vcpu_state::*;

use crate::ids::DomId;
use crate::layout;
use crate::version::Abi;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Constants of the whole module under their C names, for the header check.
pub const C_TABLES: &[&[(&str, u64)]] = &[
    C_COMMANDS,
    CREATE_CONSTANTS,
    LIFECYCLE_CONSTANTS,
    INFO_CONSTANTS,
    VCPU_CONSTANTS,
    SCHED_CONSTANTS,
    MEMORY_CONSTANTS,
    SHADOW_CONSTANTS,
    CPU_CONSTANTS,
];

/// Bytes of the argument of every domctl.
pub const CALL_BYTES: usize = 144;
/// Bytes of the union inside.
pub const PAYLOAD_BYTES: usize = 128;

layout! {
    /// The argument of every domctl, ready for a hypercall buffer.
    pub struct Call: "struct xen_domctl", 144 {
        /// [`Command`] as a number.
        pub cmd: u32 = 0 => "cmd",
        /// [`Abi::domctl_version`], or 0 for the calls that are stable since 4.21.
        pub interface_version: u32 = 4 => "interface_version",
        /// The domain meant; in some calls also an answer.
        pub domain: u16 = 8 => "domain",
        /// Padding, zero.
        pub pad: [u16; 3] = 10 => "_pad",
        /// What the command needs, and what it answers.
        pub payload: [u8; 128] = 16 => "u",
    }
}

impl Call {
    /// A call without a payload.
    #[must_use]
    pub fn bare(abi: Abi, command: Command, domain: DomId) -> Self {
        let mut call = Self::new_zeroed();
        call.cmd = command as u32;
        call.interface_version = abi.domctl_version();
        call.domain = domain.0;
        call
    }

    /// A call with a payload, which is part of the proof that it fits.
    #[must_use]
    pub fn with<P: IntoBytes + Immutable>(
        abi: Abi,
        command: Command,
        domain: DomId,
        payload: &P,
    ) -> Self {
        const { assert!(size_of::<P>() <= PAYLOAD_BYTES) };
        let mut call = Self::bare(abi, command, domain);
        call.payload[..size_of::<P>()].copy_from_slice(payload.as_bytes());
        call
    }

    /// The payload as it is now: the answer, once the hypercall has been made.
    #[must_use]
    pub fn payload<P: FromBytes>(&self) -> P {
        const { assert!(size_of::<P>() <= PAYLOAD_BYTES) };
        layout::copy_out(&self.payload).unwrap_or_else(P::new_zeroed)
    }

    /// From the bytes of a hypercall buffer.
    #[must_use]
    pub fn from_bytes(bytes: [u8; CALL_BYTES]) -> Self {
        zerocopy::transmute!(bytes)
    }

    /// The bytes for a hypercall buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; CALL_BYTES] {
        zerocopy::transmute!(self)
    }
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $c:literal,)*) => {
        /// The commands used here. Source: `XEN_DOMCTL_*`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Command {
            $($(#[$doc])* $name = $value,)*
        }
        /// The commands under their C names, for the header check.
        pub const C_COMMANDS: &[(&str, u64)] = &[$(($c, $value),)*];
    };
}

commands! {
    /// [`create`].
    CreateDomain = 1 => "XEN_DOMCTL_createdomain",
    /// [`destroy`].
    DestroyDomain = 2 => "XEN_DOMCTL_destroydomain",
    /// [`pause`].
    PauseDomain = 3 => "XEN_DOMCTL_pausedomain",
    /// [`unpause`].
    UnpauseDomain = 4 => "XEN_DOMCTL_unpausedomain",
    /// [`domain_info`].
    GetDomainInfo = 5 => "XEN_DOMCTL_getdomaininfo",
    /// [`set_vcpu_affinity`].
    SetVcpuAffinity = 9 => "XEN_DOMCTL_setvcpuaffinity",
    /// [`log_dirty`].
    ShadowOp = 10 => "XEN_DOMCTL_shadow_op",
    /// [`set_max_mem`].
    MaxMem = 11 => "XEN_DOMCTL_max_mem",
    /// [`set_vcpu_context`].
    SetVcpuContext = 12 => "XEN_DOMCTL_setvcpucontext",
    /// [`get_vcpu_context`].
    GetVcpuContext = 13 => "XEN_DOMCTL_getvcpucontext",
    /// [`vcpu_info`].
    GetVcpuInfo = 14 => "XEN_DOMCTL_getvcpuinfo",
    /// [`set_max_vcpus`].
    MaxVcpus = 15 => "XEN_DOMCTL_max_vcpus",
    /// [`get_scheduling`], [`set_scheduling`].
    SchedulerOp = 16 => "XEN_DOMCTL_scheduler_op",
    /// [`set_handle`].
    SetDomainHandle = 17 => "XEN_DOMCTL_setdomainhandle",
    /// [`hypercall_init`].
    HypercallInit = 22 => "XEN_DOMCTL_hypercall_init",
    /// [`set_time_offset`].
    SetTimeOffset = 24 => "XEN_DOMCTL_settimeoffset",
    /// [`get_vcpu_affinity`].
    GetVcpuAffinity = 25 => "XEN_DOMCTL_getvcpuaffinity",
    /// [`resume`].
    ResumeDomain = 27 => "XEN_DOMCTL_resumedomain",
    /// [`send_trigger`].
    SendTrigger = 28 => "XEN_DOMCTL_sendtrigger",
    /// [`subscribe_suspend`].
    Subscribe = 29 => "XEN_DOMCTL_subscribe",
    /// [`get_hvm_context`].
    GetHvmContext = 33 => "XEN_DOMCTL_gethvmcontext",
    /// [`set_hvm_context`].
    SetHvmContext = 34 => "XEN_DOMCTL_sethvmcontext",
    /// [`set_address_size`].
    SetAddressSize = 35 => "XEN_DOMCTL_set_address_size",
    /// [`get_address_size`].
    GetAddressSize = 36 => "XEN_DOMCTL_get_address_size",
    /// [`set_ext_vcpu_context`].
    SetExtVcpuContext = 42 => "XEN_DOMCTL_set_ext_vcpucontext",
    /// [`get_ext_vcpu_context`].
    GetExtVcpuContext = 43 => "XEN_DOMCTL_get_ext_vcpucontext",
    /// [`get_hvm_context_partial`].
    GetHvmContextPartial = 55 => "XEN_DOMCTL_gethvmcontext_partial",
    /// [`get_tsc_info`].
    GetTscInfo = 59 => "XEN_DOMCTL_gettscinfo",
    /// [`set_tsc_info`].
    SetTscInfo = 60 => "XEN_DOMCTL_settscinfo",
    /// [`get_page_frame_info`].
    GetPageFrameInfo3 = 61 => "XEN_DOMCTL_getpageframeinfo3",
    /// [`set_vcpu_ext_state`].
    SetVcpuExtState = 62 => "XEN_DOMCTL_setvcpuextstate",
    /// [`get_vcpu_ext_state`].
    GetVcpuExtState = 63 => "XEN_DOMCTL_getvcpuextstate",
    /// [`get_vcpu_msrs`].
    GetVcpuMsrs = 72 => "XEN_DOMCTL_get_vcpu_msrs",
    /// [`set_vcpu_msrs`].
    SetVcpuMsrs = 73 => "XEN_DOMCTL_set_vcpu_msrs",
    /// [`soft_reset`].
    SoftReset = 79 => "XEN_DOMCTL_soft_reset",
    /// [`get_cpu_policy`].
    GetCpuPolicy = 82 => "XEN_DOMCTL_get_cpu_policy",
    /// [`set_cpu_policy`].
    SetCpuPolicy = 83 => "XEN_DOMCTL_set_cpu_policy",
    /// [`get_paging_pool`].
    GetPagingMempoolSize = 85 => "XEN_DOMCTL_get_paging_mempool_size",
    /// [`set_paging_pool`].
    SetPagingMempoolSize = 86 => "XEN_DOMCTL_set_paging_mempool_size",
    /// [`domain_state`], from 4.21 on.
    GetDomainState = 90 => "XEN_DOMCTL_get_domain_state",
}

/// A bitmap in the caller's memory (`xenctl_bitmap`), one byte per eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitmap {
    /// Where, in a hypercall buffer.
    pub address: layout::UserPtr,
    /// Bits Xen may read or write.
    pub bits: u32,
}

layout! {
    /// [`Bitmap`] as bytes.
    pub struct BitmapLayout: "struct xenctl_bitmap", 16 {
        /// Where.
        pub bitmap: layout::UserPtr = 0 => "bitmap",
        /// Bits.
        pub nr_bits: u32 = 8 => "nr_bits",
        /// Padding, zero.
        pub pad: u32 = 12,
    }
}

impl From<Bitmap> for BitmapLayout {
    fn from(map: Bitmap) -> Self {
        Self {
            bitmap: map.address,
            nr_bits: map.bits,
            pad: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_carries_the_number_of_its_release() {
        for (abi, version) in [(Abi::V4_17, 0x15), (Abi::V4_20, 0x17), (Abi::V4_22, 0x18)] {
            let bytes = Call::bare(abi, Command::PauseDomain, DomId(0x1234)).to_bytes();
            assert_eq!(
                bytes[..12],
                [3, 0, 0, 0, version, 0, 0, 0, 0x34, 0x12, 0, 0]
            );
            assert!(bytes[12..].iter().all(|byte| *byte == 0));
            assert_eq!(Call::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}
