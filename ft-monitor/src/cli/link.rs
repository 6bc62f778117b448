//! `link`: this host's key, the hosts it is linked with, and lines to them.

use super::{CliError, Exit, Output, json, table, written};
use crate::probe::name::resolve;
use clap::{Args, Subcommand};
use parapet_link::book::{Book, Host};
use parapet_link::dial::{Line, Measured, dial};
use parapet_link::error::LinkError;
use parapet_link::identity::Identity;
use parapet_link::limits::{MAX_TEST_BYTES, TEST_BYTES};
use parapet_link::request::Request;
use parapet_link::token::{Address, Token};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;

const EXAMPLES: &str = "\
Examples:
  parapet link init --address host1:8402        on host1: makes its key, prints a token
  parapet link trust host2 parapet1:9f86...     on host1, with the token that host2 printed
  parapet link test host2                       round trip and rate
  xl migrate web1 host2                         goes over the link from now on

Both hosts run init, and each one trusts the other's token. A token is no secret, but it must arrive as it was printed.";

/// See [`super::Command::Link`].
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct LinkArguments {
    /// Folder of this host's key and of the hosts it is linked with.
    #[arg(long, global = true, env = parapet_wire::link::FOLDER_VARIABLE, value_name = "DIR", default_value = parapet_wire::paths::LINK_DIR)]
    pub folder: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with links.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes this host's key and certificate, once, and prints what another host must know of it.
    Init {
        /// Where other hosts reach the listener of this one: HOST, HOST:PORT, or an IPv6 address in brackets and :PORT.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<Address>,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Trusts another host from now on; again with another address changes that.
    Trust {
        /// What it is called here.
        name: String,
        /// What `parapet link init` printed there: its token, or its fingerprint.
        token: Token,
        /// Where its listener is, in place of the token's address; default: where its name leads, at port 8402.
        #[arg(long, value_name = "ADDRESS")]
        address: Option<Address>,
    },
    /// Shows the hosts that are trusted.
    List(Output),
    /// Trusts a host no more. Lines that are open stay until they end.
    Forget {
        /// What it is called here.
        name: String,
    },
    /// Measures the line to a host.
    Test {
        /// What it is called here.
        name: String,
        /// Megabytes (2^20 bytes) to send.
        #[arg(long, value_name = "N", default_value_t = TEST_BYTES >> 20, value_parser = clap::value_parser!(u64).range(1..=MAX_TEST_BYTES >> 20))]
        megabytes: u64,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Connects standard input and output with what the other host does: for `xl migrate -s 'parapet link connect'`.
    Connect {
        /// What it is called here.
        name: String,
        /// `xl migrate-receive` with its options, or `xl list -v`; `migrate-receive` if there are none.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "WORDS"
        )]
        words: Vec<String>,
    },
}

/// A host, as `--json` prints it.
#[derive(Debug, Serialize)]
struct HostJson<'a> {
    name: &'a str,
    fingerprint: String,
    address: String,
}

impl<'a> HostJson<'a> {
    fn of(host: &'a Host) -> Self {
        Self {
            name: &host.name,
            fingerprint: host.fingerprint.to_string(),
            address: host.reached_at().to_string(),
        }
    }
}

/// This host, as `--json` prints it.
#[derive(Debug, Serialize)]
struct OwnJson {
    fingerprint: String,
    token: String,
}

/// A test, as `--json` prints it.
#[derive(Debug, Serialize)]
struct TestJson<'a> {
    name: &'a str,
    release: &'a str,
    round_trip_us: u128,
    bytes: u64,
    time_us: u128,
    remarks: &'a [String],
}

fn failed(text: impl std::fmt::Display) -> CliError {
    CliError {
        exit: Exit::Failed,
        text: text.to_string(),
    }
}

impl From<LinkError> for CliError {
    fn from(error: LinkError) -> Self {
        let exit = match error {
            LinkError::NothingListens { .. } => Exit::NotRunning,
            _ => Exit::Failed,
        };
        let text = error.to_string();
        Self { exit, text }
    }
}

