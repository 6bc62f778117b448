//! Weight and cap of a domain under the credit schedulers.
//!
//! Reading takes the scheduler of the domain's pool; ask [`crate::sysctl::sched_id`] first.

use super::{Call, Command};
use crate::ids::DomId;
use crate::layout;
use crate::version::Abi;

crate::constants! {
    table SCHED_CONSTANTS;
    /// The credit scheduler.
    pub const SCHEDULER_CREDIT: u32 = 5 => "XEN_SCHEDULER_CREDIT";
    /// The credit2 scheduler, the usual default.
    pub const SCHEDULER_CREDIT2: u32 = 6 => "XEN_SCHEDULER_CREDIT2";
    /// ARINC 653.
    pub const SCHEDULER_ARINC653: u32 = 7 => "XEN_SCHEDULER_ARINC653";
    /// Real time deferrable server.
    pub const SCHEDULER_RTDS: u32 = 8 => "XEN_SCHEDULER_RTDS";
    /// One vcpu per CPU.
    pub const SCHEDULER_NULL: u32 = 9 => "XEN_SCHEDULER_NULL";
    /// Sub-command: set.
    pub const SCHEDOP_PUT: u32 = 0 => "XEN_DOMCTL_SCHEDOP_putinfo";
    /// Sub-command: get.
    pub const SCHEDOP_GET: u32 = 1 => "XEN_DOMCTL_SCHEDOP_getinfo";
}

/// What xl calls a scheduler id, or `None` for one it does not know.
#[must_use]
pub const fn scheduler_name(id: u32) -> Option<&'static str> {
    match id {
        SCHEDULER_CREDIT => Some("credit"),
        SCHEDULER_CREDIT2 => Some("credit2"),
        SCHEDULER_ARINC653 => Some("arinc653"),
        SCHEDULER_RTDS => Some("rtds"),
        SCHEDULER_NULL => Some("null"),
        _ => None,
    }
}

layout! {
    /// `XEN_DOMCTL_scheduler_op`; the credit and credit2 members have one form.
    pub struct SchedulerOp: "struct xen_domctl_scheduler_op", 24 {
        /// `SCHEDULER_*`.
        pub sched_id: u32 = 0 => "sched_id",
        /// `SCHEDOP_*`.
        pub cmd: u32 = 4 => "cmd",
        /// Relative share.
        pub weight: u16 = 8 => "u.credit2.weight",
        /// Percent of one CPU, 0 for none.
        pub cap: u16 = 10 => "u.credit2.cap",
        /// Rest of the union.
        pub pad: [u8; 12] = 12,
    }
}

/// A domain's share under credit or credit2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditParameters {
    /// Relative share; the default is 256.
    pub weight: u16,
    /// Percent of one CPU it may use, 0 for no cap.
    pub cap: u16,
}

/// A domain's place in Xen's scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHEDULER_*` of the domain's pool.
    pub scheduler: u32,
    /// Its share; `None` under a scheduler that does not share by weight.
    pub share: Option<CreditParameters>,
}

/// Whether a scheduler shares by weight and cap.
#[must_use]
pub const fn shares_by_weight(scheduler: u32) -> bool {
    matches!(scheduler, SCHEDULER_CREDIT | SCHEDULER_CREDIT2)
}

/// Reads a domain's share; see [`scheduling_answer`].
#[must_use]
pub fn get_scheduling(abi: Abi, domain: DomId, scheduler: u32) -> Call {
    let raw = SchedulerOp {
        sched_id: scheduler,
        cmd: SCHEDOP_GET,
        weight: 0,
        cap: 0,
        pad: [0; 12],
    };
    Call::with(abi, Command::SchedulerOp, domain, &raw)
}

/// Sets a domain's share.
#[must_use]
pub fn set_scheduling(abi: Abi, domain: DomId, scheduler: u32, share: CreditParameters) -> Call {
    let CreditParameters { weight, cap } = share;
    let raw = SchedulerOp {
        sched_id: scheduler,
        cmd: SCHEDOP_PUT,
        weight,
        cap,
        pad: [0; 12],
    };
    Call::with(abi, Command::SchedulerOp, domain, &raw)
}

/// The share.
#[must_use]
pub fn scheduling_answer(answer: &Call) -> CreditParameters {
    let raw: SchedulerOp = answer.payload();
    CreditParameters {
        weight: raw.weight,
        cap: raw.cap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_goes_in_and_out() {
        let share = CreditParameters {
            weight: 512,
            cap: 50,
        };
        let call = set_scheduling(Abi::V4_20, DomId(1), SCHEDULER_CREDIT2, share);
        assert_eq!(call.payload[..12], [6, 0, 0, 0, 0, 0, 0, 0, 0, 2, 50, 0]);
        assert_eq!(scheduling_answer(&call), share);
        assert_eq!(get_scheduling(Abi::V4_20, DomId(1), 5).payload[4], 1);
        assert_eq!(scheduler_name(6), Some("credit2"));
        assert_eq!(scheduler_name(4), None);
        assert!(shares_by_weight(SCHEDULER_CREDIT) && !shares_by_weight(SCHEDULER_NULL));
    }
}
