//! Network interfaces as xl-network-configuration(5) describes them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
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

/// Limit on what a guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes that may be sent in one interval.
    pub bytes_per_interval: u64,
    /// Length of an interval in microseconds.
    pub interval_us: u32,
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
}
