//! Every bound of saving, with its unit.

use std::time::Duration;

/// Longest time a guest may take to acknowledge that it was asked to suspend, as stock has it.
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time a guest may take to suspend once it has acknowledged, as stock has it.
pub const SUSPEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a wait looks again even if no watch fires; a lost event costs at most this.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Times it is tried to let a guest run on.
pub const RESUME_ATTEMPTS: u32 = 3;

/// Pages asked about at once (64 MiB); a record takes a part of them.
pub const BATCH_PAGES: usize = 16_384;
/// Most pages of a PV guest: 16 TiB, as grant entries of version 1 hold frames of 32 bits.
pub const MAX_PV_PAGES: u64 = 1 << 32;
/// How many times its memory a PV guest's list of frames may be long: holes and pages that were given back count in it.
pub const PV_PAGES_FACTOR: u64 = 4;
/// And so many pages more: 16 GiB.
pub const PV_PAGES_SLACK: u64 = 1 << 22;
/// How long a guest that is moved live should stand still at most for the sake of its memory, unless somebody says otherwise.
pub const MAX_DOWNTIME: Duration = Duration::from_millis(20);
/// Most rounds in which memory is sent while the guest runs.
pub const MAX_ROUNDS: u32 = 30;
/// How many times a guest's memory may go over while it runs.
pub const MAX_VOLUME_FACTOR: u64 = 3;
/// Rounds in a row that leave hardly fewer dirty pages than the best before, after which the guest is suspended.
pub const STALE_ROUNDS: u32 = 3;
/// Hardly fewer: at least so many per cent of the best before.
pub const PROGRESS_PERCENT: u32 = 90;
/// How often, in one round, it is asked about which of its pages the guest has written meanwhile.
pub const LOOKS: u64 = 8;
/// So few pages are sent at once whatever the rate, and tell nothing about it.
pub const FEW_PAGES: u64 = 64;
/// Pages of zeroes in a row that are worth leaving out of a file: what comes before and behind them goes by itself then.
pub const SKIP_PAGES: usize = 8;
/// Pages that are in a buffer on their way to a connection (1 MiB): a PV dom0 pays 20 us for each page of it.
pub const BUFFER_PAGES: usize = 256;
/// So many pages are worth a process and a buffer when they go to a connection; `xen_host::mover` says what a process costs.
pub const WORTH_BUFFER_PAGES: u64 = 4096;
/// Pages of one record.
pub const RECORD_PAGES: usize = xen_stream::limits::BATCH_PAGES;

const _: () = assert!(BATCH_PAGES.is_multiple_of(RECORD_PAGES));
