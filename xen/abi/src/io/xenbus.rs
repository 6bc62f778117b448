//! States of a device and the keys every device has. Source: `xen/io/xenbus.h`.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $c:literal,)*) => {
        /// What one end of a device says of itself, as a decimal number in its `state` key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum XenbusState {
            $($(#[$doc])* $name = $value,)*
        }

        impl XenbusState {
            /// Every state.
            pub const ALL: [XenbusState; 9] = [$(XenbusState::$name,)*];
        }

        /// The states under their C names, for the header check.
        pub const C_STATES: &[(&str, u64)] = &[$(($c, $value),)*];
    };
}

states! {
    /// No node, or nothing a state could be.
    Unknown = 0 => "XenbusStateUnknown",
    /// Just begun.
    Initialising = 1 => "XenbusStateInitialising",
    /// Ready; waits for the other end or for a script.
    InitWait = 2 => "XenbusStateInitWait",
    /// Has said where its rings are.
    Initialised = 3 => "XenbusStateInitialised",
    /// In use.
    Connected = 4 => "XenbusStateConnected",
    /// On the way out.
    Closing = 5 => "XenbusStateClosing",
    /// Gone.
    Closed = 6 => "XenbusStateClosed",
    /// About to change something.
    Reconfiguring = 7 => "XenbusStateReconfiguring",
    /// Has changed it.
    Reconfigured = 8 => "XenbusStateReconfigured",
}

impl XenbusState {
    /// From the text of a `state` key; whatever is not a known number is [`XenbusState::Unknown`], as for the kernel.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let number: Option<usize> = text.trim().parse().ok();
        number
            .and_then(|number| Self::ALL.get(number).copied())
            .unwrap_or(Self::Unknown)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_number_and_anything_else_is_unknown() {
        for (number, state) in XenbusState::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state.number()), number);
            assert_eq!(XenbusState::parse(&state.to_string()), state);
        }
        for odd in ["", "9", "-1", "4x", "99999999999999999999"] {
            assert_eq!(XenbusState::parse(odd), XenbusState::Unknown, "{odd:?}");
        }
    }
}
