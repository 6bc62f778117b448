//! Permissions of a node: `n0 r5` and the like.
//!
//! The first entry names the owner, who may always do everything, and what everybody not named may do. The others name a
//! domain and what it may do.

use crate::ids::DomId;
use std::fmt;
use std::str::FromStr;

/// What a domain may do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing (`n`).
    None,
    /// Read (`r`).
    Read,
    /// Write (`w`).
    Write,
    /// Both (`b`).
    Both,
}

/// One entry of a node's permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Whom it is about.
    pub domid: DomId,
    /// What it may do; for the first entry: what everybody else may do.
    pub access: Access,
}

/// Not a permission entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no xenstore permission; expected one of n, r, w, b followed by a domain id")]
pub struct BadPermission(pub String);

impl Permission {
    /// An entry.
    #[must_use]
    pub const fn new(access: Access, domid: DomId) -> Self {
        Self { domid, access }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

impl FromStr for Permission {
    type Err = BadPermission;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadPermission(text.chars().take(32).collect());
        let mut characters = text.chars();
        let access = match characters.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(bad()),
        };
        let digits = characters.as_str();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let domid = digits.parse().map_err(|_| bad())?;
        Ok(Self {
            domid: DomId(domid),
            access,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_read_as_they_are_written() {
        assert_eq!("n0".parse(), Ok(Permission::new(Access::None, DomId(0))));
        assert_eq!(
            "b32751".parse(),
            Ok(Permission::new(Access::Both, DomId(32751)))
        );
        for bad in ["", "n", "x1", "r-1", "r+1", "r70000", "r 1", "1"] {
            assert!(bad.parse::<Permission>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_entry_survives_text(domid: u16, which in 0..4usize) {
            let access = [Access::None, Access::Read, Access::Write, Access::Both][which];
            let entry = Permission::new(access, DomId(domid));
            prop_assert_eq!(entry.to_string().parse(), Ok(entry));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Permission>();
        }
    }
}
