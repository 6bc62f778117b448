//! What `parapet-guest` leaves in xenstore, and how to read it.
//!
//! ```text
//!   /local/domain/<D>/data/parapet/heartbeat   "<counter>", one more each second; "stopped" after a clean exit
//!   /local/domain/<D>/data/parapet/version     release of the program
//!   /local/domain/<D>/data/parapet/uptime      seconds since the guest's boot, now and then
//! ```
//!
//! The guest owns `data`, so every byte here is the guest's to choose: [`parse`] takes at most a decimal `u64` and refuses the rest.

/// The heartbeat node, relative to the domain's directory.
pub const NODE: &str = "data/parapet/heartbeat";
/// What the node says after a clean exit.
pub const STOPPED: &[u8] = b"stopped";
/// Longest value that is looked at, in bytes (`u64::MAX` has 20 digits).
pub const MAX_VALUE_BYTES: usize = 20;

/// A value of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The program lives; this is its counter.
    Counter(u64),
    /// It ended on purpose.
    Stopped,
}

/// Reads a value of the node; `None` for anything a well-behaved program does not write.
#[must_use]
pub fn parse(value: &[u8]) -> Option<Beat> {
    if value == STOPPED {
        return Some(Beat::Stopped);
    }
    if value.is_empty() || value.len() > MAX_VALUE_BYTES || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .map(Beat::Counter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_the_program_writes_is_a_beat() {
        assert_eq!(parse(b"17"), Some(Beat::Counter(17)));
        assert_eq!(
            parse(b"18446744073709551615"),
            Some(Beat::Counter(u64::MAX))
        );
        assert_eq!(parse(b"stopped"), Some(Beat::Stopped));
        for junk in [
            &b""[..],
            b"-1",
            b"+1",
            b" 1",
            b"1\n",
            b"18446744073709551616",
            b"Stopped",
            b"\xff",
        ] {
            assert_eq!(parse(junk), None, "{junk:?}");
        }
    }

    proptest! {
        #[test]
        fn any_counter_is_read_back(counter: u64) {
            prop_assert_eq!(parse(counter.to_string().as_bytes()), Some(Beat::Counter(counter)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
