//! create: reads the configuration here, lets the agent build.

use super::agent::AskError;
use super::reach::Failure;
use super::{Call, USAGE, config_file, console, follow, help, table};
use crate::config::domain::DomainConfig;
use crate::config::unserved;
use crate::format::json;
use parapet_wire::agent::{Cost, Create, Reply, Request};
use xen_abi::ids::{DomId, Handle};

/// `create`.
///
/// # Errors
/// Bad configuration (1, 3 or 6), an agent that does not run (1), or the agent's refusal with libxl's number as exit code.
pub fn run(call: &mut Call<'_>) -> Result<u8, Failure> {
    let (path, overrides) = match sources(call) {
        Ok(sources) => sources,
        Err(()) => {
            if let Some(command) = table::lookup("create") {
                write!(call.out, "{}", help::of(command))?;
            }
            return Ok(USAGE);
        }
    };
    let Some(path) = path else {
        return Err(config_file::missing());
    };
    let source = config_file::source(&path)?;
    let quiet = call.parsed.has('q');
    if !quiet {
        writeln!(call.err, "Parsing config from {path}")?;
    }
    let conf = config_file::xl_conf(call)?;
    let loaded = config_file::guest(call, &conf, &path, &source, &overrides)?;
    let dry = call.globals.dry_run || call.parsed.has('n');
    let text = json::dry_run(&loaded.config, &conf);
    if dry {
        writeln!(call.out, "{}", text.trim_end())?;
        return Ok(0);
    }
    if call.parsed.has('d') {
        writeln!(call.err, "{}", text.trim_end())?;
    }
    let viewer = call.parsed.has('V') || call.parsed.has('A');
    let unserved = viewer.then(|| "--vncviewer".to_owned());
    if let Some(warning) = unserved::warning("command line", unserved) {
        writeln!(call.err, "{warning}")?;
    }
    let with_console = call.parsed.has('c');
    let paused = call.parsed.has('p');
    let (domid, cost) = ask(call, &loaded.config, paused || with_console)?;
    if call.globals.verbose > 0 {
        writeln!(
            call.err,
            "domain {domid} created in {} us: {} hypercalls, {} xenstore round trips",
            cost.micros, cost.hypercalls, cost.store_round_trips
        )?;
    }
    if with_console {
        console::attach(call, domid, console::DEFAULT_ESCAPE, |call| {
            if paused {
                Ok(())
            } else {
                call.reach.domains()?.unpause(domid).map_err(Failure::from)
            }
        })?;
    }
    if call.parsed.has('F') {
        let uuid = Handle(loaded.config.uuid.into_bytes());
        follow::to_the_end(call, domid, uuid, Some(&loaded.config))?;
    }
    Ok(0)
}

/// Has the agent build it.
fn ask(call: &Call<'_>, config: &DomainConfig, paused: bool) -> Result<(DomId, Cost), Failure> {
    let config = serde_json::to_string(config).map_err(|error| Failure::new(error.to_string()))?;
    let request = Request::Create(Create {
        config,
        paused,
        unmanaged: call.parsed.has('e'),
    });
    let reply = call.reach.agent()?.ask(&request);
    match reply.map_err(|error| match error {
        AskError::Refused(failure) => {
            Failure::with_code(failure.kind.create_exit_code(), failure.text)
        }
        AskError::Lost(text) => Failure::with_code(3, text),
    })? {
        Reply::Created { domid, cost } => Ok((domid, cost)),
        _ => Err(Failure::with_code(3, "the agent answered something else")),
    }
}

/// Configuration file and overrides: the first operand without `=` is the file, those with one are lines.
fn sources(call: &Call<'_>) -> Result<(Option<String>, Vec<String>), ()> {
    let mut path = call.parsed.value('f').map(str::to_owned);
    let mut overrides = Vec::new();
    for operand in &call.parsed.operands {
        if operand.contains('=') {
            overrides.push(operand.clone());
        } else if path.is_none() {
            path = Some(operand.clone());
        } else {
            return Err(());
        }
    }
    Ok((path, overrides))
}

/// Returns when the guest in this domain is gone for good.
///
/// # Errors
/// As [`follow::to_the_end`].
pub(super) fn wait_for_end(call: &mut Call<'_>, domid: DomId) -> Result<(), Failure> {
    match call.reach.domains()?.domain_info(domid)? {
        Some(info) => follow::to_the_end(call, domid, info.handle, None),
        None => Ok(()),
    }
}
