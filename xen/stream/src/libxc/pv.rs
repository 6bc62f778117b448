//! Records that only images of PV domains have: width, list of frames, vcpus.
//!
//! [`super::Record`] takes them apart; what they say of each other (a 64-bit guest's registers are longer) is for
//! [`super::Order`]. The state of a vcpu is a blob of Xen's own, and nobody here looks into it: page numbers that stand where
//! Xen has frame numbers are put there by the saver, and taken out by the restorer.

use crate::bytes::{Fields, exactly, u64s};
use crate::error::{Expected, Problem};
use crate::libxc::Kind;
use crate::limits;
use xen_abi::ids::{PAGE_SIZE, VcpuId};
use xen_abi::pv::vcpu_context;

/// Bytes of a 64-bit vcpu's registers.
pub const BASIC_BYTES_64: u64 = vcpu_context::BYTES as u64;
/// Bytes of a 32-bit vcpu's registers (`vcpu_guest_context_x86_32_t`).
pub const BASIC_BYTES_32: u64 = 2800;
/// Fewest bytes of an XSAVE area: its two masks.
pub const XSAVE_LEAST_BYTES: u64 = 16;

/// How wide a PV guest is: the two go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PvInfo {
    /// 4-byte words, 3 levels of page tables.
    Bits32,
    /// 8-byte words, 4 levels of page tables.
    Bits64,
}

impl PvInfo {
    /// Bytes of the guest's word, and of an entry of its list of frames.
    #[must_use]
    pub const fn width(self) -> u8 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// Levels of its page tables.
    #[must_use]
    pub const fn levels(self) -> u8 {
        match self {
            Self::Bits32 => 3,
            Self::Bits64 => 4,
        }
    }

    /// Bytes of a vcpu's registers.
    #[must_use]
    pub const fn basic_bytes(self) -> u64 {
        match self {
            Self::Bits32 => BASIC_BYTES_32,
            Self::Bits64 => BASIC_BYTES_64,
        }
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Problem> {
        exactly(body, 8)?;
        let mut fields = Fields::of(body);
        let (width, levels) = (fields.u8()?, fields.u8()?);
        fields.zero16("the record")?;
        fields.zero32("the record")?;
        match (width, levels) {
            (4, 3) => Ok(Self::Bits32),
            (8, 4) => Ok(Self::Bits64),
            (4, found) => Err(wrong(
                "levels of page tables of a guest of width 4",
                found,
                "3",
            )),
            (8, found) => Err(wrong(
                "levels of page tables of a guest of width 8",
                found,
                "4",
            )),
            (found, _) => Err(wrong("the guest's width", found, "4 or 8")),
        }
    }

    pub(crate) fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&[self.width(), self.levels(), 0, 0, 0, 0, 0, 0]);
    }
}

fn wrong(what: &'static str, found: u8, expected: &'static str) -> Problem {
    Problem::Value {
        what,
        found: found.into(),
        expected,
    }
}

/// Where a PV guest keeps its list of frames: the pages that hold the part of it from `first` to `last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P2mFrames {
    /// First page number that the list tells of; stock writes 0.
    pub first: u32,
    /// Last page number that the list tells of.
    pub last: u32,
    /// Page numbers of the pages that hold the list. How many depends on the guest's width.
    pub frames: Vec<u64>,
}

impl P2mFrames {
    /// How many pages hold the list of a guest of this width.
    #[must_use]
    pub fn pages_for(&self, info: PvInfo) -> u64 {
        let per_page = PAGE_SIZE as u64 / u64::from(info.width());
        (u64::from(self.last) / per_page).saturating_sub(u64::from(self.first) / per_page) + 1
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(body);
        let (first, last) = (fields.u32()?, fields.u32()?);
        check_range(first, last)?;
        let list = fields.rest();
        if list.is_empty() || !list.len().is_multiple_of(8) {
            return Err(Problem::Length {
                found: body.len() as u64,
                expected: Expected::Units { base: 8, unit: 8 },
            });
        }
        let frames = u64s(list);
        Ok(Self {
            first,
            last,
            frames,
        })
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) -> Result<(), Problem> {
        check_range(self.first, self.last)?;
        into.extend_from_slice(&self.first.to_le_bytes());
        into.extend_from_slice(&self.last.to_le_bytes());
        for frame in &self.frames {
            into.extend_from_slice(&frame.to_le_bytes());
        }
        Ok(())
    }
}

fn check_range(first: u32, last: u32) -> Result<(), Problem> {
    if first <= last {
        return Ok(());
    }
    Err(Problem::Value {
        what: "the last page of the list",
        found: last.into(),
        expected: "no less than the first",
    })
}

/// Which part of a vcpu's state a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VcpuPart {
    /// Registers: `getvcpucontext`, with page numbers where Xen has frame numbers.
    Basic,
    /// Callbacks and machine check state: `get_ext_vcpucontext`.
    Extended,
    /// XSAVE area: `getvcpuextstate`.
    Xsave,
    /// Model specific registers: `get_vcpu_msrs`, 16 bytes each.
    Msrs,
}

impl VcpuPart {
    /// The record that holds it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Basic => Kind::VcpuBasic,
            Self::Extended => Kind::VcpuExtended,
            Self::Xsave => Kind::VcpuXsave,
            Self::Msrs => Kind::VcpuMsrs,
        }
    }
}

/// One part of one PV vcpu's state, as Xen gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuRecord {
    /// Whose.
    pub vcpu: VcpuId,
    /// Which part.
    pub part: VcpuPart,
    /// The state. Xen 4.6 to 4.8 sent empty ones, but for [`VcpuPart::Basic`]: they mean nothing.
    pub state: Vec<u8>,
}

impl VcpuRecord {
    pub(crate) fn decode(part: VcpuPart, body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::of(body);
        let vcpu = VcpuId(fields.u32()?);
        fields.zero32("the record")?;
        let record = Self {
            vcpu,
            part,
            state: fields.rest().to_vec(),
        };
        record.check()?;
        Ok(record)
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) -> Result<(), Problem> {
        self.check()?;
        into.extend_from_slice(&self.vcpu.0.to_le_bytes());
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&self.state);
        Ok(())
    }

    fn check(&self) -> Result<(), Problem> {
        if self.vcpu.0 >= limits::VCPUS {
            return Err(Problem::Limit {
                what: "is the number of the vcpu",
                found: self.vcpu.0.into(),
                limit: u64::from(limits::VCPUS) - 1,
            });
        }
        let (found, bytes) = (8 + self.state.len() as u64, self.state.len() as u64);
        let length = |expected| Err(Problem::Length { found, expected });
        match self.part {
            VcpuPart::Basic if bytes != BASIC_BYTES_64 && bytes != BASIC_BYTES_32 => {
                length(Expected::Exactly(8 + BASIC_BYTES_64))
            }
            VcpuPart::Xsave if bytes != 0 && bytes < XSAVE_LEAST_BYTES => {
                length(Expected::AtLeast(8 + XSAVE_LEAST_BYTES))
            }
            VcpuPart::Msrs if !bytes.is_multiple_of(16) => {
                length(Expected::Units { base: 8, unit: 16 })
            }
            VcpuPart::Basic | VcpuPart::Extended | VcpuPart::Xsave | VcpuPart::Msrs => Ok(()),
        }
    }
}
