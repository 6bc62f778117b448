//! What is done when a guest stops, by the reason for which it stopped.

use serde::{Deserialize, Serialize};

/// What to do with a guest that has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShutdownAction {
    /// Remove it.
    Destroy,
    /// Remove it and start a new one from the same configuration.
    Restart,
    /// Keep it under another name and start a new one under its own.
    RenameRestart,
    /// Keep it as it is, for an operator to look at.
    Preserve,
    /// Write a core dump, then as `Destroy`.
    CoredumpDestroy,
    /// Write a core dump, then as `Restart`.
    CoredumpRestart,
    /// Reset it in place, keeping its memory.
    SoftReset,
}

/// One action for each reason (`on_poweroff=` and its siblings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventActions {
    /// The guest powered itself off.
    pub on_poweroff: ShutdownAction,
    /// The guest asked for a reboot.
    pub on_reboot: ShutdownAction,
    /// The guest's Xen watchdog expired.
    pub on_watchdog: ShutdownAction,
    /// The guest crashed.
    pub on_crash: ShutdownAction,
    /// The guest asked for a soft reset.
    pub on_soft_reset: ShutdownAction,
}

impl Default for EventActions {
    fn default() -> Self {
        Self {
            on_poweroff: ShutdownAction::Destroy,
            on_reboot: ShutdownAction::Restart,
            on_watchdog: ShutdownAction::Destroy,
            on_crash: ShutdownAction::Destroy,
            on_soft_reset: ShutdownAction::SoftReset,
        }
    }
}
