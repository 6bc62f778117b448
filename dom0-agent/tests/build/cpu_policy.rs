//! What is changed in the hypervisor's default CPU policy, and that nothing else is.

use dom0_agent::build::cpu_policy::{pv, pvh};
use xen_host::seam::{CpuPolicy, CpuidLeaf};

const NO_SUBLEAF: u32 = u32::MAX;

fn leaf(leaf: u32, subleaf: u32, regs: [u32; 4]) -> CpuidLeaf {
    CpuidLeaf {
        leaf,
        subleaf,
        regs,
    }
}

fn amd() -> Vec<CpuidLeaf> {
    vec![
        leaf(0, NO_SUBLEAF, [16, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        leaf(
            1,
            NO_SUBLEAF,
            [0x80_0f12, 0x0004_0800, 0xf6f8_3203 | 1 << 5, 0x178b_fbbf],
        ),
        leaf(0x8000_0001, NO_SUBLEAF, [0, 0, 0x0040_03f7, 0x2fd3_fbff]),
        leaf(0x8000_0007, NO_SUBLEAF, [0, 0, 0, 0x100]),
        leaf(0x8000_0008, NO_SUBLEAF, [0x3030, 0, 0x3003, 0]),
    ]
}

fn policy(leaves: Vec<CpuidLeaf>) -> CpuPolicy {
    CpuPolicy {
        leaves,
        msrs: vec![(0xce, 1 << 31)],
    }
}

fn regs(policy: &CpuPolicy, leaf: u32) -> [u32; 4] {
    policy
        .leaves
        .iter()
        .find(|found| found.leaf == leaf)
        .unwrap()
        .regs
}

#[test]
fn a_pv_guest_sees_the_hosts_threads_and_no_invariant_tsc() {
    let mut host = amd();
    host[1].regs[3] |= 1 << 28;
    host[2].regs[2] &= !2;
    let got = pv(policy(amd()), &policy(host));
    let mut wanted = amd();
    wanted[1].regs[3] |= 1 << 28;
    wanted[2].regs[2] &= !2;
    wanted[3].regs[3] = 0;
    assert_eq!(got, policy(wanted));
}

#[test]
fn a_pvh_guest_on_amd_has_every_second_apic_id() {
    let got = pvh(policy(amd()));
    let [_, ebx, ecx, edx] = regs(&got, 1);
    assert_eq!((ebx >> 16 & 0xff, ecx & 1 << 5, edx >> 28 & 1), (8, 0, 1));
    assert_eq!(regs(&got, 0x8000_0001)[2] & 6, 0);
    assert_eq!(regs(&got, 0x8000_0007)[3], 0);
    assert_eq!(regs(&got, 0x8000_0008)[2], 0x4007);
    assert_eq!(got.msrs, policy(vec![]).msrs);
}

#[test]
fn a_pvh_guest_on_intel_has_every_second_apic_id() {
    let intel = vec![
        leaf(0, NO_SUBLEAF, [16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        leaf(1, NO_SUBLEAF, [0, 0x0010_0000, 0, 0]),
        leaf(4, 0, [0x1c00_4121, 0, 0, 0]),
        leaf(4, 1, [0, 0, 0, 0]),
    ];
    let got = pvh(policy(intel));
    assert_eq!(got.leaves[2].regs[0], 15 << 26 | 0x121);
    assert_eq!(got.leaves[3].regs, [0; 4]);
    assert_eq!(regs(&got, 1)[1] >> 16, 0x20);
}

#[test]
fn fields_that_would_overflow_stay() {
    let mut large = amd();
    large[1].regs[1] = 0xff << 16;
    large[4].regs[2] = 0x70ff;
    let got = pvh(policy(large));
    assert_eq!(
        (regs(&got, 1)[1] >> 16, regs(&got, 0x8000_0008)[2]),
        (0xff, 0x70ff)
    );
}

#[test]
fn a_cpu_without_a_leaf_is_left_alone() {
    assert_eq!(pv(policy(vec![]), &policy(vec![])), policy(vec![]));
    assert_eq!(pvh(policy(vec![])), policy(vec![]));
}
