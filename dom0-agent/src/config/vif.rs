//! Network interfaces as xl-network-configuration(5) describes them.
//!
//! In a configuration file a wrong parameter is told and otherwise ignored, while a wrong rate or number ends the
//! reading; `network-attach` refuses both. So [`apply`] says which of the two it was, and its callers decide.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::number::decimal_prefix;
pub use super::rate::Rate;
use super::rate::{RateError, parse_rate};

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// Six hexadecimal numbers of at most 255 between colons or dashes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut groups = text.split([':', '-']);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let group = groups.next()?;
            let digits = group.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(group, 16).ok().filter(|_| digits)?;
        }
        groups.next().is_none().then_some(Self(bytes))
    }

    /// The address of an interface that has none, as stock's JSON shows it.
    pub const ZERO: Self = Self([0; 6]);
}

/// Which interface the guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VifKind {
    /// Not said: `Vif` for PV and PVH.
    #[default]
    Unknown,
    /// Paravirtual only.
    Vif,
    /// Emulated card beside the paravirtual one (HVM).
    Ioemu,
}

impl VifKind {
    /// The kind for the word after `type=`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "vif" => Some(Self::Vif),
            "ioemu" => Some(Self::Ioemu),
            _ => None,
        }
    }
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VifSpec {
    /// MAC address; `None` means one is drawn when the guest is created.
    pub mac: Option<Mac>,
    /// Bridge it is put into; `None` means the host's default.
    pub bridge: Option<String>,
    /// Gateway device for routed set-ups (`gatewaydev=`).
    pub gatewaydev: Option<String>,
    /// Hotplug script; `None` means the host's default.
    pub script: Option<String>,
    /// IP addresses told to the hotplug script (`ip=`).
    pub ip: Option<String>,
    /// Name of the interface in the backend's domain (`vifname=`); `None` means `vif<domid>.<devid>`.
    pub ifname: Option<String>,
    /// Name or number of the domain that serves the interface; `None` is dom0.
    pub backend_domain: Option<String>,
    /// Which interface the guest sees.
    pub kind: VifKind,
    /// Model of the emulated card.
    pub model: Option<String>,
    /// Limit on what the guest may send.
    pub rate: Option<Rate>,
    /// Device number; `None` means the position in the list.
    pub devid: Option<u32>,
    /// MTU in bytes; `None` means the bridge's.
    pub mtu: Option<u32>,
    /// VLAN settings for the hotplug script.
    pub vlan: Option<String>,
    /// Whether the guest trusts the backend.
    pub trusted: Option<bool>,
    /// Replication settings of stock's COLO, by their libxl names; kept, never acted on.
    pub colo: BTreeMap<String, String>,
}

/// Host defaults for interfaces, from `vif.default.*` of xl.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VifDefaults {
    /// `vif.default.script`
    pub script: Option<String>,
    /// `vif.default.bridge`
    pub bridge: Option<String>,
    /// `vif.default.gatewaydev`
    pub gatewaydev: Option<String>,
    /// `vif.default.backend`
    pub backend: Option<String>,
}

impl VifDefaults {
    /// An interface about which nothing else is said.
    #[must_use]
    pub fn interface(&self) -> VifSpec {
        VifSpec {
            script: self.script.clone(),
            bridge: self.bridge.clone(),
            gatewaydev: self.gatewaydev.clone(),
            backend_domain: self.backend.clone(),
            ..VifSpec::default()
        }
    }
}

/// Why a parameter is refused, in stock's wording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VifError {
    /// The parameter is not known.
    #[error("unrecognized argument `{0}'")]
    Unrecognized(String),
    /// `mac=` or `type=` with a wrong value.
    #[error("Invalid parameter `{0}'.")]
    Invalid(&'static str),
    /// `devid=` or `mtu=` without a number: ends the reading of a configuration.
    #[error("xl: failed to convert \"{0}\" to number")]
    Number(String),
    /// `rate=` with a wrong value: ends the reading of a configuration.
    #[error("{0}")]
    Rate(#[from] RateError),
}

impl VifError {
    /// Whether stock ends the reading of a configuration for it; otherwise it tells and goes on.
    #[must_use]
    pub const fn ends_reading(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Rate(_))
    }
}

