//! `createdomain` in the layout of the running release.
//!
//! What Xen accepts is narrow: unknown flags, hap without hvm, a grant table version of 0 and any set of emulated
//! devices other than none (PV), the local APIC (PVH) or all but vPCI (HVM) are answered with `EINVAL`.

use super::v15::CreateDomainV15;
use super::v17::CreateDomainV17;
use super::v17_421::CreateDomainV17x421;
use super::{Call, Command};
use crate::domain::{CreateDomain, DomainKind};
use crate::ids::DomId;
use crate::version::Abi;
use zerocopy::FromZeros;

crate::constants! {
    table CREATE_CONSTANTS;
    /// Flag: HVM container (PVH and HVM).
    pub const CDF_HVM: u32 = 1 << 0 => "XEN_DOMCTL_CDF_hvm";
    /// Flag: hardware-assisted paging.
    pub const CDF_HAP: u32 = 1 << 1 => "XEN_DOMCTL_CDF_hap";
    /// Flag: the domain is a xenstore domain.
    pub const CDF_XS_DOMAIN: u32 = 1 << 4 => "XEN_DOMCTL_CDF_xs_domain";
    /// Flag: may be given devices.
    pub const CDF_IOMMU: u32 = 1 << 5 => "XEN_DOMCTL_CDF_iommu";
    /// Flag: nested virtualisation.
    pub const CDF_NESTED_VIRT: u32 = 1 << 6 => "XEN_DOMCTL_CDF_nested_virt";

    /// Emulated local APIC.
    pub const EMU_LAPIC: u32 = 1 << 0 => "XEN_X86_EMU_LAPIC";
    /// vPCI, for hardware domains only.
    pub const EMU_VPCI: u32 = 1 << 10 => "XEN_X86_EMU_VPCI";
    /// Everything that can be emulated.
    pub const EMU_ALL: u32 = 0x7ff => "XEN_X86_EMU_ALL";
}

/// `DOMID_ANY`: "choose an id", from 4.22 on.
pub const DOMID_ANY: DomId = DomId(0x7FF5);

/// The id that asks this release to choose one: 0 up to 4.21, [`DOMID_ANY`] from 4.22 on, where 0 is taken literally.
#[must_use]
pub const fn domid_wildcard(abi: Abi) -> DomId {
    match abi {
        Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 | Abi::V4_21 => DomId(0),
        Abi::V4_22 => DOMID_ANY,
    }
}

/// The devices Xen must emulate for a kind of domain.
#[must_use]
pub const fn emulation_flags(kind: DomainKind) -> u32 {
    match kind {
        DomainKind::Pv => 0,
        DomainKind::Pvh => EMU_LAPIC,
        DomainKind::Hvm => EMU_ALL & !EMU_VPCI,
    }
}

const fn creation_flags(kind: DomainKind) -> u32 {
    match kind {
        DomainKind::Pv => 0,
        DomainKind::Pvh | DomainKind::Hvm => CDF_HVM | CDF_HAP,
    }
}

/// Negative means the hypervisor's default; a number no `i32` holds is as good as its largest.
fn frames(limit: Option<u32>) -> i32 {
    limit.map_or(-1, |frames| i32::try_from(frames).unwrap_or(i32::MAX))
}

/// Creates a domain; Xen chooses the id, see [`created_domain`].
#[must_use]
pub fn create(abi: Abi, config: &CreateDomain) -> Call {
    create_with_flags(abi, config, 0)
}

/// As [`create`], with further `CDF_*` flags.
#[must_use]
pub fn create_with_flags(abi: Abi, config: &CreateDomain, more_flags: u32) -> Call {
    macro_rules! fill {
        ($layout:ident) => {{
            let mut raw = $layout::new_zeroed();
            raw.ssidref = config.ssidref;
            raw.handle = config.handle.0;
            raw.flags = creation_flags(config.kind) | more_flags;
            raw.max_vcpus = config.max_vcpus;
            raw.max_evtchn_port = config.max_event_port;
            raw.max_grant_frames = frames(config.max_grant_frames);
            raw.max_maptrack_frames = frames(config.max_maptrack_frames);
            raw.grant_opts = u32::from(config.grant_version) & 0xf;
            raw.cpupool_id = config.cpupool;
            raw.emulation_flags = emulation_flags(config.kind);
            Call::with(abi, Command::CreateDomain, domid_wildcard(abi), &raw)
        }};
    }
    match abi {
        Abi::V4_17 | Abi::V4_18 => fill!(CreateDomainV15),
        Abi::V4_19 | Abi::V4_20 => fill!(CreateDomainV17),
        Abi::V4_21 | Abi::V4_22 => fill!(CreateDomainV17x421),
    }
}

/// The id Xen chose.
#[must_use]
pub const fn created_domain(answer: &Call) -> DomId {
    DomId(answer.domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Handle;

    fn config(kind: DomainKind) -> CreateDomain {
        CreateDomain {
            kind,
            handle: Handle(*b"0123456789abcdef"),
            max_vcpus: 4,
            max_event_port: 1023,
            max_grant_frames: None,
            max_maptrack_frames: Some(u32::MAX),
            grant_version: 2,
            cpupool: 0x77,
            ssidref: 0x55,
        }
    }

    fn word(call: &Call, offset: usize) -> u32 {
        crate::layout::copy_out(&call.payload[offset..]).unwrap()
    }

    #[test]
    fn the_head_is_the_same_in_every_release() {
        for abi in Abi::ALL {
            let call = create(abi, &config(DomainKind::Pvh));
            assert_eq!(word(&call, 0), 0x55);
            assert_eq!(&call.payload[4..20], b"0123456789abcdef");
            assert_eq!(word(&call, 20), 3, "hvm and hap");
            assert_eq!([word(&call, 28), word(&call, 32)], [4, 1023]);
            assert_eq!([word(&call, 36), word(&call, 40)], [u32::MAX, 0x7fff_ffff]);
            assert_eq!(word(&call, 44), 2);
        }
    }

    #[test]
    fn the_tail_moves_with_the_release() {
        for (abi, cpupool, emulation) in [
            (Abi::V4_17, 52, 56),
            (Abi::V4_18, 52, 56),
            (Abi::V4_19, 56, 60),
            (Abi::V4_20, 56, 60),
            (Abi::V4_21, 56, 60),
            (Abi::V4_22, 56, 60),
        ] {
            let call = create(abi, &config(DomainKind::Pvh));
            assert_eq!(word(&call, cpupool), 0x77, "{abi:?}");
            assert_eq!(word(&call, emulation), 1, "{abi:?}");
            assert_eq!(word(&call, emulation + 4), 0, "{abi:?}");
            assert!(call.payload[emulation + 8..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn each_kind_has_the_only_emulation_xen_accepts() {
        for (kind, flags, emulation) in [
            (DomainKind::Pv, 0, 0),
            (DomainKind::Pvh, 3, 1),
            (DomainKind::Hvm, 3, 0x3ff),
        ] {
            let call = create(Abi::V4_20, &config(kind));
            assert_eq!(
                (word(&call, 20), word(&call, 60)),
                (flags, emulation),
                "{kind:?}"
            );
        }
        let call = create_with_flags(Abi::V4_20, &config(DomainKind::Pv), CDF_IOMMU);
        assert_eq!(word(&call, 20), 0x20);
    }

    #[test]
    fn the_wildcard_follows_the_release() {
        for abi in Abi::ALL {
            let asked = create(abi, &config(DomainKind::Pv)).domain;
            assert_eq!(asked, if abi == Abi::V4_22 { 0x7ff5 } else { 0 });
        }
    }
}
