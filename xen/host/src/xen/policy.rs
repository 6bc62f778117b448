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
/// What the calls that read one are named.
const READ: &str = "get_cpu_policy";

impl Xen {
    /// A policy of the host.
    pub(super) fn host_policy(&self, index: u32) -> Result<CpuPolicy> {
        self.read_policy(|buffers| {
            let call = sysctl::cpu_policy(self.abi, index, buffers);
            // SAFETY: the buffers are as large as they say, or null to ask for their sizes; they live through the call.
            let answer = unsafe { self.sysctl(call) };
            let answer = answer.map_err(|refusal| refusal.about(READ, None))?;
            let answer: sysctl::GetCpuPolicy = answer.payload();
            Ok((answer.nr_leaves, answer.nr_msrs))
        })
    }

    /// The policy of a domain.
    pub(super) fn policy_of(&self, domid: DomId) -> Result<CpuPolicy> {
        self.read_policy(|buffers| {
            let call = domctl::get_cpu_policy(self.abi, domid, buffers);
            // SAFETY: the buffers are as large as they say, or null to ask for their sizes; they live through the call.
            let answer = unsafe { self.domctl(call) };
            let answer = answer.map_err(|refusal| refusal.about(READ, Some(domid)))?;
            let answer: domctl::CpuPolicy = answer.payload();
            Ok((answer.nr_leaves, answer.nr_msrs))
        })
    }

    /// Reads a policy by a call that answers how many leaves and registers there are, or were written.
    fn read_policy(&self, ask: impl Fn(PolicyBuffers) -> Result<(u32, u32)>) -> Result<CpuPolicy> {
        let (nr_leaves, nr_msrs) = ask(PolicyBuffers {
            leaves: UserPtr::NULL,
            nr_leaves: 0,
            msrs: UserPtr::NULL,
            nr_msrs: 0,
        })?;
        if nr_leaves > MAX_ENTRIES || nr_msrs > MAX_ENTRIES {
            let what = format!("{nr_leaves} leaves and {nr_msrs} registers");
            return Err(Error::Malformed { op: READ, what });
        }
        let leaves = self.buffer(nr_leaves as usize * size_of::<Leaf>())?;
        let msrs = self.buffer(nr_msrs as usize * size_of::<Msr>())?;
        let written = ask(PolicyBuffers {
            leaves: leaves.address(),
            nr_leaves,
            msrs: msrs.address(),
            nr_msrs,
        })?;
        let leaf_bytes = written.0.min(nr_leaves) as usize * size_of::<Leaf>();
        let msr_bytes = written.1.min(nr_msrs) as usize * size_of::<Msr>();
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
