//! `getdomaininfo` and the entries of the sysctl that lists domains; `get_domain_state` of 4.21.
//!
//! Up to 4.17 the call answers with the *next* domain that exists, so the id in the answer is always compared.

use super::{Call, Command, create};
use crate::domain::{DomainInfo, ShutdownReason};
use crate::ids::{DomId, Handle};
use crate::layout;
use crate::layout::copy_out;
use crate::version::Abi;

crate::constants! {
    table INFO_CONSTANTS;
    /// Being destroyed.
    pub const DOMINF_DYING: u32 = 1 << 0 => "XEN_DOMINF_dying";
    /// HVM container.
    pub const DOMINF_HVM: u32 = 1 << 1 => "XEN_DOMINF_hvm_guest";
    /// Shut down; the reason is in [`DOMINF_SHUTDOWN_SHIFT`].
    pub const DOMINF_SHUTDOWN: u32 = 1 << 2 => "XEN_DOMINF_shutdown";
    /// Paused by the controller.
    pub const DOMINF_PAUSED: u32 = 1 << 3 => "XEN_DOMINF_paused";
    /// Every vcpu waits.
    pub const DOMINF_BLOCKED: u32 = 1 << 4 => "XEN_DOMINF_blocked";
    /// A vcpu runs.
    pub const DOMINF_RUNNING: u32 = 1 << 5 => "XEN_DOMINF_running";
    /// Under a debugger.
    pub const DOMINF_DEBUGGED: u32 = 1 << 6 => "XEN_DOMINF_debugged";
    /// A xenstore domain.
    pub const DOMINF_XS_DOMAIN: u32 = 1 << 7 => "XEN_DOMINF_xs_domain";
    /// Hardware-assisted paging.
    pub const DOMINF_HAP: u32 = 1 << 8 => "XEN_DOMINF_hap";
    /// Bits to shift the flags right by to find the shutdown reason.
    pub const DOMINF_SHUTDOWN_SHIFT: u32 = 16 => "XEN_DOMINF_shutdownshift";
    /// [`GetDomainState::state`]: there is such a domain.
    pub const DOMAIN_STATE_EXIST: u16 = 1 << 0 => "XEN_DOMCTL_GETDOMSTATE_STATE_EXIST";
    /// [`GetDomainState::state`]: it has shut down.
    pub const DOMAIN_STATE_SHUTDOWN: u16 = 1 << 1 => "XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN";
    /// [`GetDomainState::state`]: it is being destroyed.
    pub const DOMAIN_STATE_DYING: u16 = 1 << 2 => "XEN_DOMCTL_GETDOMSTATE_STATE_DYING";
    /// [`GetDomainState::state`]: it is destroyed but for what others hold.
    pub const DOMAIN_STATE_DEAD: u16 = 1 << 3 => "XEN_DOMCTL_GETDOMSTATE_STATE_DEAD";
    /// Mask of the shutdown reason after the shift.
    pub const DOMINF_SHUTDOWN_MASK: u32 = 255 => "XEN_DOMINF_shutdownmask";
}

/// Bytes from one entry of a domain list to the next, in every supported release.
pub const DOMAIN_INFO_STRIDE: usize = size_of::<GetDomainInfo>();

