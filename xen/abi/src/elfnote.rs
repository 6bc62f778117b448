//! ELF notes by which a kernel tells the builder how to start it. Source: `xen/elfnote.h`, `xen/features.h`.
//!
//! Only the numbers; reading an image is the builder's.

/// Name field of the notes.
pub const OWNER: &str = "Xen";

crate::constants! {
    /// Free text.
    pub const INFO: u32 = 0 => "XEN_ELFNOTE_INFO";
    /// Entry point, virtual.
    pub const ENTRY: u32 = 1 => "XEN_ELFNOTE_ENTRY";
    /// Page to fill with hypercall stubs, virtual. New kernels have none.
    pub const HYPERCALL_PAGE: u32 = 2 => "XEN_ELFNOTE_HYPERCALL_PAGE";
    /// Virtual address of the first page of memory.
    pub const VIRT_BASE: u32 = 3 => "XEN_ELFNOTE_VIRT_BASE";
    /// What to take off the physical addresses of the segments.
    pub const PADDR_OFFSET: u32 = 4 => "XEN_ELFNOTE_PADDR_OFFSET";
    /// Interface the kernel was made for, `xen-3.0`.
    pub const XEN_VERSION: u32 = 5 => "XEN_ELFNOTE_XEN_VERSION";
    /// Operating system.
    pub const GUEST_OS: u32 = 6 => "XEN_ELFNOTE_GUEST_OS";
    /// Its version.
    pub const GUEST_VERSION: u32 = 7 => "XEN_ELFNOTE_GUEST_VERSION";
    /// Kind of loader, `generic`.
    pub const LOADER: u32 = 8 => "XEN_ELFNOTE_LOADER";
    /// PAE, for 32-bit kernels.
    pub const PAE_MODE: u32 = 9 => "XEN_ELFNOTE_PAE_MODE";
    /// Features as words; `!` marks one that is required.
    pub const FEATURES: u32 = 10 => "XEN_ELFNOTE_FEATURES";
    /// The kernel wants its symbols.
    pub const BSD_SYMTAB: u32 = 11 => "XEN_ELFNOTE_BSD_SYMTAB";
    /// Lowest address the hypervisor may use, for 32-bit kernels.
    pub const HV_START_LOW: u32 = 12 => "XEN_ELFNOTE_HV_START_LOW";
    /// Mask and value of page table entries that are not present.
    pub const L1_MFN_VALID: u32 = 13 => "XEN_ELFNOTE_L1_MFN_VALID";
    /// The kernel can go on after a suspend that was called off.
    pub const SUSPEND_CANCEL: u32 = 14 => "XEN_ELFNOTE_SUSPEND_CANCEL";
    /// Where to map the list of machine frames.
    pub const INIT_P2M: u32 = 15 => "XEN_ELFNOTE_INIT_P2M";
    /// The initial ram disk need not be mapped.
    pub const MOD_START_PFN: u32 = 16 => "XEN_ELFNOTE_MOD_START_PFN";
    /// Features as bits.
    pub const SUPPORTED_FEATURES: u32 = 17 => "XEN_ELFNOTE_SUPPORTED_FEATURES";
    /// PVH entry point, physical.
    pub const PHYS32_ENTRY: u32 = 18 => "XEN_ELFNOTE_PHYS32_ENTRY";
    /// The PVH kernel can be moved: alignment, lowest and highest address. In the headers from 4.19 on.
    pub const PHYS32_RELOC: u32 = 19 => "XEN_ELFNOTE_PHYS32_RELOC";
}

/// Features a kernel and the hypervisor may have (`XENFEAT_*`), as bit numbers.
pub mod features {
    crate::constants! {
        /// Page tables may be mapped writable.
        pub const WRITABLE_PAGE_TABLES: u32 = 0 => "XENFEAT_writable_page_tables";
        /// So may descriptor tables.
        pub const WRITABLE_DESCRIPTOR_TABLES: u32 = 1 => "XENFEAT_writable_descriptor_tables";
        /// Frames are translated by the hypervisor.
        pub const AUTO_TRANSLATED_PHYSMAP: u32 = 2 => "XENFEAT_auto_translated_physmap";
        /// The kernel runs in ring 0.
        pub const SUPERVISOR_MODE_KERNEL: u32 = 3 => "XENFEAT_supervisor_mode_kernel";
        /// Top-level tables above 4 GiB, for 32-bit kernels.
        pub const PAE_PGDIR_ABOVE_4GB: u32 = 4 => "XENFEAT_pae_pgdir_above_4gb";
        /// Updates keep accessed and dirty bits.
        pub const MMU_PT_UPDATE_PRESERVE_AD: u32 = 5 => "XENFEAT_mmu_pt_update_preserve_ad";
        /// Hypercalls that help with high memory.
        pub const HIGHMEM_ASSIST: u32 = 6 => "XENFEAT_highmem_assist";
        /// Grant mappings keep the free bits.
        pub const GNTTAB_MAP_AVAIL_BITS: u32 = 7 => "XENFEAT_gnttab_map_avail_bits";
        /// Events by vector in an HVM guest.
        pub const HVM_CALLBACK_VECTOR: u32 = 8 => "XENFEAT_hvm_callback_vector";
        /// The shared clock is safe.
        pub const HVM_SAFE_PVCLOCK: u32 = 9 => "XENFEAT_hvm_safe_pvclock";
        /// Physical interrupts as events in an HVM guest.
        pub const HVM_PIRQS: u32 = 10 => "XENFEAT_hvm_pirqs";
        /// Can be the control domain.
        pub const DOM0: u32 = 11 => "XENFEAT_dom0";
        /// The ACPI root pointer of a PVH Linux may be anywhere.
        pub const LINUX_RSDP_UNRESTRICTED: u32 = 15 => "XENFEAT_linux_rsdp_unrestricted";
    }

    /// Word used for a bit in [`super::FEATURES`], in the order of the bits.
    pub const NAMES: [&str; 12] = [
        "writable_page_tables",
        "writable_descriptor_tables",
        "auto_translated_physmap",
        "supervisor_mode_kernel",
        "pae_pgdir_above_4gb",
        "mmu_pt_update_preserve_ad",
        "highmem_assist",
        "gnttab_map_avail_bits",
        "hvm_callback_vector",
        "hvm_safe_pvclock",
        "hvm_pirqs",
        "dom0",
    ];
}
