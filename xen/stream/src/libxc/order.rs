//! What may follow what in an image, so that nobody restores half a domain or registers before the memory they point to.
//!
//! ```text
//!                                        PAGE_DATA        registers
//!                                          ┌──┐             ┌──┐
//!   Static ──STATIC_DATA_END──▶ P2m ──────▶Memory ─────────▶Tail ──────END──────▶ Ended
//!    ┌──┐       │          P2M_FRAMES (PV)  │ ▲              ▲ │                    ▲
//!   PV_INFO     └──────(PVH, HVM)──────────▶┘ │ PAGE_DATA    │ │ CHECKPOINT         │
//!   policies                                │ │              │ ▼                    │
//!                                    VERIFY │ └─────────── Between ───────END───────┘
//!                                           ▼                │ registers
//!                                        Verify ──registers──┴───────────▶ Tail
//! ```
//!
//! Free are: the order of the static records among themselves, and that of the registers (TSC_INFO, SHARED_INFO and vcpus;
//! TSC_INFO, HVM_CONTEXT and HVM_PARAMS), because stock and the specification differ about it; pages come in any order and any
//! number of times; VERIFY stands anywhere after the first of them. Each other record comes once, those of registers once for every checkpoint. An image of version 2 has no
//! STATIC_DATA_END: its place is before P2M_FRAMES (PV) or the first PAGE_DATA.
//!
//! Complete, at END and at every CHECKPOINT, is a PV domain with SHARED_INFO and at least one vcpu's BASIC, and a PVH or HVM
//! domain with HVM_CONTEXT; both with at least one PAGE_DATA. [`step`] is the picture; [`Order`] adds what it has seen.

use std::collections::BTreeMap;

use crate::libxc::{DomainKind, Kind, PvInfo, Record, VcpuPart};

/// Whether an image may hold checkpoints. Nothing in the stream says so: it is agreed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One state and no more: files and migrations.
    Plain,
    /// One state after the other (`xl remus`).
    Checkpointed,
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// What does not change while the guest runs.
    Static,
    /// A PV guest's list of frames is next.
    P2m,
    /// Memory.
    Memory,
    /// Memory again, to be compared.
    Verify,
    /// Registers and devices.
    Tail,
    /// A checkpoint is complete.
    Between,
    /// Nothing may follow.
    Ended,
}

/// What a record is to the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// PV_INFO, the policies, and what is offered.
    Static,
    /// STATIC_DATA_END.
    StaticEnd,
    /// P2M_FRAMES.
    P2m,
    /// PAGE_DATA.
    Pages,
    /// VERIFY.
    Verify,
    /// Registers and devices.
    Tail,
    /// CHECKPOINT.
    Checkpoint,
    /// END.
    End,
    /// Records that never go this way.
    Never,
}