/// Applies one parameter such as `bridge=xenbr0` or `untrusted` to an interface.
///
/// Gives a line to print when the parameter is deprecated. `source` is what a message about a rate starts with.
///
/// # Errors
/// The parameter is unknown or its value is wrong; the interface is unchanged.
pub fn apply(
    vif: &mut VifSpec,
    parameter: &str,
    source: &str,
) -> Result<Option<&'static str>, VifError> {
    let Some((key, value)) = parameter.split_once('=') else {
        vif.trusted = Some(match parameter {
            "trusted" => true,
            "untrusted" => false,
            _ => return Err(VifError::Unrecognized(parameter.into())),
        });
        return Ok(None);
    };
    let text = || Some(value.to_owned());
    match key {
        "type" => vif.kind = VifKind::from_word(value).ok_or(VifError::Invalid("type"))?,
        "mac" => vif.mac = Some(Mac::parse(value).ok_or(VifError::Invalid("mac"))?),
        "bridge" => vif.bridge = text(),
        "netdev" => {
            vif.gatewaydev = text();
            return Ok(Some(NETDEV));
        }
        "gatewaydev" => vif.gatewaydev = text(),
        "ip" => vif.ip = text(),
        "script" => vif.script = text(),
        "backend" => vif.backend_domain = text(),
        "vifname" => vif.ifname = text(),
        "model" => vif.model = text(),
        "rate" => vif.rate = Some(parse_rate(source, value)?),
        "accel" => return Ok(Some(ACCEL)),
        "devid" => vif.devid = Some(number(value)?),
        "mtu" => vif.mtu = Some(number(value)?),
        "vlan" => vif.vlan = text(),
        "forwarddev" => drop(vif.colo.insert("coloft_forwarddev".into(), value.into())),
        _ if is_colo(key) => drop(vif.colo.insert(key.into(), value.into())),
        _ => return Err(VifError::Unrecognized(parameter.into())),
    }
    Ok(None)
}

/// The parameters of an interface in a configuration file: between commas, blanks before each ignored.
pub fn parameters(spec: &str) -> impl Iterator<Item = &str> {
    spec.split(',')
        .filter(|p| !p.is_empty())
        .map(|p| p.trim_start_matches(' '))
}

const NETDEV: &str = "the netdev parameter is deprecated, please use gatewaydev instead";
const ACCEL: &str = "the accel parameter for vifs is currently not supported";

fn number(value: &str) -> Result<u32, VifError> {
    decimal_prefix(value)
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| VifError::Number(value.into()))
}

/// The names of stock's COLO parameters, which are also libxl's; in the order of the JSON form.
pub const COLO_PARAMETERS: [&str; 46] = [
    "colo_sock_mirror_id",
    "colo_sock_mirror_ip",
    "colo_sock_mirror_port",
    "colo_sock_compare_pri_in_id",
    "colo_sock_compare_pri_in_ip",
    "colo_sock_compare_pri_in_port",
    "colo_sock_compare_sec_in_id",
    "colo_sock_compare_sec_in_ip",
    "colo_sock_compare_sec_in_port",
    "colo_sock_compare_notify_id",
    "colo_sock_compare_notify_ip",
    "colo_sock_compare_notify_port",
    "colo_sock_redirector0_id",
    "colo_sock_redirector0_ip",
    "colo_sock_redirector0_port",
    "colo_sock_redirector1_id",
    "colo_sock_redirector1_ip",
    "colo_sock_redirector1_port",
    "colo_sock_redirector2_id",
    "colo_sock_redirector2_ip",
    "colo_sock_redirector2_port",
    "colo_filter_mirror_queue",
    "colo_filter_mirror_outdev",
    "colo_filter_redirector0_queue",
    "colo_filter_redirector0_indev",
    "colo_filter_redirector0_outdev",
    "colo_filter_redirector1_queue",
    "colo_filter_redirector1_indev",
    "colo_filter_redirector1_outdev",
    "colo_compare_pri_in",
    "colo_compare_sec_in",
    "colo_compare_out",
    "colo_compare_notify_dev",
    "colo_sock_sec_redirector0_id",
    "colo_sock_sec_redirector0_ip",
    "colo_sock_sec_redirector0_port",
    "colo_sock_sec_redirector1_id",
    "colo_sock_sec_redirector1_ip",
    "colo_sock_sec_redirector1_port",
    "colo_filter_sec_redirector0_queue",
    "colo_filter_sec_redirector0_indev",
    "colo_filter_sec_redirector0_outdev",
    "colo_filter_sec_redirector1_queue",
    "colo_filter_sec_redirector1_indev",
    "colo_filter_sec_redirector1_outdev",
    "colo_filter_sec_rewriter0_queue",
];

fn is_colo(key: &str) -> bool {
    COLO_PARAMETERS.contains(&key) || matches!(key, "colo_checkpoint_host" | "colo_checkpoint_port")
}
