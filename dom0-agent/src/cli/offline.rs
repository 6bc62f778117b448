//! A guest's configuration for programs that are not `xl` and hand it to the agent.

use super::getopt::Parsed;
use super::reach::{Failure, RealHost};
use super::{Call, Globals, config_file};

/// Reads an xl.cfg as `xl create` does; the agent's `DomainConfig` as JSON. Warnings go to stderr.
///
/// # Errors
/// What `xl create` would say.
pub fn guest_as_json(path: &str) -> Result<String, String> {
    let reach = RealHost::default();
    let mut call = Call {
        reach: &reach,
        out: &mut std::io::sink(),
        err: &mut std::io::stderr(),
        globals: Globals::default(),
        parsed: Parsed::default(),
    };
    read(&mut call, path).map_err(|failure| failure.text)
}

fn read(call: &mut Call<'_>, path: &str) -> Result<String, Failure> {
    let source = config_file::source(path)?;
    let conf = config_file::xl_conf(call)?;
    let loaded = config_file::guest(call, &conf, path, &source, &[])?;
    serde_json::to_string(&loaded.config).map_err(|error| Failure::new(error.to_string()))
}
