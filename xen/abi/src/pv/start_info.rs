//! What a PV kernel finds behind `rsi` when it starts or wakes. Source: `xen/xen.h`, `struct start_info`.

use crate::layout;

/// [`StartInfo::magic`] of 64-bit x86, padded with NUL.
pub const MAGIC: &[u8] = b"xen-3.0-x86_64";

crate::constants! {
    /// [`StartInfo::flags`]: privileged.
    pub const SIF_PRIVILEGED: u32 = 1 << 0 => "SIF_PRIVILEGED";
    /// [`StartInfo::flags`]: the first domain.
    pub const SIF_INITDOMAIN: u32 = 1 << 1 => "SIF_INITDOMAIN";
    /// [`StartInfo::flags`]: `mod_start` is a pfn.
    pub const SIF_MOD_START_PFN: u32 = 1 << 3 => "SIF_MOD_START_PFN";
    /// [`StartInfo::flags`]: the tools understand a linear list of machine frames.
    pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4 => "SIF_VIRT_P2M_4TOOLS";
    /// Bytes for the command line, its NUL included.
    pub const MAX_GUEST_CMDLINE: usize = 1024 => "MAX_GUEST_CMDLINE";
}

layout! {
    /// The start information, at the start of a page. What lies before `pt_base` is also written on resume.
    pub struct StartInfo: "struct start_info", 1168 {
        /// [`MAGIC`].
        pub magic: [u8; 32] = 0 => "magic",
        /// Pages the domain has.
        pub nr_pages: u64 = 32 => "nr_pages",
        /// Machine address of the shared info page.
        pub shared_info: u64 = 40 => "shared_info",
        /// `SIF_*`.
        pub flags: u32 = 48 => "flags",
        /// Padding, zero.
        pub pad: u32 = 52,
        /// Machine frame of the xenstore page.
        pub store_mfn: u64 = 56 => "store_mfn",
        /// Xenstore port.
        pub store_evtchn: u32 = 64 => "store_evtchn",
        /// Padding, zero.
        pub pad2: u32 = 68,
        /// Machine frame of the console page.
        pub console_mfn: u64 = 72 => "console.domU.mfn",
        /// Console port.
        pub console_evtchn: u32 = 80 => "console.domU.evtchn",
        /// Padding, zero.
        pub pad3: u32 = 84,
        /// Virtual address of the top page table.
        pub pt_base: u64 = 88 => "pt_base",
        /// Frames of page tables.
        pub nr_pt_frames: u64 = 96 => "nr_pt_frames",
        /// Virtual address of the list of machine frames.
        pub mfn_list: u64 = 104 => "mfn_list",
        /// Initial ram disk: a virtual address, or a pfn with that flag.
        pub mod_start: u64 = 112 => "mod_start",
        /// Its bytes.
        pub mod_len: u64 = 120 => "mod_len",
        /// Command line, NUL-terminated.
        pub cmd_line: [u8; 1024] = 128 => "cmd_line",
        /// First pfn of the list of machine frames, if it is outside the initial mapping.
        pub first_p2m_pfn: u64 = 1152 => "first_p2m_pfn",
        /// Its frames, with their page tables.
        pub nr_p2m_frames: u64 = 1160 => "nr_p2m_frames",
    }
}