/// `Some`: the exit code of the command at the other end.
pub(super) fn run(arguments: &LinkArguments, out: &mut dyn Write) -> Result<Option<u8>, CliError> {
    let folder = &arguments.folder;
    let book = Book::of(folder);
    match &arguments.action {
        Action::Init { address, output } => init(folder, address.clone(), output.json, out)?,
        Action::Trust {
            name,
            token,
            address,
        } => trust(folder, &book, name, token, address.clone(), out)?,
        Action::List(output) => list(&book, output.json, out)?,
        Action::Forget { name } => {
            book.forget(name)?;
            writeln!(out, "{name}: not trusted any more").map_err(|error| written(&error))?;
        }
        Action::Test {
            name,
            megabytes,
            output,
        } => {
            let (line, measured) = test(folder, &book.host(name)?, megabytes << 20)?;
            tell_test(name, &line, &measured, output.json, out)?;
        }
        Action::Connect { name, words } => return connect(folder, &book, name, words).map(Some),
    }
    Ok(None)
}

fn init(
    folder: &Path,
    address: Option<Address>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let (identity, made) = Identity::load_or_make(folder)?;
    let fingerprint = identity.fingerprint();
    let token = Token {
        fingerprint,
        address,
    };
    if as_json {
        let own = OwnJson {
            fingerprint: fingerprint.to_string(),
            token: token.to_string(),
        };
        return json(out, &own, true);
    }
    let key = Identity::file(folder);
    let made = if made { "made" } else { "there already" };
    let said = write!(
        out,
        "key          {} ({made})\nfingerprint  {fingerprint}\ntoken        {token}\n\n\
         On each host that guests come from or go to: parapet link trust NAME {token}\n",
        key.display()
    );
    said.map_err(|error| written(&error))
}

fn trust(
    folder: &Path,
    book: &Book,
    name: &str,
    token: &Token,
    address: Option<Address>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let host = Host {
        name: name.to_owned(),
        fingerprint: token.fingerprint,
        address: address.or_else(|| token.address.clone()),
    };
    book.trust(&host)?;
    let said = writeln!(
        out,
        "{name}: trusted, reached at {}, certificate {}",
        host.reached_at(),
        host.fingerprint
    );
    said.map_err(|error| written(&error))?;
    if let Ok(own) = Identity::load(folder) {
        let own = own.fingerprint();
        eprintln!(
            "parapet: {name} must trust this host, too; there: `parapet link trust NAME {own}`"
        );
    }
    Ok(())
}

fn list(book: &Book, as_json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let hosts = book.hosts()?;
    if as_json {
        let lines: Vec<HostJson<'_>> = hosts.iter().map(HostJson::of).collect();
        return json(out, &lines, true);
    }
    let row = |host: &Host| {
        vec![
            host.name.clone(),
            host.reached_at().to_string(),
            host.fingerprint.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = hosts.iter().map(row).collect();
    table::print(out, &["Name", "Address", "Certificate"], &rows).map_err(|error| written(&error))
}

/// One thread is enough for one line.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("cannot start: {error}")))
}

async fn reach(folder: &Path, host: &Host, request: Request) -> Result<Line, CliError> {
    let identity = Identity::load(folder)?;
    let address = host.reached_at();
    let resolved = resolve(&address.host, address.port).await;
    let resolved = resolved.map_err(|error| failed(format!("{}: {error}", host.name)))?;
    Ok(dial(&identity, host, resolved, request).await?)
}

/// The other side's release, and the figures.
fn test(folder: &Path, host: &Host, bytes: u64) -> Result<(String, Measured), CliError> {
    runtime()?.block_on(async {
        let line = reach(folder, host, Request::Test).await?;
        let release = line.release.clone();
        Ok((release, line.test(bytes).await?))
    })
}

fn tell_test(
    name: &str,
    release: &str,
    measured: &Measured,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    if as_json {
        let test = TestJson {
            name,
            release,
            round_trip_us: measured.round_trip.as_micros(),
            bytes: measured.bytes,
            time_us: measured.time.as_micros(),
            remarks: &measured.remarks,
        };
        return json(out, &test, true);
    }
    // Only shown.
    #[expect(clippy::cast_precision_loss)]
    let rate = (measured.bytes >> 20) as f64 / measured.time.as_secs_f64().max(1e-9);
    let said = writeln!(
        out,
        "{name}: release {release}, round trip {:.3} ms, {} MiB in {:.3} s ({rate:.0} MiB/s)",
        measured.round_trip.as_secs_f64() * 1000.0,
        measured.bytes >> 20,
        measured.time.as_secs_f64(),
    );
    said.map_err(|error| written(&error))?;
    for remark in &measured.remarks {
        writeln!(out, "{name}: guests cannot be taken there now: {remark}")
            .map_err(|error| written(&error))?;
    }
    Ok(())
}

fn connect(folder: &Path, book: &Book, name: &str, words: &[String]) -> Result<u8, CliError> {
    // Before anybody is called.
    let request = Request::of_words(words).map_err(LinkError::from)?;
    let host = book.host(name)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let line = reach(folder, &host, request).await?;
        let mut tell = |text: &str| eprintln!("{text}");
        Ok(line.carry(input()?, output()?, &mut tell).await?)
    });
    // A thread that reads a terminal or a file cannot be told to stop; it ends with this process.
    runtime.shutdown_background();
    ended
}

