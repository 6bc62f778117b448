//! The small records of an image, each whole in memory: to and from the body's bytes.
//!
//! PAGE_DATA is not among them: see [`super::pages`]. Decoding and encoding refuse the same things, so that what is written
//! can be read.

use crate::accord::Accord;
use crate::bytes::{exactly, u64s};
use crate::error::{Expected, Problem};
use crate::libxc::{HvmParam, Kind, P2mFrames, PvInfo, TscInfo, VcpuPart, VcpuRecord};
use crate::libxc::{hvm, policy};
use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::ids::PAGE_SIZE;

/// One record of an image, but for pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// END: the image is complete.
    End,
    /// X86_PV_INFO.
    PvInfo(PvInfo),
    /// X86_PV_P2M_FRAMES.
    P2mFrames(P2mFrames),
    /// X86_PV_VCPU_BASIC, EXTENDED, XSAVE and MSRS.
    Vcpu(VcpuRecord),
    /// SHARED_INFO.
    SharedInfo(Box<[u8; PAGE_SIZE]>),
    /// X86_TSC_INFO.
    TscInfo(TscInfo),
    /// HVM_CONTEXT: a blob as [`xen_abi::hvm::save`] takes apart.
    HvmContext(Vec<u8>),
    /// HVM_PARAMS.
    HvmParams(Vec<HvmParam>),
    /// TOOLSTACK, which no image may have.
    Toolstack(Vec<u8>),
    /// VERIFY: pages that follow are to be compared with those that are there.
    Verify,
    /// CHECKPOINT: all before this is one consistent state; the libxl layer goes on.
    Checkpoint,
    /// CHECKPOINT_DIRTY_PFN_LIST, which only goes from a COLO secondary to its primary.
    CheckpointDirtyPfnList(Vec<u64>),
    /// STATIC_DATA_END. From an image of version 2, which has none, where it would be.
    StaticDataEnd,
    /// X86_CPUID_POLICY.
    CpuidPolicy(Vec<Leaf>),
    /// X86_MSR_POLICY.
    MsrPolicy(Vec<Msr>),
    /// OFFER, which is ours.
    Offer(Accord),
}

