//! What differs between the releases of Xen in behaviour, not only in layout.

use super::Outcome;
use crate::state::State;
use nix::errno::Errno;
use xen_abi::domain::DomainInfo;
use xen_abi::ids::DomId;
use xen_abi::version::Abi;

/// Whether `wanted` asks `createdomain` of this release to choose an id.
pub(crate) fn is_wildcard(abi: Abi, wanted: u16) -> bool {
    match abi {
        Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 => {
            wanted == 0 || wanted >= DomId::FIRST_RESERVED.0
        }
        Abi::V4_21 => wanted == 0 || wanted == DomId::INVALID.0,
        Abi::V4_22 => wanted == DOMID_ANY,
    }
}

/// `DOMID_ANY`.
pub(crate) const DOMID_ANY: u16 = 0x7FF5;

/// The id to send so that Xen chooses one.
pub(crate) fn wildcard_of(abi: Abi) -> u16 {
    match abi {
        Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 | Abi::V4_21 => 0,
        Abi::V4_22 => DOMID_ANY,
    }
}

/// `XEN_DOMCTL_getdomaininfo` as the release answers it: up to 4.17 with the next domain at or above the id asked for.
pub(crate) fn getdomaininfo(state: &State, domid: DomId) -> Outcome<DomainInfo> {
    let found = match state.abi {
        Abi::V4_17 => state
            .domains
            .range(domid..)
            .next()
            .map(|(_, domain)| domain),
        Abi::V4_18 | Abi::V4_19 | Abi::V4_20 | Abi::V4_21 | Abi::V4_22 => state.domains.get(&domid),
    };
    found.map(super::domain::Domain::info).ok_or(Errno::ESRCH)
}
