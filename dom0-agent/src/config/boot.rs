//! What a guest boots: kernel, ramdisk, command line, boot loader.

use serde::{Deserialize, Serialize};

use super::diag::Fatal;
use super::domain::DomainKind;
use super::view::View;

/// The boot section of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootConfig {
    /// Path of the kernel image in dom0 (`kernel=`).
    pub kernel: Option<String>,
    /// Path of the initial ramdisk in dom0 (`ramdisk=`).
    pub ramdisk: Option<String>,
    /// Kernel command line: `cmdline=`, or `root=` and `extra=` joined.
    pub cmdline: Option<String>,
    /// Program that fetches the kernel out of the guest's disk (`bootloader=`).
    pub bootloader: Option<String>,
    /// Arguments for the boot loader (`bootloader_args=`).
    pub bootloader_args: Vec<String>,
}

impl BootConfig {
    /// Reads every key about booting.
    pub(super) fn read(
        view: &mut View<'_>,
        kind: DomainKind,
        firmware_dir: &str,
    ) -> Result<Self, Fatal> {
        let text = |key: &str| view.text(key).map(str::to_owned);
        let mut boot = Self {
            kernel: text("kernel"),
            ramdisk: text("ramdisk"),
            bootloader: text("bootloader"),
            ..Self::default()
        };
        boot.cmdline = command_line(view);
        boot.bootloader_args = bootloader_args(view);
        if kind == DomainKind::Hvm {
            let name = boot
                .kernel
                .as_deref()
                .and_then(|path| path.rsplit('/').next());
            if name == Some("hvmloader") {
                view.report.warn(view.pos("kernel"), HVMLOADER);
                boot.kernel = None;
            }
        } else {
            boot.apply_firmware(view, firmware_dir)?;
            if boot.kernel.is_none() && boot.bootloader.is_none() {
                return Err(Fatal::new(None, "Neither kernel nor bootloader specified"));
            }
        }
        Ok(boot)
    }

    /// `firmware="pvgrub64"` is short for a kernel.
    fn apply_firmware(&mut self, view: &View<'_>, dir: &str) -> Result<(), Fatal> {
        let Some(firmware) = view.text("firmware") else {
            return Ok(());
        };
        let refuse = |text: &str| Err(Fatal::new(view.pos("firmware"), text));
        if self.kernel.is_some() {
            return refuse("ERROR: both kernel and firmware specified");
        }
        if !"pvgrub32".starts_with(firmware) && !"pvgrub64".starts_with(firmware) {
            return refuse("ERROR: only pvgrub{32|64} supported as firmware options");
        }
        self.kernel = Some(format!("{dir}/{firmware}.bin"));
        Ok(())
    }
}

/// `cmdline=`, or `root=` and `extra=` joined.
fn command_line(view: &mut View<'_>) -> Option<String> {
    let (root, extra) = (view.text("root"), view.text("extra"));
    if let Some(whole) = view.text("cmdline") {
        if root.is_some() || extra.is_some() {
            view.report.warn(view.pos("cmdline"), CMDLINE_WINS);
        }
        return Some(whole.into());
    }
    match (root, extra) {
        (Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
        (Some(root), None) => Some(format!("root={root}")),
        (None, extra) => extra.map(str::to_owned),
    }
}

fn bootloader_args(view: &mut View<'_>) -> Vec<String> {
    if let Some(texts) = view.texts("bootloader_args") {
        return texts.map(|(_, text)| text.to_owned()).collect();
    }
    let Some(text) = view.text("bootloader_args") else {
        return Vec::new();
    };
    view.report.warn(view.pos("bootloader_args"), STRING_ARGS);
    text.split([' ', '\t', '\n'])
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

const CMDLINE_WINS: &str = "Warning: ignoring root= and extra= in favour of cmdline=";
const STRING_ARGS: &str = "WARNING: Specifying \"bootloader_args\" as a string is deprecated. \
    Please use a list of arguments.";
const HVMLOADER: &str = "WARNING: you seem to be using \"kernel\" directive to override HVM guest \
    firmware. Ignore that. Use \"firmware_override\" instead if you really want a non-default firmware";
