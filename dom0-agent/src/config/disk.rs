//! Disks as xl-disk-configuration(5) describes them.
//!
//! [`parse_disk`] reads a specification the way libxlu's scanner does: at each place the rule that matches the longest
//! text wins, the earlier of two equal ones. That decides cases no grammar in the manual does, such as `raw:/x,y` (a
//! deprecated prefix) against `raw,y` (a positional parameter). The rules themselves are in `disk_rules`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::disk_rules::{Action, Rule, longest_rule};

/// Format of a disk image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    /// Plain bytes: a file or a block device.
    #[default]
    Raw,
    /// QEMU copy-on-write, first version.
    Qcow,
    /// QEMU copy-on-write, second version.
    Qcow2,
    /// Microsoft virtual hard disk.
    Vhd,
    /// QEMU enhanced disk.
    Qed,
    /// No medium (CD drives).
    Empty,
}

impl DiskFormat {
    /// The word that specifications and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Qed => "qed",
            Self::Empty => "empty",
        }
    }

    /// The value for a word of a specification or of the JSON form.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "raw" => Self::Raw,
            "qcow" => Self::Qcow,
            "qcow2" => Self::Qcow2,
            "vhd" => Self::Vhd,
            "qed" => Self::Qed,
            "empty" => Self::Empty,
            _ => return None,
        })
    }
}

/// Which kind of backend serves a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBackend {
    /// Not said: the agent chooses.
    #[default]
    Auto,
    /// The kernel's blkback on a block device.
    Phy,
    /// blktap, which no longer exists in Xen.
    Tap,
    /// QEMU's disk backend.
    Qdisk,
    /// Someone else serves it, from xenstore alone.
    Standalone,
}

impl DiskBackend {
    /// The word that specifications and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "unknown",
            Self::Phy => "phy",
            Self::Tap => "tap",
            Self::Qdisk => "qdisk",
            Self::Standalone => "standalone",
        }
    }

    /// The value for a word of a specification or of the JSON form.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "phy" => Self::Phy,
            "tap" => Self::Tap,
            "qdisk" => Self::Qdisk,
            "standalone" => Self::Standalone,
            _ => return None,
        })
    }
}

/// Protocol between the guest and its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskSpecification {
    /// Not said: the Xen block protocol.
    #[default]
    Unknown,
    /// The Xen block protocol.
    Xen,
    /// virtio-blk.
    Virtio,
}

impl DiskSpecification {
    /// The word that specifications and the JSON form use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Xen => "xen",
            Self::Virtio => "virtio",
        }
    }

    /// The value for a word of a specification or of the JSON form.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "xen" => Self::Xen,
            "virtio" => Self::Virtio,
            _ => return None,
        })
    }
}

/// One disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Path in the backend's domain; `None` or empty for an empty drive.
    pub target: Option<String>,
    /// Name of the virtual device as written: `xvda`, `hda1`, `sdc`, `d0p1`.
    pub vdev: String,
    /// Image format.
    pub format: DiskFormat,
    /// Whether the guest may write.
    pub writable: bool,
    /// Whether the guest sees a CD drive.
    pub cdrom: bool,
    /// Whether the guest sees a removable medium.
    pub removable: bool,
    /// Backend chosen by the configuration.
    pub backend: DiskBackend,
    /// Name or number of the domain that serves the disk (`backend=`); `None` is dom0.
    pub backend_domain: Option<String>,
    /// Block script (`script=`), relative to the scripts directory.
    pub script: Option<String>,
    /// Whether direct I/O is safe for the image file (`direct-io-safe`).
    pub direct_io_safe: bool,
    /// Whether the guest is offered discard (`discard`, `no-discard`).
    pub discard: Option<bool>,
    /// Protocol offered to the guest.
    pub specification: DiskSpecification,
    /// Whether the guest trusts the backend (`trusted`, `untrusted`).
    pub trusted: Option<bool>,
    /// Whether grants are used for virtio (`grant_usage=`).
    pub grant_usage: Option<bool>,
    /// Replication settings of stock's COLO, by their libxl names; kept, never acted on.
    pub colo: BTreeMap<String, String>,
}

/// Why a disk specification is refused: every message, in order, in stock's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .messages.join("\n"))]
pub struct DiskError {
    /// Complete lines, at least one.
    pub messages: Vec<String>,
}

