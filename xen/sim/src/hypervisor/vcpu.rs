//! Vcpus: allocation, affinity, scheduling, PV contexts, triggers, CPU policy.

use super::Outcome;
use super::domain::Vcpu;
use super::host::policy;
use crate::limits::HOST_CPUS;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domain::{CpuMap, DomainKind, Trigger, TscMode, VcpuInfo};
use xen_abi::domctl::{CreditParameters, SCHEDULER_CREDIT2, Scheduling, tsc_mode_number};
use xen_abi::ids::{CpuId, DomId, VcpuId};
use xen_abi::pv::page_table::LEVELS;
use xen_abi::pv::vcpu_context::{VcpuGuestContext, frame_of_cr3};
use xen_host::seam::CpuPolicy;

/// Bytes of `vcpu_guest_context` on x86-64.
pub(crate) const PV_CONTEXT_BYTES: usize = size_of::<VcpuGuestContext>();
/// Offset of `ctrlreg[3]` in it.
const PV_CONTEXT_CR3: usize = std::mem::offset_of!(VcpuGuestContext, ctrlreg) + 3 * 8;

fn all_cpus() -> CpuMap {
    let mut map = CpuMap::default();
    for cpu in 0..HOST_CPUS as usize {
        map.insert(cpu);
    }
    map
}

fn online_part(wanted: &CpuMap) -> CpuMap {
    let mut map = CpuMap::default();
    for cpu in (0..HOST_CPUS as usize).filter(|cpu| wanted.contains(*cpu)) {
        map.insert(cpu);
    }
    map
}

impl State {
    /// Xen wants exactly the number given at creation.
    pub(crate) fn max_vcpus(&mut self, domid: DomId, count: u32) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if count != domain.max_vcpus {
            return Err(Errno::EINVAL);
        }
        while domain.vcpus.len() < count as usize {
            domain.vcpus.push(Vcpu {
                online: false,
                hard: all_cpus(),
                soft: all_cpus(),
                context: None,
                parts: std::collections::BTreeMap::new(),
            });
        }
        Ok(())
    }

    pub(super) fn vcpu(&mut self, domid: DomId, vcpu: VcpuId) -> Outcome<&mut Vcpu> {
        let domain = self.domain(domid)?;
        if vcpu.0 >= domain.max_vcpus {
            return Err(Errno::EINVAL);
        }
        domain.vcpus.get_mut(vcpu.0 as usize).ok_or(Errno::ESRCH)
    }

    pub(crate) fn vcpu_info(&mut self, domid: DomId, id: VcpuId) -> Outcome<VcpuInfo> {
        let info = self.domain(domid)?.info();
        let vcpu = self.vcpu(domid, id)?;
        Ok(VcpuInfo {
            online: vcpu.online,
            blocked: vcpu.online && !info.running,
            running: vcpu.online && info.running,
            cpu_time_ns: info.cpu_time_ns,
            cpu: CpuId(id.0 % HOST_CPUS),
        })
    }

    pub(crate) fn vcpu_affinity(&mut self, domid: DomId, id: VcpuId) -> Outcome<(CpuMap, CpuMap)> {
        let vcpu = self.vcpu(domid, id)?;
        Ok((vcpu.hard.clone(), vcpu.soft.clone()))
    }

    pub(crate) fn set_vcpu_affinity(
        &mut self,
        domid: DomId,
        id: VcpuId,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Outcome<()> {
        let vcpu = self.vcpu(domid, id)?;
        if let Some(hard) = hard {
            let effective = online_part(hard);
            if effective.0.iter().all(|byte| *byte == 0) {
                return Err(Errno::EINVAL);
            }
            vcpu.hard = effective;
        }
        if let Some(soft) = soft {
            vcpu.soft = online_part(soft);
        }
        Ok(())
    }

    pub(crate) fn scheduling(&mut self, domid: DomId) -> Outcome<Scheduling> {
        let domain = self.domain(domid)?;
        let share = CreditParameters {
            weight: domain.weight,
            cap: domain.cap,
        };
        Ok(Scheduling {
            scheduler: SCHEDULER_CREDIT2,
            share: Some(share),
        })
    }

    pub(crate) fn set_sched_credit(
        &mut self,
        domid: DomId,
        weight: Option<u16>,
        cap: Option<u16>,
    ) -> Outcome<()> {
        let domain = self.domain(domid)?;
        if weight == Some(0) || cap.is_some_and(|cap| u32::from(cap) > 100 * domain.max_vcpus) {
            return Err(Errno::EINVAL);
        }
        domain.weight = weight.unwrap_or(domain.weight);
        domain.cap = cap.unwrap_or(domain.cap);
        Ok(())
    }

    pub(crate) fn set_tsc_mode(&mut self, domid: DomId, mode: TscMode) -> Outcome<()> {
        self.guest(domid)?.tsc.tsc_mode = tsc_mode_number(mode);
        Ok(())
    }

    pub(crate) fn set_address_size(&mut self, domid: DomId, bits: u32) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.is_pv() && bits == 64 {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// A PV vcpu takes all of it; one of an HVM container that runs already its general registers.
    pub(crate) fn set_vcpu_context(
        &mut self,
        domid: DomId,
        id: VcpuId,
        context: &[u8],
    ) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if !domain.is_pv() {
            return self.set_container_registers(domid, id, context);
        }
        if id.0 >= domain.max_vcpus
            || domain.vcpus.len() <= id.0 as usize
            || context.len() != PV_CONTEXT_BYTES
        {
            return Err(Errno::EINVAL);
        }
        let mut cr3 = [0; 8];
        cr3.copy_from_slice(&context[PV_CONTEXT_CR3..PV_CONTEXT_CR3 + 8]);
        self.validate_table(domid, frame_of_cr3(u64::from_le_bytes(cr3)).0, LEVELS)?;
        let vcpu = self.vcpu(domid, id)?;
        vcpu.context = Some(context.to_vec());
        vcpu.online = true;
        Ok(())
    }

    pub(crate) fn send_trigger(
        &mut self,
        domid: DomId,
        trigger: Trigger,
        id: VcpuId,
    ) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if id.0 >= domain.max_vcpus {
            return Err(Errno::EINVAL);
        }
        if domain.vcpus.len() <= id.0 as usize {
            return Err(Errno::ESRCH);
        }
        let known = match (domain.kind, trigger) {
            (_, Trigger::Nmi) | (DomainKind::Hvm, _) => true,
            (DomainKind::Pvh, Trigger::Power | Trigger::Sleep) => false,
            (DomainKind::Pvh, Trigger::Reset | Trigger::Init) => true,
            (DomainKind::Pv, _) => false,
        };
        if !known {
            return Err(Errno::ENOSYS);
        }
        domain.triggers.push((trigger, id));
        Ok(())
    }

    pub(crate) fn set_cpu_policy(&mut self, domid: DomId, wanted: &CpuPolicy) -> Outcome<()> {
        let domain = self.guest(domid)?;
        if domain.finished {
            return Err(Errno::EEXIST);
        }
        let most = policy(if domain.is_pv() { 2 } else { 3 }).unwrap_or_default();
        for root in [0, 0x8000_0000] {
            let top = |policy: &CpuPolicy| {
                policy
                    .leaves
                    .iter()
                    .find(|leaf| leaf.leaf == root)
                    .map(|leaf| leaf.regs[0])
            };
            if top(wanted) > top(&most) {
                return Err(Errno::EINVAL);
            }
        }
        domain.policy = wanted.clone();
        Ok(())
    }
}
