//! Saved state of a PVH or HVM domain: a row of records. Source: `xen/hvm/save.h`, `xen/arch-x86/hvm/save.h`.
//!
//! ```text
//!   HEADER | CPU 0 | CPU 1 | ... | LAPIC 0 | ... | MTRR 0 | ... | END
//!   each: descriptor (type u16, instance u16, length u32) + body, without padding between
//! ```
//!
//! The header must be one Xen wrote on this host. Bodies may be longer in another release than they are here: take the
//! length from the blob and change fields by offset. [`records`] trusts nothing: it ends at the first thing that does not
//! fit.

use crate::layout;
use crate::layout::copy_out;
use zerocopy::IntoBytes;

crate::constants! {
    /// Record: the end, empty.
    pub const END: u16 = 0 => "HVM_SAVE_CODE(END)";
    /// Record: [`SaveHeader`].
    pub const HEADER: u16 = 1 => "HVM_SAVE_CODE(HEADER)";
    /// Record per vcpu: [`HwCpu`].
    pub const CPU: u16 = 2 => "HVM_SAVE_CODE(CPU)";
    /// Record: interrupt controller of old.
    pub const PIC: u16 = 3 => "HVM_SAVE_CODE(PIC)";
    /// Record: IO-APIC.
    pub const IOAPIC: u16 = 4 => "HVM_SAVE_CODE(IOAPIC)";
    /// Record per vcpu: local APIC, hidden state.
    pub const LAPIC: u16 = 5 => "HVM_SAVE_CODE(LAPIC)";
    /// Record per vcpu: local APIC, registers.
    pub const LAPIC_REGS: u16 = 6 => "HVM_SAVE_CODE(LAPIC_REGS)";
    /// Record: PCI interrupt wires.
    pub const PCI_IRQ: u16 = 7 => "HVM_SAVE_CODE(PCI_IRQ)";
    /// Record: ISA interrupt wires.
    pub const ISA_IRQ: u16 = 8 => "HVM_SAVE_CODE(ISA_IRQ)";
    /// Record: PCI to ISA routes.
    pub const PCI_LINK: u16 = 9 => "HVM_SAVE_CODE(PCI_LINK)";
    /// Record: timer of old.
    pub const PIT: u16 = 10 => "HVM_SAVE_CODE(PIT)";
    /// Record: clock.
    pub const RTC: u16 = 11 => "HVM_SAVE_CODE(RTC)";
    /// Record: HPET.
    pub const HPET: u16 = 12 => "HVM_SAVE_CODE(HPET)";
    /// Record: ACPI timer.
    pub const PMTIMER: u16 = 13 => "HVM_SAVE_CODE(PMTIMER)";
    /// Record per vcpu: [`HwMtrr`].
    pub const MTRR: u16 = 14 => "HVM_SAVE_CODE(MTRR)";
    /// Record: Hyper-V, domain.
    pub const VIRIDIAN_DOMAIN: u16 = 15 => "HVM_SAVE_CODE(VIRIDIAN_DOMAIN)";
    /// Record per vcpu: XSAVE area.
    pub const XSAVE: u16 = 16 => "CPU_XSAVE_CODE";
    /// Record per vcpu: Hyper-V.
    pub const VIRIDIAN_VCPU: u16 = 17 => "HVM_SAVE_CODE(VIRIDIAN_VCPU)";
    /// Record per vcpu: machine check.
    pub const VMCE_VCPU: u16 = 18 => "HVM_SAVE_CODE(VMCE_VCPU)";
    /// Record per vcpu: time stamp adjustment.
    pub const TSC_ADJUST: u16 = 19 => "HVM_SAVE_CODE(TSC_ADJUST)";
    /// Record per vcpu: model specific registers.
    pub const MSR: u16 = 20 => "CPU_MSR_CODE";

    /// [`SaveHeader::magic`].
    pub const FILE_MAGIC: u32 = 0x5438_1286 => "HVM_FILE_MAGIC";
    /// [`SaveHeader::version`].
    pub const FILE_VERSION: u32 = 1 => "HVM_FILE_VERSION";
    /// [`HwCpu::flags`]: the FPU state means something.
    pub const FPU_INITIALISED: u32 = 1 => "XEN_X86_FPU_INITIALISED";
}

