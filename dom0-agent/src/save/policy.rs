//! A CPU policy between the seam's form and the stream's.

use xen_abi::cpuid::{Leaf, Msr};
use xen_host::seam::{CpuPolicy, CpuidLeaf};

/// The leaves as a stream has them.
#[must_use]
pub fn leaves(policy: &CpuPolicy) -> Vec<Leaf> {
    let leaf = |leaf: &CpuidLeaf| {
        let [a, b, c, d] = leaf.regs;
        Leaf {
            leaf: leaf.leaf,
            subleaf: leaf.subleaf,
            a,
            b,
            c,
            d,
        }
    };
    policy.leaves.iter().map(leaf).collect()
}

/// The registers as a stream has them.
#[must_use]
pub fn msrs(policy: &CpuPolicy) -> Vec<Msr> {
    let msr = |(idx, val): &(u32, u64)| Msr {
        idx: *idx,
        flags: 0,
        val: *val,
    };
    policy.msrs.iter().map(msr).collect()
}

/// A policy out of a stream.
#[must_use]
pub fn policy(leaves: &[Leaf], msrs: &[Msr]) -> CpuPolicy {
    let leaf = |raw: &Leaf| CpuidLeaf {
        leaf: raw.leaf,
        subleaf: raw.subleaf,
        regs: [raw.a, raw.b, raw.c, raw.d],
    };
    CpuPolicy {
        leaves: leaves.iter().map(leaf).collect(),
        msrs: msrs.iter().map(|raw| (raw.idx, raw.val)).collect(),
    }
}
