//! `/etc/parapet/ft-monitor.toml` and its drop-ins: the host's defaults. Every file and every key is optional.
//!
//! ```text
//!   built in ◀── /etc/parapet/ft-monitor.toml ◀── /etc/parapet/ft-monitor.d/*.toml, in the order of their names
//! ```
//!
//! A later file overrides single keys of an earlier one. Unknown keys, values out of range and times that contradict each other are errors that name file and key;
//! the monitor then does not start, rather than protect guests in a way that nobody asked for.

use crate::limits::{CONFIG_MAX_BYTES, DROP_INS_MAX, RESTARTS_PER_HOUR_MAX};
use crate::policy::Defaults;
use serde::Deserialize;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file in the configuration directory.
pub const FILE: &str = "ft-monitor.toml";
/// Directory of drop-ins beside it.
pub const DROP_IN_DIR: &str = "ft-monitor.d";
/// Longest time that any setting may name, in seconds.
pub const TIME_MAX_S: u64 = 86_400;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is far too large to be one.
    #[error("{0}: larger than {CONFIG_MAX_BYTES} bytes; is this the right file?")]
    TooLarge(PathBuf),
    /// There are too many.
    #[error("{0}: more than {DROP_INS_MAX} drop-ins")]
    TooMany(PathBuf),
    /// It is not TOML, or has unknown keys or wrong types.
    #[error("{path}: {text}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        text: String,
    },
    /// A value is out of range.
    #[error("{path}: {key} = {value}: {what}")]
    Range {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        what: String,
    },
    /// Two values contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// The keys of one file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    grace_s: Option<u64>,
    probe_every_s: Option<u64>,
    probe_timeout_s: Option<u64>,
    probe_failures: Option<u64>,
    common_cause_hold_s: Option<u64>,
    backoff_first_s: Option<u64>,
    backoff_cap_s: Option<u64>,
    stable_after_s: Option<u64>,
    restarts_per_hour: Option<u64>,
    action_timeout_s: Option<u64>,
}

/// Reads the configuration of `dir`; without any file, the built-in defaults.
///
/// # Errors
/// The first thing that is wrong, with file and key.
pub fn load(dir: &Path) -> Result<Defaults, ConfigError> {
    let mut defaults = Defaults::default();
    for path in files(dir)? {
        if let Some(text) = read(&path)? {
            overlay(&mut defaults, &path, &text)?;
        }
    }
    consistent(&defaults)?;
    Ok(defaults)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let drop_ins = dir.join(DROP_IN_DIR);
    let mut found = Vec::new();
    match fs::read_dir(&drop_ins) {
        Ok(entries) => {
            for entry in entries {
                let path = entry
                    .map_err(|source| ConfigError::Read {
                        path: drop_ins.clone(),
                        source,
                    })?
                    .path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                {
                    found.push(path);
                }
                if found.len() > DROP_INS_MAX {
                    return Err(ConfigError::TooMany(drop_ins));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(ConfigError::Read {
                path: drop_ins,
                source,
            });
        }
    }
    found.sort();
    found.insert(0, dir.join(FILE));
    Ok(found)
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let fail = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > CONFIG_MAX_BYTES => Err(ConfigError::TooLarge(path.to_owned())),
        Ok(_) => fs::read_to_string(path).map(Some).map_err(fail),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

fn overlay(defaults: &mut Defaults, path: &Path, text: &str) -> Result<(), ConfigError> {
    let settings: Settings = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        text: error.to_string().trim_end().to_owned(),
    })?;
    let (s, d, file) = (settings, defaults, File(path));
    file.time("grace_s", s.grace_s, 0, &mut d.grace)?;
    file.time("probe_every_s", s.probe_every_s, 1, &mut d.probe_every)?;
    file.time(
        "probe_timeout_s",
        s.probe_timeout_s,
        1,
        &mut d.probe_timeout,
    )?;
    file.count(
        "probe_failures",
        s.probe_failures,
        1..=1000,
        &mut d.probe_failures,
    )?;
    file.time(
        "common_cause_hold_s",
        s.common_cause_hold_s,
        0,
        &mut d.common_cause_hold,
    )?;
    file.time(
        "backoff_first_s",
        s.backoff_first_s,
        1,
        &mut d.backoff_first,
    )?;
    file.time("backoff_cap_s", s.backoff_cap_s, 1, &mut d.backoff_cap)?;
    file.time("stable_after_s", s.stable_after_s, 1, &mut d.stable_after)?;
    let restarts = 0..=u64::from(RESTARTS_PER_HOUR_MAX);
    file.count(
        "restarts_per_hour",
        s.restarts_per_hour,
        restarts,
        &mut d.restarts_per_hour,
    )?;
    file.time(
        "action_timeout_s",
        s.action_timeout_s,
        1,
        &mut d.action_timeout,
    )
}

/// One file's values on their way into the defaults.
struct File<'a>(&'a Path);

