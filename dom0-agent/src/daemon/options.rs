//! Options of the daemon: built-in defaults, then `/etc/parapet/agent.toml`, then the command line.

use anyhow::Context;
use clap::Parser;
use parapet_wire::paths;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Command line of `dom0-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "dom0-agent",
    version,
    about = "Builds and runs Xen guests: the daemon behind xl and parapet",
    after_help = "Starts in the foreground with built-in defaults; no configuration file is needed. Logs go to stderr. \
        A socket that systemd passes (dom0-agent.socket) is taken in place of one of its own.\n\n\
        Examples:\n  dom0-agent\n  dom0-agent --config /etc/parapet/agent.toml\n  RUST_LOG=debug dom0-agent"
)]
pub struct Arguments {
    /// Configuration file; a missing one is fine unless it is named here
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket of the API
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The split-driver program; default: beside this one
    #[arg(long, value_name = "PATH")]
    pub driver: Option<PathBuf>,
}

/// What the configuration file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    /// Bridge of interfaces that name none.
    default_bridge: Option<String>,
    /// Bridges made at start unless they exist.
    bridges: Vec<String>,
    /// Durable state.
    state: Option<PathBuf>,
    /// Volatile state.
    run: Option<PathBuf>,
    /// Unpacked kernels.
    cache: Option<PathBuf>,
    /// Console and driver logs.
    logs: Option<PathBuf>,
    /// Use what a patched hypervisor offers.
    xen_patches: Option<bool>,
}

/// Options in effect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Socket of the API.
    pub socket: PathBuf,
    /// The split-driver program.
    pub driver: PathBuf,
    /// Bridge of interfaces that name none.
    pub default_bridge: String,
    /// Bridges made at start unless they exist.
    pub bridges: Vec<String>,
    /// Durable state.
    pub state: PathBuf,
    /// Volatile state.
    pub run: PathBuf,
    /// Unpacked kernels.
    pub cache: PathBuf,
    /// Console and driver logs.
    pub logs: PathBuf,
    /// Use what a patched hypervisor offers, where it is.
    pub xen_patches: bool,
}

impl Options {
    /// Puts everything together.
    ///
    /// # Errors
    /// A configuration file that cannot be read or understood.
    pub fn load(arguments: Arguments) -> anyhow::Result<Self> {
        let file = read(arguments.config.as_deref())?;
        let driver = match arguments.driver {
            Some(driver) => driver,
            None => beside("split-driver")?,
        };
        let or =
            |path: Option<PathBuf>, default: &str| path.unwrap_or_else(|| PathBuf::from(default));
        Ok(Self {
            socket: or(arguments.socket, paths::AGENT_SOCKET),
            driver,
            default_bridge: file
                .default_bridge
                .unwrap_or_else(|| crate::device::bridge::DEFAULT_BRIDGE.to_owned()),
            bridges: file.bridges,
            state: or(file.state, paths::STATE_DIR),
            run: or(file.run, paths::RUN_DIR),
            cache: or(file.cache, paths::CACHE_DIR),
            logs: or(file.logs, paths::LOG_DIR),
            xen_patches: file.xen_patches.unwrap_or(true),
        })
    }
}

fn read(named: Option<&Path>) -> anyhow::Result<File> {
    let default = Path::new(paths::CONFIG_DIR).join("agent.toml");
    let path = named.unwrap_or(&default);
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .with_context(|| format!("{} cannot be understood", path.display())),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(File::default())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A program in the directory of this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    Ok(own.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(config: &Path) -> Arguments {
        Arguments {
            config: Some(config.to_owned()),
            socket: None,
            driver: None,
        }
    }

    #[test]
    fn a_file_overrides_and_a_misspelt_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "default_bridge = \"br0\"\nbridges = [\"br0\"]\n").unwrap();
        let options = Options::load(arguments(&path)).unwrap();
        assert_eq!(options.default_bridge, "br0");
        std::fs::write(&path, "brigdes = []\n").unwrap();
        let error = format!("{:#}", Options::load(arguments(&path)).unwrap_err());
        assert!(
            error.contains("brigdes") && error.contains("agent.toml"),
            "{error}"
        );
    }

    #[test]
    fn the_shipped_file_shows_every_key_with_its_built_in_value() {
        let shipped = include_str!("../../dist/etc/agent.toml");
        let keys = shipped.lines().filter_map(|line| line.strip_prefix('#'));
        let keys: Vec<&str> = keys.filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(keys.len(), 7, "{keys:?}");
        let dir = tempfile::tempdir().unwrap();
        let (shown, empty) = (dir.path().join("shown.toml"), dir.path().join("empty.toml"));
        std::fs::write(&shown, keys.join("\n")).unwrap();
        std::fs::write(&empty, "").unwrap();
        let of = |path: &Path| format!("{:?}", Options::load(arguments(path)).unwrap());
        assert_eq!(of(&shown), of(&empty));
    }

    #[test]
    fn a_named_file_must_exist() {
        assert!(Options::load(arguments(Path::new("/nonexistent/agent.toml"))).is_err());
    }
}
