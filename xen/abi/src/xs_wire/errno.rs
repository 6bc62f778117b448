//! Errors of xenstored: their names on the wire and their numbers on Linux. Source: `xsd_errors` of `xen/io/xs_wire.h`.

use std::fmt;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $wire:literal;)*) => {
        /// An error xenstored answers with.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum StoreErrno {
            $($(#[$doc])* $name,)*
            /// A name this table does not have, cut to [`LONGEST_UNKNOWN`] bytes.
            Other(String),
        }

        impl StoreErrno {
            /// Those with a number, in the order of the header.
            pub const KNOWN: &'static [StoreErrno] = &[$(StoreErrno::$name,)*];

            /// The name on the wire.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Other(name) => name,
                }
            }

            /// The number on Linux; `EIO` for a name not known.
            #[must_use]
            pub fn errno(&self) -> i32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(_) => 5,
                }
            }

            /// From a name on the wire.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($wire => Self::$name,)*
                    other => Self::Other(other.chars().take(LONGEST_UNKNOWN).collect()),
                }
            }

            /// From a number on Linux, if the protocol has a name for it.
            #[must_use]
            pub fn from_errno(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

/// Characters kept of an error name that is not known.
pub const LONGEST_UNKNOWN: usize = 64;

errors! {
    /// Malformed request or path.
    Inval = 22, "EINVAL";
    /// No permission.
    Acces = 13, "EACCES";
    /// Already there.
    Exist = 17, "EEXIST";
    /// Never answered in practice.
    IsDir = 21, "EISDIR";
    /// No such node.
    NoEnt = 2, "ENOENT";
    /// xenstored is out of memory.
    NoMem = 12, "ENOMEM";
    /// A quota is used up.
    NoSpc = 28, "ENOSPC";
    /// The database is damaged.
    Io = 5, "EIO";
    /// Never answered in practice.
    NotEmpty = 39, "ENOTEMPTY";
    /// Operation not known.
    NoSys = 38, "ENOSYS";
    /// Never answered in practice.
    RoFs = 30, "EROFS";
    /// Another transaction or domain is in the way.
    Busy = 16, "EBUSY";
    /// A transaction met a conflict: do all of it again.
    Again = 11, "EAGAIN";
    /// Already introduced.
    IsConn = 106, "EISCONN";
    /// The answer does not fit a message, or a quota on size.
    TooBig = 7, "E2BIG";
    /// Not permitted.
    Perm = 1, "EPERM";
}

impl fmt::Display for StoreErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for StoreErrno {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        let mut numbers = HashSet::new();
        for error in StoreErrno::KNOWN {
            assert_eq!(&StoreErrno::from_name(error.name()), error);
            assert_eq!(StoreErrno::from_errno(error.errno()).as_ref(), Some(error));
            assert!(numbers.insert(error.errno()), "{error} twice");
        }
        assert_eq!(StoreErrno::KNOWN.len(), 16);
    }

    #[test]
    fn an_unknown_name_is_kept_but_not_at_any_length() {
        assert_eq!(StoreErrno::from_name("EFOO").to_string(), "EFOO");
        assert_eq!(StoreErrno::from_name("EFOO").errno(), 5);
        assert_eq!(
            StoreErrno::from_name(&"x".repeat(4096)).name().len(),
            LONGEST_UNKNOWN
        );
        assert_eq!(StoreErrno::from_errno(9999), None);
    }
}
