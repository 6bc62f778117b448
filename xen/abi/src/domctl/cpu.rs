//! What a domain sees of the processor: time stamp counter mode and CPU policy.

use super::{Call, Command};
use crate::domain::TscMode;
use crate::ids::DomId;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table CPU_CONSTANTS;
    /// [`TscMode::Default`].
    pub const TSC_MODE_DEFAULT: u32 = 0 => "XEN_CPUID_TSC_MODE_DEFAULT";
    /// [`TscMode::AlwaysEmulate`].
    pub const TSC_MODE_ALWAYS_EMULATE: u32 = 1 => "XEN_CPUID_TSC_MODE_ALWAYS_EMULATE";
    /// [`TscMode::Native`].
    pub const TSC_MODE_NEVER_EMULATE: u32 = 2 => "XEN_CPUID_TSC_MODE_NEVER_EMULATE";
    /// [`TscMode::NativeParavirt`].
    pub const TSC_MODE_PVRDTSCP: u32 = 3 => "XEN_CPUID_TSC_MODE_PVRDTSCP";
}

layout! {
    /// `XEN_DOMCTL_gettscinfo` and `settscinfo`.
    pub struct TscInfo: "struct xen_domctl_tsc_info", 24 {
        /// `TSC_MODE_*`.
        pub tsc_mode: u32 = 0 => "tsc_mode",
        /// Guest's rate, kHz; 0 for the host's.
        pub gtsc_khz: u32 = 4 => "gtsc_khz",
        /// Restores so far.
        pub incarnation: u32 = 8 => "incarnation",
        /// Padding, zero.
        pub pad: u32 = 12 => "pad",
        /// Guest time, nanoseconds.
        pub elapsed_nsec: u64 = 16 => "elapsed_nsec",
    }
}

layout! {
    /// `XEN_DOMCTL_get_cpu_policy` and `set_cpu_policy`.
    pub struct CpuPolicy: "struct xen_domctl_cpu_policy", 40 {
        /// In: entries; out: entries written, or needed if the pointer is null.
        pub nr_leaves: u32 = 0 => "nr_leaves",
        /// The same for registers.
        pub nr_msrs: u32 = 4 => "nr_msrs",
        /// Array of [`crate::cpuid::Leaf`].
        pub leaves: UserPtr = 8 => "leaves",
        /// Array of [`crate::cpuid::Msr`].
        pub msrs: UserPtr = 16 => "msrs",
        /// Out, on a refusal: the leaf.
        pub err_leaf: u32 = 24 => "err_leaf",
        /// Out, on a refusal: the subleaf.
        pub err_subleaf: u32 = 28 => "err_subleaf",
        /// Out, on a refusal: the register.
        pub err_msr: u32 = 32 => "err_msr",
        /// Padding, zero.
        pub pad: u32 = 36,
    }
}

/// A place for a CPU policy in the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyBuffers {
    /// Array of leaves.
    pub leaves: UserPtr,
    /// Its entries.
    pub nr_leaves: u32,
    /// Array of registers.
    pub msrs: UserPtr,
    /// Its entries.
    pub nr_msrs: u32,
}

/// The number of a mode.
#[must_use]
pub const fn tsc_mode_number(mode: TscMode) -> u32 {
    match mode {
        TscMode::Default => TSC_MODE_DEFAULT,
        TscMode::AlwaysEmulate => TSC_MODE_ALWAYS_EMULATE,
        TscMode::Native => TSC_MODE_NEVER_EMULATE,
        TscMode::NativeParavirt => TSC_MODE_PVRDTSCP,
    }
}

/// Sets mode and state of the time stamp counter; all other fields are 0 for a new domain.
#[must_use]
pub fn set_tsc_info(abi: Abi, domain: DomId, info: &TscInfo) -> Call {
    Call::with(abi, Command::SetTscInfo, domain, info)
}

/// Sets the mode for a new domain.
#[must_use]
pub fn set_tsc_mode(abi: Abi, domain: DomId, mode: TscMode) -> Call {
    let mut info = TscInfo::new_zeroed();
    info.tsc_mode = tsc_mode_number(mode);
    set_tsc_info(abi, domain, &info)
}

/// Asks mode and state; the answer is a [`TscInfo`] payload.
#[must_use]
pub fn get_tsc_info(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::GetTscInfo, domain)
}

fn policy(abi: Abi, command: Command, domain: DomId, buffers: PolicyBuffers) -> Call {
    let mut raw = CpuPolicy::new_zeroed();
    raw.nr_leaves = buffers.nr_leaves;
    raw.nr_msrs = buffers.nr_msrs;
    raw.leaves = buffers.leaves;
    raw.msrs = buffers.msrs;
    // Xen writes these only in some of its refusals.
    raw.err_leaf = u32::MAX;
    raw.err_subleaf = u32::MAX;
    raw.err_msr = u32::MAX;
    Call::with(abi, command, domain, &raw)
}

/// Reads a domain's policy; the answer is a [`CpuPolicy`] payload.
#[must_use]
pub fn get_cpu_policy(abi: Abi, domain: DomId, buffers: PolicyBuffers) -> Call {
    policy(abi, Command::GetCpuPolicy, domain, buffers)
}

/// Sets a domain's policy, before its vcpus run.
#[must_use]
pub fn set_cpu_policy(abi: Abi, domain: DomId, buffers: PolicyBuffers) -> Call {
    policy(abi, Command::SetCpuPolicy, domain, buffers)
}

/// What Xen objected to when a policy was refused; `None` where it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyObjection {
    /// Leaf and, if it has one, subleaf.
    pub leaf: Option<(u32, Option<u32>)>,
    /// Model specific register.
    pub msr: Option<u32>,
}

/// Reads the objection out of a refused [`set_cpu_policy`].
#[must_use]
pub fn policy_objection(answer: &Call) -> PolicyObjection {
    let raw: CpuPolicy = answer.payload();
    let named = |word: u32| (word != u32::MAX).then_some(word);
    PolicyObjection {
        leaf: named(raw.err_leaf).map(|leaf| (leaf, named(raw.err_subleaf))),
        msr: named(raw.err_msr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objection_is_read_only_where_xen_wrote_one() {
        let buffers = PolicyBuffers {
            leaves: UserPtr(0x10),
            nr_leaves: 3,
            msrs: UserPtr(0x20),
            nr_msrs: 1,
        };
        let mut call = set_cpu_policy(Abi::V4_20, DomId(1), buffers);
        assert_eq!((call.cmd, call.payload[0], call.payload[16]), (83, 3, 0x20));
        assert_eq!(policy_objection(&call), PolicyObjection::default());
        call.payload[24..28].copy_from_slice(&7u32.to_le_bytes());
        assert_eq!(policy_objection(&call).leaf, Some((7, None)));
    }

    #[test]
    fn modes_have_their_numbers() {
        let call = set_tsc_mode(Abi::V4_20, DomId(1), TscMode::Native);
        assert_eq!((call.cmd, call.payload[0]), (60, 2));
    }
}
