//! `parapet-link`: reads the key, takes the port, gives every right away, and serves; see `parapet_link::serve`.

#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use clap::Parser;
use parapet_link::book::Book;
use parapet_link::identity::Identity;
use parapet_link::limits::{MAX_LINES, PORT};
use parapet_link::options::{Arguments, USER};
use parapet_link::serve::Listener;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Where systemd puts credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

fn main() -> ExitCode {
    // First of all, while the numbers of descriptors are still those that systemd means.
    let passed = xen_host::activation::take_tcp_listener();
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&arguments.log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal of systemd has its own time stamps.
        log.without_time().with_ansi(false).init();
    } else {
        log.init();
    }
    let ended = passed
        .context("socket activation")
        .and_then(|passed| run(&arguments, passed));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parapet-link: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, passed: Option<TcpListener>) -> anyhow::Result<()> {
    let identity = match std::env::var_os(CREDENTIALS) {
        Some(folder) => Identity::load_credential(Path::new(&folder))?,
        None => Identity::load(&arguments.folder)?,
    };
    let listener = match passed {
        Some(listener) => listener,
        None => bind(arguments.listen)?,
    };
    give_up_rights()?;
    let listener_of = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // One for each line, and one for each short question to the agent.
        .max_blocking_threads(2 * MAX_LINES)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        let address = listener.local_addr().context("the passed socket")?;
        let listener = listener_of(listener).context("cannot use the socket")?;
        tracing::info!(%address, certificate = %identity.fingerprint(), "listening");
        let book = Book::of(&arguments.folder);
        let serving = Listener::new(identity, book, arguments.agent.clone()).serve(listener);
        tokio::select! {
            () = serving => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    });
    // Lines that are open are cut, as if this process had been killed.
    runtime.shutdown_background();
    ended
}

/// Every address, of IPv4 too; a host without IPv6 has only those.
fn bind(listen: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let failed = |address: SocketAddr| format!("cannot listen at {address}");
    let Some(address) = listen else {
        let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, PORT).into();
        let old: SocketAddr = (Ipv4Addr::UNSPECIFIED, PORT).into();
        return match TcpListener::bind(all) {
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                TcpListener::bind(old).with_context(|| failed(old))
            }
            bound => bound.with_context(|| failed(all)),
        };
    };
    TcpListener::bind(address).with_context(|| failed(address))
}

/// Before there is a second thread, and before anybody can connect who is not trusted: TLS of strangers is never root's business.
fn give_up_rights() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        let Some(user) = xen_host::users::find(USER) else {
            bail!(
                "there is no user {USER}, and the listener does not run as root; make it by `systemd-sysusers` (units/parapet.sysusers) or `useradd --system {USER}`"
            );
        };
        xen_host::process::become_user(user.uid, user.gid)?;
    }
    Ok(xen_host::process::harden()?)
}
