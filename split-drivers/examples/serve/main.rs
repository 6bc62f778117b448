//! Serves devices of a guest that a stock toolstack made, with a real split driver: writes the xenstore nodes by hand, starts the driver,
//! gives it its orders, and starts a successor whenever it dies. For trying a driver alone, without the agent; needs root on a Xen host.
//!
//! `serve disk --domid 3 --image /tmp/disk.raw`, `serve net --domid 3 --bridge xenbr0`, `serve console --domid 3`

mod child;
mod console;
mod disk;
mod net;
mod nodes;

use clap::{Parser, Subcommand};

/// Serves one device of a guest.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A disk.
    Disk(disk::Arguments),
    /// A network interface.
    Net(net::Arguments),
    /// The primary console; xenconsoled must not hold it.
    Console(console::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Disk(arguments) => disk::run(&arguments),
        What::Net(arguments) => net::run(&arguments),
        What::Console(arguments) => console::run(&arguments),
    }
}
