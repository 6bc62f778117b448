//! A syntax tree to a [`DomainConfig`]: the order of stock xl, its defaults, its warnings and its refusals.
//!
//! Who reads what: identity here, every other subject in its own file (`boot`, `cpu`, `memory`, `events`, `protect`,
//! `disk`, `vif`, `pci`). Known keys without a field are carried; one warning names those that nothing acts on yet.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::boot::BootConfig;
use super::choices;
use super::cpu::CpuConfig;
use super::cpulist::HostCpus;
use super::defaults;
use super::diag::{ConfigError, Fatal, Report};
use super::disk::{DiskSpec, parse_disk};
use super::domain::{CarriedValue, DomainConfig, DomainKind};
use super::events::EventActions;
use super::graphics::{VfbSpec, parse_vfb};
use super::keys::{self, Handling, KEYS};
use super::limits::MAX_DEVICES;
use super::memory::MemoryConfig;
use super::parse::{parse, with_overrides};
use super::pci::{PciDefaults, PciSpec, parse_pci};
use super::protect::ProtectConfig;
use super::ranges;
use super::tree::Tree;
use super::unserved;
use super::view::View;
use super::vif::{VifDefaults, VifSpec, apply, parameters};
use super::xlconf::XlConf;

/// What reading a configuration needs to know beside its text.
#[derive(Debug, Clone)]
pub struct Ambient {
    /// What messages start with: the file's name as the user gave it.
    pub source: String,
    /// Identity for a guest that has none.
    pub fresh_uuid: Uuid,
    /// The CPUs that CPU lists are about.
    pub host: HostCpus,
    /// Host-wide defaults.
    pub conf: XlConf,
    /// Directory of firmware images; [`defaults::FIRMWARE_DIR`] unless Xen is installed elsewhere.
    pub firmware_dir: String,
}

impl Ambient {
    /// A host of `cpus` CPUs in one node, with the defaults of xl.conf.
    #[must_use]
    pub fn new(source: impl Into<String>, fresh_uuid: Uuid, cpus: u32) -> Self {
        Self {
            source: source.into(),
            fresh_uuid,
            host: HostCpus::uniform(cpus),
            conf: XlConf::default(),
            firmware_dir: defaults::FIRMWARE_DIR.into(),
        }
    }
}

/// A configuration that can be used, and what was said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The guest.
    pub config: DomainConfig,
    /// Warnings for standard error, notes for the debug log.
    pub report: Report,
}

/// Text and command line overrides to a guest: everything between reading a file and building.
///
/// # Errors
/// What stock xl would refuse, in its wording, with its exit code.
pub fn load(text: &[u8], overrides: &[String], ambient: &Ambient) -> Result<Loaded, ConfigError> {
    let all = with_overrides(text, overrides);
    let tree = parse(&ambient.source, &all).map_err(|report| ConfigError {
        report,
        exit_code: 1,
    })?;
    interpret(&tree, ambient)
}

/// A syntax tree to a guest.
///
/// # Errors
/// As for [`load`].
pub fn interpret(tree: &Tree, ambient: &Ambient) -> Result<Loaded, ConfigError> {
    let mut view = View::new(&ambient.source, tree);
    match read(&mut view, ambient) {
        Ok(config) => Ok(Loaded {
            config,
            report: view.report,
        }),
        Err(fatal) => Err(fatal.after(view.report)),
    }
}

