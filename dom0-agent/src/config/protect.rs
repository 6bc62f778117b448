//! What the fault-tolerance monitor promises for a guest (`protect=` and `protect_*=`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::diag::{Fatal, Pos};
use super::domain::CarriedValue;
use super::limits::MAX_PROBES;
use super::tree::ValueKind;
use super::view::View;

/// How much is done to keep a guest running. Ordered from least to most.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum ProtectClass {
    /// Only the event actions of the configuration.
    #[default]
    None,
    /// Restarted in place when the guest fails.
    Restart,
    /// Also restarted on the other host when the host fails.
    Failover,
    /// Continued on the other host from its last acknowledged checkpoint.
    Continuous,
}

impl ProtectClass {
    /// The word that `protect=` uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::Failover => "failover",
            Self::Continuous => "continuous",
        }
    }

    /// The class for a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Restart, Self::Failover, Self::Continuous]
            .into_iter()
            .find(|class| class.as_str() == word)
    }
}

/// A question that is put to a guest from outside to see whether it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// `tcp:ADDR:PORT`: a TCP connection is accepted.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// Port, 1 or more.
        port: u16,
    },
    /// `http://...`: a GET of this URL is answered with a success status.
    Http {
        /// The URL as written.
        url: String,
    },
    /// `ping:ADDR`: an ICMP echo is answered.
    Ping {
        /// Host name or address, without brackets.
        host: String,
    },
}

/// The protection section of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectConfig {
    /// Class of protection (`protect=`).
    pub class: ProtectClass,
    /// Questions put from outside (`protect_probe=`).
    pub probes: Vec<Probe>,
    /// Every other `protect_*` key, by its name without the prefix, as it was written.
    pub settings: BTreeMap<String, CarriedValue>,
}

impl Probe {
    /// Reads `tcp:ADDR:PORT`, `http://...` or `ping:ADDR`; an IPv6 address may stand in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(place) = text.strip_prefix("tcp:") {
            let (host, port) = place.rsplit_once(':')?;
            let port = port.parse().ok().filter(|&port| port > 0)?;
            return Some(Self::Tcp {
                host: address(host)?,
                port,
            });
        }
        if let Some(host) = text.strip_prefix("ping:") {
            return Some(Self::Ping {
                host: address(host)?,
            });
        }
        let behind = text.strip_prefix("http://")?;
        let printable = behind.bytes().all(|b| b.is_ascii_graphic());
        let named = !behind.is_empty() && !behind.starts_with(['/', ':', '?', '#']);
        (printable && named).then(|| Self::Http { url: text.into() })
    }
}

/// A host name or address without its brackets.
fn address(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => text,
    };
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_' | b'%');
    (!inner.is_empty() && inner.bytes().all(allowed)).then(|| inner.to_owned())
}

impl ProtectConfig {
    /// Reads `protect=` and every `protect_*=`.
    pub(super) fn read(view: &View<'_>) -> Result<Self, Fatal> {
        let mut protect = Self::default();
        if let Some(word) = view.text("protect") {
            protect.class = ProtectClass::from_word(word).ok_or_else(|| {
                let text = format!(
                    "Unknown protect class \"{word}\" specified; \
                     it is one of none, restart, failover, continuous"
                );
                Fatal::new(view.pos("protect"), text)
            })?;
        }
        for setting in &view.tree.settings {
            match setting.name.strip_prefix(PREFIX) {
                None | Some("" | "probe") => {}
                Some(name) => {
                    protect
                        .settings
                        .insert(name.into(), setting.value.carried());
                }
            }
        }
        protect.probes = probes(view)?;
        Ok(protect)
    }
}

const PREFIX: &str = "protect_";

fn probes(view: &View<'_>) -> Result<Vec<Probe>, Fatal> {
    let Some(setting) = view.tree.find("protect_probe") else {
        return Ok(Vec::new());
    };
    let one = std::slice::from_ref(&setting.value);
    let items = match &setting.value.kind {
        ValueKind::List(items) => items,
        ValueKind::Atom(_) => one,
    };
    if items.len() > MAX_PROBES {
        let text = format!(
            "protect_probe: {} probes, more than {MAX_PROBES}",
            items.len()
        );
        return Err(Fatal::new(Some(setting.value.pos), text));
    }
    let refuse = |pos: Pos, text: &str| {
        let say =
            format!("protect_probe: \"{text}\" is none of tcp:ADDR:PORT, http://..., ping:ADDR");
        Fatal::new(Some(pos), say)
    };
    let read = |item: &super::tree::Value| {
        let text = item.atom().unwrap_or("[list]");
        item.atom()
            .and_then(Probe::parse)
            .ok_or_else(|| refuse(item.pos, text))
    };
    items.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_name_a_host_and_what_to_ask() {
        let tcp = |host: &str, port| {
            Some(Probe::Tcp {
                host: host.into(),
                port,
            })
        };
        let ping = |host: &str| Some(Probe::Ping { host: host.into() });
        let cases = [
            ("tcp:10.0.0.5:80", tcp("10.0.0.5", 80)),
            ("tcp:[fe80::1%eth0]:22", tcp("fe80::1%eth0", 22)),
            ("ping:web1.example", ping("web1.example")),
            ("ping:[::1]", ping("::1")),
            (
                "http://web1/health",
                Some(Probe::Http {
                    url: "http://web1/health".into(),
                }),
            ),
            ("tcp:10.0.0.5", None),
            ("tcp:10.0.0.5:0", None),
            ("tcp::80", None),
            ("tcp:10.0.0.5:99999", None),
            ("ping:", None),
            ("ping:a b", None),
            ("http://", None),
            ("http:///x", None),
            ("https://web1/", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(Probe::parse(text), want, "{text:?}");
        }
    }
}
