//! What is done when a guest stops, by the reason for which it stopped.

use serde::{Deserialize, Serialize};

use super::defaults;
use super::diag::Fatal;
use super::view::View;

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

/// The actions with their words in xl.cfg and in the JSON form.
const WORDS: [(ShutdownAction, &str, &str); 7] = [
    (ShutdownAction::Destroy, "destroy", "destroy"),
    (ShutdownAction::Restart, "restart", "restart"),
    (
        ShutdownAction::RenameRestart,
        "rename-restart",
        "restart_rename",
    ),
    (ShutdownAction::Preserve, "preserve", "preserve"),
    (
        ShutdownAction::CoredumpDestroy,
        "coredump-destroy",
        "coredump_destroy",
    ),
    (
        ShutdownAction::CoredumpRestart,
        "coredump-restart",
        "coredump_restart",
    ),
    (ShutdownAction::SoftReset, "soft-reset", "soft_reset"),
];

impl ShutdownAction {
    /// The word that xl.cfg uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        WORDS
            .iter()
            .find(|(action, ..)| *action == self)
            .map_or("", |(_, word, _)| word)
    }

    /// The word that the JSON form uses.
    #[must_use]
    pub fn json_word(self) -> &'static str {
        WORDS
            .iter()
            .find(|(action, ..)| *action == self)
            .map_or("", |(.., word)| word)
    }

    /// The action for a word of xl.cfg.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        WORDS
            .iter()
            .find(|(_, w, _)| *w == word)
            .map(|(action, ..)| *action)
    }

    /// The action for a word of the JSON form.
    #[must_use]
    pub fn from_json_word(word: &str) -> Option<Self> {
        WORDS
            .iter()
            .find(|(.., w)| *w == word)
            .map(|(action, ..)| *action)
    }
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
        defaults::EVENTS
    }
}

impl EventActions {
    /// Reads the `on_*` keys.
    pub(super) fn read(view: &View<'_>) -> Result<Self, Fatal> {
        let action = |key: &str, default: ShutdownAction| {
            let Some(word) = view.text(key) else {
                return Ok(default);
            };
            ShutdownAction::from_word(word).ok_or_else(|| {
                Fatal::new(
                    view.pos(key),
                    format!("Unknown {key} action \"{word}\" specified"),
                )
            })
        };
        let default = defaults::EVENTS;
        Ok(Self {
            on_poweroff: action("on_poweroff", default.on_poweroff)?,
            on_reboot: action("on_reboot", default.on_reboot)?,
            on_watchdog: action("on_watchdog", default.on_watchdog)?,
            on_crash: action("on_crash", default.on_crash)?,
            on_soft_reset: action("on_soft_reset", default.on_soft_reset)?,
        })
    }
}
