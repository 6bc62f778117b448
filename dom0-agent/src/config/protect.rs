//! What the fault-tolerance monitor promises for a guest (`protect=` and `protect_*=`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::domain::CarriedValue;

/// How much is done to keep a guest running. Ordered from least to most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
