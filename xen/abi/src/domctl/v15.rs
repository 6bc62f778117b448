//! `createdomain` of domctl interfaces 0x15 and 0x16: Xen 4.17 and 4.18.

use crate::layout;

layout! {
    /// `XEN_DOMCTL_createdomain`, 64 bytes.
    pub struct CreateDomainV15: "struct xen_domctl_createdomain", 64 {
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
        /// Trace buffer per vcpu, bytes.
        pub vmtrace_size: u32 = 48 => "vmtrace_size",
        /// Cpupool.
        pub cpupool_id: u32 = 52 => "cpupool_id",
        /// `EMU_*`.
        pub emulation_flags: u32 = 56 => "arch.emulation_flags",
        /// Architecture flags.
        pub misc_flags: u32 = 60 => "arch.misc_flags",
    }
}
