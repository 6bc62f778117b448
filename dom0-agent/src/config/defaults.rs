//! What holds where a configuration says nothing. Source: xl.cfg(5).

use super::domain::DomainKind;
use super::events::{EventActions, ShutdownAction};

/// Kind of guest (`type`), on x86.
pub const KIND: DomainKind = DomainKind::Pv;

/// Memory in KiB (`memory`, `maxmem`).
pub const MEMORY_KIB: u64 = 32 * 1024;

/// Virtual CPUs (`vcpus`, `maxvcpus`).
pub const VCPUS: u32 = 1;

/// What happens when a guest stops (`on_*`).
pub const EVENTS: EventActions = EventActions {
    on_poweroff: ShutdownAction::Destroy,
    on_reboot: ShutdownAction::Restart,
    on_watchdog: ShutdownAction::Destroy,
    on_crash: ShutdownAction::Destroy,
    on_soft_reset: ShutdownAction::SoftReset,
};

/// Directory of the images that `firmware="pvgrub64"` names, as Debian's Xen 4.20 has it.
pub const FIRMWARE_DIR: &str = "/usr/lib/xen-4.20/boot";
