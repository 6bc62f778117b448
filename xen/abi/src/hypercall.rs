//! Numbers of hypercalls. Source: `xen/xen.h`, `__HYPERVISOR_*`.
//!
//! The sub-operations live with their argument structures ([`crate::domctl::Command`], [`crate::memory`] ...).

crate::constants! {
    /// `platform_op`.
    pub const PLATFORM_OP: u64 = 7 => "__HYPERVISOR_platform_op";
    /// `memory_op`; see [`crate::memory`].
    pub const MEMORY_OP: u64 = 12 => "__HYPERVISOR_memory_op";
    /// `multicall`: several hypercalls in one.
    pub const MULTICALL: u64 = 13 => "__HYPERVISOR_multicall";
    /// `xen_version`; see [`crate::xen_version`].
    pub const XEN_VERSION: u64 = 17 => "__HYPERVISOR_xen_version";
    /// `console_io`.
    pub const CONSOLE_IO: u64 = 18 => "__HYPERVISOR_console_io";
    /// `grant_table_op`; see [`crate::grant_table`].
    pub const GRANT_TABLE_OP: u64 = 20 => "__HYPERVISOR_grant_table_op";
    /// `vcpu_op`.
    pub const VCPU_OP: u64 = 24 => "__HYPERVISOR_vcpu_op";
    /// `mmuext_op`; see [`crate::mmu`].
    pub const MMUEXT_OP: u64 = 26 => "__HYPERVISOR_mmuext_op";
    /// `xsm_op`.
    pub const XSM_OP: u64 = 27 => "__HYPERVISOR_xsm_op";
    /// `sched_op`; see [`crate::sched`].
    pub const SCHED_OP: u64 = 29 => "__HYPERVISOR_sched_op";
    /// `event_channel_op`; see [`crate::event`].
    pub const EVENT_CHANNEL_OP: u64 = 32 => "__HYPERVISOR_event_channel_op";
    /// `physdev_op`.
    pub const PHYSDEV_OP: u64 = 33 => "__HYPERVISOR_physdev_op";
    /// `hvm_op`; see [`crate::hvm`].
    pub const HVM_OP: u64 = 34 => "__HYPERVISOR_hvm_op";
    /// `sysctl`; see [`crate::sysctl`].
    pub const SYSCTL: u64 = 35 => "__HYPERVISOR_sysctl";
    /// `domctl`; see [`crate::domctl`].
    pub const DOMCTL: u64 = 36 => "__HYPERVISOR_domctl";
    /// `kexec_op`.
    pub const KEXEC_OP: u64 = 37 => "__HYPERVISOR_kexec_op";
    /// `dm_op`.
    pub const DM_OP: u64 = 41 => "__HYPERVISOR_dm_op";
    /// `hypfs_op`.
    pub const HYPFS_OP: u64 = 42 => "__HYPERVISOR_hypfs_op";
}
