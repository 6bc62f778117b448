//! The first vcpu of a PVH guest, as a save blob for Xen to load.
//!
//! ```text
//!   from Xen   HEADER │ ... │ MTRR 0 │ MTRR 1 │ ... │ END        a new domain has no CPU record yet
//!   to Xen     HEADER │ CPU 0 │ MTRR 0 │ MTRR 1 ... │ END
//! ```
//!
//! HEADER must be Xen's own. MTRRs are enabled with write-back as default, or a guest without firmware runs uncached.
//! Every load takes all vcpus down but those it brings a CPU record for, so this is the last load before the guest runs.
//! Pure.

use xen_abi::hvm::save::{self, CPU, HEADER, HwCpu, HwMtrr, MTRR, Segment};
use zerocopy::{FromZeros, IntoBytes};

/// MTRRs enabled (bit 11), default type write-back.
const MTRR_ENABLED_WB: u64 = 0x806;
/// Protected mode, extension type.
const CR0: u64 = 0x11;
/// Debug registers 6 and 7 after reset.
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
/// Flat 32-bit code, flat data, busy 32-bit task.
const CODE: u32 = 0xc9b;
const DATA: u32 = 0xc93;
const TASK: u32 = 0x8b;
const TASK_LIMIT: u32 = 0x67;
/// Index of rbx in [`HwCpu::low_regs`].
const RBX: usize = 1;

/// The blob that starts vcpu 0 at `entry` with `start_info` in ebx, made from the blob of the new domain.
///
/// # Errors
/// What the blob of the new domain lacks.
pub fn blob(fresh: &[u8], entry: u32, start_info: u64) -> Result<Vec<u8>, &'static str> {
    let mut records = save::records(fresh);
    let Some(header) = records.next().filter(|record| record.kind == HEADER) else {
        return Err("it does not start with a HEADER record");
    };
    let mut blob = Vec::with_capacity(fresh.len());
    let mut append = |kind, instance, body: &[u8]| {
        save::append(&mut blob, kind, instance, body).ok_or("a record of it is too long")
    };
    append(HEADER, 0, header.body)?;
    append(CPU, 0, cpu(entry, start_info).as_bytes())?;
    let mut vcpus = 0;
    for record in records.filter(|record| record.kind == MTRR) {
        let mut mtrr: HwMtrr =
            xen_abi::layout::copy_out(record.body).ok_or("an MTRR record of it is too short")?;
        mtrr.msr_mtrr_def_type = MTRR_ENABLED_WB;
        append(MTRR, record.instance, mtrr.as_bytes())?;
        vcpus += 1;
    }
    if vcpus == 0 {
        return Err("it has no MTRR record");
    }
    save::finish(&mut blob);
    Ok(blob)
}

/// 32-bit protected mode, paging off, flat segments.
fn cpu(entry: u32, start_info: u64) -> HwCpu {
    let mut cpu = HwCpu::new_zeroed();
    cpu.low_regs[RBX] = start_info;
    cpu.rip = entry.into();
    cpu.cr[0] = CR0;
    (cpu.dr[4], cpu.dr[5]) = (DR6, DR7);
    for (segment, limit, access) in [
        (Segment::Cs, u32::MAX, CODE),
        (Segment::Ds, u32::MAX, DATA),
        (Segment::Es, u32::MAX, DATA),
        (Segment::Ss, u32::MAX, DATA),
        (Segment::Tr, TASK_LIMIT, TASK),
    ] {
        cpu.limit[segment as usize] = limit;
        cpu.arbytes[segment as usize] = access;
    }
    cpu
}
