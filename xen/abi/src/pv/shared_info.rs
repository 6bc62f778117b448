//! The page Xen and a domain share. Source: `xen/xen.h`, `xen/arch-x86/xen.h`, `struct shared_info`.
//!
//! A running guest may change it at any time: copy, then look.

use crate::layout;

/// Vcpus with a place in the page (`XEN_LEGACY_MAX_VCPUS`).
pub const LEGACY_MAX_VCPUS: usize = 32;
/// Offset of the first vcpu's "events masked" byte; a new PV domain starts with 1 in each.
pub const UPCALL_MASK_OFFSET: usize = 1;

layout! {
    /// One vcpu's part.
    pub struct VcpuInfoLayout: "struct vcpu_info", 64 {
        /// Events wait.
        pub evtchn_upcall_pending: u8 = 0 => "evtchn_upcall_pending",
        /// Events are masked.
        pub evtchn_upcall_mask: u8 = 1 => "evtchn_upcall_mask",
        /// Padding.
        pub pad: [u8; 6] = 2,
        /// Words of pending events.
        pub evtchn_pending_sel: u64 = 8 => "evtchn_pending_sel",
        /// Fault address and padding.
        pub arch: [u64; 2] = 16 => "arch",
        /// Clock.
        pub time: [u64; 4] = 32 => "time",
    }
}

layout! {
    /// The architecture's part: where the list of machine frames is.
    pub struct ArchSharedInfo: "struct arch_shared_info", 48 {
        /// Entries in the list.
        pub max_pfn: u64 = 0 => "max_pfn",
        /// Root of the old three-level list.
        pub pfn_to_mfn_frame_list_list: u64 = 8 => "pfn_to_mfn_frame_list_list",
        /// Why an NMI came.
        pub nmi_reason: u64 = 16 => "nmi_reason",
        /// Page tables in which the linear list is mapped, or 0.
        pub p2m_cr3: u64 = 24 => "p2m_cr3",
        /// Where in them.
        pub p2m_vaddr: u64 = 32 => "p2m_vaddr",
        /// Odd while the guest changes the mapping of the list.
        pub p2m_generation: u64 = 40 => "p2m_generation",
    }
}

layout! {
    /// The page.
    pub struct SharedInfo: "struct shared_info", 3136 {
        /// Per vcpu.
        pub vcpu_info: [VcpuInfoLayout; 32] = 0 => "vcpu_info",
        /// Events that wait.
        pub evtchn_pending: [u64; 64] = 2048 => "evtchn_pending",
        /// Events that are masked.
        pub evtchn_mask: [u64; 64] = 2560 => "evtchn_mask",
        /// Odd while the clock is being written.
        pub wc_version: u32 = 3072 => "wc_version",
        /// Seconds.
        pub wc_sec: u32 = 3076 => "wc_sec",
        /// Nanoseconds.
        pub wc_nsec: u32 = 3080 => "wc_nsec",
        /// Seconds, high half.
        pub wc_sec_hi: u32 = 3084 => "wc_sec_hi",
        /// The architecture's part.
        pub arch: ArchSharedInfo = 3088 => "arch",
    }
}
