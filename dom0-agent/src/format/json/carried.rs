//! Devices and host ranges that are only carried, out of the texts that the configuration keeps.
//!
//! A part that does not have its form is left out here; the readers of the configuration are the ones to refuse it.

use super::devices::put_graphics;
use super::value::{Json, Map};
use crate::config::domain::DomainConfig;
use crate::config::number::{atoi, decimal_prefix};
use crate::config::ranges::{FrameRange, PortRange, parse_frames, parse_irq, parse_ports};

/// The arrays behind `pcidevs`, in libxl's order.
pub(super) fn put(map: &mut Map, config: &DomainConfig) {
    let each = |key: &str, make: fn(u32, &str) -> Map| {
        let specs = (0u32..).zip(config.carried_list(key));
        specs
            .map(|(index, spec)| Json::Map(make(index, spec)))
            .collect::<Vec<_>>()
    };
    map.put_list("dtdevs", each("dtdev", |_, path| one("path", path)));
    let keyboards = config.carried_list("vkb").map(keyboard).collect();
    put_graphics(map, &config.vfbs, keyboards);
    map.put_list(
        "vtpms",
        each("vtpm", |index, spec| numbered(index, spec, &["uuid"])),
    );
    map.put_list("p9s", each("p9", |_, spec| p9(spec)));
    map.put_list(
        "pvcallsifs",
        each("pvcalls", |index, spec| numbered(index, spec, &[])),
    );
    map.put_list("vdispls", each("vdispl", display));
    map.put_list("channels", each("channel", |_, spec| channel(spec)));
    map.put_list("usbctrls", each("usbctrl", usb_controller));
}

fn one(key: &str, value: &str) -> Map {
    let mut map = Map::default();
    map.put(key, value);
    map
}

/// `key=value` pairs between commas.
fn pairs(spec: &str) -> impl Iterator<Item = (&str, &str)> {
    spec.split(',').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.trim(), value.trim()))
    })
}

fn value<'a>(spec: &'a str, key: &str) -> Option<&'a str> {
    pairs(spec)
        .filter(|(k, _)| *k == key)
        .last()
        .map(|(_, value)| value)
}

/// Backend, number and some more members of the same name.
fn numbered(index: u32, spec: &str, more: &[&str]) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", value(spec, "backend"));
    map.put("devid", index);
    for key in more {
        map.put_some(key, value(spec, key));
    }
    map
}

fn keyboard(spec: &str) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", value(spec, "backend"));
    map.put_some(
        "backend_type",
        value(spec, "backend-type").map(str::to_ascii_lowercase),
    );
    map.put_some("unique_id", value(spec, "unique-id"));
    map
}

fn p9(spec: &str) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", value(spec, "backend"));
    for key in ["tag", "path", "security_model"] {
        map.put_some(key, value(spec, key));
    }
    let kind = value(spec, "type").map(str::to_ascii_lowercase);
    map.put_some("type", kind.filter(|kind| kind != "unknown"));
    for (key, member) in [
        ("max-space", "max_space"),
        ("max-files", "max_files"),
        ("max-open-files", "max_open_files"),
    ] {
        map.put_nonzero(
            member,
            value(spec, key).and_then(decimal_prefix).unwrap_or(0),
        );
    }
    if value(spec, "auto-delete").is_some_and(|text| atoi(text) != 0) {
        map.put("auto_delete", true);
    }
    map
}

fn display(index: u32, spec: &str) -> Map {
    let mut map = numbered(index, spec, &[]);
    if value(spec, "be-alloc").is_some_and(|text| atoi(text) != 0) {
        map.put("be_alloc", true);
    }
    let connectors = value(spec, "connectors")
        .unwrap_or("")
        .split(';')
        .filter_map(|text| {
            let (id, size) = text.split_once(':')?;
            let (width, height) = size.split_once('x')?;
            let mut connector = one("unique_id", id);
            connector.put("width", decimal_prefix(width)?);
            connector.put("height", decimal_prefix(height)?);
            Some(Json::Map(connector))
        });
    map.put_list("connectors", connectors.collect());
    map
}

fn channel(spec: &str) -> Map {
    let mut map = Map::default();
    map.put_some("backend_domname", value(spec, "backend"));
    map.put_some("name", value(spec, "name"));
    let mut end = Map::default();
    match value(spec, "connection") {
        Some("socket") => {
            end.put_some("path", value(spec, "path"));
            map.put("connection.socket", end);
        }
        Some("pty") => map.put("connection.pty", end),
        _ => {}
    }
    map
}

fn usb_controller(index: u32, spec: &str) -> Map {
    let mut map = Map::default();
    let kind = value(spec, "type").map(str::to_ascii_lowercase);
    map.put_some("type", kind.filter(|kind| kind != "auto"));
    map.put("devid", index);
    for key in ["version", "ports"] {
        map.put_nonzero(key, value(spec, key).and_then(decimal_prefix).unwrap_or(0));
    }
    map.put_some("backend_domname", value(spec, "backend"));
    map
}

/// `ioports`, `irqs` and `iomem` of `b_info`.
pub(super) fn put_host_ranges(map: &mut Map, config: &DomainConfig) {
    let ports = config.carried_list("ioports").filter_map(parse_ports);
    map.put_list("ioports", ports.map(port_range).collect());
    let irqs = config.carried_list("irqs").filter_map(parse_irq);
    map.put_list("irqs", irqs.map(Json::from).collect());
    let frames = config.carried_list("iomem").filter_map(parse_frames);
    map.put_list("iomem", frames.map(frame_range).collect());
}

fn port_range(ports: PortRange) -> Json {
    let mut range = Map::default();
    range.put_nonzero("first", ports.first);
    range.put_nonzero("number", ports.number);
    range.into()
}

fn frame_range(frames: FrameRange) -> Json {
    let mut range = Map::default();
    range.put_nonzero("start", frames.start);
    range.put_nonzero("number", frames.number);
    range.put_some("gfn", frames.guest_frame);
    range.into()
}
