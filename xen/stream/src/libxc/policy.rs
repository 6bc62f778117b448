//! What the guest's processor is: CPUID leaves, model specific registers, and its clock.
//!
//! [`super::Record`] takes them apart, into the structures that Xen's calls take. Whether this host can be such a processor is
//! for Xen to say.

use crate::bytes::{Fields, exactly};
use crate::error::{Expected, Problem};
use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::domctl;

/// The time stamp counter, as `gettscinfo` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TscInfo {
    /// A `TSC_MODE_*`.
    pub mode: u32,
    /// Its rate.
    pub khz: u32,
    /// Since the guest's start.
    pub nsec: u64,
    /// How often it was restored.
    pub incarnation: u32,
}

impl From<&domctl::TscInfo> for TscInfo {
    fn from(info: &domctl::TscInfo) -> Self {
        Self {
            mode: info.tsc_mode,
            khz: info.gtsc_khz,
            nsec: info.elapsed_nsec,
            incarnation: info.incarnation,
        }
    }
}

impl From<&TscInfo> for domctl::TscInfo {
    fn from(info: &TscInfo) -> Self {
        Self {
            tsc_mode: info.mode,
            gtsc_khz: info.khz,
            incarnation: info.incarnation,
            pad: 0,
            elapsed_nsec: info.nsec,
        }
    }
}

impl TscInfo {
    pub(crate) fn decode(body: &[u8]) -> Result<Self, Problem> {
        exactly(body, 24)?;
        let mut fields = Fields::of(body);
        let info = Self {
            mode: fields.u32()?,
            khz: fields.u32()?,
            nsec: fields.u64()?,
            incarnation: fields.u32()?,
        };
        fields.zero32("the record")?;
        Ok(info)
    }

    pub(crate) fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.mode.to_le_bytes());
        into.extend_from_slice(&self.khz.to_le_bytes());
        into.extend_from_slice(&self.nsec.to_le_bytes());
        into.extend_from_slice(&self.incarnation.to_le_bytes());
        into.extend_from_slice(&[0; 4]);
    }
}

/// How many entries of `unit` bytes a body is: one or more.
fn entries(body: &[u8], unit: usize) -> Result<usize, Problem> {
    if !body.is_empty() && body.len().is_multiple_of(unit) {
        return Ok(body.len() / unit);
    }
    Err(Problem::Length {
        found: body.len() as u64,
        expected: Expected::Units {
            base: 0,
            unit: unit as u64,
        },
    })
}

pub(crate) fn decode_leaves(body: &[u8]) -> Result<Vec<Leaf>, Problem> {
    let mut fields = Fields::of(body);
    (0..entries(body, size_of::<Leaf>())?)
        .map(|_| {
            Ok(Leaf {
                leaf: fields.u32()?,
                subleaf: fields.u32()?,
                a: fields.u32()?,
                b: fields.u32()?,
                c: fields.u32()?,
                d: fields.u32()?,
            })
        })
        .collect()
}

pub(crate) fn encode_leaves(leaves: &[Leaf], into: &mut Vec<u8>) {
    for leaf in leaves {
        for word in [leaf.leaf, leaf.subleaf, leaf.a, leaf.b, leaf.c, leaf.d] {
            into.extend_from_slice(&word.to_le_bytes());
        }
    }
}

/// The flags are for Xen to judge: none is defined, and that is not for ever.
pub(crate) fn decode_msrs(body: &[u8]) -> Result<Vec<Msr>, Problem> {
    let mut fields = Fields::of(body);
    (0..entries(body, size_of::<Msr>())?)
        .map(|_| {
            Ok(Msr {
                idx: fields.u32()?,
                flags: fields.u32()?,
                val: fields.u64()?,
            })
        })
        .collect()
}

pub(crate) fn encode_msrs(msrs: &[Msr], into: &mut Vec<u8>) {
    for msr in msrs {
        into.extend_from_slice(&msr.idx.to_le_bytes());
        into.extend_from_slice(&msr.flags.to_le_bytes());
        into.extend_from_slice(&msr.val.to_le_bytes());
    }
}
