//! What a toolstack reads to save a domain, and sets to restore it: page types, registers, clock, policy.

use super::Outcome;
use super::vcpu::PV_CONTEXT_BYTES;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domctl::{
    PFINFO_L1TAB, PFINFO_NOTAB, PFINFO_PINNED, PFINFO_XTAB, TSC_MODE_PVRDTSCP, TscInfo,
};
use xen_abi::hvm::save::HwCpu;
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::pv::vcpu_context::{UserRegs, VcpuGuestContext};
use xen_host::seam::{CpuPolicy, VcpuPart};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The general registers in which both forms of a vcpu's state agree.
fn registers(cpu: &HwCpu) -> UserRegs {
    let mut regs = UserRegs::new_zeroed();
    let [rax, rbx, rcx, rdx, rbp, rsi, rdi, rsp] = cpu.low_regs;
    let [r8, r9, r10, r11, r12, r13, r14, r15] = cpu.high_regs;
    (regs.rax, regs.rbx, regs.rcx, regs.rdx) = (rax, rbx, rcx, rdx);
    (regs.rbp, regs.rsi, regs.rdi, regs.rsp) = (rbp, rsi, rdi, rsp);
    (regs.r8, regs.r9, regs.r10, regs.r11) = (r8, r9, r10, r11);
    (regs.r12, regs.r13, regs.r14, regs.r15) = (r12, r13, r14, r15);
    (regs.rip, regs.rflags) = (cpu.rip, cpu.rflags);
    regs
}

fn set_registers(cpu: &mut HwCpu, regs: &UserRegs) {
    cpu.low_regs = [
        regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rbp, regs.rsi, regs.rdi, regs.rsp,
    ];
    cpu.high_regs = [
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ];
    (cpu.rip, cpu.rflags) = (regs.rip, regs.rflags);
}

fn hw_cpu(state: &[u8]) -> Outcome<HwCpu> {
    HwCpu::read_from_bytes(state).map_err(|_| Errno::EINVAL)
}

impl State {
    /// What `resumedomain` does: all of it, whatever the reason was.
    pub(crate) fn resume(&mut self, domid: DomId) -> Outcome<()> {
        self.guest(domid)?.shutdown = None;
        Ok(())
    }

    pub(crate) fn tsc_info(&mut self, domid: DomId) -> Outcome<TscInfo> {
        Ok(self.guest(domid)?.tsc)
    }

    pub(crate) fn set_tsc_info(&mut self, domid: DomId, info: &TscInfo) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if info.tsc_mode > TSC_MODE_PVRDTSCP {
            return Err(Errno::EINVAL);
        }
        domain.tsc = *info;
        Ok(())
    }

    pub(crate) fn domain_cpu_policy(&mut self, domid: DomId) -> Outcome<CpuPolicy> {
        Ok(self.guest(domid)?.policy.clone())
    }

    /// Xen asks no domain to be paused for this; a vcpu that was never started has no state.
    pub(crate) fn vcpu_context(&mut self, domid: DomId, id: VcpuId) -> Outcome<Vec<u8>> {
        let pv = self.guest(domid)?.is_pv();
        let state = self.vcpu(domid, id)?.context.clone();
        let state = state.ok_or(Errno::ENODATA)?;
        if pv {
            return Ok(state);
        }
        let mut context = VcpuGuestContext::new_zeroed();
        context.user_regs = registers(&hw_cpu(&state)?);
        Ok(context.as_bytes().to_vec())
    }

    pub(crate) fn set_container_registers(
        &mut self,
        domid: DomId,
        id: VcpuId,
        context: &[u8],
    ) -> Outcome<()> {
        if context.len() != PV_CONTEXT_BYTES {
            return Err(Errno::EINVAL);
        }
        let context = VcpuGuestContext::read_from_bytes(context).map_err(|_| Errno::EINVAL)?;
        let vcpu = self.vcpu(domid, id)?;
        let mut cpu = hw_cpu(vcpu.context.as_deref().ok_or(Errno::EINVAL)?)?;
        set_registers(&mut cpu, &context.user_regs);
        vcpu.context = Some(cpu.as_bytes().to_vec());
        Ok(())
    }

    pub(crate) fn vcpu_part(
        &mut self,
        domid: DomId,
        id: VcpuId,
        part: VcpuPart,
    ) -> Outcome<Vec<u8>> {
        let known = self.vcpu(domid, id)?.parts.get(&part).cloned();
        Ok(known.unwrap_or_default())
    }

    pub(crate) fn set_vcpu_part(
        &mut self,
        domid: DomId,
        id: VcpuId,
        part: VcpuPart,
        state: &[u8],
    ) -> Outcome<()> {
        if !self.guest(domid)?.is_pv() {
            return Err(Errno::EINVAL);
        }
        self.vcpu(domid, id)?.parts.insert(part, state.to_vec());
        Ok(())
    }

    pub(crate) fn page_types(&mut self, domid: DomId, frames: &[u64]) -> Outcome<Vec<u32>> {
        let domain = self.guest(domid)?;
        let kind = |frame: &u64| match domain.frame(*frame) {
            // Xen's own page: never saved.
            None => PFINFO_XTAB,
            Some(mfn) if mfn == domain.shared_info => PFINFO_XTAB,
            Some(mfn) => match domain.tables.get(&mfn) {
                Some(level) if domain.pinned.contains(&mfn) => {
                    (PFINFO_L1TAB * u32::from(*level)) | PFINFO_PINNED
                }
                Some(level) => PFINFO_L1TAB * u32::from(*level),
                None => PFINFO_NOTAB,
            },
        };
        Ok(frames.iter().map(kind).collect())
    }
}
