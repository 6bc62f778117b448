//! The libxl form back to a [`DomainConfig`], so that our commands work on guests that stock xl made.
//!
//! Reads what a [`DomainConfig`] has fields for and the scalar members that it carries. Unknown members are skipped:
//! newer and older releases write others. What is there has the right type or the form is refused.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::build::union_key;
use super::fields::{self, How};
use super::hvm;
use super::value::{Json, Map};
use crate::config::boot::BootConfig;
use crate::config::cpu::{CpuConfig, CpuSet, TscMode};
use crate::config::disk::{DiskBackend, DiskFormat, DiskSpec, DiskSpecification};
use crate::config::domain::{DomainConfig, DomainKind};
use crate::config::events::{EventActions, ShutdownAction};
use crate::config::limits::{MAX_DEVICES, MAX_HOST_CPUS, MAX_VCPUS};
use crate::config::memory::MemoryConfig;
use crate::config::vif::{Mac, Rate, VifKind, VifSpec};

/// Why a stored form is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The content is no JSON.
    #[error("stored configuration is not JSON: {0}")]
    NotJson(String),
    /// A member is missing or has the wrong type.
    #[error("stored configuration: member `{0}' is missing or malformed")]
    Member(String),
}

/// Reads the libxl form of a guest.
///
/// A missing name is empty and a missing UUID is nil, as in the form that stock keeps of dom0.
///
/// # Errors
/// A member is missing or malformed.
pub fn read(form: &Json) -> Result<DomainConfig, ReadError> {
    let whole = Node::root(form)?;
    let create = whole.map("c_info")?;
    let build = whole.map("b_info")?;
    let kind = create.word("type", DomainKind::from_word)?;
    let kind = kind.ok_or_else(|| create.wrong("type"))?;
    let mut config = DomainConfig {
        name: create.text("name")?.unwrap_or_default(),
        uuid: create
            .word("uuid", |text| Uuid::try_parse(text).ok())?
            .unwrap_or_default(),
        kind,
        memory: memory(&build)?,
        cpu: cpu(&build)?,
        boot: boot(&build)?,
        events: events(&whole)?,
        disks: whole.each("disks", disk)?,
        vifs: whole.each("nics", vif)?,
        vfbs: Vec::new(),
        pci: Vec::new(),
        protect: whole
            .word(super::PROTECT, |text| serde_json::from_str(text).ok())?
            .unwrap_or_default(),
        carried: BTreeMap::new(),
    };
    carry(&mut config, &create, &build);
    Ok(config)
}

/// Scalar members that the configuration only carries.
fn carry(config: &mut DomainConfig, create: &Node<'_>, build: &Node<'_>) {
    for group in [
        fields::CREATE_HEAD,
        fields::CREATE_POOL,
        fields::CREATE_TAIL,
    ] {
        fields::take(create.map, config, group);
    }
    for group in [
        BUILD_LIMITS,
        fields::BUILD_TIME,
        fields::BUILD_CLOCK,
        fields::BUILD_MODEL,
        fields::BUILD_EVENTS,
        fields::BUILD_FIRMWARE,
        fields::BUILD_LOADER,
        fields::BUILD_PLATFORM,
        fields::BUILD_RESTRICT,
        fields::BUILD_TAIL,
    ] {
        fields::take(build.map, config, group);
    }
    let inner = |member: &str| build.map.get(member).and_then(Json::as_map);
    if let Some(scheduler) = inner("sched_params") {
        fields::take(scheduler, config, fields::SCHEDULER);
    }
    match (inner(union_key(config.kind)), config.kind) {
        (Some(union), DomainKind::Pv) => fields::take(union, config, PV),
        (Some(union), DomainKind::Pvh) => fields::take(union, config, fields::PVH),
        (Some(union), DomainKind::Hvm) => hvm::take(union, config),
        (None, _) => {}
    }
}

/// Members of `b_info` that are written by hand, because the host or the moment has a say in them.
const BUILD_LIMITS: &[fields::Field] = &[
    ("max_grant_frames", "max_grant_frames", How::Number),
    ("max_maptrack_frames", "max_maptrack_frames", How::Number),
    ("max_grant_version", "max_grant_version", How::Number),
    ("video_memkb", "videoram", How::Mib),
    ("bootloader_restrict", "bootloader_restrict", How::Flag),
    ("apic", "apic", How::Flag),
    ("altp2m", "altp2m", How::Text),
];

/// `type.pv`
const PV: &[fields::Field] = &[("e820_host", "e820_host", How::Flag)];