/// Records looked at in one blob: 21 types for 128 vcpus and to spare.
pub const MAX_RECORDS: usize = 4096;

layout! {
    /// What stands before every body.
    pub struct Descriptor: "struct hvm_save_descriptor", 8 {
        /// Kind.
        pub typecode: u16 = 0 => "typecode",
        /// Which vcpu, mostly.
        pub instance: u16 = 2 => "instance",
        /// Bytes of the body.
        pub length: u32 = 4 => "length",
    }
}

layout! {
    /// Body of [`HEADER`].
    pub struct SaveHeader: "struct hvm_save_header", 24 {
        /// [`FILE_MAGIC`].
        pub magic: u32 = 0 => "magic",
        /// [`FILE_VERSION`].
        pub version: u32 = 4 => "version",
        /// Of the hypervisor that saved.
        pub changeset: u64 = 8 => "changeset",
        /// CPUID leaf 1, EAX, of the host that saved.
        pub cpuid: u32 = 16 => "cpuid",
        /// Guest's time stamp rate, kHz.
        pub gtsc_khz: u32 = 20 => "gtsc_khz",
    }
}

layout! {
    /// Body of [`CPU`].
    pub struct HwCpu: "struct hvm_hw_cpu", 1032 {
        /// FXSAVE area.
        pub fpu_regs: [u8; 512] = 0 => "fpu_regs",
        /// rax, rbx, rcx, rdx, rbp, rsi, rdi, rsp.
        pub low_regs: [u64; 8] = 512 => "rax",
        /// r8 to r15.
        pub high_regs: [u64; 8] = 576 => "r8",
        /// Instruction pointer.
        pub rip: u64 = 640 => "rip",
        /// Flags.
        pub rflags: u64 = 648 => "rflags",
        /// cr0, cr2, cr3, cr4.
        pub cr: [u64; 4] = 656 => "cr0",
        /// dr0, dr1, dr2, dr3, dr6, dr7.
        pub dr: [u64; 6] = 688 => "dr0",
        /// Selectors: cs ds es fs gs ss tr ldtr.
        pub sel: [u32; 8] = 736 => "cs_sel",
        /// Limits: cs ds es fs gs ss tr ldtr idtr gdtr.
        pub limit: [u32; 10] = 768 => "cs_limit",
        /// Bases: cs ds es fs gs ss tr ldtr idtr gdtr.
        pub base: [u64; 10] = 808 => "cs_base",
        /// Access bytes: cs ds es fs gs ss tr ldtr.
        pub arbytes: [u32; 8] = 888 => "cs_arbytes",
        /// SYSENTER: cs, esp, eip.
        pub sysenter: [u64; 3] = 920 => "sysenter_cs",
        /// Swapped gs base.
        pub shadow_gs: u64 = 944 => "shadow_gs",
        /// Obsolete.
        pub msr_flags: u64 = 952 => "msr_flags",
        /// lstar, star, cstar, syscall mask.
        pub msr_syscall: [u64; 4] = 960 => "msr_lstar",
        /// Extended features.
        pub msr_efer: u64 = 992 => "msr_efer",
        /// TSC_AUX.
        pub msr_tsc_aux: u64 = 1000 => "msr_tsc_aux",
        /// Guest's time stamp counter.
        pub tsc: u64 = 1008 => "tsc",
        /// Event to be delivered.
        pub pending_event: u32 = 1016 => "pending_event",
        /// Its error code.
        pub error_code: u32 = 1020 => "error_code",
        /// [`FPU_INITIALISED`] or 0.
        pub flags: u32 = 1024 => "flags",
        /// Padding, zero.
        pub pad0: u32 = 1028 => "pad0",
    }
}

