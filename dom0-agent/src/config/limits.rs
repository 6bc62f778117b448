//! Every bound of the configuration language, with its unit.

/// Largest configuration that is read, file and command line together, in bytes. Real ones are a few KiB.
pub const MAX_SOURCE_BYTES: usize = 1024 * 1024;

/// Deepest nesting of lists. The deepest that any key uses (`vnuma`, `vsnd`) is 2.
pub const MAX_LIST_DEPTH: usize = 8;

/// Settings in one configuration, repeated ones included.
pub const MAX_SETTINGS: usize = 4096;

/// List items in one configuration, over all lists and including those that `+=` repeats.
pub const MAX_LIST_ITEMS: usize = 65_536;

/// Bytes of text that `+=` may build up, over all settings.
pub const MAX_APPENDED_BYTES: usize = 4 * MAX_SOURCE_BYTES;

/// Errors printed for one configuration before the rest is summed up in one line.
pub const MAX_REPORTED_ERRORS: usize = 20;

/// Devices of one kind in one guest (disks, interfaces, ...).
pub const MAX_DEVICES: usize = 1024;

/// Physical CPUs that a CPU list can name. Xen's own ceiling (`CONFIG_NR_CPUS`) is 4095 for x86.
pub const MAX_HOST_CPUS: u32 = 4096;

/// Virtual CPUs of one guest: `XEN_LEGACY_MAX_VCPUS` is 32, `HVM_MAX_VCPUS` 128, PV guests may have 8192.
pub const MAX_VCPUS: u32 = 8192;

/// Memory of one guest in MiB (64 TiB), so that sizes in bytes fit 64 bits with room to spare.
pub const MAX_MEMORY_MIB: u64 = 64 * 1024 * 1024;

/// Probes that `protect_probe=` may name.
pub const MAX_PROBES: usize = 16;

const _: () = assert!(MAX_LIST_DEPTH >= 2);
const _: () = assert!(MAX_SOURCE_BYTES < u32::MAX as usize);
