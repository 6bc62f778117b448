//! `sched_op`: shutting domains down from outside, and the hypervisor's watchdog. Source: `xen/sched.h`.

use crate::domain::ShutdownReason;
use crate::ids::DomId;
use crate::layout;

crate::constants! {
    /// The calling domain shuts down.
    pub const OP_SHUTDOWN: u64 = 2 => "SCHEDOP_shutdown";
    /// Another domain is shut down: [`RemoteShutdown`].
    pub const OP_REMOTE_SHUTDOWN: u64 = 4 => "SCHEDOP_remote_shutdown";
    /// Sets a code for a later crash.
    pub const OP_SHUTDOWN_CODE: u64 = 5 => "SCHEDOP_shutdown_code";
    /// Arms, pets or disarms a watchdog of the calling domain: [`Watchdog`].
    pub const OP_WATCHDOG: u64 = 6 => "SCHEDOP_watchdog";

    /// [`ShutdownReason::Poweroff`].
    pub const SHUTDOWN_POWEROFF: u32 = 0 => "SHUTDOWN_poweroff";
    /// [`ShutdownReason::Reboot`].
    pub const SHUTDOWN_REBOOT: u32 = 1 => "SHUTDOWN_reboot";
    /// [`ShutdownReason::Suspend`].
    pub const SHUTDOWN_SUSPEND: u32 = 2 => "SHUTDOWN_suspend";
    /// [`ShutdownReason::Crash`].
    pub const SHUTDOWN_CRASH: u32 = 3 => "SHUTDOWN_crash";
    /// [`ShutdownReason::Watchdog`].
    pub const SHUTDOWN_WATCHDOG: u32 = 4 => "SHUTDOWN_watchdog";
    /// [`ShutdownReason::SoftReset`].
    pub const SHUTDOWN_SOFT_RESET: u32 = 5 => "SHUTDOWN_soft_reset";
}

layout! {
    /// Argument of [`OP_REMOTE_SHUTDOWN`].
    pub struct RemoteShutdown: "struct sched_remote_shutdown", 8 {
        /// Which domain.
        pub domain_id: u16 = 0 => "domain_id",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// `SHUTDOWN_*`.
        pub reason: u32 = 4 => "reason",
    }
}

layout! {
    /// Argument of [`OP_WATCHDOG`]. `id` 0 makes a watchdog, whose id is the return value; a timeout of 0 removes it.
    pub struct Watchdog: "struct sched_watchdog", 8 {
        /// Which, from 1.
        pub id: u32 = 0 => "id",
        /// Seconds until it bites.
        pub timeout: u32 = 4 => "timeout",
    }
}

impl RemoteShutdown {
    /// Shuts `domain` down with `reason`.
    #[must_use]
    pub fn new(domain: DomId, reason: ShutdownReason) -> Self {
        Self {
            domain_id: domain.0,
            pad: 0,
            reason: reason.code().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_codes_of_the_header() {
        for (reason, code) in [
            (ShutdownReason::Poweroff, SHUTDOWN_POWEROFF),
            (ShutdownReason::Reboot, SHUTDOWN_REBOOT),
            (ShutdownReason::Suspend, SHUTDOWN_SUSPEND),
            (ShutdownReason::Crash, SHUTDOWN_CRASH),
            (ShutdownReason::Watchdog, SHUTDOWN_WATCHDOG),
            (ShutdownReason::SoftReset, SHUTDOWN_SOFT_RESET),
        ] {
            assert_eq!(RemoteShutdown::new(DomId(1), reason).reason, code);
        }
    }
}