layout! {
    /// `XEN_DOMCTL_getdomaininfo`, the same in 4.17 to 4.22.
    pub struct GetDomainInfo: "struct xen_domctl_getdomaininfo", 112 {
        /// The domain described.
        pub domain: u16 = 0 => "domain",
        /// Padding.
        pub pad1: u16 = 2 => "pad1",
        /// `DOMINF_*`.
        pub flags: u32 = 4 => "flags",
        /// Pages it has.
        pub tot_pages: u64 = 8 => "tot_pages",
        /// Pages it may have.
        pub max_pages: u64 = 16 => "max_pages",
        /// Pages claimed and not allocated.
        pub outstanding_pages: u64 = 24 => "outstanding_pages",
        /// Pages shared.
        pub shr_pages: u64 = 32 => "shr_pages",
        /// Pages paged out.
        pub paged_pages: u64 = 40 => "paged_pages",
        /// Frame of the shared info page.
        pub shared_info_frame: u64 = 48 => "shared_info_frame",
        /// Nanoseconds.
        pub cpu_time: u64 = 56 => "cpu_time",
        /// Vcpus online.
        pub nr_online_vcpus: u32 = 64 => "nr_online_vcpus",
        /// Highest vcpu, all ones if there is none.
        pub max_vcpu_id: u32 = 68 => "max_vcpu_id",
        /// XSM label.
        pub ssidref: u32 = 72 => "ssidref",
        /// Uuid.
        pub handle: [u8; 16] = 76 => "handle",
        /// Cpupool.
        pub cpupool: u32 = 92 => "cpupool",
        /// Width of guest-physical addresses.
        pub gpaddr_bits: u8 = 96 => "gpaddr_bits",
        /// Padding.
        pub pad2: [u8; 7] = 97 => "pad2",
        /// Devices emulated.
        pub emulation_flags: u32 = 104 => "arch_config.emulation_flags",
        /// Architecture flags.
        pub misc_flags: u32 = 108 => "arch_config.misc_flags",
    }
}

impl From<&GetDomainInfo> for DomainInfo {
    fn from(raw: &GetDomainInfo) -> Self {
        let has = |flag: u32| raw.flags & flag != 0;
        let [_, _, code, _] = raw.flags.to_le_bytes();
        DomainInfo {
            domid: DomId(raw.domain),
            handle: Handle(raw.handle),
            dying: has(DOMINF_DYING),
            hvm: has(DOMINF_HVM),
            pvh: has(DOMINF_HVM) && raw.emulation_flags == create::EMU_LAPIC,
            shutdown: has(DOMINF_SHUTDOWN).then(|| ShutdownReason::from_code(code)),
            paused: has(DOMINF_PAUSED),
            blocked: has(DOMINF_BLOCKED),
            running: has(DOMINF_RUNNING),
            tot_pages: raw.tot_pages,
            max_pages: raw.max_pages,
            outstanding_pages: raw.outstanding_pages,
            shr_pages: raw.shr_pages,
            shared_info_frame: raw.shared_info_frame,
            cpu_time_ns: raw.cpu_time,
            online_vcpus: raw.nr_online_vcpus,
            max_vcpu_id: raw.max_vcpu_id,
            ssidref: raw.ssidref,
            cpupool: raw.cpupool,
        }
    }
}

/// Asks about one domain; see [`domain_info_answer`].
#[must_use]
pub fn domain_info(abi: Abi, domain: DomId) -> Call {
    Call::bare(abi, Command::GetDomainInfo, domain)
}

/// The domain asked for, or `None` if Xen answered with a later one because it does not exist.
#[must_use]
pub fn domain_info_answer(answer: &Call, asked: DomId) -> Option<DomainInfo> {
    let raw: GetDomainInfo = answer.payload();
    (raw.domain == asked.0).then(|| DomainInfo::from(&raw))
}

/// Decodes the first `count` entries of a domain list, as many as the bytes hold.
#[must_use]
pub fn decode_domain_list(abi: Abi, bytes: &[u8], count: usize) -> Vec<DomainInfo> {
    bytes
        .chunks_exact(DOMAIN_INFO_STRIDE)
        .take(count)
        .filter_map(|entry| decode_domain_info(abi, entry))
        .collect()
}

/// Decodes one entry, or `None` if the bytes are too few.
#[must_use]
pub fn decode_domain_info(abi: Abi, bytes: &[u8]) -> Option<DomainInfo> {
    match abi {
        Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 | Abi::V4_21 | Abi::V4_22 => {
            copy_out::<GetDomainInfo>(bytes).map(|raw| DomainInfo::from(&raw))
        }
    }
}

layout! {
    /// `XEN_DOMCTL_get_domain_state`, from 4.21 on.
    pub struct GetDomainState: "struct xen_domctl_get_domain_state", 16 {
        /// Out: `DOMAIN_STATE_*`.
        pub state: u16 = 0 => "state",
        /// Out: what the domain may do.
        pub caps: u16 = 2 => "caps",
        /// Padding.
        pub pad: u32 = 4 => "pad0",
        /// Out: never used by another domain since the host started.
        pub unique_id: u64 = 8 => "unique_id",
    }
}

