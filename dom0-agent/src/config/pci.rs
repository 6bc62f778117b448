//! PCI devices as xl-pci-configuration(5) describes them: `[DDDD:]BB:DD.F[@VSLOT][,KEY=VALUE...]`, or `name=` alone.

use serde::{Deserialize, Serialize};

use super::number::{atoi, radix_prefix};

/// What is done when memory that a device reserves cannot be kept free for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RdmPolicy {
    /// The guest is not built.
    Strict,
    /// It is built all the same.
    Relaxed,
}

/// Which device is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PciAddress {
    /// A place on the bus.
    Bdf {
        /// PCI segment, 0 to 0xffff.
        segment: u16,
        /// Bus.
        bus: u8,
        /// Device, 0 to 31.
        device: u8,
        /// Function, 0 to 7; `None` for all of them (`*`).
        function: Option<u8>,
    },
    /// A name given with `pci-assignable-add`.
    Name(String),
}

/// One device that is passed through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciSpec {
    /// Which device.
    pub address: PciAddress,
    /// Slot in the guest, 0 to 31.
    pub slot: Option<u8>,
    /// `msitranslate=`
    pub msi_translate: bool,
    /// `power_mgmt=`
    pub power_management: bool,
    /// `permissive=`
    pub permissive: bool,
    /// `seize=`
    pub seize: bool,
    /// `rdm_policy=`
    pub rdm_policy: Option<RdmPolicy>,
}

/// Settings that hold for every device of a guest unless it says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PciDefaults {
    /// `pci_msitranslate=`
    pub msi_translate: bool,
    /// `pci_power_mgmt=`
    pub power_management: bool,
    /// `pci_permissive=`
    pub permissive: bool,
    /// `pci_seize=`
    pub seize: bool,
}

/// Reads a device; `None` if the text is no device.
#[must_use]
pub fn parse_pci(spec: &str, defaults: PciDefaults) -> Option<PciSpec> {
    let mut address = None;
    let mut name = None;
    let mut device = PciSpec {
        address: PciAddress::Name(String::new()),
        slot: None,
        msi_translate: defaults.msi_translate,
        power_management: defaults.power_management,
        permissive: defaults.permissive,
        seize: defaults.seize,
        rdm_policy: None,
    };
    let mut rest = spec;
    let head = spec.split(',').next().unwrap_or("");
    if let Some((bdf, behind)) = parse_bdf(head) {
        address = Some(bdf);
        match behind.strip_prefix('@') {
            Some(slot) => device.slot = Some(parse_slot(slot)?),
            None if behind.is_empty() => {}
            None => return None,
        }
        rest = spec[head.len()..].trim_start_matches(',');
    }
    for pair in rest.split(',').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        match key {
            "bdf" => address = Some(parse_bdf(value)?.0),
            "vslot" => device.slot = Some(parse_slot(value)?),
            "permissive" => device.permissive = atoi(value) != 0,
            "msitranslate" => device.msi_translate = atoi(value) != 0,
            "seize" => device.seize = atoi(value) != 0,
            "power_mgmt" => device.power_management = atoi(value) != 0,
            "rdm_policy" => device.rdm_policy = Some(parse_policy(value)?),
            "name" => name = Some(PciAddress::Name(value.into())),
            _ => return None,
        }
    }
    device.address = match (address, name) {
        (Some(one), None) | (None, Some(one)) => one,
        _ => return None,
    };
    Some(device)
}

fn parse_policy(word: &str) -> Option<RdmPolicy> {
    match word {
        "strict" => Some(RdmPolicy::Strict),
        "relaxed" => Some(RdmPolicy::Relaxed),
        _ => None,
    }
}

/// `[DDDD:]BB:DD.F` and what follows it.
fn parse_bdf(text: &str) -> Option<(PciAddress, &str)> {
    let (place, function) = text.split_once('.')?;
    let parts: Vec<&str> = place.split(':').collect();
    let (segment, bus, device) = match parts[..] {
        [bus, device] => ("0", bus, device),
        [segment, bus, device] => (segment, bus, device),
        _ => return None,
    };
    let segment = u16::try_from(whole_hex(segment)?).ok()?;
    let bus = u8::try_from(whole_hex(bus)?).ok()?;
    let device = u8::try_from(whole_hex(device)?)
        .ok()
        .filter(|&d| d <= 0x1f)?;
    let (function, rest) = match function.strip_prefix('*') {
        Some(rest) => (None, rest),
        None => {
            let (value, rest) = radix_prefix(function, 16)?;
            (Some(u8::try_from(value).ok().filter(|&f| f <= 7)?), rest)
        }
    };
    Some((
        PciAddress::Bdf {
            segment,
            bus,
            device,
            function,
        },
        rest,
    ))
}

fn parse_slot(text: &str) -> Option<u8> {
    u8::try_from(whole_hex(text)?)
        .ok()
        .filter(|&slot| slot <= 0x1f)
}

fn whole_hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    radix_prefix(digits, 16)
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bdf(segment: u16, bus: u8, device: u8, function: Option<u8>) -> PciAddress {
        PciAddress::Bdf {
            segment,
            bus,
            device,
            function,
        }
    }

    #[test]
    fn devices_are_found_by_place_or_name() {
        let read = |spec| parse_pci(spec, PciDefaults::default());
        assert_eq!(read("01:1f.7").unwrap().address, bdf(0, 1, 31, Some(7)));
        assert_eq!(read("0000:03:00.*").unwrap().address, bdf(0, 3, 0, None));
        let device = read("ffff:03:00.0@1f,permissive=1,seize=0,rdm_policy=strict").unwrap();
        assert_eq!(device.address, bdf(0xffff, 3, 0, Some(0)));
        assert_eq!((device.slot, device.permissive), (Some(31), true));
        assert_eq!(device.rdm_policy, Some(RdmPolicy::Strict));
        assert_eq!(read("bdf=01:00.0,vslot=4").unwrap().slot, Some(4));
        assert_eq!(
            read("name=gpu").unwrap().address,
            PciAddress::Name("gpu".into())
        );
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let wrong = [
            "",
            "01:00",
            "01:20.0",
            "01:00.8",
            "1:2:3:4.0",
            "01:00.0@20",
            "01:00.0@",
            "01:00.0x",
            "10000:01:00.0",
            "01:00.0,foo=1",
            "01:00.0,permissive",
            "01:00.0,name=gpu",
            "foo=1",
            "01:00.0,rdm_policy=maybe",
        ];
        for spec in wrong {
            assert_eq!(parse_pci(spec, PciDefaults::default()), None, "{spec:?}");
        }
    }

    #[test]
    fn guest_wide_settings_hold_unless_the_device_says_otherwise() {
        let defaults = PciDefaults {
            permissive: true,
            seize: true,
            ..PciDefaults::default()
        };
        let device = parse_pci("01:00.0,seize=0", defaults).unwrap();
        assert!(device.permissive && !device.seize);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9a-f:.@,=*]{0,30}") {
            let _ = parse_pci(&text, PciDefaults::default());
        }
    }
}
