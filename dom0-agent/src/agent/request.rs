//! A guest's configuration as the builder takes it.

use crate::build::{BuildRequest, VcpuAffinity};
use crate::config::cpu::{CpuSet, TscMode};
use crate::config::domain::{DomainConfig, DomainKind};
use xen_abi::domain::{self as abi, CpuMap};
use xen_abi::ids::Handle;

/// The hypervisor interface's word for a kind of guest.
#[must_use]
pub fn kind(kind: DomainKind) -> abi::DomainKind {
    match kind {
        DomainKind::Pv => abi::DomainKind::Pv,
        DomainKind::Pvh => abi::DomainKind::Pvh,
        DomainKind::Hvm => abi::DomainKind::Hvm,
    }
}

/// What to build for a configuration.
#[must_use]
pub fn build_request(config: &DomainConfig, handle: Handle) -> BuildRequest {
    let mut request = BuildRequest::new(
        kind(config.kind),
        handle,
        config.memory.target_kib,
        config.cpu.online,
    );
    let number = |key: &str| {
        config
            .carried_number(key)
            .and_then(|number| u32::try_from(number).ok())
    };
    request.max_memory_kib = config.memory.max_kib;
    request.max_vcpus = config.cpu.max;
    request.affinity = affinity(config);
    request.tsc_mode = tsc(config.cpu.tsc_mode);
    request.weight = config
        .cpu
        .weight
        .and_then(|weight| u16::try_from(weight).ok());
    request.cap = config.cpu.cap.and_then(|cap| u16::try_from(cap).ok());
    request.command_line = config.boot.cmdline.clone().unwrap_or_default();
    request.max_grant_frames = number("max_grant_frames");
    request.max_maptrack_frames = number("max_maptrack_frames");
    request.grant_version =
        number("max_grant_version").and_then(|version| u8::try_from(version).ok());
    request.max_event_port = number("max_event_channels").unwrap_or(request.max_event_port);
    request
}

fn affinity(config: &DomainConfig) -> Vec<VcpuAffinity> {
    let (hard, soft) = (&config.cpu.hard_affinity, &config.cpu.soft_affinity);
    (0..hard.len().max(soft.len()))
        .map(|vcpu| VcpuAffinity {
            hard: hard.get(vcpu).map(map),
            soft: soft.get(vcpu).map(map),
        })
        .collect()
}

fn map(set: &CpuSet) -> CpuMap {
    let mut map = CpuMap::default();
    for cpu in &set.0 {
        map.insert(usize::try_from(*cpu).unwrap_or(usize::MAX >> 4));
    }
    map
}

fn tsc(mode: TscMode) -> abi::TscMode {
    match mode {
        TscMode::Default => abi::TscMode::Default,
        TscMode::AlwaysEmulate => abi::TscMode::AlwaysEmulate,
        TscMode::Native => abi::TscMode::Native,
        TscMode::NativeParavirt => abi::TscMode::NativeParavirt,
    }
}
