//! CPU policies: the leaves and registers a guest will see.

use super::Xen;
use crate::error::Error;
use crate::seam::{CpuPolicy, CpuidLeaf, Result};
use xen_abi::cpuid::{Leaf, Msr};
use xen_abi::domctl::{self, PolicyBuffers, PolicyObjection};
use xen_abi::ids::DomId;
use xen_abi::layout::{UserPtr, copy_out};
use xen_abi::sysctl;
use zerocopy::IntoBytes;

/// Most leaves or registers of a policy read.
const MAX_ENTRIES: u32 = 4096;

impl Xen {
    /// A policy of the host.
    pub(super) fn host_policy(&self, index: u32) -> Result<CpuPolicy> {
        let op = "get_cpu_policy";
        let none = PolicyBuffers {
            leaves: UserPtr::NULL,
            nr_leaves: 0,
            msrs: UserPtr::NULL,
            nr_msrs: 0,
        };
        let call = sysctl::cpu_policy(self.abi, index, none);
        // SAFETY: null addresses only ask for the counts.
        let sizes = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
        let sizes: sysctl::GetCpuPolicy = sizes.payload();
        if sizes.nr_leaves > MAX_ENTRIES || sizes.nr_msrs > MAX_ENTRIES {
            let what = format!("{} leaves and {} registers", sizes.nr_leaves, sizes.nr_msrs);
            return Err(Error::Malformed { op, what });
        }
        let leaves = self.buffer(sizes.nr_leaves as usize * size_of::<Leaf>())?;
        let msrs = self.buffer(sizes.nr_msrs as usize * size_of::<Msr>())?;
        let buffers = PolicyBuffers {
            leaves: leaves.address(),
            nr_leaves: sizes.nr_leaves,
            msrs: msrs.address(),
            nr_msrs: sizes.nr_msrs,
        };
        let call = sysctl::cpu_policy(self.abi, index, buffers);
        // SAFETY: the buffers hold as many entries as the call says and live through it.
        let answer = unsafe { self.sysctl(call) }.map_err(|refusal| refusal.about(op, None))?;
        let answer: sysctl::GetCpuPolicy = answer.payload();
        let leaf_bytes = answer.nr_leaves.min(sizes.nr_leaves) as usize * size_of::<Leaf>();
        let msr_bytes = answer.nr_msrs.min(sizes.nr_msrs) as usize * size_of::<Msr>();
        Ok(decode(&leaves.to_vec(leaf_bytes), &msrs.to_vec(msr_bytes)))
    }

    /// Gives a domain another policy.
    pub(super) fn replace_policy(&self, domid: DomId, policy: &CpuPolicy) -> Result<()> {
        let op = "set_cpu_policy";
        let (leaves, msrs) = encode(policy);
        let buffers = (self.buffer_of(&leaves)?, self.buffer_of(&msrs)?);
        let count = |entries: usize| u32::try_from(entries).unwrap_or(u32::MAX);
        let call = domctl::set_cpu_policy(
            self.abi,
            domid,
            PolicyBuffers {
                leaves: buffers.0.address(),
                nr_leaves: count(policy.leaves.len()),
                msrs: buffers.1.address(),
                nr_msrs: count(policy.msrs.len()),
            },
        );
        // SAFETY: the buffers hold as many entries as the call says and live through it.
        let answer = unsafe { self.domctl(call) };
        answer.map(drop).map_err(|refusal| {
            if let super::Refusal::Xen(errno, answer) = &refusal
                && let Some(culprit) = culprit(domctl::policy_objection(answer))
            {
                return Error::Malformed {
                    op,
                    what: format!("domain {domid} cannot have {culprit} ({errno})"),
                };
            }
            refusal.about(op, Some(domid))
        })
    }
}

fn culprit(objection: PolicyObjection) -> Option<String> {
    match objection {
        PolicyObjection {
            leaf: Some((leaf, Some(subleaf))),
            ..
        } => Some(format!(
            "CPUID leaf {leaf:#x} subleaf {subleaf:#x} as given"
        )),
        PolicyObjection {
            leaf: Some((leaf, None)),
            ..
        } => Some(format!("CPUID leaf {leaf:#x} as given")),
        PolicyObjection { msr: Some(msr), .. } => Some(format!("MSR {msr:#x} as given")),
        PolicyObjection {
            leaf: None,
            msr: None,
        } => None,
    }
}

fn decode(leaves: &[u8], msrs: &[u8]) -> CpuPolicy {
    let leaves = leaves
        .chunks_exact(size_of::<Leaf>())
        .filter_map(copy_out::<Leaf>);
    let msrs = msrs
        .chunks_exact(size_of::<Msr>())
        .filter_map(copy_out::<Msr>);
    CpuPolicy {
        leaves: leaves
            .map(|raw| CpuidLeaf {
                leaf: raw.leaf,
                subleaf: raw.subleaf,
                regs: [raw.a, raw.b, raw.c, raw.d],
            })
            .collect(),
        msrs: msrs.map(|raw| (raw.idx, raw.val)).collect(),
    }
}

fn encode(policy: &CpuPolicy) -> (Vec<u8>, Vec<u8>) {
    let leaves = policy.leaves.iter().flat_map(|leaf| {
        let [a, b, c, d] = leaf.regs;
        let raw = Leaf {
            leaf: leaf.leaf,
            subleaf: leaf.subleaf,
            a,
            b,
            c,
            d,
        };
        raw.as_bytes().to_vec()
    });
    let msrs = policy.msrs.iter().flat_map(|(idx, val)| {
        Msr {
            idx: *idx,
            flags: 0,
            val: *val,
        }
        .as_bytes()
        .to_vec()
    });
    (leaves.collect(), msrs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_survives_its_bytes() {
        let policy = CpuPolicy {
            leaves: vec![
                CpuidLeaf {
                    leaf: 0,
                    subleaf: u32::MAX,
                    regs: [1, 2, 3, 4],
                },
                CpuidLeaf {
                    leaf: 7,
                    subleaf: 0,
                    regs: [5, 6, 7, 8],
                },
            ],
            msrs: vec![(0x10a, 0xfeed), (0xce, 1)],
        };
        let (leaves, msrs) = encode(&policy);
        assert_eq!((leaves.len(), msrs.len()), (48, 32));
        assert_eq!(decode(&leaves, &msrs), policy);
    }

    #[test]
    fn an_objection_names_its_culprit() {
        let leaf = PolicyObjection {
            leaf: Some((7, Some(1))),
            msr: None,
        };
        assert_eq!(
            culprit(leaf).as_deref(),
            Some("CPUID leaf 0x7 subleaf 0x1 as given")
        );
        assert_eq!(culprit(PolicyObjection::default()), None);
    }
}
