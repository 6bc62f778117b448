//! The one place that reads clocks: `CLOCK_BOOTTIME` to decide by, the wall clock to show, and the kernel's id of this boot.

use super::ShellError;
use crate::time::{Mono, Now, Wall};
use nix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// Where Linux tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The host's clocks.
#[derive(Debug, Clone)]
pub struct Clock {
    boot: String,
}

impl Clock {
    /// Looks which boot this is.
    ///
    /// # Errors
    /// The kernel does not tell, or has no such clock.
    pub fn open() -> Result<Self, ShellError> {
        let boot = std::fs::read_to_string(BOOT_ID).map_err(|source| ShellError::Process {
            what: "read the kernel's boot id",
            source,
        })?;
        // Once here, so that it cannot fail later: the kernel has had this clock since 2.6.39.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|errno| ShellError::Process {
            what: "read the clock",
            source: errno.into(),
        })?;
        Ok(Self {
            boot: boot.trim().to_owned(),
        })
    }

    /// The kernel's id of this boot.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Now, on both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = match clock_gettime(ClockId::CLOCK_BOOTTIME) {
            Ok(time) => {
                let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
                let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
                Mono(
                    seconds
                        .saturating_mul(1000)
                        .saturating_add(nanos / 1_000_000),
                )
            }
            Err(_) => Mono(0),
        };
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono,
            wall: Wall(crate::time::millis(since_1970)),
        }
    }
}
