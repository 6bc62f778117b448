//! What a host is known by: the SHA-256 of its certificate.

use ring::digest::{SHA256, digest};
use std::fmt;
use std::str::FromStr;

/// Bytes of a fingerprint.
const BYTES: usize = 32;

/// SHA-256 of a certificate in DER: 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; BYTES]);

impl Fingerprint {
    /// Of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Too short or too long.
    #[error("a fingerprint has 64 hexadecimal digits, this one has {0}; was all of it copied?")]
    Length(usize),
    /// Not a digit.
    #[error("a fingerprint has hexadecimal digits only, not {0:?}")]
    Digit(char),
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Digits of either case, with colons between them or without: other tools print them so.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0_u8; BYTES];
        let mut digits = 0;
        for letter in text.chars().filter(|letter| *letter != ':') {
            let value = letter.to_digit(16).ok_or(FingerprintError::Digit(letter))?;
            if let Some(byte) = bytes.get_mut(digits / 2) {
                // One digit: below 16.
                *byte = (*byte << 4) | u8::try_from(value).unwrap_or_default();
            }
            digits += 1;
        }
        if digits == BYTES * 2 {
            Ok(Self(bytes))
        } else {
            Err(FingerprintError::Length(digits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_what_sha256sum_says() {
        assert_eq!(
            Fingerprint::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn what_is_cut_short_or_mistyped_is_told() {
        let whole = Fingerprint::of(b"").to_string();
        let cut = whole[..63].parse::<Fingerprint>();
        assert_eq!(cut, Err(FingerprintError::Length(63)));
        let mistyped = whole.replace('e', "g").parse::<Fingerprint>();
        assert_eq!(mistyped, Err(FingerprintError::Digit('g')));
    }

    proptest! {
        #[test]
        fn text_and_back(certificate: Vec<u8>) {
            let fingerprint = Fingerprint::of(&certificate);
            let text = fingerprint.to_string();
            let pairs: Vec<&str> = (0..BYTES).map(|n| &text[n * 2..n * 2 + 2]).collect();
            for form in [text.clone(), text.to_uppercase(), pairs.join(":")] {
                prop_assert_eq!(form.parse::<Fingerprint>(), Ok(fingerprint));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<Fingerprint>();
        }
    }
}
