//! The default scheduler and the host-wide parameters of the credit schedulers.

use super::{Call, Command};
use crate::domctl::{SCHEDULER_CREDIT, SCHEDULER_CREDIT2};
use crate::layout;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table SCHEDULER_CONSTANTS;
    /// Sub-command: set.
    pub const HOST_SCHEDOP_PUT: u32 = 0 => "XEN_SYSCTL_SCHEDOP_putinfo";
    /// Sub-command: get.
    pub const HOST_SCHEDOP_GET: u32 = 1 => "XEN_SYSCTL_SCHEDOP_getinfo";
    /// Longest time slice, milliseconds.
    pub const CREDIT_TSLICE_MAX_MS: u32 = 1000 => "XEN_SYSCTL_CSCHED_TSLICE_MAX";
    /// Shortest time slice, milliseconds.
    pub const CREDIT_TSLICE_MIN_MS: u32 = 1 => "XEN_SYSCTL_CSCHED_TSLICE_MIN";
    /// Longest rate limit, microseconds.
    pub const RATELIMIT_MAX_US: u32 = 500_000 => "XEN_SYSCTL_SCHED_RATELIMIT_MAX";
    /// Shortest rate limit that is not 0, microseconds.
    pub const RATELIMIT_MIN_US: u32 = 100 => "XEN_SYSCTL_SCHED_RATELIMIT_MIN";
    /// Longest migration delay, microseconds.
    pub const CREDIT_MIGRATION_DELAY_MAX_US: u32 = 100_000 => "XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US";
}

layout! {
    /// `XEN_SYSCTL_sched_id`.
    pub struct SchedId: "struct xen_sysctl_sched_id", 4 {
        /// `domctl::SCHEDULER_*`.
        pub sched_id: u32 = 0 => "sched_id",
    }
}

layout! {
    /// `XEN_SYSCTL_scheduler_op`; the credit2 member begins where the credit one does.
    pub struct HostSchedulerOp: "struct xen_sysctl_scheduler_op", 32 {
        /// Pool.
        pub cpupool_id: u32 = 0 => "cpupool_id",
        /// Scheduler.
        pub sched_id: u32 = 4 => "sched_id",
        /// `HOST_SCHEDOP_*`.
        pub cmd: u32 = 8 => "cmd",
        /// Padding, zero.
        pub pad: u32 = 12,
        /// Credit: time slice, ms. Credit2: rate limit, us.
        pub first: u32 = 16 => "u.sched_credit2.ratelimit_us",
        /// Credit: rate limit, us.
        pub ratelimit_us: u32 = 20 => "u.sched_credit.ratelimit_us",
        /// Credit: how long a vcpu is thought warm, us.
        pub vcpu_migr_delay_us: u32 = 24 => "u.sched_credit.vcpu_migr_delay_us",
        /// Padding, zero.
        pub pad2: u32 = 28,
    }
}

/// Parameters of the credit scheduler in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditSchedule {
    /// Time slice, milliseconds.
    pub tslice_ms: u32,
    /// Shortest run, microseconds; 0 for none.
    pub ratelimit_us: u32,
    /// How long a vcpu is thought warm where it ran, microseconds.
    pub migration_delay_us: u32,
}

/// Asks the default scheduler; see [`sched_id_answer`].
#[must_use]
pub fn sched_id(abi: Abi) -> Call {
    Call::bare(abi, Command::SchedId)
}

/// The default scheduler's id; see [`crate::domctl::scheduler_name`].
#[must_use]
pub fn sched_id_answer(answer: &Call) -> u32 {
    answer.payload::<SchedId>().sched_id
}

fn op(abi: Abi, pool: u32, scheduler: u32, cmd: u32, values: [u32; 3]) -> Call {
    let mut raw = HostSchedulerOp::new_zeroed();
    raw.cpupool_id = pool;
    raw.sched_id = scheduler;
    raw.cmd = cmd;
    [raw.first, raw.ratelimit_us, raw.vcpu_migr_delay_us] = values;
    Call::with(abi, Command::SchedulerOp, &raw)
}

/// Reads the credit parameters of a pool; see [`credit_answer`].
#[must_use]
pub fn get_credit(abi: Abi, pool: u32) -> Call {
    op(abi, pool, SCHEDULER_CREDIT, HOST_SCHEDOP_GET, [0; 3])
}

/// Sets the credit parameters of a pool.
#[must_use]
pub fn set_credit(abi: Abi, pool: u32, schedule: CreditSchedule) -> Call {
    let CreditSchedule {
        tslice_ms,
        ratelimit_us,
        migration_delay_us,
    } = schedule;
    let values = [tslice_ms, ratelimit_us, migration_delay_us];
    op(abi, pool, SCHEDULER_CREDIT, HOST_SCHEDOP_PUT, values)
}

/// The credit parameters.
#[must_use]
pub fn credit_answer(answer: &Call) -> CreditSchedule {
    let raw: HostSchedulerOp = answer.payload();
    CreditSchedule {
        tslice_ms: raw.first,
        ratelimit_us: raw.ratelimit_us,
        migration_delay_us: raw.vcpu_migr_delay_us,
    }
}

/// Reads the credit2 rate limit of a pool; see [`credit2_ratelimit_answer`].
#[must_use]
pub fn get_credit2_ratelimit(abi: Abi, pool: u32) -> Call {
    op(abi, pool, SCHEDULER_CREDIT2, HOST_SCHEDOP_GET, [0; 3])
}

/// Sets the credit2 rate limit of a pool, microseconds; 0 for none.
#[must_use]
pub fn set_credit2_ratelimit(abi: Abi, pool: u32, ratelimit_us: u32) -> Call {
    op(
        abi,
        pool,
        SCHEDULER_CREDIT2,
        HOST_SCHEDOP_PUT,
        [ratelimit_us, 0, 0],
    )
}

/// The credit2 rate limit, microseconds.
#[must_use]
pub fn credit2_ratelimit_answer(answer: &Call) -> u32 {
    answer.payload::<HostSchedulerOp>().first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_go_in_and_out() {
        let schedule = CreditSchedule {
            tslice_ms: 30,
            ratelimit_us: 1000,
            migration_delay_us: 7,
        };
        let call = set_credit(Abi::V4_20, 3, schedule);
        assert_eq!(call.payload[..12], [3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(credit_answer(&call), schedule);
        let call = set_credit2_ratelimit(Abi::V4_20, 0, 1000);
        assert_eq!(
            (call.payload[4], credit2_ratelimit_answer(&call)),
            (6, 1000)
        );
        assert_eq!(get_credit(Abi::V4_20, 0).payload[8], 1);
        assert_eq!(get_credit2_ratelimit(Abi::V4_20, 0).payload[8], 1);
    }
}
