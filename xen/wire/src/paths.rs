//! Where programs meet and keep things. One place, so that units, code and documentation agree.

/// Socket of the agent's API.
pub const AGENT_SOCKET: &str = "/run/parapet/agent.sock";
/// Socket of the monitor's status API.
pub const MONITOR_SOCKET: &str = "/run/parapet/monitor.sock";
/// Volatile state: driver sockets, in-flight journals.
pub const RUN_DIR: &str = "/run/parapet";
/// Durable state: guest records, the journal of operations.
pub const STATE_DIR: &str = "/var/lib/parapet";
/// Unpacked kernels.
pub const CACHE_DIR: &str = "/var/cache/parapet";
/// Console logs, one per guest.
pub const LOG_DIR: &str = "/var/log/parapet";
/// Configuration; every file in it is optional.
pub const CONFIG_DIR: &str = "/etc/parapet";
/// This host's key, and the hosts that it is linked with.
pub const LINK_DIR: &str = "/etc/parapet/link";
