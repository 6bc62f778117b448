//! The primary console: its page by the reserved grant, its port from xenstore.

use super::child::Driver;
use anyhow::Context;
use clap::Args;
use parapet_wire::driver::{ConnectConsole, OrderBody};
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use xen_abi::ids::{GrantRef, Port};
use xen_host::pty::Pty;
use xen_host::xenstore::client::Client;
use xen_host::xenstore::store::{StoreExt, TxId};

/// The console of a guest.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    domid: u16,
    #[arg(long)]
    log: Option<PathBuf>,
    #[arg(long, default_value = "/tmp/split-driver")]
    driver: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let store = Client::connect()?;
    let home = format!("/local/domain/{}/console", arguments.domid);
    let port = store
        .read_text(TxId::NONE, &format!("{home}/port"))?
        .context("the guest has no console")?;
    let order = ConnectConsole {
        index: 0,
        gref: GrantRef(0),
        port: Port(port.parse()?),
        log: arguments.log.is_some(),
    };
    let pty = Pty::open()?;
    let tty = pty.path().display().to_string();
    store.write_text(TxId::NONE, &format!("{home}/tty"), &tty)?;
    println!("console on {tty}");
    loop {
        let mut driver = Driver::start(&arguments.driver, arguments.domid)?;
        let log = match &arguments.log {
            None => None,
            Some(path) => Some(
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)?,
            ),
        };
        let mut fds = vec![pty.master()];
        fds.extend(log.as_ref().map(AsFd::as_fd));
        println!(
            "connected: {:?}",
            driver.insist(&OrderBody::ConnectConsole(order.clone()), &fds)?
        );
        driver.wait(Duration::from_secs(30))?;
    }
}
