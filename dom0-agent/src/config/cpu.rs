//! Virtual CPUs: how many, where they may run, their share of the host, and how they see time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cpulist::{CpuListError, HostCpus, parse_cpu_list};
use super::defaults;
use super::diag::{Fatal, Pos};
use super::limits::MAX_VCPUS;
use super::number::c_long;
use super::view::View;

/// The CPU section of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfig {
    /// Virtual CPUs that are online when the guest starts (`vcpus=`), 1 or more.
    pub online: u32,
    /// Virtual CPUs that can ever be online (`maxvcpus=`), `online` or more.
    pub max: u32,
    /// Physical CPUs each virtual CPU may run on (`cpus=`). Entry N is for vCPU N; a missing entry means any.
    pub hard_affinity: Vec<CpuSet>,
    /// Physical CPUs each virtual CPU prefers (`cpus_soft=`). Entry N is for vCPU N; a missing entry means any.
    pub soft_affinity: Vec<CpuSet>,
    /// Scheduler weight (`cpu_weight=`); `None` leaves the scheduler's default of 256.
    pub weight: Option<u32>,
    /// Upper limit in percent of one CPU (`cap=`); `None` and 0 mean unlimited.
    pub cap: Option<u32>,
    /// How the guest's time stamp counter behaves (`tsc_mode=`).
    pub tsc_mode: TscMode,
    /// Whether the guest is put on NUMA nodes by itself; a list of affinities switches it off.
    pub numa_placement: Option<bool>,
    /// Whether `vcpus=` was written. Stock's JSON leaves out what was not.
    pub online_stated: bool,
    /// Whether `vcpus=` or `maxvcpus=` was written.
    pub max_stated: bool,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self {
            online: defaults::VCPUS,
            max: defaults::VCPUS,
            hard_affinity: Vec::new(),
            soft_affinity: Vec::new(),
            weight: None,
            cap: None,
            tsc_mode: TscMode::Default,
            numa_placement: None,
            online_stated: false,
            max_stated: false,
        }
    }
}

impl CpuConfig {
    /// Reads every key about CPUs.
    pub(super) fn read(view: &mut View<'_>, host: &HostCpus) -> Result<Self, Fatal> {
        let (vcpus, maxvcpus) = (vcpu_count(view, "vcpus")?, vcpu_count(view, "maxvcpus")?);
        let online = vcpus.unwrap_or(defaults::VCPUS);
        let max = maxvcpus.unwrap_or(online);
        if max < online {
            return Err(Fatal::new(view.pos("maxvcpus"), "xl: maxvcpus < vcpus"));
        }
        let mut cpu = Self {
            online,
            max,
            online_stated: vcpus.is_some(),
            max_stated: vcpus.is_some() || maxvcpus.is_some(),
            ..Self::default()
        };
        cpu.weight = share(view, "cpu_weight")?;
        cpu.cap = share(view, "cap")?;
        cpu.hard_affinity = affinity(view, "cpus", max, host)?;
        if cpu.hard_affinity.iter().any(|set| set.0.is_empty()) {
            return Err(Fatal::new(
                view.pos("cpus"),
                "vcpu hard affinity map is empty",
            ));
        }
        cpu.soft_affinity = affinity(view, "cpus_soft", max, host)?;
        let placed = view.list("cpus").is_some() || view.tree.find("cpus_soft").is_some();
        cpu.numa_placement = placed.then_some(false);
        cpu.tsc_mode = TscMode::read(view)?;
        Ok(cpu)
    }
}

fn vcpu_count(view: &View<'_>, key: &str) -> Result<Option<u32>, Fatal> {
    let Some(number) = view.number(key) else {
        return Ok(None);
    };
    match u32::try_from(number) {
        Ok(count) if (1..=MAX_VCPUS).contains(&count) => Ok(Some(count)),
        _ => Err(Fatal::new(
            view.pos(key),
            format!("xl: {key}={number} is not between 1 and {MAX_VCPUS}"),
        )),
    }
}

/// A scheduler parameter: Xen keeps these in 16 bits.
fn share(view: &View<'_>, key: &str) -> Result<Option<u32>, Fatal> {
    let Some(number) = view.number(key) else {
        return Ok(None);
    };
    match u16::try_from(number) {
        Ok(value) => Ok(Some(value.into())),
        Err(_) => Err(Fatal::new(
            view.pos(key),
            format!("xl: {key}={number} is not between 0 and {}", u16::MAX),
        )),
    }
}

/// The sets of `cpus=` or `cpus_soft=`: one text for every vCPU, or one list item for each.
fn affinity(view: &View<'_>, key: &str, vcpus: u32, host: &HostCpus) -> Result<Vec<CpuSet>, Fatal> {
    let vcpus = usize::try_from(vcpus).unwrap_or(usize::MAX);
    let refuse = |pos: Pos| move |error: CpuListError| Fatal::new(Some(pos), error.to_string());
    if let Some(texts) = view.texts(key) {
        let sets = texts
            .take(vcpus)
            .map(|(pos, list)| parse_cpu_list(list, host).map_err(refuse(pos)));
        return sets.collect();
    }
    let Some(list) = view.text(key) else {
        return Ok(Vec::new());
    };
    let pos = view.pos(key).unwrap_or_default();
    let set = parse_cpu_list(list, host).map_err(refuse(pos))?;
    Ok(vec![set; vcpus])
}

/// A set of physical CPU numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSet(pub BTreeSet<u32>);

/// How the time stamp counter of a guest behaves. Numbers are Xen's (`XEN_CPUID_TSC_MODE`, `xen/domctl.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TscMode {
    /// Native when that is safe, emulated otherwise (0).
    #[default]
    Default,
    /// Every read is emulated (1).
    AlwaysEmulate,
    /// Never emulated (2).
    Native,
    /// Native, with the guest told how to correct it (3). Xen treats it like the default since 4.15.
    NativeParavirt,
}

impl TscMode {
    /// The number that `XEN_DOMCTL_settscinfo` takes.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::AlwaysEmulate => 1,
            Self::Native => 2,
            Self::NativeParavirt => 3,
        }
    }

    /// The word that xl.cfg and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AlwaysEmulate => "always_emulate",
            Self::Native => "native",
            Self::NativeParavirt => "native_paravirt",
        }
    }

    /// The mode for a word, in either case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    }

    /// All modes, by their numbers.
    const ALL: [Self; 4] = [
        Self::Default,
        Self::AlwaysEmulate,
        Self::Native,
        Self::NativeParavirt,
    ];

    fn read(view: &mut View<'_>) -> Result<Self, Fatal> {
        let Some(word) = view.text("tsc_mode") else {
            return Ok(Self::Default);
        };
        let pos = view.pos("tsc_mode");
        let Some(number) = c_long(word) else {
            return Self::from_word(word).ok_or_else(|| {
                Fatal::new(
                    pos,
                    format!("ERROR: invalid value \"{word}\" for \"tsc_mode\""),
                )
            });
        };
        let mode = usize::try_from(number)
            .ok()
            .and_then(|n| Self::ALL.get(n).copied());
        let example = mode
            .map(|m| format!("e.g. tsc_mode=\"{}\"", m.as_str()))
            .unwrap_or_default();
        view.report
            .warn(pos, format!("{INTEGER_TSC_MODE} {example}"));
        mode.ok_or_else(|| {
            Fatal::new(
                pos,
                format!("ERROR: invalid value {number} for \"tsc_mode\""),
            )
        })
    }
}

const INTEGER_TSC_MODE: &str = "WARNING: specifying \"tsc_mode\" as an integer is deprecated. \
    Please use the named parameter variant.";
