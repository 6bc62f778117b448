//! The first words over a line, both ways, once each side knows who the other is.
//!
//! ```text
//!   0            8        10       12        14
//!   ┌────────────┬────────┬────────┬─────────┬──────────────────────────────┐
//!   │ "PRPTLINK" │ oldest │ newest │ length  │ fields: tag, length, bytes … │
//!   └────────────┴────────┴────────┴─────────┴──────────────────────────────┘
//!     magic        u16 LE   u16 LE   u16 LE    u8, u16 LE
//! ```
//!
//! Each side says which versions of the words behind the greeting it speaks; the newest that both do counts. A field whose tag is not known is passed over:
//! there is room for offers, of compression or of more connections for one stream, that an older host does not take up. The head never changes.

use crate::limits::MAX_GREETING_BYTES;

/// First bytes.
const MAGIC: [u8; 8] = *b"PRPTLINK";
/// Bytes before the fields.
pub const HEAD_BYTES: usize = 14;
/// Versions of the words that this program speaks.
pub const OLDEST: u16 = 1;
/// See [`OLDEST`].
pub const NEWEST: u16 = 1;
/// Tag of the release, as text.
const RELEASE: u8 = 1;
/// Bytes of tag and length of a field.
const FIELD_HEAD_BYTES: usize = 3;

/// What a side says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// First version that it speaks.
    pub oldest: u16,
    /// Last version that it speaks.
    pub newest: u16,
    /// Its release, for people.
    pub release: String,
}

/// The head of a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    oldest: u16,
    newest: u16,
    /// Bytes of fields that follow.
    pub length: usize,
}

/// What is wrong with a greeting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Somebody else.
    #[error("what answers is no listener of a Parapet link (bytes {0:02x?})")]
    Magic([u8; 8]),
    /// Not a range.
    #[error("the other side speaks versions {0} to {1} of the link, which is none")]
    Range(u16, u16),
    /// Too long.
    #[error("a greeting of {0} bytes, at most {MAX_GREETING_BYTES} are allowed")]
    TooLong(usize),
    /// A field that goes on behind the end.
    #[error("the greeting is cut short in a field")]
    Field,
    /// Text that is none.
    #[error("the release in the greeting is no text")]
    Text,
    /// Nothing in common.
    #[error(
        "the other side (release {release}) speaks versions {oldest} to {newest} of the link, this program {OLDEST} to {NEWEST}; install the same release on both sides"
    )]
    Version {
        /// Theirs.
        release: String,
        /// Theirs.
        oldest: u16,
        /// Theirs.
        newest: u16,
    },
}

impl Greeting {
    /// This program's.
    #[must_use]
    pub fn own() -> Self {
        Self {
            oldest: OLDEST,
            newest: NEWEST,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// As bytes. A release that does not fit is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let release = self.release.as_bytes();
        if release.len() + FIELD_HEAD_BYTES <= MAX_GREETING_BYTES {
            fields.push(RELEASE);
            fields.extend(length(release));
            fields.extend(release);
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.oldest.to_le_bytes());
        bytes.extend(self.newest.to_le_bytes());
        bytes.extend(length(&fields));
        bytes.extend(fields);
        bytes
    }

    /// Reads the fields behind a head.
    ///
    /// # Errors
    /// They are not what the head and they themselves say.
    pub fn parse(head: Head, mut fields: &[u8]) -> Result<Self, GreetingError> {
        let mut release = String::new();
        if fields.len() != head.length {
            return Err(GreetingError::Field);
        }
        while let Some((&tag, rest)) = fields.split_first() {
            let (bytes, rest) = field(rest).ok_or(GreetingError::Field)?;
            if tag == RELEASE {
                let text = std::str::from_utf8(bytes).map_err(|_| GreetingError::Text)?;
                // It is shown to people.
                release = text.chars().filter(|letter| !letter.is_control()).collect();
            }
            fields = rest;
        }
        Ok(Self {
            oldest: head.oldest,
            newest: head.newest,
            release,
        })
    }

    /// The version that this program and the one that said this speak.
    ///
    /// # Errors
    /// There is none.
    pub fn agree(&self) -> Result<u16, GreetingError> {
        let version = self.newest.min(NEWEST);
        if version >= self.oldest.max(OLDEST) {
            return Ok(version);
        }
        Err(GreetingError::Version {
            release: self.release.clone(),
            oldest: self.oldest,
            newest: self.newest,
        })
    }
}

/// Length and bytes of a field, and what follows.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

/// Only for what is below [`MAX_GREETING_BYTES`].
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes()
}

