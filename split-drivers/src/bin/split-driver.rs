//! `split-driver`: serves the disks, networks and consoles of one guest. Started by the agent as root, with a listening socket as descriptor 0.

use anyhow::Context;
use clap::Parser;
use split_drivers::control::{driver::Driver, pool::Pool, sandbox, server};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use xen_abi::ids::DomId;
use xen_host::devices::HostDevices;

/// Serves the devices of one guest.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The guest.
    #[arg(long)]
    domid: u16,
    /// User that the driver becomes; by default one that only this guest's driver has.
    #[arg(long)]
    uid: Option<u32>,
    /// Stay the user that started it, without any sandbox: for looking at it with a debugger only.
    #[arg(long, hide = true)]
    no_sandbox: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_log();
    let domid = DomId(arguments.domid);
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("descriptor 0")?;
    let listener = UnixListener::from(socket);
    sandbox::set_limits()?;
    let pool = Pool::open(&HostDevices, domid)?;
    if !arguments.no_sandbox {
        sandbox::enter(
            arguments
                .uid
                .unwrap_or(split_drivers::limits::UID_BASE + u32::from(domid.0)),
        )?;
    }
    let mut driver = Driver::new(pool)?;
    tracing::info!(%domid, pid = std::process::id(), "serving");
    server::serve(&listener, &mut driver).context("control socket")
}

/// The log goes to stderr. A panic ends the process at once: the successor's journal is made for that.
fn start_log() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    std::panic::set_hook(Box::new(|info| {
        eprintln!("split-driver: {info}");
        std::process::abort();
    }));
}
