//! Cpupools: sets of CPUs with a scheduler of their own.

use super::{Call, Command};
use crate::domctl::{Bitmap, BitmapLayout};
use crate::ids::{CpuId, DomId};
use crate::layout;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table CPUPOOL_CONSTANTS;
    /// Make a pool.
    pub const CPUPOOL_CREATE: u32 = 1 => "XEN_SYSCTL_CPUPOOL_OP_CREATE";
    /// Remove a pool.
    pub const CPUPOOL_DESTROY: u32 = 2 => "XEN_SYSCTL_CPUPOOL_OP_DESTROY";
    /// Describe a pool, or the next one.
    pub const CPUPOOL_INFO: u32 = 3 => "XEN_SYSCTL_CPUPOOL_OP_INFO";
    /// Add a CPU.
    pub const CPUPOOL_ADDCPU: u32 = 4 => "XEN_SYSCTL_CPUPOOL_OP_ADDCPU";
    /// Remove a CPU.
    pub const CPUPOOL_RMCPU: u32 = 5 => "XEN_SYSCTL_CPUPOOL_OP_RMCPU";
    /// Move a domain.
    pub const CPUPOOL_MOVEDOMAIN: u32 = 6 => "XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN";
    /// CPUs in no pool.
    pub const CPUPOOL_FREEINFO: u32 = 7 => "XEN_SYSCTL_CPUPOOL_OP_FREEINFO";
    /// Any pool, any CPU.
    pub const CPUPOOL_ANY: u32 = u32::MAX => "XEN_SYSCTL_CPUPOOL_PAR_ANY";
}

layout! {
    /// `XEN_SYSCTL_cpupool_op`.
    pub struct CpupoolOpLayout: "struct xen_sysctl_cpupool_op", 40 {
        /// `CPUPOOL_*`.
        pub op: u32 = 0 => "op",
        /// Pool.
        pub cpupool_id: u32 = 4 => "cpupool_id",
        /// Scheduler.
        pub sched_id: u32 = 8 => "sched_id",
        /// Domain.
        pub domid: u32 = 12 => "domid",
        /// CPU.
        pub cpu: u32 = 16 => "cpu",
        /// Out: domains.
        pub n_dom: u32 = 20 => "n_dom",
        /// Out: CPUs.
        pub cpumap: BitmapLayout = 24 => "cpumap",
    }
}

/// What to do with cpupools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpupoolOp {
    /// Make a pool with the id given or any; the answer holds the id.
    Create {
        /// Wanted id.
        id: Option<u32>,
        /// `domctl::SCHEDULER_*`.
        scheduler: u32,
    },
    /// Remove an empty pool.
    Destroy(u32),
    /// Describe the first pool whose id is at least this one; its CPUs go to the map.
    Info(u32, Bitmap),
    /// Add a free CPU, or any.
    AddCpu(u32, Option<CpuId>),
    /// Remove a CPU, or the last.
    RemoveCpu(u32, Option<CpuId>),
    /// Move a domain here.
    MoveDomain(u32, DomId),
    /// CPUs in no pool go to the map.
    FreeInfo(Bitmap),
}

/// What [`CpupoolOp::Info`] and [`CpupoolOp::Create`] answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpupoolAnswer {
    /// The pool.
    pub id: u32,
    /// Its scheduler.
    pub scheduler: u32,
    /// Its domains.
    pub domains: u32,
}

/// Works on cpupools; see [`cpupool_answer`].
#[must_use]
pub fn cpupool_op(abi: Abi, what: CpupoolOp) -> Call {
    let mut raw = CpupoolOpLayout::new_zeroed();
    let any = |cpu: Option<CpuId>| cpu.map_or(CPUPOOL_ANY, |cpu| cpu.0);
    match what {
        CpupoolOp::Create { id, scheduler } => {
            raw.op = CPUPOOL_CREATE;
            raw.cpupool_id = id.unwrap_or(CPUPOOL_ANY);
            raw.sched_id = scheduler;
        }
        CpupoolOp::Destroy(id) => (raw.op, raw.cpupool_id) = (CPUPOOL_DESTROY, id),
        CpupoolOp::Info(id, map) => {
            (raw.op, raw.cpupool_id, raw.cpumap) = (CPUPOOL_INFO, id, map.into());
        }
        CpupoolOp::AddCpu(id, cpu) => {
            (raw.op, raw.cpupool_id, raw.cpu) = (CPUPOOL_ADDCPU, id, any(cpu));
        }
        CpupoolOp::RemoveCpu(id, cpu) => {
            (raw.op, raw.cpupool_id, raw.cpu) = (CPUPOOL_RMCPU, id, any(cpu));
        }
        CpupoolOp::MoveDomain(id, domain) => {
            (raw.op, raw.cpupool_id, raw.domid) = (CPUPOOL_MOVEDOMAIN, id, domain.0.into());
        }
        CpupoolOp::FreeInfo(map) => (raw.op, raw.cpumap) = (CPUPOOL_FREEINFO, map.into()),
    }
    Call::with(abi, Command::CpupoolOp, &raw)
}

/// The pool described or made.
#[must_use]
pub fn cpupool_answer(answer: &Call) -> CpupoolAnswer {
    let raw: CpupoolOpLayout = answer.payload();
    CpupoolAnswer {
        id: raw.cpupool_id,
        scheduler: raw.sched_id,
        domains: raw.n_dom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::UserPtr;

    #[test]
    fn each_operation_fills_its_own_fields() {
        let raw = |what| cpupool_op(Abi::V4_20, what).payload::<CpupoolOpLayout>();
        let made = raw(CpupoolOp::Create {
            id: None,
            scheduler: 6,
        });
        assert_eq!((made.op, made.cpupool_id, made.sched_id), (1, u32::MAX, 6));
        let moved = raw(CpupoolOp::MoveDomain(2, DomId(9)));
        assert_eq!((moved.op, moved.cpupool_id, moved.domid), (6, 2, 9));
        let added = raw(CpupoolOp::AddCpu(2, None));
        assert_eq!((added.op, added.cpu), (4, u32::MAX));
        let map = Bitmap {
            address: UserPtr(0x40),
            bits: 8,
        };
        let asked = raw(CpupoolOp::Info(1, map));
        assert_eq!(
            (asked.op, asked.cpumap.bitmap, asked.cpumap.nr_bits),
            (3, UserPtr(0x40), 8)
        );
        assert_eq!(raw(CpupoolOp::RemoveCpu(1, Some(CpuId(3)))).cpu, 3);
        assert_eq!(raw(CpupoolOp::Destroy(4)).op, 2);
        assert_eq!(raw(CpupoolOp::FreeInfo(map)).op, 7);
    }
}
