//! Taps in Linux bridges, by netlink: the real [`Links`].
//!
//! No script runs. A tap is persistent: it stays (and keeps its place in the bridge) when this process or a driver dies, and goes when its guest goes.

use crate::agent::links::{Link, LinkSpec, Links};
use futures_util::stream::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use std::future::Future;
use xen_host::tap::Tap;

/// Bridge of an interface that names none (the default of xl.conf).
pub const DEFAULT_BRIDGE: &str = "xenbr0";
/// MTU of a bridge that does not say.
const DEFAULT_MTU: u32 = 1500;

/// Dom0's own network.
#[derive(Debug, Clone)]
pub struct Bridges {
    default: String,
}

impl Bridges {
    /// Interfaces that name no bridge go into `default`.
    #[must_use]
    pub fn new(default: &str) -> Self {
        Self {
            default: default.to_owned(),
        }
    }

    /// Makes a bridge and sets it up, unless it exists.
    ///
    /// # Errors
    /// One line.
    pub fn ensure_bridge(name: &str) -> Result<(), String> {
        let name = name.to_owned();
        on_netlink(move |handle| async move {
            if find(&handle, &name).await?.is_none() {
                let message = LinkBridge::new(&name).up().build();
                handle
                    .link()
                    .add(message)
                    .execute()
                    .await
                    .map_err(|error| format!("cannot make bridge {name}: {error}"))?;
            }
            Ok(())
        })
    }
}

impl Links for Bridges {
    fn make(&self, spec: &LinkSpec) -> Result<Link, String> {
        let bridge = spec.bridge.clone().unwrap_or_else(|| self.default.clone());
        let name = bridge.clone();
        let (index, bridge_mtu) = on_netlink(move |handle| async move {
            let link = find(&handle, &name).await?.ok_or_else(|| {
                format!("bridge {name} does not exist; make it with `ip link add {name} type bridge && ip link set {name} up`, or name another with bridge=")
            })?;
            Ok((link.header.index, mtu_of(&link)))
        })?;
        let queues = usize::try_from(spec.queues).map_err(|_| "too many queues".to_owned())?;
        let tap = Tap::open(&spec.ifname, queues).map_err(|error| error.to_string())?;
        tap.set_persistent(true)
            .map_err(|error| error.to_string())?;
        let mtu = spec.mtu.unwrap_or(bridge_mtu);
        let ifname = spec.ifname.clone();
        let joined = on_netlink(move |handle| async move {
            let message = LinkUnspec::new_with_name(&ifname)
                .controller(index)
                .mtu(mtu)
                .up()
                .build();
            handle
                .link()
                .set(message)
                .execute()
                .await
                .map_err(|error| format!("cannot join the bridge: {error}"))
        });
        if let Err(error) = joined {
            let _ = tap.set_persistent(false);
            return Err(error);
        }
        Ok(Link {
            bridge,
            mtu,
            queues: tap.into_queues(),
        })
    }

    fn remove(&self, ifname: &str) -> Result<(), String> {
        let ifname = ifname.to_owned();
        on_netlink(move |handle| async move {
            let Some(link) = find(&handle, &ifname).await? else {
                return Ok(());
            };
            handle
                .link()
                .del(link.header.index)
                .execute()
                .await
                .map_err(|error| format!("cannot remove {ifname}: {error}"))
        })
    }
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, String> {
    let mut links = handle.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -(nix::errno::Errno::ENODEV as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("cannot look up {name}: {error}")),
    }
}

fn mtu_of(link: &LinkMessage) -> u32 {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
        .unwrap_or(DEFAULT_MTU)
}

/// Runs one netlink conversation to its end. Called from blocking threads only.
fn on_netlink<T, F>(work: impl FnOnce(Handle) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| format!("cannot talk to the kernel: {error}"))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| format!("cannot talk to the kernel: {error}"))?;
        let conversation = tokio::spawn(connection);
        let result = work(handle).await;
        conversation.abort();
        result
    })
}
