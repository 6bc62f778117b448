//! `libxl_domain_config` as a whole, and its part `c_info`.

use super::value::{Json, Map};
use super::{Moment, build, carried, devices, fields};
use crate::config::domain::DomainConfig;
use crate::config::events::ShutdownAction;
use crate::config::xlconf::XlConf;

/// `INVALID_DOMID`, which stock 4.20 stores where no number was asked for.
const NO_DOMID: u32 = u32::MAX;

pub(super) fn domain_config(config: &DomainConfig, conf: &XlConf, moment: Moment) -> Json {
    let mut map = Map::default();
    map.put("c_info", create_info(config, conf, moment));
    map.put("b_info", build::build_info(config, conf, moment));
    devices::put(&mut map, config, moment);
    carried::put(&mut map, config);
    put_events(&mut map, config);
    map.into()
}

fn create_info(config: &DomainConfig, conf: &XlConf, moment: Moment) -> Map {
    let mut map = Map::default();
    map.put("type", config.kind.as_str());
    fields::put(&mut map, config, fields::CREATE_HEAD);
    map.put_some("ssid_label", security_labels(config).0);
    map.put("name", config.name.as_str());
    if moment == Moment::Created {
        map.put("domid", NO_DOMID);
    }
    map.put("uuid", config.uuid.hyphenated().to_string());
    fields::put(&mut map, config, fields::CREATE_POOL);
    map.put_tristate("run_hotplug_scripts", Some(conf.run_hotplug_scripts));
    fields::put(&mut map, config, fields::CREATE_TAIL);
    map
}

/// The label at creation and the one for the time after, which exists only beside the first.
pub(super) fn security_labels(config: &DomainConfig) -> (Option<&str>, Option<&str>) {
    let later = config.carried_text("seclabel");
    match config.carried_text("init_seclabel") {
        Some(first) => (Some(first), later),
        None => (later, None),
    }
}

fn put_events(map: &mut Map, config: &DomainConfig) {
    let events = &config.events;
    let actions = [
        ("on_poweroff", events.on_poweroff),
        ("on_reboot", events.on_reboot),
        ("on_watchdog", events.on_watchdog),
        ("on_crash", events.on_crash),
        ("on_soft_reset", events.on_soft_reset),
    ];
    for (key, action) in actions {
        if action != ShutdownAction::Destroy {
            map.put(key, action.json_word());
        }
    }
}
