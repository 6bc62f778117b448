//! `split-driver`: serves the disks, networks and consoles of one guest. See [`split_drivers::control::options`].

#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use split_drivers::console::log::Log;
use split_drivers::control::options::Arguments;
use split_drivers::control::{driver::Driver, pool::Pool, sandbox, server};
use split_drivers::limits::DRIVER_LOG_BYTES;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::time::Instant;
use xen_host::devices::HostDevices;

fn main() -> anyhow::Result<()> {
    let since = Instant::now();
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
    tracing::info!(%domid, pid = std::process::id(), took = ?since.elapsed(), "serving");
    server::serve(&listener, &mut driver).context("control socket")
}

/// The log goes to stderr, within a bound where that is a file. A panic ends the process at once: the successor's journal is made for that.
fn start_log() {
    let format = tracing_subscriber::fmt().with_ansi(false).without_time();
    match bounded_log() {
        Some(log) => format.with_writer(Mutex::new(log)).init(),
        None => format.with_writer(std::io::stderr).init(),
    }
    std::panic::set_hook(Box::new(|info| {
        eprintln!("split-driver: {info}");
        std::process::abort();
    }));
}

/// stderr as a log that is kept within its bound. Opened anew: stderr itself stays in append mode, for a panic's last words.
fn bounded_log() -> Option<BoundedLog> {
    let path = "/proc/self/fd/2";
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let file = File::options().read(true).write(true).open(path).ok()?;
    Log::append_to(file, DRIVER_LOG_BYTES).ok().map(BoundedLog)
}

struct BoundedLog(Log);

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
