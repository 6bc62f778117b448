//! Every number of the simulation that stands for one of Xen's, xenstored's or Linux's limits, with its unit.

use std::time::Duration;

/// Guest memory of a world unless the test says otherwise: frames (1 GiB).
pub const DEFAULT_HOST_FRAMES: u64 = 1 << 18;
/// Most guest memory a world can have: frames (4 GiB).
pub const MAX_HOST_FRAMES: u64 = 1 << 20;
/// Memory of dom0, in pages; not backed by anything, it only counts.
pub const DOM0_PAGES: u64 = 1 << 17;
/// First machine frame that guests get, so that no mfn equals a small gfn by luck.
pub const FIRST_GUEST_MFN: u64 = 0x4_0000;
/// CPUs of the simulated host.
pub const HOST_CPUS: u32 = 4;

/// Controller pauses one domain can hold (`domain_pause_by_systemcontroller`).
pub const MAX_PAUSES: u32 = 255;
/// Most vcpus of an HVM container (`HVM_MAX_VCPUS`).
pub const MAX_HVM_VCPUS: u32 = 128;
/// Most vcpus of a PV guest (`MAX_VIRT_CPUS`).
pub const MAX_PV_VCPUS: u32 = 8192;
/// Entries of a memory map (`E820MAX`).
pub const MAX_MEMORY_MAP: usize = 1024;
/// HVM parameters (`HVM_NR_PARAMS`).
pub const HVM_PARAMS: u32 = 39;
/// Largest extent of `populate_physmap` for the control domain, as an order.
pub const MAX_ORDER: u32 = 18;
/// Pages of the paging pool that a PVH domain is born with.
pub const INITIAL_POOL_PAGES: u64 = 256;

/// Grant table frames where `createdomain` says "default" (`gnttab_max_frames`).
pub const DEFAULT_GRANT_FRAMES: u32 = 64;
/// Most grant table frames.
pub const MAX_GRANT_FRAMES: u32 = 2048;
/// Version 1 entries in one frame.
pub const GRANTS_PER_FRAME: u32 = 512;
/// First grant reference that a guest kernel hands out (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const FIRST_FREE_GRANT: u32 = 8;
/// Reserved for the console page.
pub const GRANT_CONSOLE: u32 = 0;
/// Reserved for the xenstore page.
pub const GRANT_XENSTORE: u32 = 1;
/// Most pages one grant map takes (gntdev's `limit`).
pub const MAX_MAP_GRANTS: usize = 1 << 16;
/// Ports of dom0.
pub const DOM0_PORTS: u32 = 1 << 16;

/// Nodes one guest may own in xenstore.
pub const QUOTA_NODES: usize = 1000;
/// Bytes of one value that a guest writes.
pub const QUOTA_VALUE: usize = 2048;
/// Watches of one guest.
pub const QUOTA_WATCHES: usize = 128;
/// Open transactions of one guest.
pub const QUOTA_TRANSACTIONS: usize = 10;
/// Permissions of one node set by a guest.
pub const QUOTA_PERMISSIONS: usize = 5;
/// Bytes of one xenstore message (`XENSTORE_PAYLOAD_MAX`).
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
/// Bytes of an absolute path (`XENSTORE_ABS_PATH_MAX`).
pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
/// Bytes of a relative path (`XENSTORE_REL_PATH_MAX`).
pub const XENSTORE_REL_PATH_MAX: usize = 2048;

/// Runs [`crate::fault::exhaust`] makes at most before it calls the program endless.
pub const MAX_EXHAUSTIVE_RUNS: u64 = 20_000;
/// How often a waiting test looks at shared memory, which changes without telling anybody.
pub const POLL_INTERVAL: Duration = Duration::from_micros(500);