impl File<'_> {
    fn time(
        &self,
        key: &'static str,
        value: Option<u64>,
        least: u64,
        slot: &mut Duration,
    ) -> Result<(), ConfigError> {
        if let Some(seconds) = within(self.0, key, value, least..=TIME_MAX_S)? {
            *slot = Duration::from_secs(seconds);
        }
        Ok(())
    }

    fn count(
        &self,
        key: &'static str,
        value: Option<u64>,
        range: RangeInclusive<u64>,
        slot: &mut u32,
    ) -> Result<(), ConfigError> {
        if let Some(count) = within(self.0, key, value, range)? {
            *slot = u32::try_from(count).unwrap_or(u32::MAX);
        }
        Ok(())
    }
}

fn within(
    path: &Path,
    key: &'static str,
    value: Option<u64>,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, ConfigError> {
    match value {
        Some(value) if !range.contains(&value) => Err(ConfigError::Range {
            path: path.to_owned(),
            key,
            value,
            what: format!("it must be from {} to {}", range.start(), range.end()),
        }),
        value => Ok(value),
    }
}

/// Times that only make sense in order.
fn consistent(defaults: &Defaults) -> Result<(), ConfigError> {
    let ordered = [
        (
            "probe_timeout_s",
            defaults.probe_timeout,
            "probe_every_s",
            defaults.probe_every,
        ),
        (
            "backoff_first_s",
            defaults.backoff_first,
            "backoff_cap_s",
            defaults.backoff_cap,
        ),
        (
            "backoff_cap_s",
            defaults.backoff_cap,
            "stable_after_s",
            defaults.stable_after,
        ),
    ];
    for (shorter, a, longer, b) in ordered {
        if a > b {
            return Err(ConfigError::Contradiction(format!(
                "{shorter} is {} s and {longer} is {} s: the first must not be longer",
                a.as_secs(),
                b.as_secs()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Result<Defaults, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DROP_IN_DIR)).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        load(dir.path())
    }

    #[test]
    fn without_any_file_the_defaults_hold_and_agree() {
        assert_eq!(
            load(Path::new("/nonexistent")).unwrap(),
            Defaults::default()
        );
    }

    #[test]
    fn the_shipped_file_shows_every_key_with_its_built_in_value() {
        let shipped = include_str!("../dist/etc/ft-monitor.toml");
        let keys = shipped.lines().filter_map(|line| line.strip_prefix('#'));
        let keys: Vec<&str> = keys.filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(keys.len(), 10, "{keys:?}");
        assert_eq!(
            with(&[("ft-monitor.toml", &keys.join("\n"))]).unwrap(),
            Defaults::default()
        );
    }

    #[test]
    fn drop_ins_override_single_keys_in_order() {
        let defaults = with(&[
            ("ft-monitor.toml", "grace_s = 5\nrestarts_per_hour = 9\n"),
            ("ft-monitor.d/20.toml", "grace_s = 7\n"),
            ("ft-monitor.d/10.toml", "grace_s = 6\nbackoff_cap_s = 30\n"),
            ("ft-monitor.d/30.txt", "not even toml"),
        ])
        .unwrap();
        assert_eq!(defaults.grace, Duration::from_secs(7));
        assert_eq!(defaults.backoff_cap, Duration::from_secs(30));
        assert_eq!(defaults.restarts_per_hour, 9);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file() {
        for (text, part) in [
            ("grave_s = 5\n", "grave_s"),
            ("grace_s = \"5\"\n", "line 1"),
            (
                "probe_every_s = 0\n",
                "probe_every_s = 0: it must be from 1",
            ),
            ("restarts_per_hour = 101\n", "from 0 to 100"),
            ("grace_s = -1\n", "ft-monitor.toml"),
        ] {
            let error = with(&[("ft-monitor.toml", text)]).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("ft-monitor.toml"),
                "{text}: {error}"
            );
        }
        let error = with(&[("ft-monitor.toml", "probe_timeout_s = 9\n")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("probe_every_s is 5 s"), "{error}");
    }
}
