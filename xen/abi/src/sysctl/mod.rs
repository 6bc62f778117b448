//! `sysctl`: what the control domain asks of the host as a whole. Source: `xen/sysctl.h`.
//!
//! ```text
//!   Call (136 bytes)   command 0 | interface version 4 | payload 8..136
//! ```
//!
//! Used like [`crate::domctl`]: a function per verb makes a [`Call`], its bytes go to the hypervisor and back, and the
//! matching function reads the answer. The layouts used here are the same in 4.17 to 4.22; the number differs.

mod console;
mod cpupool;
mod features;
mod list;
mod physical;
mod scheduler;

pub use console::*;
pub use cpupool::*;
pub use features::*;
pub use list::*;
pub use physical::*;
pub use scheduler::*;

use crate::layout;
use crate::version::Abi;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Constants of the whole module under their C names, for the header check.
pub const C_TABLES: &[&[(&str, u64)]] = &[
    C_COMMANDS,
    CPUPOOL_CONSTANTS,
    FEATURES_CONSTANTS,
    PHYSICAL_CONSTANTS,
    SCHEDULER_CONSTANTS,
];

/// Bytes of the argument of every sysctl.
pub const CALL_BYTES: usize = 136;
/// Bytes of the union inside.
pub const PAYLOAD_BYTES: usize = 128;

layout! {
    /// The argument of every sysctl, ready for a hypercall buffer.
    pub struct Call: "struct xen_sysctl", 136 {
        /// [`Command`] as a number.
        pub cmd: u32 = 0 => "cmd",
        /// [`Abi::sysctl_version`].
        pub interface_version: u32 = 4 => "interface_version",
        /// What the command needs, and what it answers.
        pub payload: [u8; 128] = 8 => "u",
    }
}

impl Call {
    /// A call without a payload.
    #[must_use]
    pub fn bare(abi: Abi, command: Command) -> Self {
        let mut call = Self::new_zeroed();
        call.cmd = command as u32;
        call.interface_version = abi.sysctl_version();
        call
    }

    /// A call with a payload, which is part of the proof that it fits.
    #[must_use]
    pub fn with<P: IntoBytes + Immutable>(abi: Abi, command: Command, payload: &P) -> Self {
        const { assert!(size_of::<P>() <= PAYLOAD_BYTES) };
        let mut call = Self::bare(abi, command);
        call.payload[..size_of::<P>()].copy_from_slice(payload.as_bytes());
        call
    }

    /// The payload as it is now: the answer, once the hypercall has been made.
    #[must_use]
    pub fn payload<P: FromBytes>(&self) -> P {
        const { assert!(size_of::<P>() <= PAYLOAD_BYTES) };
        layout::copy_out(&self.payload).unwrap_or_else(P::new_zeroed)
    }

    /// From the bytes of a hypercall buffer.
    #[must_use]
    pub fn from_bytes(bytes: [u8; CALL_BYTES]) -> Self {
        zerocopy::transmute!(bytes)
    }

    /// The bytes for a hypercall buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; CALL_BYTES] {
        zerocopy::transmute!(self)
    }
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $c:literal,)*) => {
        /// The commands used here. Source: `XEN_SYSCTL_*`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Command {
            $($(#[$doc])* $name = $value,)*
        }
        /// The commands under their C names, for the header check.
        pub const C_COMMANDS: &[(&str, u64)] = &[$(($c, $value),)*];
    };
}

commands! {
    /// [`read_console`].
    ReadConsole = 1 => "XEN_SYSCTL_readconsole",
    /// [`physinfo`].
    PhysInfo = 3 => "XEN_SYSCTL_physinfo",
    /// [`sched_id`].
    SchedId = 4 => "XEN_SYSCTL_sched_id",
    /// [`domain_list`].
    GetDomainInfoList = 6 => "XEN_SYSCTL_getdomaininfolist",
    /// [`debug_keys`].
    DebugKeys = 7 => "XEN_SYSCTL_debug_keys",
    /// [`cpu_idle_times`].
    GetCpuInfo = 8 => "XEN_SYSCTL_getcpuinfo",
    /// [`available_heap`].
    AvailHeap = 9 => "XEN_SYSCTL_availheap",
    /// [`cpu_topology`].
    CpuTopoInfo = 16 => "XEN_SYSCTL_cputopoinfo",
    /// [`numa_info`].
    NumaInfo = 17 => "XEN_SYSCTL_numainfo",
    /// [`cpupool_op`].
    CpupoolOp = 18 => "XEN_SYSCTL_cpupool_op",
    /// [`get_credit`] and its siblings.
    SchedulerOp = 19 => "XEN_SYSCTL_scheduler_op",
    /// [`cpu_featureset`].
    GetCpuFeatureset = 26 => "XEN_SYSCTL_get_cpu_featureset",
    /// [`cpu_policy`].
    GetCpuPolicy = 29 => "XEN_SYSCTL_get_cpu_policy",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_carries_the_number_of_its_release() {
        for (abi, version) in [(Abi::V4_17, 0x15), (Abi::V4_20, 0x15), (Abi::V4_21, 0x16)] {
            let bytes = Call::bare(abi, Command::PhysInfo).to_bytes();
            assert_eq!(bytes[..8], [3, 0, 0, 0, version, 0, 0, 0]);
            assert!(bytes[8..].iter().all(|byte| *byte == 0));
            assert_eq!(Call::from_bytes(bytes).to_bytes(), bytes);
        }
    }
}
