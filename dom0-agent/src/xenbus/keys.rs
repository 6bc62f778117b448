//! What a frontend published, read once and checked before anything is done with it.
//!
//! Every value here was written by a guest. A key is a node path and its text; what is missing, not a number, out of range or named twice is a
//! [`KeyError`] that names the node.

use parapet_wire::driver::{ConnectDisk, ConnectNet, NetFeatures, NetQueue, Protocol, Ring, offer};
use std::collections::{BTreeMap, BTreeSet};
use xen_abi::ids::{GrantRef, Port};

/// Longest value looked at, in bytes.
const MAX_VALUE_BYTES: usize = 64;
/// Most keys of a frontend directory that are kept.
pub const MAX_KEYS: usize = 512;

/// Keys of a frontend directory, relative to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, String>);

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("frontend key {key}: {what}")]
pub struct KeyError {
    /// Node, relative to the frontend directory.
    pub key: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Keys {
    /// Keeps a key; values that are too long or not text are kept as the empty text, which no reader accepts.
    pub fn insert(&mut self, key: String, value: &[u8]) {
        if self.0.len() >= MAX_KEYS {
            return;
        }
        let text = if value.len() > MAX_VALUE_BYTES {
            ""
        } else {
            std::str::from_utf8(value).unwrap_or("")
        };
        self.0.insert(key, text.to_owned());
    }

    fn number(&self, key: &str) -> Result<Option<u32>, KeyError> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error(key, "not a decimal number"));
        }
        text.parse()
            .map(Some)
            .map_err(|_| error(key, "out of range"))
    }

    fn needed(&self, key: &str) -> Result<u32, KeyError> {
        self.number(key)?.ok_or_else(|| error(key, "missing"))
    }

    fn flag(&self, key: &str) -> Result<bool, KeyError> {
        Ok(self.number(key)?.unwrap_or(0) != 0)
    }
}

fn error(key: &str, what: &'static str) -> KeyError {
    KeyError {
        key: key.to_owned(),
        what,
    }
}

/// Paths that must be read for a device of `queues` queues, relative to the frontend directory. Fixed and bounded: a guest cannot make us read more.
#[must_use]
pub fn disk_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "protocol",
        "feature-persistent",
        "multi-queue-num-queues",
        "ring-page-order",
    ]
    .map(str::to_owned)
    .into();
    let mut queue = |prefix: &str| {
        for key in ["event-channel", "ring-ref"] {
            paths.push(format!("{prefix}{key}"));
        }
        for page in 0..1_u32 << offer::DISK_MAX_RING_PAGE_ORDER {
            paths.push(format!("{prefix}ring-ref{page}"));
        }
    };
    queue("");
    for n in 0..offer::DISK_MAX_QUEUES {
        queue(&format!("queue-{n}/"));
    }
    paths
}

/// As [`disk_paths`], for a network interface.
#[must_use]
pub fn net_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "multi-queue-num-queues",
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-no-csum-offload",
        "feature-ipv6-csum-offload",
    ]
    .map(str::to_owned)
    .into();
    let mut queue = |prefix: &str| {
        for key in [
            "tx-ring-ref",
            "rx-ring-ref",
            "event-channel",
            "event-channel-tx",
            "event-channel-rx",
        ] {
            paths.push(format!("{prefix}{key}"));
        }
    };
    queue("");
    for n in 0..offer::NET_MAX_QUEUES {
        queue(&format!("queue-{n}/"));
    }
    paths
}

/// Number of queues asked for, and the prefix of each queue's keys.
fn queues(keys: &Keys, most: u32) -> Result<Vec<String>, KeyError> {
    let key = "multi-queue-num-queues";
    match keys.number(key)? {
        None | Some(1) => Ok(vec![if keys.0.contains_key("queue-0/event-channel")
            || keys.0.contains_key("queue-0/tx-ring-ref")
        {
            "queue-0/".to_owned()
        } else {
            String::new()
        }]),
        Some(0) => Err(error(key, "zero")),
        Some(n) if n > most => Err(error(key, "more than was offered")),
        Some(n) => Ok((0..n).map(|n| format!("queue-{n}/")).collect()),
    }
}