fn memory(build: &Node<'_>) -> Result<MemoryConfig, ReadError> {
    let default = MemoryConfig::default();
    let max = build.number::<u64>("max_memkb")?;
    let target = build.number::<u64>("target_memkb")?.or(max);
    let target_kib = target.unwrap_or(default.target_kib);
    Ok(MemoryConfig {
        target_kib,
        max_kib: max.unwrap_or(target_kib),
        shadow_kib: build.number("shadow_memkb")?,
        target_stated: target.is_some(),
        max_stated: max.is_some() || target.is_some(),
    })
}

fn cpu(build: &Node<'_>) -> Result<CpuConfig, ReadError> {
    let available = build.cpus("avail_vcpus")?;
    let max = build
        .number::<u32>("max_vcpus")?
        .filter(|&n| (1..=MAX_VCPUS).contains(&n));
    let online = available
        .as_ref()
        .and_then(|set| u32::try_from(set.0.len()).ok());
    let online = online.filter(|&n| n > 0).or(max).unwrap_or(1);
    let scheduler = build.map("sched_params").ok();
    let share = |key: &str| match &scheduler {
        // Minus one is libxl's word for the scheduler's own default.
        Some(node) => Ok(node.number::<i64>(key)?.and_then(|n| u32::try_from(n).ok())),
        None => Ok(None),
    };
    Ok(CpuConfig {
        online,
        max: max.unwrap_or(online).max(online),
        hard_affinity: build.each_cpus("vcpu_hard_affinity")?,
        soft_affinity: build.each_cpus("vcpu_soft_affinity")?,
        weight: share("weight")?,
        cap: share("cap")?,
        tsc_mode: build
            .word("tsc_mode", TscMode::from_word)?
            .unwrap_or_default(),
        numa_placement: build.flag("numa_placement")?,
        online_stated: available.is_some(),
        max_stated: max.is_some(),
    })
}

fn boot(build: &Node<'_>) -> Result<BootConfig, ReadError> {
    Ok(BootConfig {
        kernel: build.text("kernel")?,
        ramdisk: build.text("ramdisk")?,
        cmdline: build.text("cmdline")?,
        bootloader: build.text("bootloader")?,
        bootloader_args: build.texts("bootloader_args")?,
    })
}

/// Actions: `destroy` is libxl's default for every reason, so that is what a missing member means.
fn events(whole: &Node<'_>) -> Result<EventActions, ReadError> {
    let action = |key: &str| {
        let word = whole.word(key, ShutdownAction::from_json_word)?;
        Ok(word.unwrap_or(ShutdownAction::Destroy))
    };
    Ok(EventActions {
        on_poweroff: action("on_poweroff")?,
        on_reboot: action("on_reboot")?,
        on_watchdog: action("on_watchdog")?,
        on_crash: action("on_crash")?,
        on_soft_reset: action("on_soft_reset")?,
    })
}

fn disk(node: &Node<'_>) -> Result<DiskSpec, ReadError> {
    let format = |word: &str| match word {
        "unknown" => Some(DiskFormat::Raw),
        _ => DiskFormat::from_word(word),
    };
    let colo = node
        .map
        .0
        .iter()
        .filter(|(key, _)| key.starts_with("colo_") && key != "colo_restore_enable");
    let colo = colo.filter_map(|(key, value)| match value {
        Json::Text(text) => Some((key.clone(), text.clone())),
        Json::Number(number) => Some((key.clone(), number.to_string())),
        _ => None,
    });
    Ok(DiskSpec {
        target: node.text("pdev_path")?,
        vdev: node.text("vdev")?.ok_or_else(|| node.wrong("vdev"))?,
        format: node.word("format", format)?.unwrap_or_default(),
        writable: node.flag("readwrite")?.unwrap_or(false),
        cdrom: node.flag("is_cdrom")?.unwrap_or(false),
        removable: node.flag("removable")?.unwrap_or(false),
        backend: node
            .word("backend", DiskBackend::from_word)?
            .unwrap_or_default(),
        backend_domain: node.text("backend_domname")?,
        script: node.text("script")?,
        direct_io_safe: node.flag("direct_io_safe")?.unwrap_or(false),
        discard: node.flag("discard_enable")?,
        specification: node
            .word("specification", DiskSpecification::from_word)?
            .unwrap_or_default(),
        trusted: node.flag("trusted")?,
        grant_usage: node.flag("grant_usage")?,
        colo: colo.collect(),
    })
}

