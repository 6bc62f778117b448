//! The xenstore protocol as bytes. Source: `xen/io/xs_wire.h`, `docs/misc/xenstore.txt`.
//!
//! ```text
//!   message = header (16 bytes: op, req_id, tx_id, len) + payload (at most 4096 bytes)
//!
//!   client ── request ──▶ xenstored        several may be under way; answers keep the order of one connection
//!   client ◀── reply or ERROR ── xenstored
//!   client ◀── WATCH_EVENT ── xenstored    at any time
//! ```
//!
//! [`message`] frames, [`request`] and [`reply`] give payloads a meaning, [`perms`] and [`errno`] are the two little
//! languages inside. Everything is pure and bounded; nothing from the peer can make it panic or allocate beyond a message.

pub mod errno;
pub mod message;
pub mod perms;
pub mod reply;
pub mod request;

pub use errno::StoreErrno;
pub use message::{Header, Message, Op, WireError};
pub use perms::{Access, Permission};
pub use request::Request;

/// Sockets of xenstored, in the order to try them.
pub const SOCKET_PATHS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
/// Kernel devices that carry the same protocol, in the order to try them.
pub const DEVICE_PATHS: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

crate::constants! {
    /// Longest payload, bytes; more closes the connection.
    pub const PAYLOAD_MAX: usize = 4096 => "XENSTORE_PAYLOAD_MAX";
    /// Longest absolute path, bytes.
    pub const ABS_PATH_MAX: usize = 3072 => "XENSTORE_ABS_PATH_MAX";
    /// Longest path relative to the caller's home, bytes.
    pub const REL_PATH_MAX: usize = 2048 => "XENSTORE_REL_PATH_MAX";
    /// Bytes of each ring of a guest's xenstore page.
    pub const RING_BYTES: usize = 1024 => "XENSTORE_RING_SIZE";
}

/// Watch that fires when a domain shuts down or is gone.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";
/// Watch that fires when a domain is introduced.
pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";

/// Why a string is no xenstore path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("a xenstore path cannot be empty")]
    Empty,
    /// Beyond [`ABS_PATH_MAX`] or [`REL_PATH_MAX`].
    #[error("a xenstore path of {len} bytes is longer than the {max} allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// Only letters, digits and `-/_@` may be used.
    #[error(
        "the byte {byte:#04x} cannot be part of a xenstore path; letters, digits, '-', '_', '/' and '@' can"
    )]
    BadByte {
        /// The first offender.
        byte: u8,
    },
    /// `//`, or a `/` at the end.
    #[error("a xenstore path can neither end in '/' nor contain '//'")]
    EmptyPart,
}

/// Checks a path as xenstored does, so that a bad one is refused with its reason instead of a bare `EINVAL`.
///
/// # Errors
/// [`PathError`].
pub fn check_path(path: &str) -> Result<(), PathError> {
    let max = if path.starts_with('/') {
        ABS_PATH_MAX
    } else {
        REL_PATH_MAX
    };
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > max {
        return Err(PathError::TooLong {
            len: path.len(),
            max,
        });
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(byte);
    if let Some(byte) = path.bytes().find(|byte| !allowed(byte)) {
        return Err(PathError::BadByte { byte });
    }
    if path.contains("//") || (path.len() > 1 && path.ends_with('/')) {
        return Err(PathError::EmptyPart);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_as_xenstored_does() {
        for good in [
            "/",
            "/local/domain/0",
            "device/vif/0",
            "@releaseDomain",
            "/a-b_c@d",
        ] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", PathError::Empty),
            ("/a/", PathError::EmptyPart),
            ("/a//b", PathError::EmptyPart),
            ("/a b", PathError::BadByte { byte: b' ' }),
            ("/a\0", PathError::BadByte { byte: 0 }),
        ] {
            assert_eq!(check_path(bad), Err(why), "{bad}");
        }
        let long = format!("/{}", "a".repeat(ABS_PATH_MAX));
        assert_eq!(
            check_path(&long),
            Err(PathError::TooLong {
                len: 3073,
                max: 3072
            })
        );
        assert_eq!(check_path(&long[..ABS_PATH_MAX]), Ok(()));
        assert!(check_path(&long[1..=REL_PATH_MAX + 1]).is_err());
    }
}
