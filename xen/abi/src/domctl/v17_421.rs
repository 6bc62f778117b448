//! `createdomain` of Xen 4.21 (interface 0x17) and 4.22 (0x18): the altp2m word is split in two.
//!
//! No supported Debian release carries these headers; the offsets were measured on upstream's and are pinned here.

use crate::layout;

layout! {
    /// `XEN_DOMCTL_createdomain`, 68 bytes.
    pub struct CreateDomainV17x421: "struct xen_domctl_createdomain", 68 {
        /// XSM label.
        pub ssidref: u32 = 0 => "ssidref",
        /// Uuid.
        pub handle: [u8; 16] = 4 => "handle",
        /// `CDF_*`.
        pub flags: u32 = 20 => "flags",
        /// IOMMU options, only with that flag.
        pub iommu_opts: u32 = 24 => "iommu_opts",
        /// Most vcpus.
        pub max_vcpus: u32 = 28 => "max_vcpus",
        /// Highest port.
        pub max_evtchn_port: u32 = 32 => "max_evtchn_port",
        /// Grant frames, negative for the default.
        pub max_grant_frames: i32 = 36 => "max_grant_frames",
        /// Maptrack frames, negative for the default.
        pub max_maptrack_frames: i32 = 40 => "max_maptrack_frames",
        /// Grant table version in the low four bits.
        pub grant_opts: u32 = 44 => "grant_opts",
        /// Alternative p2m mode.
        pub altp2m_opts: u16 = 48 => "altp2m.opts",
        /// Alternative p2m views.
        pub altp2m_nr: u16 = 50 => "altp2m.nr",
        /// Trace buffer per vcpu, bytes.
        pub vmtrace_size: u32 = 52 => "vmtrace_size",
        /// Cpupool.
        pub cpupool_id: u32 = 56 => "cpupool_id",
        /// `EMU_*`.
        pub emulation_flags: u32 = 60 => "arch.emulation_flags",
        /// Architecture flags.
        pub misc_flags: u32 = 64 => "arch.misc_flags",
    }
}