/// Reads one disk out of one or more specifications (`block-attach` passes one per argument).
///
/// `source` is what messages start with: the configuration's name, or `command line`.
///
/// # Errors
/// Every unknown, repeated or missing parameter, each as one line.
pub fn parse_disk(source: &str, specs: &[&str]) -> Result<DiskSpec, DiskError> {
    let mut parser = Parser::new(source);
    for spec in specs {
        parser.spec = spec;
        parser.scan();
        if !parser.messages.is_empty() {
            return Err(DiskError {
                messages: parser.messages,
            });
        }
    }
    parser.finish()
}

/// A positional parameter has been refused; nothing more is read.
struct Stop;

struct Parser<'a> {
    source: &'a str,
    spec: &'a str,
    disk: DiskSpec,
    /// `None` until it is said.
    format: Option<DiskFormat>,
    vdev: Option<String>,
    old_prefix: bool,
    access_given: bool,
    messages: Vec<String>,
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Self {
        Self {
            source,
            spec: "",
            disk: DiskSpec {
                writable: true,
                ..DiskSpec::default()
            },
            format: None,
            vdev: None,
            old_prefix: false,
            access_given: false,
            messages: Vec::new(),
        }
    }

    fn refuse(&mut self, near: Option<&str>, what: &str) {
        let near = near
            .map(|text| format!(": near `{text}'"))
            .unwrap_or_default();
        let Self { source, spec, .. } = self;
        self.messages.push(format!(
            "{source}: config parsing error in disk specification: {what}{near} in `{spec}'"
        ));
    }

    fn scan(&mut self) {
        let mut rest = self.spec.trim_start_matches(BLANKS);
        while !rest.is_empty() {
            let Rule { action, length } = longest_rule(rest);
            let (text, after) = rest.split_at(length);
            if self.apply(action, text, rest).is_err() {
                return;
            }
            rest = after.trim_start_matches(BLANKS);
        }
    }

    fn apply(&mut self, action: Action, text: &str, rest: &str) -> Result<(), Stop> {
        let value = text.strip_suffix(',').unwrap_or(text);
        let value = value.split_once('=').map_or(value, |(_, value)| value);
        match action {
            Action::Format => self.set_format(value),
            Action::Cdrom(cdrom) => self.disk.cdrom = cdrom,
            Action::UnknownType => self.refuse(Some(text), "unknown value for type"),
            Action::Access => self.set_access(value),
            Action::Backend => self.save("backend", value, |d| &mut d.backend_domain),
            Action::BackendType => self.set_backend(value),
            Action::Specification => self.set_specification(value),
            Action::Vdev => self.save_vdev(value),
            Action::Script => self.save("script", value, |d| &mut d.script),
            Action::DirectIoSafe => self.disk.direct_io_safe = true,
            Action::Discard(on) => self.disk.discard = Some(on),
            Action::Trusted(on) => self.disk.trusted = Some(on),
            Action::GrantUsage(on) => self.disk.grant_usage = Some(on),
            Action::Colo(on) => self.set_colo("colo_enable", if on { "True" } else { "False" }),
            Action::ColoText { parameter, key } => self.save_colo(parameter, key, value),
            Action::Target => self.save("target", value, |d| &mut d.target),
            Action::UnknownParameter => self.refuse(Some(text), "unknown parameter"),
            Action::OldFormat => {
                self.old_prefix = true;
                self.set_format(text.trim_end_matches(':'));
            }
            Action::OldScript => {
                self.old_prefix = true;
                let script = format!("block-{}", text.trim_end_matches(':'));
                self.save("script", &script, |d| &mut d.script);
            }
            Action::OldPrefix => self.old_prefix = true,
            Action::UnknownPrefix => {
                self.refuse(Some(text), "unknown deprecated disk prefix");
                return Err(Stop);
            }
            Action::Positional => return self.positional(value),
            Action::BadSyntax => {
                self.refuse(Some(rest), "bad disk syntax");
                return Err(Stop);
            }
        }
        Ok(())
    }

    /// The next of target, format, vdev, access.
    fn positional(&mut self, text: &str) -> Result<(), Stop> {
        if !self.messages.is_empty() {
            // Probably a consequence of what was already told.
        } else if self.disk.target.is_none() {
            self.save("target", text, |d| &mut d.target);
        } else if !self.old_prefix && self.format.is_none() {
            let empty_drive = self.disk.target.as_deref() == Some("");
            if empty_drive && self.vdev_with_type(text) {
                self.format = Some(DiskFormat::Empty);
            } else {
                self.set_format(text);
            }
        } else if self.vdev.is_none() {
            if !self.vdev_with_type(text) {
                self.save_vdev(text);
            }
        } else if !self.access_given {
            self.access_given = true;
            self.set_access(text);
        } else {
            self.refuse(Some(text), "too many positional parameters");
            return Err(Stop);
        }
        Ok(())
    }

    /// `hdc:cdrom` and `hda:disk`; false if there is no colon.
    fn vdev_with_type(&mut self, text: &str) -> bool {
        let Some((vdev, kind)) = text.rsplit_once(':') else {
            return false;
        };
        self.save_vdev(vdev);
        match kind {
            "cdrom" => self.disk.cdrom = true,
            "disk" => self.disk.cdrom = false,
            _ => self.refuse(Some(kind), "unknown deprecated type"),
        }
        true
    }

    /// Sets a text once; an empty one may be replaced.
    fn save(
        &mut self,
        parameter: &str,
        value: &str,
        field: fn(&mut DiskSpec) -> &mut Option<String>,
    ) {
        let slot = field(&mut self.disk);
        if slot.as_deref().is_some_and(|set| !set.is_empty()) {
            self.refuse(Some(value), &format!("{parameter} respecified"));
        } else {
            *slot = Some(value.into());
        }
    }

    fn save_vdev(&mut self, value: &str) {
        if self.vdev.as_deref().is_some_and(|set| !set.is_empty()) {
            self.refuse(Some(value), "vdev respecified");
        } else {
            self.vdev = Some(value.into());
        }
    }

    fn save_colo(&mut self, parameter: &str, key: &str, value: &str) {
        if key == "colo_port" && super::number::atoi(value) == 0 {
            self.refuse(Some(value), "unknown value for colo_port");
        } else if self
            .disk
            .colo
            .get(key)
            .is_some_and(|set| !set.is_empty() && key != "colo_port")
        {
            self.refuse(Some(value), &format!("{parameter} respecified"));
        } else {
            self.set_colo(key, value);
        }
    }

    fn set_colo(&mut self, key: &str, value: &str) {
        self.disk.colo.insert(key.into(), value.into());
    }

    fn set_access(&mut self, value: &str) {
        match value {
            "r" | "ro" => self.disk.writable = false,
            "w" | "rw" | "" => self.disk.writable = true,
            _ => self.refuse(Some(value), "unknown value for access"),
        }
    }

    fn set_format(&mut self, value: &str) {
        let format = match value {
            "" => DiskFormat::Raw,
            _ => match DiskFormat::from_word(value) {
                Some(format) => format,
                None => return self.refuse(Some(value), "unknown value for format"),
            },
        };
        if self.format.is_some_and(|set| set != format) {
            return self.refuse(Some(value), "format respecified");
        }
        self.format = Some(format);
    }

    fn set_backend(&mut self, value: &str) {
        let Some(backend) = DiskBackend::from_word(value) else {
            return self.refuse(Some(value), "unknown value for backendtype");
        };
        if self.disk.backend != DiskBackend::Auto && self.disk.backend != backend {
            return self.refuse(Some(value), "backend respecified");
        }
        self.disk.backend = backend;
    }

    fn set_specification(&mut self, value: &str) {
        let Some(specification) = DiskSpecification::from_word(value) else {
            return self.refuse(Some(value), "unknown value for specification");
        };
        let before = self.disk.specification;
        if before != DiskSpecification::Unknown && before != specification {
            return self.refuse(Some(value), "specification respecified");
        }
        self.disk.specification = specification;
    }

    fn finish(mut self) -> Result<DiskSpec, DiskError> {
        self.disk.format = self.format.unwrap_or_default();
        if self.disk.cdrom {
            self.disk.removable = true;
            self.disk.writable = false;
            if self.disk.target.as_deref().unwrap_or("").is_empty() {
                self.disk.format = DiskFormat::Empty;
            }
        }
        match self.vdev.take() {
            Some(vdev) => self.disk.vdev = vdev,
            None => self.refuse(None, "no vdev specified"),
        }
        if self.messages.is_empty() && self.disk.target.is_none() && !self.disk.removable {
            self.refuse(None, "no target specified (and device not removable)");
        }
        if self.messages.is_empty() {
            Ok(self.disk)
        } else {
            Err(DiskError {
                messages: self.messages,
            })
        }
    }
}

const BLANKS: [char; 3] = [' ', '\t', '\n'];
