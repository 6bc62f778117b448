//! The CPU policy of a new guest: Xen's default for its kind, with what stock tools change in it.
//!
//! * PV: no invariant TSC; HTT and CMP_LEGACY as on the host, because a PV guest sees the real topology.
//! * PVH: no nested virtualisation; topology told so that a vcpu's APIC id is twice its number (no hyper-threads).
//!
//! Pure; leaves that a CPU does not have are left alone. Source: Intel SDM and AMD APM, CPUID.

use xen_host::seam::{CpuPolicy, CpuidLeaf};

/// `XEN_SYSCTL_cpu_policy_host`.
pub const HOST: u32 = 1;
/// `XEN_SYSCTL_cpu_policy_pv_default`.
pub const PV_DEFAULT: u32 = 4;
/// `XEN_SYSCTL_cpu_policy_hvm_default`.
pub const HVM_DEFAULT: u32 = 5;

/// No subleaves.
const NO_SUBLEAF: u32 = u32::MAX;
/// Registers by index in [`CpuidLeaf::regs`].
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// Leaf 1.
const VMX: u32 = 1 << 5;
const PAE: u32 = 1 << 6;
const HTT: u32 = 1 << 28;
const LOGICAL_PROCESSORS: u32 = 0xff << 16;
/// Leaf 0x8000_0001 ECX.
const CMP_LEGACY: u32 = 1 << 1;
const SVM: u32 = 1 << 2;
/// Leaf 0x8000_0007 EDX.
const INVARIANT_TSC: u32 = 1 << 8;

fn leaf(policy: &mut CpuPolicy, leaf: u32) -> Option<&mut CpuidLeaf> {
    policy
        .leaves
        .iter_mut()
        .find(|found| found.leaf == leaf && matches!(found.subleaf, 0 | NO_SUBLEAF))
}

fn register(policy: &CpuPolicy, leaf: u32, register: usize) -> u32 {
    let found = policy
        .leaves
        .iter()
        .find(|found| found.leaf == leaf && matches!(found.subleaf, 0 | NO_SUBLEAF));
    found.map_or(0, |found| found.regs[register])
}

/// Takes the bits of `mask` from `value`.
fn set_bits(target: &mut u32, mask: u32, value: u32) {
    *target = *target & !mask | value & mask;
}

/// The policy of a PV guest.
#[must_use]
pub fn pv(mut default: CpuPolicy, host: &CpuPolicy) -> CpuPolicy {
    if let Some(leaf) = leaf(&mut default, 0x8000_0007) {
        leaf.regs[EDX] &= !INVARIANT_TSC;
    }
    if let Some(leaf) = leaf(&mut default, 1) {
        set_bits(&mut leaf.regs[EDX], HTT, register(host, 1, EDX));
    }
    if let Some(leaf) = leaf(&mut default, 0x8000_0001) {
        set_bits(
            &mut leaf.regs[ECX],
            CMP_LEGACY,
            register(host, 0x8000_0001, ECX),
        );
    }
    default
}

/// The policy of a PVH guest.
#[must_use]
pub fn pvh(mut default: CpuPolicy) -> CpuPolicy {
    if let Some(leaf) = leaf(&mut default, 0x8000_0007) {
        leaf.regs[EDX] &= !INVARIANT_TSC;
    }
    if let Some(leaf) = leaf(&mut default, 1) {
        leaf.regs[ECX] &= !VMX;
        leaf.regs[EDX] |= PAE | HTT;
        let processors = leaf.regs[EBX] & LOGICAL_PROCESSORS;
        // Doubled, unless that would overflow the field.
        if processors & 1 << 23 == 0 {
            set_bits(&mut leaf.regs[EBX], LOGICAL_PROCESSORS, processors << 1);
        }
    }
    if let Some(leaf) = leaf(&mut default, 0x8000_0001) {
        leaf.regs[ECX] &= !(CMP_LEGACY | SVM);
    }
    let vendor = vendor(&default);
    if vendor == *b"GenuineIntel" {
        default
            .leaves
            .iter_mut()
            .filter(|leaf| leaf.leaf == 4)
            .for_each(double_cores);
    } else if (vendor == *b"AuthenticAMD" || vendor == *b"HygonGenuine")
        && let Some(leaf) = leaf(&mut default, 0x8000_0008)
    {
        double_core_count(leaf);
    }
    default
}

fn vendor(policy: &CpuPolicy) -> [u8; 12] {
    let mut text = [0; 12];
    for (part, from) in text.chunks_exact_mut(4).zip([EBX, EDX, ECX]) {
        part.copy_from_slice(&register(policy, 0, from).to_le_bytes());
    }
    text
}

/// Intel leaf 4: cores per package (minus one) doubled, one thread per cache.
fn double_cores(leaf: &mut CpuidLeaf) {
    const CORES: u32 = 0x3f << 26;
    const THREADS_PER_CACHE: u32 = 0xfff << 14;
    const TYPE: u32 = 0x1f;
    if leaf.regs[EAX] & TYPE == 0 {
        return;
    }
    let cores = (leaf.regs[EAX] & CORES) >> 26;
    set_bits(&mut leaf.regs[EAX], CORES, (cores << 1 | 1) << 26);
    leaf.regs[EAX] &= !THREADS_PER_CACHE;
}

/// AMD leaf 0x8000_0008: cores (minus one) doubled, one more bit of APIC id.
fn double_core_count(leaf: &mut CpuidLeaf) {
    const CORES: u32 = 0xff;
    const APIC_ID_SIZE: u32 = 0xf << 12;
    let cores = leaf.regs[ECX] & CORES;
    if cores >= 0x7f {
        return;
    }
    let bits = (leaf.regs[ECX] & APIC_ID_SIZE) >> 12;
    if bits != 0 && bits != 7 {
        set_bits(&mut leaf.regs[ECX], APIC_ID_SIZE, (bits + 1) << 12);
    }
    set_bits(&mut leaf.regs[ECX], CORES, cores << 1 | 1);
}