/// Why a record may not come now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Something has to come first.
    #[error("comes before {0}")]
    Before(&'static str),
    /// It should have come earlier.
    #[error("comes after {0}")]
    After(&'static str),
    /// Once is enough.
    #[error("comes twice")]
    Twice,
    /// One vcpu's part came already.
    #[error("comes twice for vcpu {vcpu}")]
    TwiceForVcpu {
        /// Whose.
        vcpu: u32,
    },
    /// Of another kind of domain.
    #[error("has no place in the image of a {0} domain")]
    Domain(&'static str),
    /// Newer than the image's version.
    #[error("has no place in an image of version 2")]
    Version,
    /// Nobody agreed to checkpoints.
    #[error("is of a checkpointed stream, and this is a plain one")]
    Plain,
    /// VERIFY is for plain streams.
    #[error("is of a plain stream, and this is a checkpointed one")]
    NotPlain,
    /// Never to be found in an image.
    #[error("has no place in an image: {0}")]
    Never(&'static str),
    /// The domain would be incomplete.
    #[error("ends a domain without {missing}")]
    Incomplete {
        /// What there must be.
        missing: Kind,
    },
    /// A part of a vcpu without its registers.
    #[error("ends a domain in which vcpu {vcpu} has no X86_PV_VCPU_BASIC")]
    NoRegisters {
        /// Whose.
        vcpu: u32,
    },
    /// What a PV domain's records say of its width does not agree.
    #[error("does not fit a guest of width {width}: {found} where {expected} would")]
    Width {
        /// Of the guest, in bytes.
        width: u8,
        /// Bytes of registers, or pages of the list of frames.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// Nothing follows END.
    #[error("comes after END")]
    Ended,
}

/// The class of a record.
#[must_use]
pub const fn class(kind: Kind) -> Class {
    match kind {
        Kind::PvInfo | Kind::CpuidPolicy | Kind::MsrPolicy | Kind::Offer => Class::Static,
        Kind::StaticDataEnd => Class::StaticEnd,
        Kind::P2mFrames => Class::P2m,
        Kind::PageData => Class::Pages,
        Kind::Verify => Class::Verify,
        Kind::VcpuBasic
        | Kind::VcpuExtended
        | Kind::VcpuXsave
        | Kind::VcpuMsrs
        | Kind::SharedInfo
        | Kind::TscInfo
        | Kind::HvmContext
        | Kind::HvmParams => Class::Tail,
        Kind::Checkpoint => Class::Checkpoint,
        Kind::End => Class::End,
        Kind::Toolstack | Kind::CheckpointDirtyPfnList => Class::Never,
    }
}

/// One arrow of the picture above.
///
/// # Errors
/// There is no such arrow.
pub const fn step(phase: Phase, class: Class, domain: DomainKind) -> Result<Phase, Refusal> {
    use Class as C;
    use Phase as P;
    match (phase, class) {
        (P::Ended, _) => Err(Refusal::Ended),
        (_, C::Never) => Err(Refusal::Never(
            "nobody writes it any more, or only back to the sender",
        )),

        (P::Static, C::Static) => Ok(P::Static),
        (P::Static, C::StaticEnd) => match domain {
            DomainKind::Pv => Ok(P::P2m),
            DomainKind::Hvm => Ok(P::Memory),
        },
        (P::Static, C::P2m | C::Pages | C::Verify | C::Tail | C::Checkpoint | C::End) => {
            Err(Refusal::Before("STATIC_DATA_END"))
        }

        (P::P2m, C::P2m) => Ok(P::Memory),
        (P::P2m, C::Pages | C::Verify | C::Tail | C::Checkpoint | C::End) => {
            Err(Refusal::Before("X86_PV_P2M_FRAMES"))
        }

        (P::P2m | P::Memory | P::Verify | P::Tail | P::Between, C::Static) => {
            Err(Refusal::After("STATIC_DATA_END"))
        }
        (P::P2m | P::Memory | P::Verify | P::Tail | P::Between, C::StaticEnd)
        | (P::Memory | P::Verify | P::Tail | P::Between, C::P2m) => Err(Refusal::Twice),

        (P::Memory | P::Between, C::Pages) => Ok(P::Memory),
        (P::Verify, C::Pages) => Ok(P::Verify),
        (P::Tail, C::Pages) => Err(Refusal::After(
            "registers, and memory must be complete by then",
        )),

        (P::Memory, C::Verify) => Ok(P::Verify),
        (P::Verify, C::Verify) => Err(Refusal::Twice),
        (P::Tail | P::Between, C::Verify) => Err(Refusal::After("registers")),

        (P::Memory | P::Verify | P::Tail | P::Between, C::Tail) => Ok(P::Tail),
        (P::Memory | P::Verify, C::Checkpoint | C::End) | (P::Between, C::Checkpoint) => {
            Err(Refusal::Before("registers"))
        }
        (P::Tail, C::Checkpoint) => Ok(P::Between),
        (P::Tail | P::Between, C::End) => Ok(P::Ended),
    }
}

/// The order of one image, as far as it went.
#[derive(Debug, Clone)]
pub struct Order {
    version: u32,
    domain: DomainKind,
    mode: Mode,
    phase: Phase,
    /// Bit of each [`Kind`] that came, in this checkpoint where it is one of registers.
    seen: u32,
    /// Parts of vcpus that came in this checkpoint, a bit for each [`VcpuPart`]; bounded by [`crate::limits::VCPUS`].
    vcpus: BTreeMap<u32, u8>,
    info: Option<PvInfo>,
    checkpoints: u64,
}

impl Order {
    /// At the beginning, after the headers.
    #[must_use]
    pub const fn new(version: u32, domain: DomainKind, mode: Mode) -> Self {
        Self {
            version,
            domain,
            mode,
            phase: Phase::Static,
            seen: 0,
            vcpus: BTreeMap::new(),
            info: None,
            checkpoints: 0,
        }
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Checkpoints that are complete.
    #[must_use]
    pub const fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// Whether a STATIC_DATA_END is to be understood before this record, as in images of version 2.
    #[must_use]
    pub fn infers_static_end(&self, kind: Kind) -> bool {
        let place = match self.domain {
            DomainKind::Pv => Kind::P2mFrames,
            DomainKind::Hvm => Kind::PageData,
        };
        self.version < 3 && self.phase == Phase::Static && kind == place
    }

    /// Understands a STATIC_DATA_END that is not there.
    ///
    /// # Errors
    /// What has to come first did not.
    pub fn infer_static_end(&mut self) -> Result<(), Refusal> {
        self.take(Kind::StaticDataEnd)
    }

    /// Takes note of a record by its kind, before its body is read.
    ///
    /// # Errors
    /// It may not come now; the order is as before.
    pub fn admit(&mut self, kind: Kind) -> Result<(), Refusal> {
        let newer = matches!(
            kind,
            Kind::StaticDataEnd | Kind::CpuidPolicy | Kind::MsrPolicy
        );
        if newer && self.version < 3 && self.phase != Phase::Ended {
            return Err(Refusal::Version);
        }
        self.take(kind)
    }

    fn take(&mut self, kind: Kind) -> Result<(), Refusal> {
        self.check_domain(kind)?;
        match (kind, self.mode) {
            (Kind::Checkpoint, Mode::Plain) => return Err(Refusal::Plain),
            (Kind::Verify, Mode::Checkpointed) => return Err(Refusal::NotPlain),
            _ => {}
        }
        let class = class(kind);
        // Before the picture: what is missing says more than where it is missing.
        if class == Class::Checkpoint || (class == Class::End && self.phase != Phase::Between) {
            self.check_complete()?;
        }
        let next = step(self.phase, class, self.domain)?;
        match class {
            Class::Static | Class::Tail if self.has(kind) && !is_of_vcpu(kind) => {
                return Err(Refusal::Twice);
            }
            Class::StaticEnd if self.domain == DomainKind::Pv && !self.has(Kind::PvInfo) => {
                return Err(Refusal::Before(Kind::PvInfo.name()));
            }
            Class::Verify if !self.has(Kind::PageData) => {
                return Err(Refusal::Before(Kind::PageData.name()));
            }
            _ => {}
        }
        self.phase = next;
        self.seen |= 1 << kind.index();
        if kind == Kind::Checkpoint {
            self.begin_epoch();
        }
        Ok(())
    }

    /// Takes note of what a record says, after [`Order::admit`].
    ///
    /// # Errors
    /// It does not agree with what came before.
    pub fn note(&mut self, record: &Record) -> Result<(), Refusal> {
        match record {
            Record::PvInfo(info) => self.info = Some(*info),
            Record::P2mFrames(frames) => {
                if let Some(info) = self.info {
                    check_width(info, frames.frames.len() as u64, frames.pages_for(info))?;
                }
            }
            Record::Vcpu(record) => {
                if let (Some(info), VcpuPart::Basic) = (self.info, record.part) {
                    check_width(info, record.state.len() as u64, info.basic_bytes())?;
                }
                let vcpu = record.vcpu.0;
                let parts = self.vcpus.entry(vcpu).or_default();
                let bit = 1 << record.part as u8;
                if *parts & bit != 0 {
                    return Err(Refusal::TwiceForVcpu { vcpu });
                }
                *parts |= bit;
            }
            _ => {}
        }
        Ok(())
    }

    fn has(&self, kind: Kind) -> bool {
        self.seen & (1 << kind.index()) != 0
    }

    fn check_domain(&self, kind: Kind) -> Result<(), Refusal> {
        let only = match kind {
            Kind::PvInfo
            | Kind::P2mFrames
            | Kind::VcpuBasic
            | Kind::VcpuExtended
            | Kind::VcpuXsave
            | Kind::VcpuMsrs
            | Kind::SharedInfo => DomainKind::Pv,
            Kind::HvmContext | Kind::HvmParams => DomainKind::Hvm,
            Kind::End
            | Kind::PageData
            | Kind::TscInfo
            | Kind::Toolstack
            | Kind::Verify
            | Kind::Checkpoint
            | Kind::CheckpointDirtyPfnList
            | Kind::StaticDataEnd
            | Kind::CpuidPolicy
            | Kind::MsrPolicy
            | Kind::Offer => return Ok(()),
        };
        if only == self.domain {
            return Ok(());
        }
        Err(Refusal::Domain(self.domain.name()))
    }

    fn check_complete(&self) -> Result<(), Refusal> {
        let needed: &[Kind] = match (self.phase, self.domain) {
            // The picture has a better reason than what is missing.
            (Phase::Static | Phase::P2m | Phase::Ended, _) => return Ok(()),
            (_, DomainKind::Pv) => &[Kind::PageData, Kind::SharedInfo, Kind::VcpuBasic],
            (_, DomainKind::Hvm) => &[Kind::PageData, Kind::HvmContext],
        };
        if let Some(missing) = needed.iter().copied().find(|kind| !self.has(*kind)) {
            return Err(Refusal::Incomplete { missing });
        }
        let basic = 1 << VcpuPart::Basic as u8;
        match self.vcpus.iter().find(|(_, parts)| **parts & basic == 0) {
            Some((&vcpu, _)) => Err(Refusal::NoRegisters { vcpu }),
            None => Ok(()),
        }
    }

    /// Registers come again with the next checkpoint; what was static, and that there is memory, stays.
    fn begin_epoch(&mut self) {
        self.checkpoints += 1;
        self.vcpus.clear();
        for kind in Kind::ALL {
            if class(kind) == Class::Tail {
                self.seen &= !(1 << kind.index());
            }
        }
    }
}

const fn is_of_vcpu(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VcpuBasic | Kind::VcpuExtended | Kind::VcpuXsave | Kind::VcpuMsrs
    )
}

fn check_width(info: PvInfo, found: u64, expected: u64) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    Err(Refusal::Width {
        width: info.width(),
        found,
        expected,
    })
}
