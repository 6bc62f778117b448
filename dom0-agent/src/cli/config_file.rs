//! Reads a guest's configuration and the host's xl.conf for the commands.

use super::Call;
use super::reach::Failure;
use crate::config::interpret::{Ambient, Loaded, load};
use crate::config::read_source;
use crate::config::xlconf::XlConf;
use std::io::ErrorKind;
use std::path::Path;
use uuid::Uuid;

/// Where xl's host-wide settings are.
const XL_CONF: &str = "/etc/xen/xl.conf";
/// libxl's error for a missing configuration.
const INVALID: u8 = 6;

/// The host-wide settings; a missing file is no reason to stop.
///
/// # Errors
/// The file is there and cannot be understood.
pub fn xl_conf(call: &mut Call<'_>) -> Result<XlConf, Failure> {
    let text = match std::fs::read(XL_CONF) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound || call.globals.verbose > 0 {
                writeln!(call.err, "Failed to read config file: {XL_CONF}: {error}")?;
            }
            return Ok(XlConf::default());
        }
    };
    let (conf, warnings) =
        XlConf::read(XL_CONF, &text).map_err(|report| Failure::new(report.printed().trim_end()))?;
    for warning in warnings {
        writeln!(call.err, "{warning}")?;
    }
    Ok(conf)
}

/// Reads and understands a guest's configuration; warnings go to stderr.
///
/// # Errors
/// What stock xl refuses, with its exit code.
pub fn guest(
    call: &mut Call<'_>,
    conf: &XlConf,
    path: &str,
    overrides: &[String],
) -> Result<Loaded, Failure> {
    let cpus = call.reach.host()?.physinfo()?.nr_cpus;
    let text = if path == "/dev/null" {
        Vec::new()
    } else {
        read_source(Path::new(path)).map_err(|error| {
            Failure::with_code(1, format!("Failed to read config file: {path}: {error}"))
        })?
    };
    let mut ambient = Ambient::new(path, Uuid::new_v4(), cpus);
    ambient.conf = conf.clone();
    let loaded = load(&text, overrides, &ambient)
        .map_err(|error| Failure::with_code(error.exit_code, error.to_string()))?;
    write!(call.err, "{}", loaded.report.printed())?;
    Ok(loaded)
}

/// The failure for `create` without a file.
#[must_use]
pub fn missing() -> Failure {
    Failure::with_code(INVALID, "Config file not specified and none in save file")
}
