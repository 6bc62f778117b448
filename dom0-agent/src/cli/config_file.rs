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
/// libxl's error for a file that cannot be read.
const FAILED: u8 = 3;
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

/// The text of a guest's configuration; `/dev/null` means that everything stands on the command line.
///
/// # Errors
/// It cannot be read: stock ends with 3 then, before it says that it parses anything.
pub fn source(path: &str) -> Result<Vec<u8>, Failure> {
    if path == "/dev/null" {
        return Ok(Vec::new());
    }
    read_source(Path::new(path)).map_err(|error| {
        let cause = cause(&error);
        Failure::with_code(
            FAILED,
            format!("Failed to read config file: {path}: {cause}"),
        )
    })
}

/// The words of the C library, without Rust's number behind them.
fn cause(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Understands a guest's configuration; warnings go to stderr.
///
/// # Errors
/// What stock xl refuses, with its exit code.
pub fn guest(
    call: &mut Call<'_>,
    conf: &XlConf,
    path: &str,
    text: &[u8],
    overrides: &[String],
) -> Result<Loaded, Failure> {
    let cpus = call.reach.host()?.physinfo()?.nr_cpus;
    let mut ambient = Ambient::new(path, Uuid::new_v4(), cpus);
    ambient.conf = conf.clone();
    let loaded = load(text, overrides, &ambient)
        .map_err(|error| Failure::with_code(error.exit_code, error.to_string()))?;
    write!(call.err, "{}", loaded.report.printed())?;
    Ok(loaded)
}

/// The failure for `create` without a file.
#[must_use]
pub fn missing() -> Failure {
    Failure::with_code(INVALID, "Config file not specified and none in save file")
}
