//! Host-wide defaults: xl.conf(5), which has the same language as xl.cfg.
//!
//! A missing file means the defaults; what cannot be understood is told and otherwise ignored, except a file that
//! does not parse, which stock refuses.

use super::diag::{Diagnostic, Report};
use super::parse::parse;
use super::tree::Tree;
use super::view::View;
use super::vif::VifDefaults;

/// Whether dom0 gives up memory for new guests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Autoballoon {
    /// Unless `dom0_mem=` is on Xen's command line.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The settings of xl.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XlConf {
    /// `autoballoon`
    pub autoballoon: Autoballoon,
    /// `run_hotplug_scripts`
    pub run_hotplug_scripts: bool,
    /// `lockfile`, held while a guest is created
    pub lockfile: String,
    /// `vif.default.*`
    pub vif: VifDefaults,
    /// `blkdev_start`
    pub blkdev_start: Option<String>,
    /// `claim_mode`
    pub claim_mode: bool,
    /// `max_grant_frames`
    pub max_grant_frames: Option<u32>,
    /// `max_maptrack_frames`
    pub max_maptrack_frames: Option<u32>,
    /// `max_grant_version`
    pub max_grant_version: Option<u32>,
    /// `domid_policy="random"`
    pub random_domids: bool,
    /// `bootloader_restrict`
    pub bootloader_restrict: Option<bool>,
    /// `output_format="sxp"`
    pub sxp_output: bool,
}

impl Default for XlConf {
    fn default() -> Self {
        Self {
            autoballoon: Autoballoon::Auto,
            run_hotplug_scripts: true,
            lockfile: "/var/lock/xl".into(),
            vif: VifDefaults::default(),
            blkdev_start: None,
            claim_mode: true,
            max_grant_frames: None,
            max_maptrack_frames: None,
            max_grant_version: None,
            random_domids: false,
            bootloader_restrict: None,
            sxp_output: false,
        }
    }
}

impl XlConf {
    /// Reads the text of an xl.conf, giving warnings beside it. `source` is what messages start with.
    ///
    /// # Errors
    /// The text does not parse.
    pub fn read(source: &str, text: &[u8]) -> Result<(Self, Vec<Diagnostic>), Report> {
        let tree = parse(source, text)?;
        Ok(Self::interpret(source, &tree))
    }

    fn interpret(source: &str, tree: &Tree) -> (Self, Vec<Diagnostic>) {
        let mut view = View::new(source, tree);
        let autoballoon = match view.text("autoballoon") {
            None | Some("auto") => Autoballoon::Auto,
            Some(_) => match view.number("autoballoon") {
                Some(0) => Autoballoon::Off,
                Some(_) => Autoballoon::On,
                None => {
                    view.warn("autoballoon", "invalid autoballoon option");
                    Autoballoon::Auto
                }
            },
        };
        let default = Self::default();
        let flag = |key: &str| view.number(key).map(|n| n != 0);
        let text = |key: &str| view.text(key).map(str::to_owned);
        let count = |key: &str| view.number(key).and_then(|n| u32::try_from(n).ok());
        let conf = Self {
            autoballoon,
            run_hotplug_scripts: flag("run_hotplug_scripts").unwrap_or(default.run_hotplug_scripts),
            lockfile: text("lockfile").unwrap_or(default.lockfile),
            vif: VifDefaults {
                script: text("vif.default.script").or_else(|| text("vifscript")),
                bridge: text("vif.default.bridge").or_else(|| text("defaultbridge")),
                gatewaydev: text("vif.default.gatewaydev"),
                backend: text("vif.default.backend"),
            },
            blkdev_start: text("blkdev_start"),
            claim_mode: flag("claim_mode").unwrap_or(default.claim_mode),
            max_grant_frames: count("max_grant_frames"),
            max_maptrack_frames: count("max_maptrack_frames"),
            max_grant_version: count("max_grant_version"),
            random_domids: view.text("domid_policy") == Some("random"),
            bootloader_restrict: flag("bootloader_restrict"),
            sxp_output: view.text("output_format") == Some("sxp"),
        };
        for (old, new) in [
            ("vifscript", "vif.default.script"),
            ("defaultbridge", "vif.default.bridge"),
        ] {
            if view.text(old).is_some() {
                let text =
                    format!("the global config option {old} is deprecated, please switch to {new}");
                view.report.warn(view.pos(old), text);
            }
        }
        (conf, view.report.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_own_file_means_the_defaults() {
        let text = b"# Global XL config file #\n#autoballoon=\"auto\"\n\n#claim_mode=1\n";
        assert_eq!(
            XlConf::read("xl.conf", text).unwrap(),
            (XlConf::default(), vec![])
        );
    }

    #[test]
    fn settings_are_read_and_old_names_told() {
        let text = b"autoballoon=\"0\"\ndefaultbridge=\"br1\"\nclaim_mode=0\nlockfile='/l'\nmax_grant_frames=64\n";
        let (conf, told) = XlConf::read("xl.conf", text).unwrap();
        assert_eq!(conf.autoballoon, Autoballoon::Off);
        assert_eq!(conf.vif.bridge.as_deref(), Some("br1"));
        assert_eq!((conf.claim_mode, conf.max_grant_frames), (false, Some(64)));
        assert_eq!(conf.lockfile, "/l");
        assert_eq!(told.len(), 1);
        assert!(
            told[0].text.contains("switch to vif.default.bridge"),
            "{}",
            told[0].text
        );
    }
}
