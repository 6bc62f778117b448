//! `parapet-guest`: says once a second, from inside a guest, that the guest still schedules programs.
//!
//! ```text
//!   every interval ──▶ data/parapet/heartbeat = counter ──▶ xenstored ──▶ dom0-agent ──▶ ft-monitor
//!                 └──▶ /dev/watchdog (with --watchdog): no pet, and Xen shuts the guest down with reason "watchdog"
//!   SIGTERM, SIGINT ──▶ heartbeat = "stopped", watchdog closed with 'V', exit 0
//! ```
//!
//! It needs one device node and nothing else, so that it works as a service of systemd and from the `init` of a busybox initrd. It
//! never reads anything that a peer could use against it, never forks, and never gives up: while xenstored is away it
//! tries again at each beat.

#![forbid(unsafe_code)]

mod args;
mod heartbeat;
mod signals;
mod watchdog;
mod xenbus;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(args::Command::Run(options)) => options,
        Ok(args::Command::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("parapet-guest: {error}\nTry `parapet-guest --help`.");
            return ExitCode::from(2);
        }
    };
    match heartbeat::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parapet-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
