//! save and restore: the file is opened here, with the caller's rights, and its xl header is written and read here; what follows the header
//! is the agent's.

use super::reach::Failure;
use super::{Call, USAGE, config_file, console, create, domain, help, table};
use crate::config::domain::DomainConfig;
use crate::config::unserved;
use crate::config::xlconf::XlConf;
use crate::format::json;
use parapet_wire::agent::{AfterSave, Create, Reply, Request, Save};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xen_abi::ids::DomId;
use xen_stream::error::Problem;
use xen_stream::xl_file::XlHeader;
use xen_stream::{Event, Layer, Mode, Reader, StreamError};

/// A guest's memory is nobody's to read but the caller's. (Stock: 0644.)
const FILE_MODE: u32 = 0o600;
/// What stock calls a configuration out of a save file.
const SAVED: &str = "<saved>";

fn usage(call: &mut Call<'_>, name: &str) -> Result<u8, Failure> {
    if let Some(command) = table::lookup(name) {
        write!(call.out, "{}", help::of(command))?;
    }
    Ok(USAGE)
}

/// `save`.
///
/// # Errors
/// No such domain, a file that cannot be written, a guest that does not suspend; all end with 1.
pub fn save(call: &mut Call<'_>) -> Result<u8, Failure> {
    if call.parsed.operands.len() > 3 {
        return usage(call, "save").map(|_| 1);
    }
    let domid = domain::resolve(call.reach, call.operand(0))?;
    let path = call.operand(1).to_owned();
    let config = match call.parsed.operands.get(2).cloned() {
        Some(path) => Some(other_config(call, &path)?),
        None => None,
    };
    let unserved = call.parsed.has('D').then(|| "-D".to_owned());
    if let Some(warning) = unserved::warning("command line", unserved) {
        writeln!(call.err, "{warning}")?;
    }
    let after = match (call.parsed.has('p'), call.parsed.has('c')) {
        (true, _) => AfterSave::Pause,
        (false, true) => AfterSave::Resume,
        (false, false) => AfterSave::Destroy,
    };
    let mut agent = call.reach.agent()?;
    let request = Request::Save(Save {
        domid,
        after,
        config,
    });
    let Reply::SendFile { config } = agent.ask(&request)? else {
        return Err(Failure::new("the agent answered something else"));
    };
    let target = Target::open(&path)?;
    begin_file(call, &target, &path, &config)?;
    let mut handed = agent.hand_over(target.file.as_fd());
    if let Ok(Reply::Written) = handed {
        // Without the word that it was kept, the guest runs on.
        target.put_in_place(&path)?;
        handed = agent.ask(&Request::Keep);
    }
    match handed {
        Ok(_) => Ok(0),
        Err(error) => {
            writeln!(call.err, "Failed to save domain, resuming domain")?;
            Err(error.into())
        }
    }
}

/// Where a save goes: a file beside the one that is meant, which takes its place when it is complete; or a pipe or device as it is.
struct Target {
    file: File,
    beside: Option<Beside>,
}

/// Removed when it is dropped, unless it was put in place.
struct Beside {
    partial: PathBuf,
    meant: PathBuf,
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It is not there any more if it was put in place.
        let _ = fs::remove_file(&self.partial);
    }
}

impl Target {
    fn open(path: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!(
                "Failed to open temp file {path} for writing: {error}"
            ))
        };
        let mut options = OpenOptions::new();
        options.write(true);
        let there = fs::metadata(path);
        if there.is_ok_and(|metadata| !metadata.is_file()) {
            let file = options.open(path).map_err(failed)?;
            return Ok(Self { file, beside: None });
        }
        // A link is followed, as it would be by whoever opens it.
        let meant = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        let name = meant.file_name().unwrap_or_default().to_string_lossy();
        let partial = meant.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        let file = options
            .create_new(true)
            .mode(FILE_MODE)
            .open(&partial)
            .map_err(failed)?;
        let beside = Some(Beside { partial, meant });
        Ok(Self { file, beside })
    }

    fn put_in_place(&self, path: &str) -> Result<(), Failure> {
        let Some(Beside { partial, meant }) = &self.beside else {
            return Ok(());
        };
        let folder = meant
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        fs::rename(partial, meant)
            .and_then(|()| File::open(folder.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|error| Failure::new(format!("Failed to put {path} in place: {error}")))
    }
}

/// The configuration to stand in the file, as the agent takes it.
pub(super) fn other_config(call: &mut Call<'_>, path: &str) -> Result<String, Failure> {
    let source = config_file::source(path).map_err(|failure| Failure::new(failure.text))?;
    let conf = config_file::xl_conf(call)?;
    let loaded = config_file::guest(call, &conf, path, &source, &[])
        .map_err(|failure| Failure::new(failure.text))?;
    serde_json::to_string(&loaded.config).map_err(|error| Failure::new(error.to_string()))
}

/// Writes the file's header.
fn begin_file(
    call: &mut Call<'_>,
    target: &Target,
    path: &str,
    config: &str,
) -> Result<(), Failure> {
    let header = XlHeader::with_json(config);
    let mut bytes = Vec::new();
    header
        .encode(&mut bytes)
        .map_err(|problem| Failure::new(format!("{path}: {problem}")))?;
    writeln!(
        call.err,
        "Saving to {path} new xl format (info {})",
        info(&header)
    )?;
    (&target.file)
        .write_all(&bytes)
        .map_err(|error| Failure::new(format!("Failed to write {path}: {error}")))
}

