//! Every bound on kernels and initrds, with its unit. These files come from users and from guests' disks: none of their
//! own numbers is believed beyond what stands here.

use std::time::Duration;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Largest kernel file read, in bytes. Debian's is 12 MB; a distribution kernel with debug information stays below.
pub const MAX_KERNEL_FILE: u64 = 256 * MIB;
/// Largest unpacked kernel, in bytes. Debian 13's unpacks to 57.6 MB.
pub const MAX_UNPACKED: u64 = 512 * MIB;
/// Largest initrd, in bytes. It must lie in guest memory as it is; the rest of the guest has to fit beside it.
pub const MAX_INITRD: u64 = 1024 * MIB;
/// Most archives looked at in one initrd. A distribution's has three: microcode, its own early files, the rest.
pub const MAX_ARCHIVES: usize = 64;
/// Most entries looked at in one cpio archive; what lies beyond is believed. A whole live system has a few hundred thousand.
pub const MAX_CPIO_ENTRIES: usize = 1 << 20;
/// Longest name in a cpio archive, in bytes with its end: what Linux unpacks.
pub const MAX_CPIO_NAME: u64 = 4096;
/// Most memory an xz decoder may take for its dictionary, in KiB. The kernel build uses at most 128 MiB.
pub const MAX_XZ_DICTIONARY_KIB: u32 = 192 * 1024;
/// A block of the legacy lz4 frame unpacks to at most this many bytes (fixed by the format).
pub const LZ4_LEGACY_BLOCK: usize = 8 << 20;
/// Largest packed lz4 block, in bytes: incompressible data plus the format's own overhead.
pub const LZ4_PACKED_BLOCK: usize = LZ4_LEGACY_BLOCK + LZ4_LEGACY_BLOCK / 255 + 16;

/// Most program headers looked at.
pub const MAX_PROGRAM_HEADERS: usize = 64;
/// Most section headers looked at.
pub const MAX_SECTIONS: usize = 65_535;
/// Most notes looked at in one kernel.
pub const MAX_NOTES: usize = 1024;
/// Longest text in a note, in bytes.
pub const MAX_NOTE_TEXT: usize = 4096;
/// Most guest memory a kernel's segments may span, in bytes.
pub const MAX_KERNEL_SPAN: u64 = 1024 * MIB;

/// Address space of the unpacking worker, in bytes: the file, the result, a dictionary, the program itself.
pub const WORKER_ADDRESS_SPACE: u64 = MAX_KERNEL_FILE + MAX_UNPACKED + 512 * MIB;
/// CPU seconds the worker may use; the slowest format takes 10 under emulation.
pub const WORKER_CPU_SECONDS: u64 = 120;
/// How long the worker may take by the clock before it is killed.
pub const WORKER_DEADLINE: Duration = Duration::from_secs(300);
/// Longest answer of the worker, in bytes.
pub const WORKER_ANSWER: u64 = 256 * 1024;
const _: () = assert!(WORKER_CPU_SECONDS < WORKER_DEADLINE.as_secs());

/// Bytes copied at once when a kernel is kept.
pub const COPY_CHUNK: usize = 1 << 20;
/// Most unpacked kernels kept.
pub const CACHE_ENTRIES: usize = 16;
/// Most bytes of unpacked kernels kept.
pub const CACHE_BYTES: u64 = 1024 * MIB;
/// Most files looked at in the cache directory in one clean-up.
pub const CACHE_SCAN: usize = 4096;
/// Longest metadata file, in bytes.
pub const CACHE_META_BYTES: u64 = WORKER_ANSWER;
/// Age after which a temporary file in the cache belongs to a build that died.
pub const CACHE_TEMP_AGE: Duration = Duration::from_secs(3600);
const _: () = assert!(CACHE_TEMP_AGE.as_secs() > 2 * WORKER_DEADLINE.as_secs());
const _: () = assert!(CACHE_BYTES >= MAX_UNPACKED);