/// Makes a connect order for a disk.
///
/// # Errors
/// The key that cannot be used.
pub fn disk(devid: u32, keys: &Keys) -> Result<ConnectDisk, KeyError> {
    let protocol = match keys.0.get("protocol").map(String::as_str) {
        None | Some("x86_64-abi") => Protocol::X86_64,
        Some("x86_32-abi") => Protocol::X86_32,
        Some(_) => return Err(error("protocol", "unknown request layout")),
    };
    let order = keys.number("ring-page-order")?.unwrap_or(0);
    if order > offer::DISK_MAX_RING_PAGE_ORDER {
        return Err(error("ring-page-order", "more than was offered"));
    }
    let mut rings = Vec::new();
    for prefix in queues(keys, offer::DISK_MAX_QUEUES)? {
        let mut refs = Vec::new();
        for page in 0..1_u32 << order {
            let named = format!("{prefix}ring-ref{page}");
            let single = format!("{prefix}ring-ref");
            let gref = match keys.number(&named)? {
                Some(gref) => gref,
                None if order == 0 => keys.needed(&single)?,
                None => return Err(error(&named, "missing")),
            };
            refs.push(GrantRef(gref));
        }
        rings.push(Ring {
            refs,
            port: Port(keys.needed(&format!("{prefix}event-channel"))?),
        });
    }
    distinct(
        rings.iter().flat_map(|ring| &ring.refs).map(|gref| gref.0),
        "ring-ref",
    )?;
    distinct(rings.iter().map(|ring| ring.port.0), "event-channel")?;
    Ok(ConnectDisk {
        devid,
        protocol,
        persistent: keys.flag("feature-persistent")?,
        rings,
        resume: false,
    })
}

/// Makes a connect order for a network interface.
///
/// # Errors
/// The key that cannot be used.
pub fn net(devid: u32, mac: [u8; 6], keys: &Keys) -> Result<ConnectNet, KeyError> {
    if !keys.flag("request-rx-copy")? {
        return Err(error(
            "request-rx-copy",
            "missing; page flipping is not offered",
        ));
    }
    let mut list = Vec::new();
    for prefix in queues(keys, offer::NET_MAX_QUEUES)? {
        let one = keys.number(&format!("{prefix}event-channel"))?;
        let (tx, rx) = match one {
            Some(port) => (port, port),
            None => (
                keys.needed(&format!("{prefix}event-channel-tx"))?,
                keys.needed(&format!("{prefix}event-channel-rx"))?,
            ),
        };
        list.push(NetQueue {
            tx_ref: GrantRef(keys.needed(&format!("{prefix}tx-ring-ref"))?),
            rx_ref: GrantRef(keys.needed(&format!("{prefix}rx-ring-ref"))?),
            tx_port: Port(tx),
            rx_port: Port(rx),
        });
    }
    distinct(
        list.iter()
            .flat_map(|queue| [queue.tx_ref.0, queue.rx_ref.0]),
        "tx-ring-ref",
    )?;
    // Both ports of one queue may be the same one: a frontend without split event channels.
    distinct(
        list.iter().flat_map(|queue| {
            let rx = (queue.rx_port != queue.tx_port).then_some(queue.rx_port.0);
            std::iter::once(queue.tx_port.0).chain(rx)
        }),
        "event-channel",
    )?;
    let features = NetFeatures {
        sg: keys.flag("feature-sg")?,
        gso_tcpv4: keys.flag("feature-gso-tcpv4")?,
        gso_tcpv6: keys.flag("feature-gso-tcpv6")?,
        csum_ipv4: !keys.flag("feature-no-csum-offload")?,
        csum_ipv6: keys.flag("feature-ipv6-csum-offload")?,
        rx_notify: keys.flag("feature-rx-notify")?,
    };
    Ok(ConnectNet {
        devid,
        mac,
        queues: list,
        features,
        resume: false,
    })
}

