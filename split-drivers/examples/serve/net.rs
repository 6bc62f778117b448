//! A network interface on a tap in a bridge.

use super::child::Driver;
use super::nodes::Nodes;
use anyhow::ensure;
use clap::Args;
use parapet_wire::driver::{ConnectNet, NetFeatures, NetQueue, OrderBody, offer};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use xen_abi::ids::{GrantRef, Port};
use xen_host::tap::Tap;

/// An interface of a guest.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    domid: u16,
    #[arg(long, default_value_t = 0)]
    devid: u32,
    #[arg(long, default_value = "xenbr0")]
    bridge: String,
    #[arg(long, default_value_t = 1)]
    queues: u32,
    #[arg(long, default_value = "/tmp/split-driver")]
    driver: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mac = [
        0x00,
        0x16,
        0x3e,
        0x5d,
        arguments.domid.to_be_bytes()[1],
        arguments.devid.to_be_bytes()[3],
    ];
    let mac_text = mac.map(|byte| format!("{byte:02x}")).join(":");
    let nodes = Nodes::make(
        arguments.domid,
        "vif",
        arguments.devid,
        &[
            ("handle", arguments.devid.to_string()),
            ("mac", mac_text.clone()),
            ("mtu", "1500".to_owned()),
        ],
    )?;
    let mut offered: Vec<(&str, String)> = [
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
        "feature-rx-copy",
        "feature-split-event-channels",
    ]
    .map(|name| (name, "1".to_owned()))
    .to_vec();
    offered.push(("feature-rx-flip", "0".to_owned()));
    offered.push(("mac", mac_text));
    offered.push(("handle", arguments.devid.to_string()));
    offered.push(("hotplug-status", "connected".to_owned()));
    offered.push((
        "multi-queue-max-queues",
        arguments.queues.min(offer::NET_MAX_QUEUES).to_string(),
    ));
    nodes.publish(&offered, 2)?;
    nodes.begin()?;
    nodes.wait_front(&["4"])?;
    let mut order = agreed(arguments, mac, &nodes)?;
    println!("frontend: {order:?}");
    let name = format!("pt{}.{}", arguments.domid, arguments.devid);
    let tap = Tap::open(&name, order.queues.len())?;
    for command in [
        vec!["link", "set", &name, "master", &arguments.bridge],
        vec!["link", "set", &name, "up"],
    ] {
        ensure!(
            Command::new("ip").args(&command).status()?.success(),
            "ip {command:?}"
        );
    }
    let fds: Vec<BorrowedFd<'_>> = tap.queues().collect();
    loop {
        let start = Instant::now();
        let mut driver = Driver::start(&arguments.driver, arguments.domid)?;
        println!(
            "connected: {:?} after {:?}",
            driver.insist(&OrderBody::ConnectNet(order.clone()), &fds)?,
            start.elapsed()
        );
        if !order.resume {
            nodes.set_state(4)?;
            order.resume = true;
        }
        driver.wait(Duration::from_secs(30))?;
    }
}

/// What the frontend wrote.
fn agreed(arguments: &Arguments, mac: [u8; 6], nodes: &Nodes) -> anyhow::Result<ConnectNet> {
    let count = nodes.number("multi-queue-num-queues").unwrap_or(1);
    let queue = |prefix: String| -> anyhow::Result<NetQueue> {
        let number = |key: &str| nodes.number(&format!("{prefix}{key}"));
        let (tx_port, rx_port) = match number("event-channel-tx") {
            Ok(tx) => (tx, number("event-channel-rx")?),
            Err(_) => (number("event-channel")?, number("event-channel")?),
        };
        Ok(NetQueue {
            tx_ref: GrantRef(number("tx-ring-ref")?),
            rx_ref: GrantRef(number("rx-ring-ref")?),
            tx_port: Port(tx_port),
            rx_port: Port(rx_port),
        })
    };
    let queues = if count <= 1 {
        vec![queue(String::new())?]
    } else {
        (0..count)
            .map(|n| queue(format!("queue-{n}/")))
            .collect::<anyhow::Result<_>>()?
    };
    let features = NetFeatures {
        sg: nodes.flag("feature-sg")?,
        gso_tcpv4: nodes.flag("feature-gso-tcpv4")?,
        gso_tcpv6: nodes.flag("feature-gso-tcpv6")?,
        csum_ipv4: !nodes.flag("feature-no-csum-offload")?,
        csum_ipv6: nodes.flag("feature-ipv6-csum-offload")?,
        rx_notify: nodes.flag("feature-rx-notify")?,
    };
    Ok(ConnectNet {
        devid: arguments.devid,
        mac,
        queues,
        features,
        resume: false,
    })
}
