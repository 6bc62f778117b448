//! Which releases of Xen are spoken, and how the releases differ in number.
//!
//! The release is asked of the hypervisor at start (`XENVER_version`), never chosen at compile time. The interface
//! numbers alone do not tell the release: 4.19, 4.20 and 4.21 share a domctl number but not all layouts. What each
//! release changed in layout is in [`crate::domctl`] and [`crate::sysctl`]; measured against the public headers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A release of Xen, as `XENVER_version` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct XenVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

impl XenVersion {
    /// From the answer of `XENVER_version`: `major << 16 | minor`.
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_le_bytes();
        Self {
            major: u16::from_le_bytes([c, d]),
            minor: u16::from_le_bytes([a, b]),
        }
    }
}

impl fmt::Display for XenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The toolstack interface of one supported release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// Xen 4.17 (Debian 12).
    V4_17,
    /// Xen 4.18.
    V4_18,
    /// Xen 4.19.
    V4_19,
    /// Xen 4.20 (Debian 13).
    V4_20,
    /// Xen 4.21.
    V4_21,
    /// Xen 4.22.
    V4_22,
}

/// The running hypervisor is not a release this build speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host runs Xen {found}, but only Xen {oldest} to {newest} is supported; boot a supported Xen, or use a build \
     that knows {found}"
)]
pub struct UnsupportedXen {
    /// What the hypervisor said.
    pub found: XenVersion,
    /// Oldest supported release.
    pub oldest: XenVersion,
    /// Newest supported release.
    pub newest: XenVersion,
}

impl Abi {
    /// Every supported release, oldest first.
    pub const ALL: [Abi; 6] = [
        Abi::V4_17,
        Abi::V4_18,
        Abi::V4_19,
        Abi::V4_20,
        Abi::V4_21,
        Abi::V4_22,
    ];
    /// The oldest supported release.
    pub const OLDEST: Abi = Abi::V4_17;
    /// The newest supported release.
    pub const NEWEST: Abi = Abi::V4_22;

    /// The release this interface belongs to.
    #[must_use]
    pub const fn version(self) -> XenVersion {
        let minor = match self {
            Abi::V4_17 => 17,
            Abi::V4_18 => 18,
            Abi::V4_19 => 19,
            Abi::V4_20 => 20,
            Abi::V4_21 => 21,
            Abi::V4_22 => 22,
        };
        XenVersion { major: 4, minor }
    }

    /// The interface of `found`.
    ///
    /// # Errors
    /// [`UnsupportedXen`], which names what was found and what is supported.
    pub fn for_version(found: XenVersion) -> Result<Self, UnsupportedXen> {
        Self::ALL
            .into_iter()
            .find(|abi| abi.version() == found)
            .ok_or(UnsupportedXen {
                found,
                oldest: Self::OLDEST.version(),
                newest: Self::NEWEST.version(),
            })
    }

    /// The interface to try for reading only when `found` is unknown: the newest for a newer Xen, the oldest for an
    /// older one. Never build or change a domain with it.
    #[must_use]
    pub fn nearest(found: XenVersion) -> Self {
        Self::for_version(found).unwrap_or(if found < Self::OLDEST.version() {
            Self::OLDEST
        } else {
            Self::NEWEST
        })
    }

    /// `XEN_DOMCTL_INTERFACE_VERSION`; a wrong one is answered with `EACCES`.
    #[must_use]
    pub const fn domctl_version(self) -> u32 {
        match self {
            Abi::V4_17 => 0x15,
            Abi::V4_18 => 0x16,
            Abi::V4_19 | Abi::V4_20 | Abi::V4_21 => 0x17,
            Abi::V4_22 => 0x18,
        }
    }

    /// `XEN_SYSCTL_INTERFACE_VERSION`; a wrong one is answered with `EACCES`.
    #[must_use]
    pub const fn sysctl_version(self) -> u32 {
        match self {
            Abi::V4_17 | Abi::V4_18 | Abi::V4_19 | Abi::V4_20 => 0x15,
            Abi::V4_21 | Abi::V4_22 => 0x16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn xen(major: u16, minor: u16) -> XenVersion {
        XenVersion { major, minor }
    }

    #[test]
    fn the_word_of_xenver_version_is_split() {
        assert_eq!(XenVersion::from_word(0x0004_0014), xen(4, 20));
        assert_eq!(xen(4, 20).to_string(), "4.20");
    }

    #[test]
    fn every_supported_release_has_its_numbers() {
        let table: Vec<_> = Abi::ALL
            .iter()
            .map(|abi| {
                (
                    abi.version().minor,
                    abi.domctl_version(),
                    abi.sysctl_version(),
                )
            })
            .collect();
        assert_eq!(
            table,
            [
                (17, 0x15, 0x15),
                (18, 0x16, 0x15),
                (19, 0x17, 0x15),
                (20, 0x17, 0x15),
                (21, 0x17, 0x16),
                (22, 0x18, 0x16)
            ]
        );
        for abi in Abi::ALL {
            assert_eq!(Abi::for_version(abi.version()), Ok(abi));
        }
    }

    #[test]
    fn an_unknown_release_is_refused_by_name_and_has_a_nearest() {
        let error = Abi::for_version(xen(4, 14)).unwrap_err().to_string();
        assert!(
            error.contains("4.14") && error.contains("4.17 to 4.22"),
            "{error}"
        );
        assert!(Abi::for_version(xen(5, 20)).is_err());
        assert_eq!(Abi::nearest(xen(4, 14)), Abi::V4_17);
        assert_eq!(Abi::nearest(xen(4, 23)), Abi::V4_22);
        assert_eq!(Abi::nearest(xen(5, 0)), Abi::V4_22);
        assert_eq!(Abi::nearest(xen(4, 19)), Abi::V4_19);
    }
}