fn distinct(values: impl Iterator<Item = u32>, key: &str) -> Result<(), KeyError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            return Err(error(key, "used twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        let mut keys = Keys::default();
        for (key, value) in pairs {
            keys.insert((*key).to_owned(), value.as_bytes());
        }
        keys
    }

    #[test]
    fn stock_blkfront_is_understood() {
        let keys = keys(&[
            ("ring-ref", "8"),
            ("event-channel", "5"),
            ("protocol", "x86_64-abi"),
            ("feature-persistent", "1"),
        ]);
        let order = disk(51712, &keys).unwrap();
        assert_eq!(
            order.rings,
            [Ring {
                refs: vec![GrantRef(8)],
                port: Port(5)
            }]
        );
        assert!(order.persistent);
    }

    #[test]
    fn several_queues_and_pages_are_understood() {
        let mut pairs = vec![
            ("multi-queue-num-queues", "2".to_owned()),
            ("ring-page-order", "1".to_owned()),
        ];
        let names: Vec<(String, String)> = (0..2)
            .flat_map(|q| {
                [
                    (format!("queue-{q}/ring-ref0"), (10 + q * 2).to_string()),
                    (format!("queue-{q}/ring-ref1"), (11 + q * 2).to_string()),
                    (format!("queue-{q}/event-channel"), (5 + q).to_string()),
                ]
            })
            .collect();
        let mut all = Keys::default();
        for (key, value) in pairs.drain(..) {
            all.insert(key.to_owned(), value.as_bytes());
        }
        for (key, value) in &names {
            all.insert(key.clone(), value.as_bytes());
        }
        let order = disk(0, &all).unwrap();
        assert_eq!(order.rings.len(), 2);
        assert_eq!(order.rings[1].refs, [GrantRef(12), GrantRef(13)]);
    }

    #[test]
    fn a_hostile_frontend_is_refused_by_name() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "event-channel"),
            (&[("event-channel", "5"), ("ring-ref", "-1")], "ring-ref"),
            (&[("event-channel", "5"), ("ring-ref", "0x10")], "ring-ref"),
            (
                &[("event-channel", "5"), ("ring-ref", "99999999999")],
                "ring-ref",
            ),
            (
                &[
                    ("event-channel", "5"),
                    ("ring-ref", "1"),
                    ("ring-page-order", "40"),
                ],
                "ring-page-order",
            ),
            (
                &[
                    ("event-channel", "5"),
                    ("ring-ref", "1"),
                    ("protocol", "zz"),
                ],
                "protocol",
            ),
            (
                &[("multi-queue-num-queues", "4000000000")],
                "multi-queue-num-queues",
            ),
            (&[("multi-queue-num-queues", "0")], "multi-queue-num-queues"),
            (
                &[
                    ("ring-page-order", "1"),
                    ("ring-ref0", "7"),
                    ("ring-ref1", "7"),
                    ("event-channel", "1"),
                ],
                "ring-ref",
            ),
        ];
        for (pairs, key) in cases {
            let refused = disk(1, &keys(pairs)).unwrap_err();
            assert!(
                refused.key.ends_with(key) || refused.key.contains("ring-ref"),
                "{pairs:?}: {refused}"
            );
        }
    }

    #[test]
    fn netfront_without_copy_is_refused() {
        assert_eq!(
            net(0, [0; 6], &keys(&[])).unwrap_err().key,
            "request-rx-copy"
        );
    }

    #[test]
    fn a_port_of_one_queue_is_no_port_of_another() {
        let queues = |ports: [[&str; 2]; 2]| {
            let mut all = keys(&[("request-rx-copy", "1"), ("multi-queue-num-queues", "2")]);
            for (n, [tx, rx]) in ports.into_iter().enumerate() {
                for (key, value) in [
                    ("tx-ring-ref", (10 + n).to_string()),
                    ("rx-ring-ref", (20 + n).to_string()),
                    ("event-channel-tx", tx.to_owned()),
                    ("event-channel-rx", rx.to_owned()),
                ] {
                    all.insert(format!("queue-{n}/{key}"), value.as_bytes());
                }
            }
            net(0, [0; 6], &all).map(|order| order.queues.len())
        };
        for taken in [
            [["1", "2"], ["1", "3"]],
            [["1", "2"], ["3", "2"]],
            [["1", "2"], ["2", "3"]],
            [["1", "2"], ["3", "1"]],
        ] {
            let refused = queues(taken).unwrap_err();
            assert_eq!(
                (refused.key.as_str(), refused.what),
                ("event-channel", "used twice")
            );
        }
        assert_eq!(queues([["1", "2"], ["3", "4"]]), Ok(2));
        assert_eq!(queues([["1", "1"], ["2", "2"]]), Ok(2), "not split");
    }

    proptest! {
        #[test]
        fn any_values_are_answered(values in prop::collection::vec("[ -~]{0,12}", 0..40), pick: u64) {
            let paths: Vec<String> = disk_paths().into_iter().chain(net_paths()).collect();
            let mut all = Keys::default();
            for (i, value) in values.iter().enumerate() {
                let at = usize::try_from(pick.wrapping_add(i as u64 * 7919) % paths.len() as u64).unwrap();
                all.insert(paths[at].clone(), value.as_bytes());
            }
            if let Ok(order) = disk(1, &all) {
                prop_assert!(order.rings.len() <= offer::DISK_MAX_QUEUES as usize);
            }
            if let Ok(order) = net(1, [0; 6], &all) {
                prop_assert!(order.queues.len() <= offer::NET_MAX_QUEUES as usize);
            }
        }
    }
}
