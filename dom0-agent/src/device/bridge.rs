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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rtnetlink::packet_route::link::LinkFlags;

    /// Runs `work` in a network of its own, of which nobody else sees anything and nothing stays. Says so where that cannot be.
    fn in_a_network_of_its_own(work: fn()) {
        if !nix::unistd::geteuid().is_root() {
            return test_skips::skipped("bridges and taps", "this needs root");
        }
        let thread = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(),
            Err(errno) => {
                let why = format!("no network namespaces here: {errno}");
                test_skips::skipped("bridges and taps", &why);
            }
        });
        thread.join().unwrap();
    }

    /// Names of all links, sorted.
    fn links() -> Vec<String> {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = table.lines().filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = names.map(|(name, _)| name.trim().to_owned()).collect();
        // Some kernels put tunnels into each new network.
        names.retain(|name| name == "lo" || name.starts_with("br") || name.starts_with("vif"));
        names.sort();
        names
    }

    fn look_up(name: &str) -> LinkMessage {
        let name = name.to_owned();
        on_netlink(move |handle| async move { find(&handle, &name).await })
            .unwrap()
            .unwrap()
    }

    fn spec(bridge: Option<&str>, mtu: Option<u32>) -> LinkSpec {
        LinkSpec {
            ifname: "vif7.0".into(),
            bridge: bridge.map(str::to_owned),
            mtu,
            queues: 2,
        }
    }

    #[test]
    fn a_bridge_is_made_and_set_up_unless_it_is_there() {
        in_a_network_of_its_own(|| {
            let none: [&str; 0] = [];
            none.into_iter()
                .try_for_each(Bridges::ensure_bridge)
                .unwrap();
            assert_eq!(links(), ["lo"], "nothing is made that nobody named");
            Bridges::ensure_bridge("br7").unwrap();
            assert_eq!(links(), ["br7", "lo"]);
            let first = look_up("br7");
            assert!(first.header.flags.contains(LinkFlags::Up));
            Bridges::ensure_bridge("br7").unwrap();
            let second = look_up("br7");
            assert_eq!(first.header.index, second.header.index, "the same one");
            let said = Bridges::ensure_bridge("br-much-longer-than-a-name").unwrap_err();
            assert!(said.contains("br-much-longer-than-a-name"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert_eq!(links(), ["br7", "lo"]);
        });
    }

    #[test]
    fn a_tap_joins_its_bridge_with_its_mtu_and_goes() {
        in_a_network_of_its_own(|| {
            if !std::path::Path::new("/dev/net/tun").exists() {
                return test_skips::skipped("taps in a bridge", "this needs /dev/net/tun");
            }
            let bridges = Bridges::new("br0");
            let said = bridges.make(&spec(None, None)).unwrap_err();
            assert!(said.starts_with("bridge br0 does not exist; "), "{said}");
            assert_eq!(links(), ["lo"], "no tap is left");
            Bridges::ensure_bridge("br0").unwrap();
            Bridges::ensure_bridge("br1").unwrap();
            for (named, joined, mtu) in [(None, "br0", None), (Some("br1"), "br1", Some(1300))] {
                let link = bridges.make(&spec(named, mtu)).unwrap();
                assert_eq!((link.bridge.as_str(), link.queues.len()), (joined, 2));
                assert_eq!(link.mtu, mtu.unwrap_or(DEFAULT_MTU));
                let tap = look_up("vif7.0");
                let bridge = look_up(joined).header.index;
                assert!(tap.attributes.contains(&LinkAttribute::Controller(bridge)));
                assert!(tap.header.flags.contains(LinkFlags::Up));
                assert_eq!(mtu_of(&tap), link.mtu);
                drop(link);
                assert_eq!(links(), ["br0", "br1", "lo", "vif7.0"], "it is persistent");
                bridges.remove("vif7.0").unwrap();
                bridges.remove("vif7.0").unwrap();
                assert_eq!(links(), ["br0", "br1", "lo"]);
            }
        });
    }
}
