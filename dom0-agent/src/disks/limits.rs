//! Every bound of copying disks, with its unit.

use std::time::Duration;

/// Bytes of one record of data at most, and of one read of the image.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Unit of every offset and length: a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Largest disk, in bytes: as much as a dirty map can stand for.
pub const MAX_DISK_BYTES: u64 = 64 << 40;
/// What direct I/O wants offsets and lengths to be multiples of, at most.
pub const DIRECT_BYTES: usize = 4096;
/// Rounds of one section, for a receiver: those while the guest runs, those while it does not, and those that ask again.
pub const MAX_ROUNDS: u64 = 256;
/// Ranges that a report asks for again; a stream with more damage than that is given up.
pub const MAX_DAMAGED: usize = 1024;
/// Bytes of zeros written at once where a hole cannot be punched.
pub const ZERO_CHUNK_BYTES: usize = 64 << 10;
/// Disks of one guest that are copied.
pub const MAX_DISKS: usize = 256;
/// Bytes of the reason why disks are not taken.
pub const MAX_REASON_BYTES: usize = 1024;
/// Bytes that a receiver writes before it waits until they are on the medium: less is left to wait for while the guest stands still.
pub const SYNC_BYTES: u64 = 256 << 20;
/// Longest time for the other side to look at its places, and to report a round.
pub const REPORT_PATIENCE: Duration = Duration::from_secs(120);
/// How often somebody who watches is told how a long round goes.
pub const NEWS_EVERY: Duration = Duration::from_secs(10);
/// Rounds while the guest is suspended. Nobody writes then: the first copies what is left, the second finds nothing. More means a disk that is not quiet,
/// or a line that damages what it carries.
pub const LAST_ROUNDS: u32 = 8;
/// Data that a round must have moved for its speed to count, in bytes.
pub const RATE_SAMPLE_BYTES: u64 = 1 << 20;
/// Rounds in a row that leave at least as much as they copied, before more are pointless.
pub const ROUNDS_WITHOUT_GAIN: u32 = 2;
/// How long a disk may take to become quiet.
pub const FREEZE_WITHIN: Duration = Duration::from_secs(10);
/// Times an order to a driver that was just replaced is given.
pub const ORDER_TRIES: u32 = 50;
/// Pause between two such tries.
pub const ORDER_PAUSE: Duration = Duration::from_millis(200);