layout! {
    /// Body of [`MTRR`].
    pub struct HwMtrr: "struct hvm_hw_mtrr", 240 {
        /// Page attribute table.
        pub msr_pat_cr: u64 = 0 => "msr_pat_cr",
        /// Base and mask of the variable ranges.
        pub msr_mtrr_var: [u64; 16] = 8 => "msr_mtrr_var",
        /// The fixed ranges.
        pub msr_mtrr_fixed: [u64; 11] = 136 => "msr_mtrr_fixed",
        /// Capabilities.
        pub msr_mtrr_cap: u64 = 224 => "msr_mtrr_cap",
        /// Default type.
        pub msr_mtrr_def_type: u64 = 232 => "msr_mtrr_def_type",
    }
}

/// Index into [`HwCpu`]'s segment arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the processor's")]
pub enum Segment {
    Cs,
    Ds,
    Es,
    Fs,
    Gs,
    Ss,
    Tr,
    Ldtr,
}

/// One record of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Kind.
    pub kind: u16,
    /// Which vcpu, mostly.
    pub instance: u16,
    /// Where the body begins in the blob.
    pub offset: usize,
    /// Body.
    pub body: &'a [u8],
}

/// The records of a blob before [`END`], at most [`MAX_RECORDS`]; a record that does not fit ends them.
pub fn records(blob: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let descriptor: Descriptor = copy_out(blob.get(at..)?)?;
        if descriptor.typecode == END {
            return None;
        }
        let offset = at + size_of::<Descriptor>();
        let end = offset.checked_add(usize::try_from(descriptor.length).ok()?)?;
        let body = blob.get(offset..end)?;
        at = end;
        let (kind, instance) = (descriptor.typecode, descriptor.instance);
        Some(Record {
            kind,
            instance,
            offset,
            body,
        })
    })
    .take(MAX_RECORDS)
}

/// Finds a record.
#[must_use]
pub fn find(blob: &[u8], kind: u16, instance: u16) -> Option<Record<'_>> {
    records(blob).find(|record| record.kind == kind && record.instance == instance)
}

/// Appends a record to a blob; the caller ends the blob with [`finish`]. `None` if the body is beyond 4 GiB.
#[must_use]
pub fn append(blob: &mut Vec<u8>, kind: u16, instance: u16, body: &[u8]) -> Option<()> {
    let length = u32::try_from(body.len()).ok()?;
    blob.extend_from_slice(
        Descriptor {
            typecode: kind,
            instance,
            length,
        }
        .as_bytes(),
    );
    blob.extend_from_slice(body);
    Some(())
}

/// Ends a blob.
pub fn finish(blob: &mut Vec<u8>) {
    blob.extend_from_slice(
        Descriptor {
            typecode: END,
            instance: 0,
            length: 0,
        }
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_blob_comes_apart_as_it_was_put_together() {
        let mut blob = vec![];
        append(&mut blob, HEADER, 0, &[7; 24]).unwrap();
        append(&mut blob, CPU, 3, &[1, 2, 3]).unwrap();
        finish(&mut blob);
        let found: Vec<_> = records(&blob)
            .map(|record| (record.kind, record.instance))
            .collect();
        assert_eq!(found, [(HEADER, 0), (CPU, 3)]);
        let cpu = find(&blob, CPU, 3).unwrap();
        assert_eq!((cpu.body, cpu.offset), (&[1u8, 2, 3][..], 40));
        assert_eq!(find(&blob, CPU, 0), None);
        assert_eq!(records(&blob[..42]).count(), 1, "a cut record is no record");
    }

    proptest! {
        #[test]
        fn no_blob_panics(blob in proptest::collection::vec(any::<u8>(), 0..256)) {
            for record in records(&blob) {
                prop_assert_eq!(&blob[record.offset..record.offset + record.body.len()], record.body);
            }
        }
    }
}
