//! `split-driver`: serves the disks, networks and consoles of one guest. See [`split_drivers::control::options`].

use anyhow::Context;
use clap::Parser;
use split_drivers::control::options::Arguments;
use split_drivers::control::{driver::Driver, pool::Pool, sandbox, server};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use xen_host::devices::HostDevices;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_log();
    let domid = arguments.guest();
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("descriptor 0")?;
    let listener = UnixListener::from(socket);
    sandbox::set_limits()?;
    let pool = Pool::open(&HostDevices, domid)?;
    if !arguments.no_sandbox {
        sandbox::enter(arguments.user())?;
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
