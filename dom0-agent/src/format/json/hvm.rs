//! `type.hvm`: what only guests with a device model have.

use super::fields;
use super::value::{Json, Map};
use crate::config::domain::{CarriedValue, DomainConfig};
use crate::config::number::c_long;

/// Enlightenments in the order of their bits.
const VIRIDIAN: [&str; 13] = [
    "base",
    "freq",
    "time_ref_count",
    "reference_tsc",
    "hcall_remote_tlb_flush",
    "apic_assist",
    "crash_ctl",
    "synic",
    "stimer",
    "hcall_ipi",
    "ex_processor_masks",
    "no_vp_limit",
    "cpu_hotplug",
];

/// Width of libxl's enlightenment maps, in bits.
const VIRIDIAN_BITS: u32 = 32;

pub(super) fn put(map: &mut Map, config: &DomainConfig) {
    put_firmware(map, config);
    fields::put(map, config, fields::HVM_SWITCHES);
    put_viridian(map, config);
    fields::put(map, config, fields::HVM_TIMERS);
    map.put("vga", vga(config));
    map.put("vnc", group(config, fields::VNC));
    fields::put(map, config, fields::KEYMAP);
    map.put("sdl", group(config, fields::SDL));
    map.put("spice", group(config, fields::SPICE));
    put_passed_graphics(map, config);
    fields::put(map, config, fields::HVM_PORTS);
    map.put("rdm", Map::default());
    fields::put(map, config, fields::HVM_TAIL);
}

fn group(config: &DomainConfig, fields: &[fields::Field]) -> Map {
    let mut map = Map::default();
    fields::put(&mut map, config, fields);
    map
}

/// Reads `type.hvm` back into the carried keys.
pub(super) fn take(map: &Map, config: &mut DomainConfig) {
    const READ: &[fields::Field] = &[
        ("firmware", "firmware_override", fields::How::Text),
        ("bios", "bios", fields::How::Text),
        ("viridian", "viridian", fields::How::Flag),
    ];
    let groups = [
        READ,
        fields::HVM_SWITCHES,
        fields::HVM_TIMERS,
        fields::KEYMAP,
    ];
    for group in groups
        .into_iter()
        .chain([fields::HVM_PORTS, fields::HVM_TAIL])
    {
        fields::take(map, config, group);
    }
    let inner = [
        ("vnc", fields::VNC),
        ("sdl", fields::SDL),
        ("spice", fields::SPICE),
    ];
    for (member, group) in inner {
        if let Some(inner) = map.get(member).and_then(Json::as_map) {
            fields::take(inner, config, group);
        }
    }
    let vga = map
        .get("vga")
        .and_then(Json::as_map)
        .and_then(|vga| vga.get("kind"));
    if let Some(kind) = vga.and_then(Json::as_text) {
        let word = if kind == "std" { "stdvga" } else { kind };
        config
            .carried
            .insert("vga".into(), CarriedValue::Atom(word.into()));
    }
}

/// `firmware=` stands for a BIOS or is the path of one.
fn put_firmware(map: &mut Map, config: &DomainConfig) {
    const BIOSES: [&str; 3] = ["rombios", "seabios", "ovmf"];
    let mut image = config.carried_text("firmware_override");
    let mut bios = config.carried_text("bios").map(str::to_ascii_lowercase);
    if let Some(word) = config.carried_text("firmware") {
        if BIOSES.contains(&word.to_ascii_lowercase().as_str()) {
            bios = Some(word.to_ascii_lowercase());
        } else if "uefi".starts_with(word) {
            bios = Some("ovmf".into());
        } else if !"bios".starts_with(word) {
            image = Some(word);
        }
    }
    map.put_some("firmware", image);
    map.put_some("bios", bios);
}

fn put_viridian(map: &mut Map, config: &DomainConfig) {
    let Some(CarriedValue::List(_)) = config.carried.get("viridian") else {
        map.put_tristate("viridian", config.carried_flag("viridian"));
        return;
    };
    let (mut enable, mut disable) = (Vec::new(), Vec::new());
    let mut defaults = None;
    for word in config.carried_list("viridian") {
        match word {
            "all" => enable = (0..VIRIDIAN_BITS).collect(),
            "defaults" => defaults = Some(true),
            _ => {
                let (name, to, from) = match word.strip_prefix('!') {
                    Some(name) => (name, &mut disable, &mut enable),
                    None => (word, &mut enable, &mut disable),
                };
                let bit = VIRIDIAN.iter().position(|v| v.eq_ignore_ascii_case(name));
                if let Some(bit) = bit.and_then(|bit| u32::try_from(bit).ok()) {
                    from.retain(|&b| b != bit);
                    to.push(bit);
                    to.sort_unstable();
                    to.dedup();
                }
            }
        }
    }
    map.put_tristate("viridian", defaults);
    for (key, bits) in [("viridian_enable", enable), ("viridian_disable", disable)] {
        map.put(key, Json::List(bits.into_iter().map(Json::from).collect()));
    }
}

fn vga(config: &DomainConfig) -> Map {
    let mut map = Map::default();
    let kind = match config.carried_text("vga") {
        Some("stdvga") => Some("std"),
        Some(word) => Some(word),
        None => config
            .carried_flag("stdvga")
            .map(|std| if std { "std" } else { "cirrus" }),
    };
    map.put_some("kind", kind);
    map
}

fn put_passed_graphics(map: &mut Map, config: &DomainConfig) {
    let Some(text) = config.carried_text("gfx_passthru") else {
        return;
    };
    match c_long(text) {
        Some(number) => map.put_tristate("gfx_passthru", Some(number != 0)),
        None => {
            map.put_tristate("gfx_passthru", Some(true));
            let kind = text.to_ascii_lowercase();
            map.put_some("gfx_passthru_kind", (kind != "default").then_some(kind));
        }
    }
}
