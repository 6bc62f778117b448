//! What the processors can do, and what guests may be shown of it.

use super::{Call, Command};
use crate::domctl::PolicyBuffers;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;

crate::constants! {
    table FEATURES_CONSTANTS;
    /// Features the hardware says it has.
    pub const FEATURESET_RAW: u32 = 0 => "XEN_SYSCTL_cpu_featureset_raw";
    /// Features Xen uses.
    pub const FEATURESET_HOST: u32 = 1 => "XEN_SYSCTL_cpu_featureset_host";
    /// Features a PV guest gets.
    pub const FEATURESET_PV: u32 = 2 => "XEN_SYSCTL_cpu_featureset_pv";
    /// Features an HVM guest gets.
    pub const FEATURESET_HVM: u32 = 3 => "XEN_SYSCTL_cpu_featureset_hvm";
    /// Features a PV guest may have.
    pub const FEATURESET_PV_MAX: u32 = 4 => "XEN_SYSCTL_cpu_featureset_pv_max";
    /// Features an HVM guest may have.
    pub const FEATURESET_HVM_MAX: u32 = 5 => "XEN_SYSCTL_cpu_featureset_hvm_max";
    /// Policy of the hardware.
    pub const POLICY_RAW: u32 = 0 => "XEN_SYSCTL_cpu_policy_raw";
    /// Policy Xen uses.
    pub const POLICY_HOST: u32 = 1 => "XEN_SYSCTL_cpu_policy_host";
    /// Most a PV guest may have.
    pub const POLICY_PV_MAX: u32 = 2 => "XEN_SYSCTL_cpu_policy_pv_max";
    /// Most an HVM guest may have.
    pub const POLICY_HVM_MAX: u32 = 3 => "XEN_SYSCTL_cpu_policy_hvm_max";
    /// What a PV guest gets.
    pub const POLICY_PV_DEFAULT: u32 = 4 => "XEN_SYSCTL_cpu_policy_pv_default";
    /// What an HVM guest gets.
    pub const POLICY_HVM_DEFAULT: u32 = 5 => "XEN_SYSCTL_cpu_policy_hvm_default";
}

layout! {
    /// `XEN_SYSCTL_get_cpu_featureset`.
    pub struct GetCpuFeatureset: "struct xen_sysctl_cpu_featureset", 16 {
        /// `FEATURESET_*`.
        pub index: u32 = 0 => "index",
        /// In: words that fit; out: words written, or with a null pointer needed.
        pub nr_features: u32 = 4 => "nr_features",
        /// Array of u32.
        pub features: UserPtr = 8 => "features",
    }
}

layout! {
    /// `XEN_SYSCTL_get_cpu_policy`.
    pub struct GetCpuPolicy: "struct xen_sysctl_cpu_policy", 32 {
        /// `POLICY_*`.
        pub index: u32 = 0 => "index",
        /// In: leaves that fit; out: leaves written or needed.
        pub nr_leaves: u32 = 4 => "nr_leaves",
        /// The same for registers.
        pub nr_msrs: u32 = 8 => "nr_msrs",
        /// Padding, zero.
        pub rsvd: u32 = 12 => "_rsvd",
        /// Array of [`crate::cpuid::Leaf`].
        pub leaves: UserPtr = 16 => "leaves",
        /// Array of [`crate::cpuid::Msr`].
        pub msrs: UserPtr = 24 => "msrs",
    }
}

/// Reads a featureset; the answer is a [`GetCpuFeatureset`] payload.
#[must_use]
pub fn cpu_featureset(abi: Abi, index: u32, buffer: UserPtr, words: u32) -> Call {
    let raw = GetCpuFeatureset {
        index,
        nr_features: words,
        features: buffer,
    };
    Call::with(abi, Command::GetCpuFeatureset, &raw)
}

/// Reads a policy; the answer is a [`GetCpuPolicy`] payload.
#[must_use]
pub fn cpu_policy(abi: Abi, index: u32, buffers: PolicyBuffers) -> Call {
    let PolicyBuffers {
        leaves,
        nr_leaves,
        msrs,
        nr_msrs,
    } = buffers;
    let raw = GetCpuPolicy {
        index,
        nr_leaves,
        nr_msrs,
        rsvd: 0,
        leaves,
        msrs,
    };
    Call::with(abi, Command::GetCpuPolicy, &raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_buffers_ask_for_sizes() {
        let buffers = PolicyBuffers {
            leaves: UserPtr::NULL,
            nr_leaves: 0,
            msrs: UserPtr::NULL,
            nr_msrs: 0,
        };
        let call = cpu_policy(Abi::V4_20, POLICY_HVM_DEFAULT, buffers);
        assert_eq!((call.cmd, call.payload[0]), (29, 5));
        assert!(call.payload[1..].iter().all(|byte| *byte == 0));
        let call = cpu_featureset(Abi::V4_20, FEATURESET_PV, UserPtr(0x80), 9);
        assert_eq!(
            (call.cmd, call.payload[0], call.payload[4], call.payload[8]),
            (26, 2, 9, 0x80)
        );
    }
}
