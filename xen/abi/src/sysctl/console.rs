//! Xen's own console: its message ring (`xl dmesg`) and its debug keys.

use super::{Call, Command};
use crate::layout;
use crate::layout::UserPtr;
use crate::version::Abi;

layout! {
    /// `XEN_SYSCTL_readconsole`.
    pub struct ReadConsole: "struct xen_sysctl_readconsole", 24 {
        /// Clear after reading.
        pub clear: u8 = 0 => "clear",
        /// Start at `index`.
        pub incremental: u8 = 1 => "incremental",
        /// Padding, zero.
        pub pad: [u8; 2] = 2,
        /// In: where to start; out: where to go on.
        pub index: u32 = 4 => "index",
        /// Text goes here.
        pub buffer: UserPtr = 8 => "buffer",
        /// In: bytes of the buffer; out: bytes of text.
        pub count: u32 = 16 => "count",
        /// Padding, zero.
        pub pad2: u32 = 20,
    }
}

layout! {
    /// `XEN_SYSCTL_debug_keys`.
    pub struct DebugKeys: "struct xen_sysctl_debug_keys", 16 {
        /// The keys, one byte each.
        pub keys: UserPtr = 0 => "keys",
        /// How many.
        pub nr_keys: u32 = 8 => "nr_keys",
        /// Padding, zero.
        pub pad: u32 = 12,
    }
}

/// What a read of the message ring answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleRead {
    /// Bytes of text in the buffer.
    pub count: u32,
    /// Where the next incremental read goes on.
    pub index: u32,
}

/// Reads the message ring: all of it, or from `after` on.
#[must_use]
pub fn read_console(
    abi: Abi,
    buffer: UserPtr,
    bytes: u32,
    after: Option<u32>,
    clear: bool,
) -> Call {
    let raw = ReadConsole {
        clear: clear.into(),
        incremental: after.is_some().into(),
        pad: [0; 2],
        index: after.unwrap_or(0),
        buffer,
        count: bytes,
        pad2: 0,
    };
    Call::with(abi, Command::ReadConsole, &raw)
}

/// How much was read.
#[must_use]
pub fn read_console_answer(answer: &Call) -> ConsoleRead {
    let raw: ReadConsole = answer.payload();
    ConsoleRead {
        count: raw.count,
        index: raw.index,
    }
}

/// Presses debug keys; the buffer holds one byte each.
#[must_use]
pub fn debug_keys(abi: Abi, keys: UserPtr, count: u32) -> Call {
    Call::with(
        abi,
        Command::DebugKeys,
        &DebugKeys {
            keys,
            nr_keys: count,
            pad: 0,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_on_is_marked_incremental() {
        let first: ReadConsole = read_console(Abi::V4_20, UserPtr(8), 100, None, false).payload();
        assert_eq!(
            (first.incremental, first.index, first.count, first.clear),
            (0, 0, 100, 0)
        );
        let call = read_console(Abi::V4_20, UserPtr(8), 100, Some(40), true);
        let next: ReadConsole = call.payload();
        assert_eq!((next.incremental, next.index, next.clear), (1, 40, 1));
        assert_eq!(
            read_console_answer(&call),
            ConsoleRead {
                count: 100,
                index: 40
            }
        );
    }
}
