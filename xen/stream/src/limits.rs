//! Every bound of this crate: the most that a stream may make a reader hold, and that a writer makes.
//!
//! Stock tools bound only the length of a record. These are several times what a domain of Xen's own largest size needs,
//! and small enough that a forged length costs little.

use xen_abi::ids::PAGE_SIZE;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Longest record of a libxc image, by the format (stock: `REC_LENGTH_MAX`).
pub const RECORD_BYTES: u64 = 128 * MIB;
/// Optional data after the header of an xl file: the configuration. Those of xl are a few KiB.
pub const XL_DATA_BYTES: u64 = 4 * MIB;
/// Pages that one record tells of. Stock sends 1024; 128 MiB hold 32,703 with contents.
pub const RECORD_PAGES: u32 = 32_768;
/// Pages a saver should put into one record: what stock does, 4 MiB of contents.
pub const BATCH_PAGES: usize = 1024;
/// Frames of a PV guest's list of frames: 8 bytes for each 2 MiB, so 16 MiB is 4 TiB of guest.
pub const P2M_BYTES: u64 = 16 * MIB;
/// Registers and everything else of one vcpu: the largest is its XSAVE area, 11 KiB with AMX.
pub const VCPU_BYTES: u64 = 256 * KIB;
/// Extended context of one vcpu, by the format of Xen.
pub const VCPU_EXTENDED_BYTES: u64 = 128;
/// Vcpus of a PV domain (Xen: `MAX_VIRT_CPUS`).
pub const VCPUS: u32 = 8192;
/// State of all vcpus and virtual devices of a PVH or HVM domain: 128 vcpus take about 2 MiB.
pub const HVM_CONTEXT_BYTES: u64 = 8 * MIB;
/// Parameters of a PVH or HVM domain; there are fewer than 40.
pub const HVM_PARAMS: u64 = 1024;
/// Entries of a CPU policy, of either kind; there are a few hundred.
pub const POLICY_ENTRIES: u64 = 4096;
/// Xenstore keys of a device model.
pub const EMULATOR_XENSTORE_BYTES: u64 = MIB;
/// Saved state of a device model; QEMU's is some 100 KiB.
pub const EMULATOR_CONTEXT_BYTES: u64 = 16 * MIB;
/// Body of a record that is only there to be skipped, in the libxl layer, whose format names no limit.
pub const OPTIONAL_BYTES: u64 = RECORD_BYTES;

/// Read in one go at first; also how much memory a length alone can cost before bytes arrive.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// Passed over in one go.
pub(crate) const SKIP_BYTES: usize = 32 * 1024;
/// Small records are gathered up to this before they go out, so that they share a system call.
pub(crate) const GATHER_BYTES: usize = 64 * 1024;
/// Slices in one vectored write (Linux: `IOV_MAX`).
pub(crate) const SLICES_PER_WRITE: usize = 1024;

/// Bytes of a page's contents.
pub const PAGE_BYTES: u64 = PAGE_SIZE as u64;

const _: () = assert!(8 + 8 * (RECORD_PAGES as u64) < RECORD_BYTES);
const _: () = assert!(8 + (8 + PAGE_BYTES) * (BATCH_PAGES as u64) < RECORD_BYTES);
const _: () = assert!(BATCH_PAGES <= RECORD_PAGES as usize);
const _: () = assert!(HVM_CONTEXT_BYTES < RECORD_BYTES && P2M_BYTES < RECORD_BYTES);