/// Asks what state a domain is in or, with [`DomId::INVALID`], which domain changed (only the owner of the global
/// interrupt may). A stable call: it carries interface version 0. `None` before 4.21.
#[must_use]
pub fn domain_state(abi: Abi, domain: DomId) -> Option<Call> {
    match abi {
        Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 => None,
        Abi::V4_21 | Abi::V4_22 => {
            let mut call = Call::bare(abi, Command::GetDomainState, domain);
            call.interface_version = 0;
            Some(call)
        }
    }
}

/// What [`domain_state`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, read by name"
)]
pub struct DomainState {
    /// The domain asked about, or the one that changed.
    pub domid: DomId,
    /// There is such a domain.
    pub exists: bool,
    /// It has shut down.
    pub shutdown: bool,
    /// It is being destroyed.
    pub dying: bool,
    /// It is destroyed but for what others hold.
    pub dead: bool,
    /// Never used by another domain since the host started.
    pub unique_id: u64,
}

/// The state of a domain.
#[must_use]
pub fn domain_state_answer(answer: &Call) -> DomainState {
    let raw: GetDomainState = answer.payload();
    let has = |flag: u16| raw.state & flag != 0;
    DomainState {
        domid: DomId(answer.domain),
        exists: has(DOMAIN_STATE_EXIST),
        shutdown: has(DOMAIN_STATE_SHUTDOWN),
        dying: has(DOMAIN_STATE_DYING),
        dead: has(DOMAIN_STATE_DEAD),
        unique_id: raw.unique_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    fn raw() -> GetDomainInfo {
        let mut raw = GetDomainInfo::new_zeroed();
        raw.domain = 9;
        raw.tot_pages = 100;
        raw.cpu_time = 5;
        raw.cpupool = 3;
        raw
    }

    #[test]
    fn flags_become_facts() {
        let mut entry = raw();
        entry.flags = DOMINF_HVM | DOMINF_SHUTDOWN | DOMINF_PAUSED | (3 << 16);
        entry.emulation_flags = 1;
        let info = DomainInfo::from(&entry);
        assert!(info.hvm && info.pvh && info.paused && !info.dying && !info.running);
        assert_eq!(info.shutdown, Some(ShutdownReason::Crash));

        entry.flags = 5 << 16;
        assert_eq!(
            DomainInfo::from(&entry).shutdown,
            None,
            "the code means nothing while it runs"
        );
        entry.flags = DOMINF_HVM;
        entry.emulation_flags = 0x3ff;
        assert!(!DomainInfo::from(&entry).pvh);
    }

    #[test]
    fn an_answer_about_the_next_domain_is_no_answer() {
        let call = Call::with(Abi::V4_17, Command::GetDomainInfo, DomId(8), &raw());
        assert_eq!(domain_info_answer(&call, DomId(8)), None);
        assert_eq!(
            domain_info_answer(&call, DomId(9)).map(|info| info.tot_pages),
            Some(100)
        );
    }

    #[test]
    fn a_list_is_cut_at_its_count_and_at_its_bytes() {
        let mut bytes = Vec::new();
        for id in 0..3 {
            let mut entry = raw();
            entry.domain = id;
            bytes.extend_from_slice(entry.as_bytes());
        }
        for abi in Abi::ALL {
            assert_eq!(decode_domain_list(abi, &bytes, 2).len(), 2);
            assert_eq!(decode_domain_list(abi, &bytes, 9)[2].domid, DomId(2));
            assert_eq!(decode_domain_list(abi, &bytes[..111], 9), []);
        }
    }

    #[test]
    fn the_state_call_is_stable_and_new() {
        assert!(domain_state(Abi::V4_20, DomId(1)).is_none());
        let mut call = domain_state(Abi::V4_22, DomId(1)).unwrap();
        assert_eq!((call.cmd, call.interface_version), (90, 0));
        call.payload[0] = 0b0110;
        call.payload[8] = 77;
        let state = domain_state_answer(&call);
        assert!(state.shutdown && state.dying && !state.exists && !state.dead);
        assert_eq!((state.domid, state.unique_id), (DomId(1), 77));
    }
}