fn vif(node: &Node<'_>) -> Result<VifSpec, ReadError> {
    let kind = |word: &str| match word {
        "vif" => Some(VifKind::Vif),
        "vif_ioemu" => Some(VifKind::Ioemu),
        "unknown" => Some(VifKind::Unknown),
        _ => None,
    };
    let rate = match node.number::<u64>("rate_bytes_per_interval")? {
        Some(bytes_per_interval) => {
            let interval_us = node.number("rate_interval_usecs")?.unwrap_or(0);
            Some(Rate {
                bytes_per_interval,
                interval_us,
            })
        }
        None => None,
    };
    let colo = node.map.0.iter().filter(|(key, _)| key.starts_with("colo"));
    let colo = colo.filter_map(|(key, value)| Some((key.clone(), value.as_text()?.to_owned())));
    Ok(VifSpec {
        mac: node.word("mac", Mac::parse)?,
        bridge: node.text("bridge")?,
        gatewaydev: node.text("gatewaydev")?,
        script: node.text("script")?,
        ip: node.text("ip")?,
        ifname: node.text("ifname")?,
        backend_domain: node.text("backend_domname")?,
        kind: node.word("nictype", kind)?.unwrap_or_default(),
        model: node.text("model")?,
        rate,
        devid: node.number("devid")?,
        mtu: node.number("mtu")?,
        vlan: node.text("vlan")?,
        trusted: node.flag("trusted")?,
        colo: colo.collect(),
    })
}

/// An object and where it stands, for error messages.
struct Node<'a> {
    map: &'a Map,
    path: String,
}

impl<'a> Node<'a> {
    fn root(form: &'a Json) -> Result<Self, ReadError> {
        let map = form
            .as_map()
            .ok_or_else(|| ReadError::Member("(whole)".into()))?;
        Ok(Self {
            map,
            path: String::new(),
        })
    }

    fn wrong(&self, key: &str) -> ReadError {
        ReadError::Member(format!("{}{key}", self.path))
    }

    /// A member, read by `as_type`, which gives `None` if it is malformed.
    fn member<T>(
        &self,
        key: &str,
        as_type: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        match self.map.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => as_type(value).map(Some).ok_or_else(|| self.wrong(key)),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, ReadError> {
        self.member(key, |value| value.as_text().map(str::to_owned))
    }

    fn word<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        self.member(key, |value| read(value.as_text()?))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ReadError> {
        self.member(key, Json::as_flag)
    }

    fn number<T: TryFrom<i128>>(&self, key: &str) -> Result<Option<T>, ReadError> {
        self.member(key, |value| T::try_from(value.as_number()?).ok())
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, ReadError> {
        let items = self.member(key, |value| {
            value
                .as_list()?
                .iter()
                .map(|item| Some(item.as_text()?.to_owned()))
                .collect()
        })?;
        Ok(items.unwrap_or_default())
    }

    fn cpus(&self, key: &str) -> Result<Option<CpuSet>, ReadError> {
        self.member(key, cpu_set)
    }

    fn each_cpus(&self, key: &str) -> Result<Vec<CpuSet>, ReadError> {
        let sets = self.member(key, |value| value.as_list()?.iter().map(cpu_set).collect())?;
        Ok(sets.unwrap_or_default())
    }

    fn map(&self, key: &str) -> Result<Node<'a>, ReadError> {
        let map = self
            .member(key, Json::as_map)?
            .ok_or_else(|| self.wrong(key))?;
        Ok(Node {
            map,
            path: format!("{}{key}.", self.path),
        })
    }

    fn each<T>(
        &self,
        key: &str,
        read: fn(&Node<'_>) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let items = self.member(key, Json::as_list)?.unwrap_or(&[]);
        if items.len() > MAX_DEVICES {
            return Err(self.wrong(key));
        }
        let devices = items.iter().enumerate().map(|(index, item)| {
            let path = format!("{}{key}[{index}]", self.path);
            let map = item
                .as_map()
                .ok_or_else(|| ReadError::Member(path.clone()))?;
            read(&Node {
                map,
                path: format!("{path}."),
            })
        });
        devices.collect()
    }
}

fn cpu_set(value: &Json) -> Option<CpuSet> {
    let numbers = value.as_list()?.iter().map(|item| {
        u32::try_from(item.as_number()?)
            .ok()
            .filter(|&cpu| cpu < MAX_HOST_CPUS.max(MAX_VCPUS))
    });
    Some(CpuSet(numbers.collect::<Option<_>>()?))
}
