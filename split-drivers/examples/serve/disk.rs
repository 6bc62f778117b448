//! A disk.

use super::child::Driver;
use super::nodes::Nodes;
use anyhow::{Context, bail};
use clap::Args;
use parapet_wire::driver::{ConnectDisk, OpenDisk, OrderBody, Outcome, Protocol, Ring};
use split_drivers::blk::{features, journal};
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use xen_abi::ids::{GrantRef, Port};
use xen_host::memfd::MemFd;

/// A disk of a guest.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    domid: u16,
    #[arg(long)]
    image: PathBuf,
    #[arg(long, default_value_t = 51712)]
    devid: u32,
    #[arg(long)]
    buffered: bool,
    #[arg(long)]
    read_only: bool,
    /// Do not offer persistent grants.
    #[arg(long)]
    no_persistent: bool,
    #[arg(long, default_value = "/tmp/split-driver")]
    driver: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let nodes = Nodes::make(
        arguments.domid,
        "vbd",
        arguments.devid,
        &[
            ("virtual-device", arguments.devid.to_string()),
            ("device-type", "disk".to_owned()),
        ],
    )?;
    let mut driver = Driver::start(&arguments.driver, arguments.domid)?;
    let medium = open(arguments, &mut driver)?;
    let mut offered = features::nodes(&medium, arguments.read_only);
    offered.retain(|(name, _)| !(arguments.no_persistent && *name == "feature-persistent"));
    offered.push((
        "mode",
        if arguments.read_only { "r" } else { "w" }.to_owned(),
    ));
    nodes.publish(&offered, 2)?;
    nodes.begin()?;
    nodes.wait_front(&["3", "4"])?;
    let mut order = agreed(arguments, &nodes)?;
    println!("frontend: {order:?}");
    let journal = MemFd::create("journal", journal::bytes(4, 512))?;
    println!(
        "connected: {:?}",
        driver.insist(&OrderBody::ConnectDisk(order.clone()), &[journal.as_fd()])?
    );
    nodes.set_state(4)?;
    order.resume = true;
    loop {
        driver.wait(Duration::from_secs(30))?;
        let start = Instant::now();
        driver = Driver::start(&arguments.driver, arguments.domid)?;
        open(arguments, &mut driver)?;
        let outcome = driver.insist(&OrderBody::ConnectDisk(order.clone()), &[journal.as_fd()])?;
        println!("successor after {:?}: {outcome:?}", start.elapsed());
    }
}

fn open(
    arguments: &Arguments,
    driver: &mut Driver,
) -> anyhow::Result<parapet_wire::driver::Medium> {
    let image = OpenOptions::new()
        .read(true)
        .write(!arguments.read_only)
        .open(&arguments.image)
        .with_context(|| arguments.image.display().to_string())?;
    let order = OpenDisk {
        devid: arguments.devid,
        read_only: arguments.read_only,
        discard: true,
        buffered: arguments.buffered,
        lock_timeout_ms: 10_000,
    };
    match driver.order(OrderBody::OpenDisk(order), &[image.as_fd()])? {
        Outcome::Medium(medium) => Ok(medium),
        other => bail!("{other:?}"),
    }
}

/// What the frontend wrote.
fn agreed(arguments: &Arguments, nodes: &Nodes) -> anyhow::Result<ConnectDisk> {
    let queues = nodes.number("multi-queue-num-queues").unwrap_or(1);
    let order = nodes.number("ring-page-order").ok();
    let ring = |prefix: String| -> anyhow::Result<Ring> {
        let refs = match order {
            None | Some(0) => vec![GrantRef(
                nodes
                    .number(&format!("{prefix}ring-ref"))
                    .or_else(|_| nodes.number(&format!("{prefix}ring-ref0")))?,
            )],
            Some(order) => (0..1_u32 << order)
                .map(|page| Ok(GrantRef(nodes.number(&format!("{prefix}ring-ref{page}"))?)))
                .collect::<anyhow::Result<_>>()?,
        };
        Ok(Ring {
            refs,
            port: Port(nodes.number(&format!("{prefix}event-channel"))?),
        })
    };
    let rings = if queues <= 1 {
        vec![ring(String::new())?]
    } else {
        (0..queues)
            .map(|queue| ring(format!("queue-{queue}/")))
            .collect::<anyhow::Result<_>>()?
    };
    let protocol = match nodes.get("protocol")?.as_deref() {
        None | Some("x86_64-abi") => Protocol::X86_64,
        Some("x86_32-abi") => Protocol::X86_32,
        Some(other) => bail!("protocol {other}"),
    };
    let persistent = nodes.flag("feature-persistent")? && !arguments.no_persistent;
    Ok(ConnectDisk {
        devid: arguments.devid,
        protocol,
        persistent,
        rings,
        resume: false,
    })
}
