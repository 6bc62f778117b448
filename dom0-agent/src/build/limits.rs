//! Every bound and figure of the domain builders, with its unit.

/// One page in bytes.
pub const PAGE: u64 = xen_abi::ids::PAGE_SIZE as u64;
/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// Four gibibytes: where 32-bit addresses end.
pub const GIB4: u64 = 1 << 32;

/// Most memory a guest may be given, in KiB (16 TiB: grant entries of version 1 hold 32-bit frames).
pub const MAX_MEMORY_KIB: u64 = 16 << 30;
/// Least memory worth trying, in KiB. A kernel that needs more is refused by the plan.
pub const MIN_MEMORY_KIB: u64 = 1024;
/// Most vcpus of a PVH guest (Xen's limit for HVM containers).
pub const MAX_PVH_VCPUS: u32 = 128;
/// Most vcpus of a PV guest.
pub const MAX_PV_VCPUS: u32 = 512;

/// Room for a PV command line in `start_info`, its terminating zero included.
pub const PV_COMMAND_LINE: usize = xen_abi::pv::start_info::MAX_GUEST_CMDLINE;
/// Longest PVH command line accepted, in bytes; Linux keeps 2047.
pub const PVH_COMMAND_LINE: usize = 4095;

/// Pages mapped at once while a guest is filled (64 MiB).
pub const MAP_WINDOW_PAGES: u64 = 16_384;
/// Bytes read from an image file at once while a guest is filled.
pub const COPY_CHUNK: usize = 1 << 20;
/// Extents allocated by one hypercall.
pub const POPULATE_BATCH: usize = 4096;
/// Order of a 1 GiB extent.
pub const ORDER_1G: u32 = 18;
/// Order of a 2 MiB extent.
pub const ORDER_2M: u32 = 9;

/// What xl adds to `maxmem` for pages outside of the guest's RAM, in KiB (`LIBXL_MAXMEM_CONSTANT`).
pub const MAXMEM_SLACK_KIB: u64 = 1024;
/// What Xen takes for a domain beside its memory, in KiB: the domain, its page lists and grant tables.
pub const DOMAIN_OVERHEAD_KIB: u64 = 1024;
/// What Xen takes for each vcpu, in KiB.
pub const VCPU_OVERHEAD_KIB: u64 = 32;
/// PVH paging pool: KiB for each vcpu (xl's rule).
pub const POOL_PER_VCPU_KIB: u64 = 1024;
/// PVH paging pool: KiB for each MiB of memory (xl's rule).
pub const POOL_PER_MIB_KIB: u64 = 4;