impl Record {
    /// Which record it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::End => Kind::End,
            Self::PvInfo(_) => Kind::PvInfo,
            Self::P2mFrames(_) => Kind::P2mFrames,
            Self::Vcpu(record) => record.part.kind(),
            Self::SharedInfo(_) => Kind::SharedInfo,
            Self::TscInfo(_) => Kind::TscInfo,
            Self::HvmContext(_) => Kind::HvmContext,
            Self::HvmParams(_) => Kind::HvmParams,
            Self::Toolstack(_) => Kind::Toolstack,
            Self::Verify => Kind::Verify,
            Self::Checkpoint => Kind::Checkpoint,
            Self::CheckpointDirtyPfnList(_) => Kind::CheckpointDirtyPfnList,
            Self::StaticDataEnd => Kind::StaticDataEnd,
            Self::CpuidPolicy(_) => Kind::CpuidPolicy,
            Self::MsrPolicy(_) => Kind::MsrPolicy,
            Self::Offer(_) => Kind::Offer,
        }
    }

    /// Takes a body apart.
    ///
    /// # Errors
    /// It is not such a record. [`Kind::PageData`] is a [`Problem::Misuse`].
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, Problem> {
        check_longest(kind, body.len() as u64)?;
        let vcpu = |part| VcpuRecord::decode(part, body).map(Self::Vcpu);
        let empty = |record| exactly(body, 0).map(|()| record);
        match kind {
            Kind::End => empty(Self::End),
            Kind::PageData => Err(Problem::Misuse {
                call: "decoding PAGE_DATA",
                state: "without its pages",
            }),
            Kind::PvInfo => PvInfo::decode(body).map(Self::PvInfo),
            Kind::P2mFrames => P2mFrames::decode(body).map(Self::P2mFrames),
            Kind::VcpuBasic => vcpu(VcpuPart::Basic),
            Kind::VcpuExtended => vcpu(VcpuPart::Extended),
            Kind::VcpuXsave => vcpu(VcpuPart::Xsave),
            Kind::VcpuMsrs => vcpu(VcpuPart::Msrs),
            Kind::SharedInfo => shared_info(body).map(Self::SharedInfo),
            Kind::TscInfo => TscInfo::decode(body).map(Self::TscInfo),
            Kind::HvmContext => hvm::check_context(body).map(|()| Self::HvmContext(body.to_vec())),
            Kind::HvmParams => hvm::decode_params(body).map(Self::HvmParams),
            Kind::Toolstack => Ok(Self::Toolstack(body.to_vec())),
            Kind::Verify => empty(Self::Verify),
            Kind::Checkpoint => empty(Self::Checkpoint),
            Kind::CheckpointDirtyPfnList => dirty_list(body).map(Self::CheckpointDirtyPfnList),
            Kind::StaticDataEnd => empty(Self::StaticDataEnd),
            Kind::CpuidPolicy => policy::decode_leaves(body).map(Self::CpuidPolicy),
            Kind::MsrPolicy => policy::decode_msrs(body).map(Self::MsrPolicy),
            Kind::Offer => Accord::decode(body).map(Self::Offer),
        }
    }

    /// Appends the body, without header and padding.
    ///
    /// # Errors
    /// A record that [`Record::decode`] would not take.
    pub fn encode(&self, into: &mut Vec<u8>) -> Result<(), Problem> {
        let before = into.len();
        match self {
            Self::End | Self::Verify | Self::Checkpoint | Self::StaticDataEnd => {}
            Self::PvInfo(info) => info.encode(into),
            Self::P2mFrames(frames) => frames.encode(into)?,
            Self::Vcpu(record) => record.encode(into)?,
            Self::SharedInfo(page) => into.extend_from_slice(&page[..]),
            Self::TscInfo(info) => info.encode(into),
            Self::HvmContext(blob) => {
                hvm::check_context(blob)?;
                into.extend_from_slice(blob);
            }
            Self::HvmParams(params) => hvm::encode_params(params, into)?,
            Self::Toolstack(blob) => into.extend_from_slice(blob),
            Self::CheckpointDirtyPfnList(pfns) => {
                for pfn in pfns {
                    into.extend_from_slice(&pfn.to_le_bytes());
                }
            }
            Self::CpuidPolicy(leaves) => policy::encode_leaves(leaves, into),
            Self::MsrPolicy(msrs) => policy::encode_msrs(msrs, into),
            Self::Offer(offered) => offered.encode(into),
        }
        check_longest(self.kind(), (into.len() - before) as u64)?;
        match self {
            Self::CpuidPolicy(leaves) if leaves.is_empty() => nothing(24),
            Self::MsrPolicy(msrs) if msrs.is_empty() => nothing(16),
            Self::P2mFrames(frames) if frames.frames.is_empty() => nothing(8),
            _ => Ok(()),
        }
    }
}

/// A list that is only sent when there is something in it.
fn nothing(unit: u64) -> Result<(), Problem> {
    Err(Problem::Length {
        found: 0,
        expected: Expected::Units { base: 0, unit },
    })
}

/// The limit of a kind, before its body is looked at or even read.
pub(crate) fn check_longest(kind: Kind, length: u64) -> Result<(), Problem> {
    match kind.longest() {
        0 if length > 0 => Err(Problem::Length {
            found: length,
            expected: Expected::Exactly(0),
        }),
        limit if length > limit => Err(Problem::Limit {
            what: "bytes",
            found: length,
            limit,
        }),
        _ => Ok(()),
    }
}

fn shared_info(body: &[u8]) -> Result<Box<[u8; PAGE_SIZE]>, Problem> {
    exactly(body, PAGE_SIZE as u64)?;
    let mut page = Box::new([0; PAGE_SIZE]);
    page.copy_from_slice(body);
    Ok(page)
}

fn dirty_list(body: &[u8]) -> Result<Vec<u64>, Problem> {
    if body.len().is_multiple_of(8) {
        return Ok(u64s(body));
    }
    Err(Problem::Length {
        found: body.len() as u64,
        expected: Expected::Units { base: 0, unit: 8 },
    })
}