fn read(view: &mut View<'_>, ambient: &Ambient) -> Result<DomainConfig, Fatal> {
    let kind = kind(view)?;
    view.check_shapes(kind);
    let name = view.text("name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Fatal::new(None, "Domain name must be specified."))?;
    let uuid = match view.text("uuid") {
        None => ambient.fresh_uuid,
        Some(text) => uuid(text)
            .ok_or_else(|| Fatal::new(view.pos("uuid"), format!("Failed to parse UUID: {text}")))?,
    };
    let config = DomainConfig {
        name: name.into(),
        uuid,
        kind,
        memory: MemoryConfig::read(view)?,
        cpu: CpuConfig::read(view, &ambient.host)?,
        events: EventActions::read(view)?,
        pci: pci(view)?,
        boot: BootConfig::read(view, kind, &ambient.firmware_dir)?,
        disks: disks(view)?,
        vifs: vifs(view, &ambient.conf.vif)?,
        vfbs: vfbs(view, kind),
        protect: ProtectConfig::read(view)?,
        carried: carried(view),
    };
    questionable(view, kind);
    obsolete(view, kind);
    choices::check(view, kind)?;
    ranges::check(view)?;
    name_what_is_not_acted_on(view, &config);
    name_what_is_not_known(view);
    Ok(config)
}

/// `type=` by prefix (`"h"` is hvm, `"p"` is pv), or the older `builder=`.
fn kind(view: &View<'_>) -> Result<DomainKind, Fatal> {
    let pick = |key: &str, words: &[(&str, DomainKind)]| match view.text(key) {
        None => Ok(None),
        Some(text) => match words.iter().find(|(word, _)| word.starts_with(text)) {
            Some((_, kind)) => Ok(Some(*kind)),
            None => Err(Fatal::new(
                view.pos(key),
                format!("Invalid domain type {text}."),
            )),
        },
    };
    let (hvm, pv) = (("hvm", DomainKind::Hvm), ("pv", DomainKind::Pv));
    let stated = pick("type", &[hvm, pv, ("pvh", DomainKind::Pvh)])?;
    let built = pick("builder", &[hvm, ("generic", DomainKind::Pv)])?;
    match (stated, built) {
        (Some(one), Some(other)) if one != other => Err(Fatal::new(
            view.pos("builder"),
            "Contradicting \"builder\" and \"type\" options specified.",
        )),
        _ => Ok(stated.or(built).unwrap_or(defaults::KIND)),
    }
}

/// The form with dashes; every other form is refused, as in stock.
fn uuid(text: &str) -> Option<Uuid> {
    const LENGTH: usize = 36;
    Uuid::try_parse(text).ok().filter(|_| text.len() == LENGTH)
}

fn too_many(view: &View<'_>, key: &str) -> Result<(), Fatal> {
    match view.list(key) {
        Some(items) if items.len() > MAX_DEVICES => Err(Fatal::new(
            view.pos(key),
            format!(
                "xl: {key}: {} devices, more than {MAX_DEVICES}",
                items.len()
            ),
        )),
        _ => Ok(()),
    }
}

fn disks(view: &View<'_>) -> Result<Vec<DiskSpec>, Fatal> {
    too_many(view, "disk")?;
    let Some(specs) = view.texts("disk") else {
        return Ok(Vec::new());
    };
    specs
        .map(|(pos, spec)| {
            parse_disk(view.source, &[spec]).map_err(|e| Fatal::new(Some(pos), e.to_string()))
        })
        .collect()
}

fn vifs(view: &mut View<'_>, host: &VifDefaults) -> Result<Vec<VifSpec>, Fatal> {
    too_many(view, "vif")?;
    let mut all = Vec::new();
    let Some(specs) = view.texts("vif") else {
        return Ok(all);
    };
    for (pos, spec) in specs {
        let mut vif = host.interface();
        for parameter in parameters(spec) {
            match apply(&mut vif, parameter, view.source) {
                Ok(None) => {}
                Ok(Some(deprecated)) => view.report.warn(Some(pos), deprecated),
                Err(error) if error.ends_reading() => {
                    return Err(Fatal::new(Some(pos), error.to_string()));
                }
                Err(error) => view.report.warn(Some(pos), error.to_string()),
            }
        }
        all.push(vif);
    }
    Ok(all)
}

fn pci(view: &View<'_>) -> Result<Vec<PciSpec>, Fatal> {
    too_many(view, "pci")?;
    let flag = |key: &str| view.number(key).is_some_and(|n| n != 0);
    let defaults = PciDefaults {
        msi_translate: flag("pci_msitranslate"),
        power_management: flag("pci_power_mgmt"),
        permissive: flag("pci_permissive"),
        seize: flag("pci_seize"),
    };
    let Some(specs) = view.texts("pci") else {
        return Ok(Vec::new());
    };
    specs
        .map(|(pos, spec)| {
            parse_pci(spec, defaults).ok_or_else(|| {
                let text = format!("unable to parse PCI_SPEC_STRING `{spec}' for passthrough");
                Fatal {
                    pos: Some(pos),
                    text,
                    exit_code: 6,
                }
            })
        })
        .collect()
}

/// The items of `vfb=`; a PV guest without any gets one from the top-level keys if they say `vnc=1`.
fn vfbs(view: &View<'_>, kind: DomainKind) -> Vec<VfbSpec> {
    let specs = view.texts("vfb").into_iter().flatten();
    let mut all: Vec<_> = specs
        .take(MAX_DEVICES)
        .map(|(_, spec)| parse_vfb(spec))
        .collect();
    let flag = |key: &str| view.number(key).map(|n| n != 0);
    if kind == DomainKind::Pv && all.is_empty() && flag("vnc") == Some(true) {
        let text = |key: &str| view.text(key).map(str::to_owned);
        let display = view
            .number("vncdisplay")
            .and_then(|n| i32::try_from(n).ok());
        all.push(VfbSpec {
            vnc: Some(true),
            vnc_listen: text("vnclisten"),
            vnc_password: text("vncpasswd"),
            vnc_display: display.unwrap_or(0),
            vnc_find_unused: flag("vncunused"),
            sdl: flag("sdl"),
            opengl: flag("opengl"),
            display: text("display"),
            xauthority: text("xauthority"),
            keymap: text("keymap"),
        });
    }
    all
}

/// Every known key that has no field, whatever the kind of guest.
fn carried(view: &View<'_>) -> BTreeMap<String, CarriedValue> {
    KEYS.iter()
        .filter(|key| key.handling != Handling::Acted)
        .filter_map(|key| Some((key.name.to_owned(), view.usable(key)?.value.carried())))
        .collect()
}

/// Combinations and keys about which stock has something to say.
fn questionable(view: &mut View<'_>, kind: DomainKind) {
    let said = |key: &str| view.text(key).is_some();
    let hvm = kind == DomainKind::Hvm;
    let cases = [
        (
            "bios_path_override",
            hvm && said("bios_path_override") && !said("bios"),
            "WARNING: bios_path_override given without specific bios name",
        ),
        (
            "altp2mhvm",
            hvm && view.number("altp2mhvm").is_some(),
            "WARNING: Specifying \"altp2mhvm\" is deprecated. Please use \"altp2m\" instead.",
        ),
        (
            "device_model_override",
            said("device_model_override") && !said("device_model_version"),
            "WARNING: device model override given without specific DM version",
        ),
        (
            "msr_relaxed",
            view.number("msr_relaxed").is_some(),
            "WARNING: msr_relaxed will be removed in future versions.\n\
             If it fixes an issue you are having please report to xen-devel@lists.xenproject.org.",
        ),
    ];
    for (key, _, text) in cases.into_iter().filter(|(_, applies, _)| *applies) {
        view.warn(key, text);
    }
}

/// Keys that have lost their meaning and of which stock says so.
fn obsolete(view: &mut View<'_>, kind: DomainKind) {
    if view.number("vncviewer").is_some() {
        view.warn(
            "vncviewer",
            "WARNING: ignoring \"vncviewer\" option. \
             Use \"-V\" option of \"xl create\" to automatically spawn vncviewer.",
        );
    }
    if view.list("vif2").is_some() {
        view.warn(
            "vif2",
            "WARNING: vif2: netchannel2 is deprecated and not supported by xl",
        );
    }
    if let Some(model) = view.text("device_model") {
        view.warn(
            "device_model",
            "WARNING: ignoring device_model directive.\n\
             WARNING: Use \"device_model_override\" instead if you really want a non-default device_model",
        );
        if model.contains("stubdom-dm") {
            let text = match kind {
                DomainKind::Hvm => {
                    "WARNING: Or use \"device_model_stubdomain_override\" if you  want to enable stubdomains"
                }
                DomainKind::Pv | DomainKind::Pvh => {
                    "WARNING: ignoring \"device_model_stubdomain_override\" directive for pv guest"
                }
            };
            view.warn("device_model", text);
        }
    }
}

fn name_what_is_not_acted_on(view: &mut View<'_>, config: &DomainConfig) {
    let keys = KEYS
        .iter()
        .filter(|key| key.handling == Handling::Carried && key.scope.covers(config.kind))
        .filter(|key| {
            view.usable(key)
                .is_some_and(|s| !key.is_idle(&s.value.kind))
        })
        .map(|key| key.name.to_owned());
    let soft_reset_set = view.text("on_soft_reset").is_some();
    let names = keys
        .chain(unserved::of_events(&config.events, soft_reset_set))
        .chain(unserved::of_protection(&config.protect))
        .chain(config.disks.iter().flat_map(unserved::of_disk))
        .chain(config.vifs.iter().flat_map(unserved::of_vif));
    if let Some(warning) = unserved::warning(view.source, names) {
        view.report.warn(None, warning);
    }
}

fn name_what_is_not_known(view: &mut View<'_>) {
    for setting in &view.tree.settings {
        let name = &setting.name;
        if keys::find(name).is_none() && !name.starts_with("protect_") {
            let (source, line) = (view.source, setting.pos.line);
            let text = format!("{source}:{line}: unknown key `{name}' ignored");
            view.report.debug(Some(setting.pos), text);
        }
    }
}
