//! `b_info`: memory, CPUs, boot, platform.

use super::create::security_labels;
use super::value::{Json, Map};
use super::{Moment, carried, fields, hvm};
use crate::config::cpu::{CpuSet, TscMode};
use crate::config::domain::{DomainConfig, DomainKind};
use crate::config::xlconf::XlConf;

pub(super) fn build_info(config: &DomainConfig, conf: &XlConf, moment: Moment) -> Map {
    let mut map = Map::default();
    put_cpus(&mut map, config);
    put_memory(&mut map, config, moment);
    fields::put(&mut map, config, fields::BUILD_TIME);
    map.put_some("exec_ssid_label", security_labels(config).1);
    fields::put(&mut map, config, fields::BUILD_CLOCK);
    map.put_some("blkdev_start", conf.blkdev_start.as_deref());
    put_grant_limits(&mut map, config, conf);
    fields::put(&mut map, config, fields::BUILD_MODEL);
    map.put("sched_params", scheduler(config));
    carried::put_host_ranges(&mut map, config);
    map.put_tristate("claim_mode", Some(conf.claim_mode));
    fields::put(&mut map, config, fields::BUILD_EVENTS);
    put_boot(&mut map, config, conf);
    fields::put(&mut map, config, fields::BUILD_PLATFORM);
    if config.kind == DomainKind::Hvm {
        map.put_tristate("apic", config.carried_flag("apic"));
    }
    fields::put(&mut map, config, fields::BUILD_RESTRICT);
    map.put(union_key(config.kind), union(config));
    map.put("arch_arm", Map::default());
    map.put("arch_x86", arch_x86(config, moment));
    map.put_some("altp2m", altp2m(config));
    fields::put(&mut map, config, fields::BUILD_TAIL);
    map
}

/// The member that holds what only one kind of guest has.
pub(super) const fn union_key(kind: DomainKind) -> &'static str {
    match kind {
        DomainKind::Pv => "type.pv",
        DomainKind::Pvh => "type.pvh",
        DomainKind::Hvm => "type.hvm",
    }
}

fn union(config: &DomainConfig) -> Map {
    let mut map = Map::default();
    match config.kind {
        DomainKind::Hvm => hvm::put(&mut map, config),
        DomainKind::Pvh => fields::put(&mut map, config, fields::PVH),
        DomainKind::Pv => {
            let passed_through = !config.pci.is_empty();
            let host_map = config.carried_flag("e820_host");
            map.put_tristate(
                "e820_host",
                if passed_through { Some(true) } else { host_map },
            );
        }
    }
    map
}

fn cpu_numbers(set: &CpuSet) -> Json {
    Json::List(set.0.iter().map(|&cpu| Json::from(cpu)).collect())
}

fn put_cpus(map: &mut Map, config: &DomainConfig) {
    let cpu = &config.cpu;
    if cpu.max_stated {
        map.put("max_vcpus", cpu.max);
    }
    if cpu.online_stated {
        map.put_list("avail_vcpus", (0..cpu.online).map(Json::from).collect());
    }
    map.put_list(
        "vcpu_hard_affinity",
        cpu.hard_affinity.iter().map(cpu_numbers).collect(),
    );
    map.put_list(
        "vcpu_soft_affinity",
        cpu.soft_affinity.iter().map(cpu_numbers).collect(),
    );
    map.put_tristate("numa_placement", cpu.numa_placement);
    if cpu.tsc_mode != TscMode::Default {
        map.put("tsc_mode", cpu.tsc_mode.as_str());
    }
}

fn put_memory(map: &mut Map, config: &DomainConfig, moment: Moment) {
    let memory = &config.memory;
    let created = moment == Moment::Created;
    map.put_some(
        "max_memkb",
        (memory.max_stated || created).then_some(memory.max_kib),
    );
    map.put_some(
        "target_memkb",
        (memory.target_stated || created).then_some(memory.target_kib),
    );
    let video = config
        .carried_number("videoram")
        .map(|mib| mib.saturating_mul(1024));
    map.put_some("video_memkb", video.or(created.then_some(0)));
    map.put_some("shadow_memkb", memory.shadow_kib);
}

fn put_grant_limits(map: &mut Map, config: &DomainConfig, conf: &XlConf) {
    let limits = [
        ("max_grant_frames", conf.max_grant_frames),
        ("max_maptrack_frames", conf.max_maptrack_frames),
        ("max_grant_version", conf.max_grant_version),
    ];
    for (key, host) in limits {
        map.put_some(key, config.carried_number(key).or(host.map(i64::from)));
    }
}

fn scheduler(config: &DomainConfig) -> Map {
    let mut map = Map::default();
    map.put_some("weight", config.cpu.weight);
    map.put_some("cap", config.cpu.cap);
    fields::put(&mut map, config, fields::SCHEDULER);
    map
}

fn put_boot(map: &mut Map, config: &DomainConfig, conf: &XlConf) {
    let boot = &config.boot;
    map.put_some("kernel", boot.kernel.as_deref());
    map.put_some("cmdline", boot.cmdline.as_deref());
    map.put_some("ramdisk", boot.ramdisk.as_deref());
    fields::put(map, config, fields::BUILD_FIRMWARE);
    map.put_some("bootloader", boot.bootloader.as_deref());
    map.put_list(
        "bootloader_args",
        boot.bootloader_args
            .iter()
            .map(|arg| Json::from(arg.as_str()))
            .collect(),
    );
    let restrict = config
        .carried_flag("bootloader_restrict")
        .or(conf.bootloader_restrict);
    map.put_tristate("bootloader_restrict", restrict);
    fields::put(map, config, fields::BUILD_LOADER);
}

fn arch_x86(config: &DomainConfig, moment: Moment) -> Map {
    let mut map = Map::default();
    let created = (moment == Moment::Created).then_some(false);
    map.put_tristate(
        "msr_relaxed",
        config.carried_flag("msr_relaxed").or(created),
    );
    map
}

/// The mode by its word, whether it was written as a word or a number.
fn altp2m(config: &DomainConfig) -> Option<String> {
    const MODES: [&str; 4] = ["disabled", "mixed", "external", "limited"];
    let by_number = config
        .carried_number("altp2m")
        .and_then(|n| usize::try_from(n).ok());
    let word = match by_number {
        Some(number) => (*MODES.get(number)?).to_owned(),
        None => config.carried_text("altp2m")?.to_ascii_lowercase(),
    };
    (word != MODES[0]).then_some(word)
}