/// Checks a head, before a byte more is read.
///
/// # Errors
/// Everything that can be wrong with it.
pub fn head(bytes: &[u8; HEAD_BYTES]) -> Result<Head, GreetingError> {
    let [magic @ .., o0, o1, n0, n1, l0, l1] = *bytes;
    if magic != MAGIC {
        return Err(GreetingError::Magic(magic));
    }
    let (oldest, newest) = (u16::from_le_bytes([o0, o1]), u16::from_le_bytes([n0, n1]));
    if oldest > newest {
        return Err(GreetingError::Range(oldest, newest));
    }
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    if length > MAX_GREETING_BYTES {
        return Err(GreetingError::TooLong(length));
    }
    Ok(Head {
        oldest,
        newest,
        length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Result<Greeting, GreetingError> {
        let (first, fields) = bytes.split_first_chunk().unwrap();
        Greeting::parse(head(first)?, fields)
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let mut greeting = Greeting::own();
        greeting.release = "0.1".into();
        assert_eq!(
            greeting.encode(),
            b"PRPTLINK\x01\x00\x01\x00\x06\x00\x01\x03\x000.1"
        );
    }

    #[test]
    fn what_a_later_release_offers_is_passed_over() {
        let bytes = b"PRPTLINK\x01\x00\x09\x00\x0b\x00\x07\x02\x00xx\x01\x03\x009.0";
        let greeting = whole(bytes).unwrap();
        assert_eq!((greeting.oldest, greeting.newest), (1, 9));
        assert_eq!(greeting.release, "9.0");
        assert_eq!(greeting.agree(), Ok(1));
    }

    #[test]
    fn nothing_in_common_is_said_with_both_sides_versions() {
        let theirs = Greeting {
            oldest: 2,
            newest: 3,
            release: "9.0".into(),
        };
        let error = theirs.agree().unwrap_err().to_string();
        for word in ["9.0", "2 to 3", "1 to 1", "same release"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn every_fault_has_its_name() {
        let good = Greeting::own().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            whole(&bytes).unwrap_err()
        };
        assert!(matches!(with(0, b'x'), GreetingError::Magic(_)));
        assert_eq!(with(8, 2), GreetingError::Range(2, 1));
        assert!(matches!(with(13, 0xff), GreetingError::TooLong(_)));
        assert_eq!(with(12, 3), GreetingError::Field);
        assert_eq!(with(15, 0xff), GreetingError::Field);
        assert_eq!(with(17, 0xff), GreetingError::Text);
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(oldest: u16, more in 0..100_u16, release in "[ -~]{0,40}") {
            let newest = oldest.saturating_add(more);
            let greeting = Greeting { oldest, newest, release };
            prop_assert_eq!(whole(&greeting.encode()), Ok(greeting));
        }

        #[test]
        fn arbitrary_bytes_are_judged_and_never_more_than_said(bytes: [u8; HEAD_BYTES], fields: Vec<u8>) {
            if let Ok(head) = head(&bytes) {
                prop_assert!(head.length <= MAX_GREETING_BYTES);
            }
            let mut good = Greeting::own().encode();
            good.truncate(HEAD_BYTES);
            good[12..].copy_from_slice(&length(&fields));
            good.extend(&fields);
            if fields.len() <= MAX_GREETING_BYTES {
                let _ = whole(&good);
            }
        }

        #[test]
        fn a_greeting_that_is_cut_is_not_taken(at in 0..HEAD_BYTES + 8) {
            let bytes = Greeting::own().encode();
            let cut = &bytes[..at.min(bytes.len() - 1)];
            if cut.len() >= HEAD_BYTES {
                prop_assert_eq!(whole(cut), Err(GreetingError::Field));
            }
        }
    }
}