/// Flags and length of a header, as stock prints them.
pub(super) fn info(header: &XlHeader) -> String {
    format!(
        "{:#x}/{:#x}/{}",
        header.mandatory_flags(),
        header.optional_flags,
        header.optional_length().unwrap_or(u32::MAX)
    )
}

/// `restore`.
///
/// # Errors
/// A file or a configuration that cannot be used, or the agent's refusal; all end with 1.
pub fn restore(call: &mut Call<'_>) -> Result<u8, Failure> {
    let operands = call.parsed.operands.clone();
    let (config_path, path) = match operands.as_slice() {
        [path] => (None, path),
        [config, path] => (Some(config), path),
        _ => return usage(call, "restore").map(|_| 1),
    };
    let (file, header) = open(call, path)?;
    let config = match config_path {
        Some(path) => given_config(call, path)?,
        None => saved_config(call, &header)?,
    };
    if call.parsed.has('d') {
        let text = json::dry_run(&config, &XlConf::default());
        writeln!(call.err, "{}", text.trim_end())?;
    }
    let viewer = call.parsed.has('V') || call.parsed.has('A');
    let unserved = viewer.then(|| "--vncviewer".to_owned());
    if let Some(warning) = unserved::warning("command line", unserved) {
        writeln!(call.err, "{warning}")?;
    }
    let with_console = call.parsed.has('c');
    let paused = call.parsed.has('p');
    let domid = bring_back(call, &config, paused || with_console, &file)?;
    drop(file);
    if with_console {
        return console::attach(call, domid, console::DEFAULT_ESCAPE, |call| {
            if paused {
                Ok(())
            } else {
                call.reach.domains()?.unpause(domid).map_err(Failure::from)
            }
        });
    }
    if call.parsed.has('F') {
        create::wait_for_end(call, domid)?;
    }
    Ok(0)
}

/// Opens a save file and reads its header; the file stands behind it then.
fn open(call: &mut Call<'_>, path: &str) -> Result<(File, XlHeader), Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::new(format!("Can't open restore file {path}: {error}")))?;
    let mut reader = Reader::new(file, Layer::Xl, Mode::Plain);
    let header = match reader.next() {
        Ok(Event::File(header)) => header,
        Ok(_) => return Err(Failure::new(format!("{path} is no save file"))),
        Err(error) => return Err(Failure::new(refusal(path, &error))),
    };
    writeln!(
        call.err,
        "Loading new save file {path} (new xl fmt info {})",
        info(&header)
    )?;
    if header.config.is_some() {
        let form = if header.json { " in JSON format" } else { "" };
        writeln!(call.err, " Savefile contains xl domain config{form}")?;
    }
    Ok((reader.into_source(), header))
}

/// In stock's words where it has some.
pub(super) fn refusal(path: &str, error: &StreamError) -> String {
    match &error.problem {
        Problem::NotXl => {
            format!("{path}: File has wrong magic number - corrupt or for a different tool?")
        }
        Problem::Flags { unknown } => format!(
            "{path}: Savefile has mandatory flag(s) {unknown:#x} which are not supported; need newer xl"
        ),
        _ => format!("{path}: {error}"),
    }
}

fn given_config(call: &mut Call<'_>, path: &str) -> Result<DomainConfig, Failure> {
    let source = config_file::source(path).map_err(|failure| Failure::new(failure.text))?;
    parsed(call, path, &source)
}

pub(super) fn saved_config(
    call: &mut Call<'_>,
    header: &XlHeader,
) -> Result<DomainConfig, Failure> {
    if header.config.is_none() {
        return Err(Failure::new(config_file::missing().text));
    }
    let text = header
        .config_text()
        .map_err(|problem| Failure::new(format!("{SAVED}: {problem}")))?;
    if !header.json {
        return parsed(call, SAVED, text.as_bytes());
    }
    writeln!(call.err, "Parsing config from {SAVED}")?;
    let refused = |error: json::ReadError| Failure::new(format!("{SAVED}: {error}"));
    let form = json::parse_userdata(text.as_bytes()).map_err(refused)?;
    json::read(&form).map_err(refused)
}

/// The language of configuration files, by the way that `create` goes.
fn parsed(call: &mut Call<'_>, path: &str, source: &[u8]) -> Result<DomainConfig, Failure> {
    writeln!(call.err, "Parsing config from {path}")?;
    let conf = config_file::xl_conf(call)?;
    config_file::guest(call, &conf, path, source, &[])
        .map(|loaded| loaded.config)
        .map_err(|failure| Failure::new(failure.text))
}

/// Has the agent restore it.
fn bring_back(
    call: &Call<'_>,
    config: &DomainConfig,
    paused: bool,
    file: &File,
) -> Result<DomId, Failure> {
    let config = serde_json::to_string(config).map_err(|error| Failure::new(error.to_string()))?;
    let request = Request::Restore(Create {
        config,
        paused,
        unmanaged: call.parsed.has('e'),
    });
    let mut agent = call.reach.agent()?;
    let strange = || Failure::new("the agent answered something else");
    let Reply::SendFile { .. } = agent.ask(&request)? else {
        return Err(strange());
    };
    match agent.hand_over(file.as_fd())? {
        Reply::Created { domid, .. } => Ok(domid),
        _ => Err(strange()),
    }
}
