//! How many vcpus a domain has, where they may run, and what they do.

use super::{Bitmap, BitmapLayout, Call, Command};
use crate::domain::VcpuInfo;
use crate::ids::{CpuId, DomId, VcpuId};
use crate::layout;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table VCPU_CONSTANTS;
    /// The hard affinity map is meant.
    pub const AFFINITY_HARD: u32 = 1 << 0 => "XEN_VCPUAFFINITY_HARD";
    /// The soft affinity map is meant.
    pub const AFFINITY_SOFT: u32 = 1 << 1 => "XEN_VCPUAFFINITY_SOFT";
    /// Override a temporary pinning.
    pub const AFFINITY_FORCE: u32 = 1 << 2 => "XEN_VCPUAFFINITY_FORCE";
}

layout! {
    /// `XEN_DOMCTL_max_vcpus`.
    pub struct MaxVcpus: "struct xen_domctl_max_vcpus", 4 {
        /// Most vcpus.
        pub max: u32 = 0 => "max",
    }
}

layout! {
    /// `XEN_DOMCTL_getvcpuinfo`.
    pub struct GetVcpuInfo: "struct xen_domctl_getvcpuinfo", 24 {
        /// In: which.
        pub vcpu: u32 = 0 => "vcpu",
        /// Not hot-unplugged.
        pub online: u8 = 4 => "online",
        /// Waiting.
        pub blocked: u8 = 5 => "blocked",
        /// On a CPU.
        pub running: u8 = 6 => "running",
        /// Padding.
        pub pad: u8 = 7,
        /// Nanoseconds.
        pub cpu_time: u64 = 8 => "cpu_time",
        /// Where.
        pub cpu: u32 = 16 => "cpu",
        /// Padding.
        pub pad2: u32 = 20,
    }
}

layout! {
    /// `XEN_DOMCTL_getvcpuaffinity` and `setvcpuaffinity`.
    pub struct VcpuAffinity: "struct xen_domctl_vcpuaffinity", 40 {
        /// Which.
        pub vcpu: u32 = 0 => "vcpu",
        /// `AFFINITY_*`.
        pub flags: u32 = 4 => "flags",
        /// CPUs it must run on.
        pub cpumap_hard: BitmapLayout = 8 => "cpumap_hard",
        /// CPUs it would best run on.
        pub cpumap_soft: BitmapLayout = 24 => "cpumap_soft",
    }
}

/// Allocates vcpus `0..max`. Must come before affinity, contexts and policies.
#[must_use]
pub fn set_max_vcpus(abi: Abi, domain: DomId, max: u32) -> Call {
    Call::with(abi, Command::MaxVcpus, domain, &MaxVcpus { max })
}

/// Asks about a vcpu; see [`vcpu_info_answer`].
#[must_use]
pub fn vcpu_info(abi: Abi, domain: DomId, vcpu: VcpuId) -> Call {
    let mut raw = GetVcpuInfo::new_zeroed();
    raw.vcpu = vcpu.0;
    Call::with(abi, Command::GetVcpuInfo, domain, &raw)
}

/// What the vcpu does.
#[must_use]
pub fn vcpu_info_answer(answer: &Call) -> VcpuInfo {
    let raw: GetVcpuInfo = answer.payload();
    VcpuInfo {
        online: raw.online != 0,
        blocked: raw.blocked != 0,
        running: raw.running != 0,
        cpu_time_ns: raw.cpu_time,
        cpu: CpuId(raw.cpu),
    }
}

fn affinity(
    abi: Abi,
    command: Command,
    domain: DomId,
    vcpu: VcpuId,
    (hard, soft): (Option<Bitmap>, Option<Bitmap>),
) -> Call {
    let mut raw = VcpuAffinity::new_zeroed();
    raw.vcpu = vcpu.0;
    if let Some(map) = hard {
        raw.flags |= AFFINITY_HARD;
        raw.cpumap_hard = map.into();
    }
    if let Some(map) = soft {
        raw.flags |= AFFINITY_SOFT;
        raw.cpumap_soft = map.into();
    }
    Call::with(abi, command, domain, &raw)
}

/// Reads the affinity maps into the buffers given.
#[must_use]
pub fn get_vcpu_affinity(
    abi: Abi,
    domain: DomId,
    vcpu: VcpuId,
    hard: Option<Bitmap>,
    soft: Option<Bitmap>,
) -> Call {
    affinity(abi, Command::GetVcpuAffinity, domain, vcpu, (hard, soft))
}

/// Sets the affinity maps given; Xen leaves in the buffers what takes effect.
#[must_use]
pub fn set_vcpu_affinity(
    abi: Abi,
    domain: DomId,
    vcpu: VcpuId,
    hard: Option<Bitmap>,
    soft: Option<Bitmap>,
) -> Call {
    affinity(abi, Command::SetVcpuAffinity, domain, vcpu, (hard, soft))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::UserPtr;

    #[test]
    fn only_the_maps_given_are_named() {
        let map = Bitmap {
            address: UserPtr(0x1000),
            bits: 64,
        };
        let call = set_vcpu_affinity(Abi::V4_20, DomId(1), VcpuId(3), None, Some(map));
        let raw: VcpuAffinity = call.payload();
        assert_eq!((call.cmd, raw.vcpu, raw.flags), (9, 3, AFFINITY_SOFT));
        assert_eq!(
            (raw.cpumap_hard.bitmap, raw.cpumap_soft.nr_bits),
            (UserPtr::NULL, 64)
        );
        assert_eq!(call.payload[24..26], [0, 0x10]);
        let both = get_vcpu_affinity(Abi::V4_20, DomId(1), VcpuId(3), Some(map), Some(map));
        assert_eq!((both.cmd, both.payload[4]), (25, 3));
    }

    #[test]
    fn a_vcpu_answer_is_decoded_by_offset() {
        let mut call = vcpu_info(Abi::V4_17, DomId(1), VcpuId(2));
        assert_eq!(call.payload[0], 2);
        call.payload[4] = 1;
        call.payload[6] = 1;
        call.payload[8] = 77;
        call.payload[16] = 5;
        let info = vcpu_info_answer(&call);
        assert!(info.online && !info.blocked && info.running);
        assert_eq!((info.cpu_time_ns, info.cpu), (77, CpuId(5)));
    }
}
