//! What two ends of ours agree upon beyond the stock format, while a stream goes from one to the other.
//!
//! ```text
//!   sender                                              receiver
//!     OFFER, behind the image's headers ─────────────▶  stock: skips it, as bit 31 of its type allows
//!     PAGE_DATA, as stock has it ────────────────────▶  ours: takes it
//!                 ◀───────────────── answer ──────────  ours: what it takes of that
//!     from now on what was agreed, too ──────────────▶
//!                 ◀───────────────── ready ───────────  either
//! ```
//!
//! Nobody waits: until the answer is there, and if it never comes, the sender writes what stock understands. An answer
//! comes before every other word that follows the offer. A sender that offers nothing gets none.
//!
//! A file holds nothing of this: nobody answers whoever writes one.

use crate::bytes::{Fields, exactly};
use crate::error::Problem;

/// A set of things to agree upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Accord(u64);

impl Accord {
    /// Nothing: the stock format.
    pub const NONE: Self = Self(0);
    /// [`crate::libxc::PageKind::Zero`]: a page of zeroes without its contents.
    pub const ZERO_PAGES: Self = Self(1);
    /// Everything this release knows.
    pub const ALL: Self = Self::ZERO_PAGES;

    /// From the bits on the wire: those of newer releases are kept, and mean nothing here.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Problem> {
        exactly(body, 8)?;
        Ok(Self(Fields::of(body).u64()?))
    }

    pub(crate) fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0.to_le_bytes());
    }
}

/// What an answer begins with. No other word of a receiver begins like it.
const MARK: &[u8; 16] = b"parapet agrees:\0";
/// Bytes of an answer.
pub const ANSWER_BYTES: usize = MARK.len() + size_of::<u64>();

/// The answer to an offer: the mark, then the bits of what is taken, little-endian.
#[must_use]
pub fn answer(taken: Accord) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    let (mark, bits) = bytes.split_at_mut(MARK.len());
    mark.copy_from_slice(MARK);
    bits.copy_from_slice(&taken.0.to_le_bytes());
    bytes
}

/// What the first bytes are that came back after an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Too few to know.
    Beginning,
    /// An answer.
    Answer(Accord),
    /// Another word: no answer will come.
    Other,
}

/// Judges the first bytes that came back after an offer, at most [`ANSWER_BYTES`] of them.
#[must_use]
pub fn hear(bytes: &[u8]) -> Heard {
    let of_mark = bytes.len().min(MARK.len());
    if bytes[..of_mark] != MARK[..of_mark] {
        return Heard::Other;
    }
    match bytes.get(MARK.len()..).and_then(|bits| bits.first_chunk()) {
        Some(bits) => Heard::Answer(Accord(u64::from_le_bytes(*bits))),
        None => Heard::Beginning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Message;

    #[test]
    fn an_answer_is_known_by_its_bytes_and_by_nothing_less() {
        let taken = Accord::from_bits(0x8000_0000_0000_0001);
        let bytes = answer(taken);
        for length in 0..ANSWER_BYTES {
            assert_eq!(hear(&bytes[..length]), Heard::Beginning, "{length}");
        }
        assert_eq!(hear(&bytes), Heard::Answer(taken));
    }

    #[test]
    fn no_other_word_of_the_handshake_is_taken_for_one() {
        for message in Message::ALL {
            assert_eq!(hear(&message.bytes()[..1]), Heard::Other, "{message:?}");
        }
    }

    #[test]
    fn what_a_newer_release_offers_is_not_taken() {
        let offered = Accord::from_bits(u64::MAX);
        assert_eq!(offered.and(Accord::ALL), Accord::ALL);
        assert!(offered.has(Accord::ALL) && !Accord::NONE.has(Accord::ZERO_PAGES));
    }
}