/// Standard input, past every buffer where it is a pipe, as under `xl migrate`.
fn input() -> Result<Pin<Box<dyn AsyncRead>>, CliError> {
    let own = own(std::io::stdin().as_fd(), "standard input")?;
    Ok(match own.try_clone().and_then(pipe::Receiver::from_file) {
        Ok(pipe) => Box::pin(pipe),
        Err(_) => Box::pin(tokio::fs::File::from_std(own)),
    })
}

/// As [`input`].
fn output() -> Result<Pin<Box<dyn AsyncWrite>>, CliError> {
    let own = own(std::io::stdout().as_fd(), "standard output")?;
    Ok(match own.try_clone().and_then(pipe::Sender::from_file) {
        Ok(pipe) => Box::pin(pipe),
        Err(_) => Box::pin(tokio::fs::File::from_std(own)),
    })
}

fn own(fd: BorrowedFd<'_>, what: &'static str) -> Result<File, CliError> {
    let own = fd.try_clone_to_owned();
    Ok(own
        .map(File::from)
        .map_err(|error| LinkError::Local(what, error))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn link(words: &[&str]) -> LinkArguments {
        let cli = Cli::try_parse_from([&["parapet", "link"], words].concat()).unwrap();
        match cli.command {
            Command::Link(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn said(folder: &Path, words: &[&str]) -> Result<String, String> {
        let words = [&["--folder", folder.to_str().unwrap()], words].concat();
        let mut out = Vec::new();
        match run(&link(&words), &mut out) {
            Ok(_) => Ok(String::from_utf8(out).unwrap()),
            Err(error) => Err(error.text),
        }
    }

    #[test]
    fn the_words_of_a_receiver_are_not_our_own_options() {
        let words = [
            "connect",
            "host2",
            "xl",
            "-v",
            "migrate-receive",
            "-e",
            "-p",
        ];
        let Action::Connect { name, words } = link(&words).action else {
            panic!()
        };
        assert_eq!(name, "host2");
        assert_eq!(words, ["xl", "-v", "migrate-receive", "-e", "-p"]);
        let strange = said(
            Path::new("/nonexistent"),
            &["connect", "host2", "xl", "destroy", "1"],
        );
        assert!(strange.unwrap_err().contains("`destroy`"));
    }

    #[test]
    fn two_hosts_trust_each_other_by_the_tokens_they_print() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = |folder: &Path, address: &str| {
            let text = said(folder, &["init", "--json", "--address", address]).unwrap();
            let own: serde_json::Value = serde_json::from_str(&text).unwrap();
            own["token"].as_str().unwrap().to_owned()
        };
        let token_one = token(one.path(), "host1.example");
        let token_two = token(two.path(), "192.0.2.2:99");
        said(one.path(), &["trust", "two", &token_two]).unwrap();
        said(two.path(), &["trust", "one", &token_one]).unwrap();
        let listed = said(one.path(), &["list"]).unwrap();
        assert!(listed.contains("two   192.0.2.2:99  "), "{listed}");
        let listed = said(two.path(), &["list", "--json"]).unwrap();
        assert!(listed.contains("\"host1.example:8402\""), "{listed}");
        // The same again, and somebody else under the same name.
        assert!(
            said(one.path(), &["init"])
                .unwrap()
                .contains("there already")
        );
        let other = said(one.path(), &["trust", "two", &token_one]).unwrap_err();
        assert!(other.contains("forget two"), "{other}");
        said(one.path(), &["forget", "two"]).unwrap();
        let gone = said(one.path(), &["test", "two"]).unwrap_err();
        assert!(gone.contains("no host two is linked"), "{gone}");
    }
}
