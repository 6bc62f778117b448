//! The records of an image by number, by name, and by how long each may be.
//!
//! Numbers with bit 31 set are optional: a reader that does not know one skips it. Xen has assigned none. Records of our
//! own come from there and become variants of [`Kind`], so that what knows them reads them and stock skips them.

use crate::limits;

/// Bit of a record's type that says: may be skipped.
pub const OPTIONAL: u32 = 1 << 31;
/// Number of our own record; far from any that Xen would assign next.
const OFFER: u32 = OPTIONAL | 0x0050_0001;
/// Bytes of a record's header: type and length of the body.
pub const HEADER_BYTES: usize = 8;

/// A record of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// The last one.
    End = 0x00,
    /// Pages with their types, and contents.
    PageData = 0x01,
    /// Width and depth of a PV guest's page tables.
    PvInfo = 0x02,
    /// Where a PV guest keeps its list of frames.
    P2mFrames = 0x03,
    /// Registers of a PV vcpu.
    VcpuBasic = 0x04,
    /// Callbacks and machine check state of a PV vcpu.
    VcpuExtended = 0x05,
    /// XSAVE area of a PV vcpu.
    VcpuXsave = 0x06,
    /// The shared info page of a PV guest.
    SharedInfo = 0x07,
    /// The time stamp counter.
    TscInfo = 0x08,
    /// State of vcpus and virtual devices of a PVH or HVM domain.
    HvmContext = 0x09,
    /// Parameters of a PVH or HVM domain.
    HvmParams = 0x0a,
    /// Deprecated before it was released.
    Toolstack = 0x0b,
    /// Model specific registers of a PV vcpu.
    VcpuMsrs = 0x0c,
    /// Pages after this are to be compared, not loaded.
    Verify = 0x0d,
    /// All before this is one consistent state.
    Checkpoint = 0x0e,
    /// Pages the secondary dirtied, on COLO's way back.
    CheckpointDirtyPfnList = 0x0f,
    /// All is known that does not change while the guest runs.
    StaticDataEnd = 0x10,
    /// What CPUID tells the guest.
    CpuidPolicy = 0x11,
    /// Model specific registers that are part of the CPU's description.
    MsrPolicy = 0x12,
    /// What the sender would say in other words than stock's, if the receiver is one of ours ([`crate::accord`]). Its number is not its place here.
    Offer = 0x13,
}

impl Kind {
    /// Every one of them, in order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::End,
        Self::PageData,
        Self::PvInfo,
        Self::P2mFrames,
        Self::VcpuBasic,
        Self::VcpuExtended,
        Self::VcpuXsave,
        Self::SharedInfo,
        Self::TscInfo,
        Self::HvmContext,
        Self::HvmParams,
        Self::Toolstack,
        Self::VcpuMsrs,
        Self::Verify,
        Self::Checkpoint,
        Self::CheckpointDirtyPfnList,
        Self::StaticDataEnd,
        Self::CpuidPolicy,
        Self::MsrPolicy,
        Self::Offer,
    ];

    /// The one of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Offer => OFFER,
            stock => stock as u32,
        }
    }

    /// Its place in [`Kind::ALL`], for tables.
    #[must_use]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::End => "END",
            Self::PageData => "PAGE_DATA",
            Self::PvInfo => "X86_PV_INFO",
            Self::P2mFrames => "X86_PV_P2M_FRAMES",
            Self::VcpuBasic => "X86_PV_VCPU_BASIC",
            Self::VcpuExtended => "X86_PV_VCPU_EXTENDED",
            Self::VcpuXsave => "X86_PV_VCPU_XSAVE",
            Self::SharedInfo => "SHARED_INFO",
            Self::TscInfo => "X86_TSC_INFO",
            Self::HvmContext => "HVM_CONTEXT",
            Self::HvmParams => "HVM_PARAMS",
            Self::Toolstack => "TOOLSTACK",
            Self::VcpuMsrs => "X86_PV_VCPU_MSRS",
            Self::Verify => "VERIFY",
            Self::Checkpoint => "CHECKPOINT",
            Self::CheckpointDirtyPfnList => "CHECKPOINT_DIRTY_PFN_LIST",
            Self::StaticDataEnd => "STATIC_DATA_END",
            Self::CpuidPolicy => "X86_CPUID_POLICY",
            Self::MsrPolicy => "X86_MSR_POLICY",
            Self::Offer => "OFFER",
        }
    }

    /// The longest body that is accepted, in bytes.
    #[must_use]
    pub const fn longest(self) -> u64 {
        match self {
            Self::End | Self::Verify | Self::Checkpoint | Self::StaticDataEnd => 0,
            Self::PageData => limits::RECORD_BYTES,
            Self::PvInfo | Self::Offer => 8,
            Self::P2mFrames => limits::P2M_BYTES,
            Self::VcpuBasic | Self::VcpuXsave | Self::VcpuMsrs => 8 + limits::VCPU_BYTES,
            Self::VcpuExtended => 8 + limits::VCPU_EXTENDED_BYTES,
            Self::SharedInfo => limits::PAGE_BYTES,
            Self::TscInfo => 24,
            Self::HvmContext => limits::HVM_CONTEXT_BYTES,
            Self::HvmParams => 8 + 16 * limits::HVM_PARAMS,
            Self::Toolstack | Self::CheckpointDirtyPfnList => limits::P2M_BYTES,
            Self::CpuidPolicy => 24 * limits::POLICY_ENTRIES,
            Self::MsrPolicy => 16 * limits::POLICY_ENTRIES,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_are_one_to_one() {
        for (index, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(kind.index(), index);
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            let stock = kind != Kind::Offer;
            assert_eq!(kind.number() == kind as u32, stock, "{kind}");
            assert!(kind.longest() <= limits::RECORD_BYTES, "{kind}");
        }
        assert_eq!(Kind::from_number(0x13), None);
        assert_eq!(Kind::from_number(OPTIONAL | 1), None);
    }
}
