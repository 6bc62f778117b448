//! Memory sizes of a guest, all in KiB.

use serde::{Deserialize, Serialize};

/// The memory section of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// KiB given to the guest at start (`memory=`, written in MiB).
    pub target_kib: u64,
    /// KiB the guest may ever have (`maxmem=`, written in MiB), `target_kib` or more.
    pub max_kib: u64,
    /// KiB for shadow or HAP page tables (`shadow_memory=`, written in MiB); `None` leaves the usual formula.
    pub shadow_kib: Option<u64>,
}
