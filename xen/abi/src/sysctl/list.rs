//! Every domain at once.

use super::{Call, Command};
use crate::ids::DomId;
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;

layout! {
    /// `XEN_SYSCTL_getdomaininfolist`.
    pub struct GetDomainInfoList: "struct xen_sysctl_getdomaininfolist", 24 {
        /// First id of interest.
        pub first_domain: u16 = 0 => "first_domain",
        /// Padding, zero.
        pub pad: u16 = 2,
        /// Entries that fit.
        pub max_domains: u32 = 4 => "max_domains",
        /// Entries, [`crate::domctl::DOMAIN_INFO_STRIDE`] apart.
        pub buffer: UserPtr = 8 => "buffer",
        /// Out: entries written.
        pub num_domains: u32 = 16 => "num_domains",
        /// Padding, zero.
        pub pad2: u32 = 20,
    }
}

/// Lists domains from `first` on, at most `max`. Fewer than asked means there are no more.
#[must_use]
pub fn domain_list(abi: Abi, first: DomId, max: u32, buffer: UserPtr) -> Call {
    let raw = GetDomainInfoList {
        first_domain: first.0,
        pad: 0,
        max_domains: max,
        buffer,
        num_domains: 0,
        pad2: 0,
    };
    Call::with(abi, Command::GetDomainInfoList, &raw)
}

/// How many entries were written; decode them with [`crate::domctl::decode_domain_list`].
#[must_use]
pub fn domain_list_count(answer: &Call) -> u32 {
    answer.payload::<GetDomainInfoList>().num_domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_start_and_its_room() {
        let mut call = domain_list(Abi::V4_17, DomId(0x102), 16, UserPtr(0x3000));
        assert_eq!(call.payload[..10], [2, 1, 0, 0, 16, 0, 0, 0, 0, 0x30]);
        call.payload[16] = 4;
        assert_eq!(domain_list_count(&call), 4);
    }
}
